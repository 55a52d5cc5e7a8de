"""Probabilities, thresholds and sets of findings that were chosen on a site's own labelled images.

`fit` chooses them, with scikit-learn, on a table of predictions and one of labels; `Calibration` is
the record of it, as `xrv calibrate` writes it, and applies it to what the same weights predict.

Example:
    >>> import numpy as np
    >>> from torchxrayvision.calibration import fit
    >>> logits = np.random.default_rng(0).normal(size=(400, 1))
    >>> labels = np.random.default_rng(1).random((400, 1)) < 1 / (1 + np.exp(-2 * logits))
    >>> made = fit(labels, logits, ["Mass"], output="logit")
    >>> made.findings["Mass"].method
    'temperature'
    >>> made.probabilities(["Mass"], np.array([[0.0], [1.0]])).round(1).tolist()
    [[0.5], [0.9]]
"""

from __future__ import annotations

import lazy_loader

# Loaded at first use: applying a calibration must not wait for scikit-learn.
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
