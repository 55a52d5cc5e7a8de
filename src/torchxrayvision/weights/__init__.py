"""Published weights as data, and the reader that takes tensors from their files.

Example:
    >>> from torchxrayvision.weights import DenseNet121_Weights, get
    >>> get("all") is DenseNet121_Weights.ALL.value
    True
    >>> DenseNet121_Weights.DEFAULT.input_resolution
    224
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torchxrayvision.weights._baselines import Baseline_Weights
from torchxrayvision.weights._core import DenseNet121_Weights, ResNet50_Weights
from torchxrayvision.weights._demo import Demo_Weights
from torchxrayvision.weights._dense import (
    PSPNet_Weights,
    ResNetAE_Weights,
    UNetResNet50_Weights,
    VQGAN_Weights,
)
from torchxrayvision.weights._files import (
    card_of,
    fetch_weights,
    locate_weights,
    verify_weights,
)
from torchxrayvision.weights._registry import (
    get_weights_entry,
    list_weights,
    model_urls_view,
    register,
)
from torchxrayvision.weights._registry import get_weights_entry as get
from torchxrayvision.weights._types import Metrics, Weights, WeightsEnum

if TYPE_CHECKING:
    from torchxrayvision.weights import checkpoint, store
    from torchxrayvision.weights.checkpoint import read_tensors
    from torchxrayvision.weights.store import load_tensors

__all__ = [
    "Baseline_Weights",
    "Demo_Weights",
    "DenseNet121_Weights",
    "Metrics",
    "PSPNet_Weights",
    "ResNet50_Weights",
    "ResNetAE_Weights",
    "UNetResNet50_Weights",
    "VQGAN_Weights",
    "Weights",
    "WeightsEnum",
    "card_of",
    "checkpoint",
    "fetch_weights",
    "get",
    "get_weights_entry",
    "list_weights",
    "load_tensors",
    "locate_weights",
    "model_urls_view",
    "read_tensors",
    "register",
    "store",
    "verify_weights",
]

# These import torch, which a list of names does not need.
_LAZY = {
    "checkpoint": "checkpoint",
    "store": "store",
    "read_tensors": "checkpoint",
    "load_tensors": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    module = importlib.import_module(f"{__name__}.{_LAZY[name]}")
    return module if name == _LAZY[name] else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
