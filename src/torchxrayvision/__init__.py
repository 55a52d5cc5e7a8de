"""Chest X-ray datasets, pretrained models and evaluation behind one interface.

The namespaces load when they are first used, so ``import torchxrayvision`` costs
milliseconds and the dataset tables can be read without importing torch.

Example:
    >>> import torchxrayvision as xrv
    >>> xrv.labels.DEFAULT_PATHOLOGIES[:3]
    ('Atelectasis', 'Consolidation', 'Infiltration')
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchxrayvision import (
        audit,
        autoencoders,
        baseline_models,
        calibration,
        checkpoints,
        datasets,
        demo,
        errors,
        evaluation,
        explain,
        facts,
        images,
        inference,
        inputs,
        labels,
        masks,
        measures,
        models,
        phantom,
        pictures,
        plots,
        provenance,
        remote,
        results,
        screening,
        segmentation,
        service,
        similarity,
        tables,
        training,
        transforms,
        utils,
        weights,
    )

__version__ = "2.0.0a1"

__all__ = [
    "__version__",
    "audit",
    "autoencoders",
    "baseline_models",
    "calibration",
    "checkpoints",
    "datasets",
    "demo",
    "errors",
    "evaluation",
    "explain",
    "facts",
    "images",
    "inference",
    "inputs",
    "labels",
    "masks",
    "measures",
    "models",
    "phantom",
    "pictures",
    "plots",
    "provenance",
    "remote",
    "results",
    "screening",
    "segmentation",
    "service",
    "similarity",
    "tables",
    "training",
    "transforms",
    "utils",
    "weights",
]

# A library leaves handlers to the application; without this, Python prints warnings itself.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__[1:])}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
