"""Segmentation networks by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.inference import MaskGraph, NamedNetwork, require_torch
from torchxrayvision.weights import get, list_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from torchxrayvision.models import Segmenter
    from torchxrayvision.weights import Weights

    Net = Segmenter | MaskGraph

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
    entry = _entry(name)
    if entry.architecture in _CLASSES:
        return _class(*_CLASSES[entry.architecture])(weights=entry)
    from torchxrayvision.models import UNet

    return UNet(weights=entry)


def _entry(name: str) -> Weights:
    """The weights of a network by any of its names.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    for architecture, (module, _) in _CLASSES.items():
        if name == module:
            return next(e for e in list_weights() if e.architecture == architecture)
    try:
        entry = get(name)
    except UnknownNameError:
        entry = None
    if entry is None or not _is_segmenter(entry):
        raise UnknownNameError("segmentation network", name, list_segmenters())
    return entry


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedSegmenter(NamedNetwork["Segmenter", MaskGraph]):
    """A segmentation network that a user named, which may run from a graph without torch.

    Args:
        weights: Canonical name, see `of`; None for a network that has no name.
        checkpoint: None.
        compat: None.

    Example:
        >>> NamedSegmenter.of("chestx_det").weights
        'chestx_det-pspnet'
    """

    @classmethod
    def of(cls, name: str) -> NamedSegmenter:
        """That of a name.

        Args:
            name: See `get_segmenter`.

        Raises:
            UnknownNameError: If there is none of that name.
        """
        return cls(weights=_entry(name).name)

    def graph_type(self) -> type[MaskGraph]:
        """See `NamedNetwork`."""
        return MaskGraph

    def source(self) -> list[Any] | None:
        """See `NamedNetwork`; None for a network that has no name."""
        return None if self.weights is None else NamedNetwork.source(self)

    def load(self) -> Segmenter:
        """The network, in evaluation mode.

        Raises:
            GraphError: If torch is missing.
            RemoteError: If its weights cannot be fetched.
        """
        require_torch()
        return get_segmenter(self.weights or "")

    def convert(self, net: Segmenter, engine: str) -> None:
        """See `NamedNetwork`."""
        from torchxrayvision.inference import accelerate

        accelerate(net, 1, engine=engine, images=1)


def named_or_given(
    model: str | Net,
    engine: str,
    precision: str,
    device: str | torch.device | Sequence[str | torch.device] | None,
) -> tuple[Net, NamedSegmenter]:
    """A network by its name, as a graph if there is one that such a run uses; any other as it is.

    Args:
        model: See `segment`.
        engine: See `segment`.
        precision: See `segment`.
        device: See `segment`.

    Returns:
        It, and what keeps the card of one that was named and is converted now.

    Raises:
        UnknownNameError: If there is no such network, engine or precision.
        GraphError: If torch is needed and missing.
        RemoteError: If its weights cannot be fetched.
    """
    if not isinstance(model, str):
        return model, NamedSegmenter()
    named = NamedSegmenter.of(model)
    found = named.graph(engine, precision, device)
    return named.load() if found is None else found, named


def _class(module: str, kind: str) -> Callable[..., Segmenter]:
    found: Callable[..., Segmenter] = getattr(
        importlib.import_module(f"torchxrayvision.baseline_models.{module}"), kind
    )
    return found
