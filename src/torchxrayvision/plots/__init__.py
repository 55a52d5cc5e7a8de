"""Figures of an evaluation and of datasets, in the style of scikit-learn's Display classes.

Each function computes what it shows and draws it: ``display.ax_`` and ``display.figure_`` are
matplotlib's, ``display.save("roc.svg")`` writes it, and the numbers are attributes. All need
matplotlib (extra ``report``); none touches pyplot or global settings.

Example:
    >>> from torchxrayvision.plots import roc
    >>> display = roc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], name="Mass")
    >>> display.area.value, display.svg()[:4]
    (0.75, '<svg')
"""

from __future__ import annotations

import lazy_loader

# Loaded at first use: matplotlib takes its time.
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
