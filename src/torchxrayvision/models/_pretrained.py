"""From an entry of the weights registry, or any checkpoint, to a loaded network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import CheckpointError, UnknownNameError
from torchxrayvision.models._network import load_strictly
from torchxrayvision.models._published import warn_of_terms
from torchxrayvision.weights import Weights, WeightsEnum, fetch_weights, list_weights
from torchxrayvision.weights import get as get_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from torchxrayvision.models._base import XRayClassifier

__all__ = [
    "COMPAT",
    "apply_weights",
    "architecture_of",
    "normalise_names",
    "resolve",
    "split_width",
]

COMPAT: Final = "xrv-1.5"
"""The value of `compat` that asks for the numbers of 1.5.7 where they differ."""

_DENSENET_BLOCKS: Final = {
    (64, (6, 12, 24, 16)): "densenet121",
    (96, (6, 12, 36, 24)): "densenet161",
    (64, (6, 12, 32, 32)): "densenet169",
    (64, (6, 12, 48, 32)): "densenet201",
}
_RESNET_LAYER3: Final = {
    "conv2": {2: "resnet18", 6: "resnet34"},
    "conv3": {6: "resnet50", 23: "resnet101"},
}
"""By the last convolution of a block, then by the blocks of the third stage."""
_RESNET_WIDTH: Final = 64


def split_width(architecture: str, usual: int) -> tuple[str, int]:
    """Name and width of an architecture such as `"resnet18-width32"`.

    Args:
        architecture: A name, with or without a width.
        usual: The width where the name has none.

    Returns:
        The name before the width, and the width, in channels; 0 for one that is no number.
    """
    name, _, width = architecture.partition("-width")
    return name, (int(width) if width.isdecimal() else 0) if width else usual


def resolve(weights: str | Weights | WeightsEnum, family: str) -> Weights:
    """Find the entry that a caller means, and check that it is of the right family.

    Args:
        weights: Name, alias, entry or enum member.
        family: `"densenet"` or `"resnet"`.

    Raises:
        UnknownNameError: If there is no such entry, or it belongs to another network.
    """
    entry = get_entry(weights)
    if not entry.architecture.startswith(family):
        known = [w.name for w in list_weights() if w.architecture.startswith(family)]
        raise UnknownNameError(f"{family} weights", entry.name, known)
    return entry


def check_compat(compat: str | None) -> bool:
    """Whether the numbers of 1.5.7 are asked for.

    Args:
        compat: None or `"xrv-1.5"`.

    Raises:
        UnknownNameError: For any other value.
    """
    if compat not in (None, COMPAT):
        raise UnknownNameError("compat", compat, [COMPAT])
    return compat == COMPAT


def describe_as(model: XRayClassifier, entry: Weights, compat: str | None) -> None:
    """Give a model the targets, resolution and operating points of an entry.

    Args:
        model: The model; operating points that it already has are kept.
        entry: The weights.
        compat: See `COMPAT`.
    """
    points = entry.compat_operating_points if check_compat(compat) else entry.operating_points
    model.targets = list(entry.targets)
    model.input_resolution = entry.input_resolution
    model.weights = entry.name
    if model.op_threshs is None and points is not None:
        model.set_operating_points(points)


def apply_weights(
    model: XRayClassifier,
    network: nn.Module,
    entry: Weights,
    *,
    cache_dir: str | None,
    compat: str | None,
) -> None:
    """Fetch, read, load strictly, describe, and switch to evaluation mode.

    Args:
        model: The model to describe.
        network: The part of it whose names the file uses.
        entry: The weights.
        cache_dir: Folder for the download; None for the usual one.
        compat: See `COMPAT`.

    Raises:
        RemoteError: If the file cannot be fetched.
        CheckpointError: If it holds other tensors.

    Warns:
        DemonstrationWarning: If the weights are there to try the package with.
    """
    from torchxrayvision.weights.store import load_tensors

    warn_of_terms(entry, stacklevel=3)
    path = fetch_weights(entry, cache=cache_dir)
    tensors = normalise_names(load_tensors(path))
    points, model.op_threshs = model.op_threshs, None  # not part of a published file
    load_strictly(network, tensors, source=str(path))
    model.op_threshs = points
    model.weights_filename_local = str(path)
    describe_as(model, entry, compat)
    model.eval()


def normalise_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip what training wrappers put before every name, and 1.5.7's operating points.

    Args:
        tensors: As the file names them.

    Returns:
        Names as the bare network has them.
    """
    names = {k: v for k, v in tensors.items() if k.rpartition(".")[2] != "op_threshs"}
    for _ in range(3):  # DataParallel in Lightning in 1.5.7's ResNet: three layers at most
        prefix = next(
            (p for p in ("module.", "model.", "net.") if all(k.startswith(p) for k in names)), None
        )
        if prefix is None or not names:
            break
        names = {k.removeprefix(prefix): v for k, v in names.items()}
    return names


def architecture_of(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Recognise a network of this package by the names and shapes of its tensors.

    Args:
        tensors: Names as `normalise_names` gives them.
        source: What the error calls the file.

    Returns:
        `architecture` and `num_classes`.

    Raises:
        CheckpointError: If it is none of them.
    """
    if "classifier.weight" in tensors and "features.conv0.weight" in tensors:
        layer = re.compile(r"features\.denseblock(\d)\.denselayer(\d+)\.conv1\.weight")
        found = [m.groups() for m in map(layer.fullmatch, tensors) if m]
        blocks = tuple(sum(b == block for b, _ in found) for block in "1234")
        name = _DENSENET_BLOCKS.get((tensors["features.conv0.weight"].shape[0], blocks))
        head = tensors["classifier.weight"]
    elif "fc.weight" in tensors and "layer3.0.conv2.weight" in tensors:
        name = _resnet_of(tensors)
        head = tensors["fc.weight"]
    else:
        name, head = None, None
    if name is None or head is None or head.dim() != 2:
        some = ", ".join(list(tensors)[:3]) or "no tensor at all"
        msg = (
            f"{source}: not a DenseNet (121, 161, 169, 201) or ResNet (18, 34, 50, 101) of this "
            f"package; it holds {len(tensors)} tensors ({some}, ...)"
        )
        raise CheckpointError(msg)
    return {"architecture": name, "num_classes": int(head.shape[0])}


def _resnet_of(tensors: Mapping[str, Tensor]) -> str | None:
    last = "conv3" if "layer3.0.conv3.weight" in tensors else "conv2"
    depth = sum(k.startswith("layer3.") and k.endswith(".conv1.weight") for k in tensors)
    name = _RESNET_LAYER3[last].get(depth)
    width = tensors["layer1.0.conv1.weight"].shape[0]
    return name if name is None or width == _RESNET_WIDTH else f"{name}-width{width}"
