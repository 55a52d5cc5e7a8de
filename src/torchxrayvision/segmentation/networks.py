"""Segmentation networks by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.weights import get, list_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchxrayvision.models import Segmenter
    from torchxrayvision.weights import Weights

# Architecture of the weights to the class that they are for.
_CLASSES: Final = {
    "pspnet": ("chestx_det", "PSPNet"),
    "unet-resnet50": ("chestx_anatomy", "UNetResNet50"),
}


def list_segmenters() -> list[str]:
    """Every name that `get_segmenter` takes.

    Example:
        >>> "chestx_det-pspnet" in list_segmenters()
        True
    """
    return [entry.name for entry in list_weights() if _is_segmenter(entry)]


def _is_segmenter(entry: Weights) -> bool:
    return entry.architecture in _CLASSES or entry.architecture.startswith("unet")


def get_segmenter(name: str) -> Segmenter:
    """A segmentation network with its weights, in evaluation mode.

    Args:
        name: Name or alias of its weights, or of its module in `baseline_models`.

    Returns:
        The network, on the CPU.

    Raises:
        UnknownNameError: If there is none of that name.
        RemoteError: If its weights cannot be fetched.
        CheckpointError: If their file holds other tensors.
    """
    for module, kind in _CLASSES.values():
        if name == module:
            return _class(module, kind)()
    try:
        entry = get(name)
    except UnknownNameError:
        entry = None
    if entry is None or not _is_segmenter(entry):
        raise UnknownNameError("segmentation network", name, list_segmenters())
    if entry.architecture in _CLASSES:
        return _class(*_CLASSES[entry.architecture])(weights=entry)
    from torchxrayvision.models import UNet

    return UNet(weights=entry)


def _class(module: str, kind: str) -> Callable[..., Segmenter]:
    found: Callable[..., Segmenter] = getattr(
        importlib.import_module(f"torchxrayvision.baseline_models.{module}"), kind
    )
    return found
