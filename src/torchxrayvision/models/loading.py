"""From an entry of the weights registry, or any checkpoint, to a loaded network."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision import __version__
from torchxrayvision.errors import (
    CheckpointError,
    DemonstrationWarning,
    LicenseWarning,
    UnknownNameError,
)
from torchxrayvision.models.arguments import check_file_arguments
from torchxrayvision.models.backbone import BACKBONES, Backbone
from torchxrayvision.models.base import OUTPUT_KINDS, load_strictly
from torchxrayvision.weights import (
    Weights,
    WeightsEnum,
    fetch_weights,
    list_weights,
)
from torchxrayvision.weights import (
    get as get_entry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models.base import XRayClassifier, XRayModel

__all__ = [
    "COMPAT",
    "apply_facts",
    "apply_published",
    "apply_weights",
    "architecture_of",
    "backbone_of",
    "chosen",
    "facts_of",
    "header_of",
    "normalise_names",
    "operating_points",
    "read_published",
    "resolve",
    "save_checkpoint",
    "split_width",
    "warn_of_terms",
]


# ---- From a registry entry to a loaded network, for networks that are not core classifiers.


def chosen(weights: bool | str | Weights | WeightsEnum | None, default: str) -> Weights | None:
    """The entry that a constructor's `weights` means.

    Args:
        weights: True for the default, False or None for an untrained network, or a name or entry.
        default: Name of the entry that True means.

    Returns:
        The entry, or None for an untrained network.

    Raises:
        UnknownNameError: If no weights have that name.
    """
    if weights is None or weights is False:
        return None
    return get_entry(default if weights is True else weights)


def warn_of_terms(entry: Weights, stacklevel: int) -> None:
    """Say aloud that weights may not be used commercially, or are for trying the package only.

    Args:
        entry: The weights.
        stacklevel: Frames up to the caller that the warning names, counted from here.

    Warns:
        LicenseWarning: Python shows it once for each line that loads such weights.
        DemonstrationWarning: Likewise.
    """
    if entry.license.commercial is False:
        warnings.warn(
            f"{entry.name}: these weights are under {entry.license.name}, which allows no "
            f"commercial use; see {entry.license.url}",
            LicenseWarning,
            stacklevel=stacklevel + 1,
        )
    if entry.demonstration:
        warnings.warn(
            f"{entry.name}: demonstration weights, to try the package with; what they give is no "
            "finding. `xrv weights show` says what they were trained on and how good they are",
            DemonstrationWarning,
            stacklevel=stacklevel + 1,
        )


def read_published(
    entry: Weights, cache_dir: str | None, names: Callable[[Checkpoint], dict[str, Tensor]]
) -> tuple[Path, dict[str, Tensor]]:
    """Fetch and read the tensors of published weights.

    Args:
        entry: The weights.
        cache_dir: Folder for the download; None for the usual one.
        names: Turns what the file holds into tensors under the names of the network.

    Returns:
        The file, and the tensors.

    Raises:
        RemoteError: If the file cannot be fetched.
        CheckpointError: If it holds other tensors.
    """
    from torchxrayvision.checkpoints import cache as store

    path = fetch_weights(entry, cache=cache_dir)
    return path, names(store.load_checkpoint(path))


def apply_published(
    model: XRayModel,
    network: nn.Module,
    entry: Weights,
    tensors: dict[str, Tensor],
    path: Path,
) -> None:
    """Load tensors strictly, say where they came from, and switch to evaluation mode.

    Args:
        model: The model to describe.
        network: The part of it whose names the tensors have.
        entry: The weights.
        tensors: One for each name of the network.
        path: Their file.

    Raises:
        StateMismatchError: If names or shapes differ.
    """
    load_strictly(network, tensors, source=str(path))
    model.weights = entry.name
    model.weights_filename_local = str(path)
    model.eval()


# ---- A classifier as one file: its tensors, and what they mean in the header.

_KEY: Final = "torchxrayvision.classifier"


def save_checkpoint(
    model: XRayClassifier, path: str | Path, *, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write a classifier as safetensors, so that `load_checkpoint` gives it back.

    Targets, resolution, operating points and the `output` that was chosen go into the header of the
    file. The file is whole or absent, whatever stops the process.

    Args:
        model: Any classifier. `load_checkpoint` recognises the networks of this package by their
            tensors, and a `Backbone` by its name.
        path: Where to; by convention it ends in `.safetensors`. Replaced if it exists.
        facts: More to keep in the header: anything JSON holds.

    Returns:
        Everything that the header says.

    Raises:
        CheckpointError: If a `Backbone` was built with arguments that no file may choose, so that
            it could not be read back.

    Example:
        >>> import tempfile
        >>> from torchxrayvision.models import Backbone, load_checkpoint
        >>> path = Path(tempfile.mkdtemp(), "mine.safetensors")
        >>> model = Backbone("torchvision:resnet18", num_classes=1)
        >>> model.targets, model.input_resolution = ["Mass"], 64
        >>> save_checkpoint(model, path)["targets"]
        ['Mass']
        >>> load_checkpoint(path).input_resolution
        64
    """
    from torchxrayvision.checkpoints import save_safetensors

    if isinstance(model, Backbone):
        check_file_arguments(model.architecture, model.arguments, str(path))
    described = {**_described(model), **(facts or {})}
    tensors = {k: v for k, v in model.state_dict().items() if k != "op_threshs"}
    save_safetensors(Path(path), tensors, _header(described))
    return described


def header_of(model: XRayClassifier, input_resolution: int) -> dict[str, str]:
    """What the header of a safetensors file says, for `load_checkpoint` to understand it."""
    return _header({**_described(model), "input_resolution": input_resolution})


def _header(described: dict[str, Any]) -> dict[str, str]:
    return {"format": "pt", _KEY: json.dumps(described)}


def _described(model: XRayClassifier) -> dict[str, Any]:
    return {
        "targets": list(model.targets),
        "input_resolution": model.input_resolution,
        "operating_points": operating_points(model),
        "output": model.output,
        "architecture": model.architecture,
        "arguments": model.arguments if isinstance(model, Backbone) else {},
        "torchxrayvision": __version__,
    }


def operating_points(model: XRayClassifier) -> list[float | None] | None:
    """Operating points for JSON, which has no NaN: None stands for an output without one."""
    points = model.op_threshs
    return None if points is None else [None if p != p else p for p in points.float().tolist()]


def facts_of(values: Mapping[str, Any], outputs: int, path: str) -> dict[str, Any]:
    """What the header of a file says of the network in it.

    Args:
        values: The header's words.
        outputs: Number of outputs that the tensors have.
        path: What the error calls the file.

    Returns:
        Empty for a file that `save_checkpoint` did not write; else its `targets`,
        `input_resolution`, `operating_points` and `output`, checked. The last two are None where
        the model had none or an older version wrote the file.

    Raises:
        CheckpointError: If the header contradicts itself or the tensors.
    """
    facts = _decoded(values, path)
    if not facts:
        return {}
    fitting = {
        "targets": _are_names(facts.get("targets"), outputs),
        "input_resolution": _is_side(facts.get("input_resolution")),
        "operating_points": _are_points(facts.get("operating_points"), outputs),
        "output": facts.get("output") in (None, *OUTPUT_KINDS),
    }
    if wrong := [name for name, fits in fitting.items() if not fits]:
        msg = f"{path}: the header's {' and '.join(wrong)} do not fit {outputs} outputs"
        raise CheckpointError(msg)
    return {name: facts.get(name) for name in fitting}


def _are_names(value: Any, outputs: int) -> bool:
    return isinstance(value, list) and [type(name) for name in value] == [str] * outputs


def _is_side(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value <= 1 << 14)


def _are_points(value: Any, outputs: int) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != outputs:
        return False
    return all(p is None or (type(p) is float and 0 <= p <= 1) for p in value)


def apply_facts(model: XRayClassifier, facts: Mapping[str, Any]) -> None:
    """Give a model the operating points and the output that its file says.

    Args:
        model: The model, with its tensors.
        facts: See `facts_of`; nothing changes where they are empty.
    """
    if (points := facts.get("operating_points")) is not None:
        model.set_operating_points([float("nan") if p is None else p for p in points])
    if (output := facts.get("output")) is not None:
        model.output = output


def backbone_of(values: Mapping[str, Any], path: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the `Backbone` in a file, or None if it holds another network.

    Args:
        values: The header's words.
        path: What the error calls the file.

    Raises:
        CheckpointError: If the header asks for more than the shape of a network.
    """
    facts = _decoded(values, path)
    name, arguments = facts.get("architecture"), facts.get("arguments", {})
    if not isinstance(name, str) or not name.startswith(BACKBONES):
        return None
    if not isinstance(arguments, dict):
        raise CheckpointError(f"{path}: the header's arguments are not a table")
    check_file_arguments(name, arguments, path)
    return name, arguments


def _decoded(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    text = values.get(_KEY)
    if not isinstance(text, str):
        return {}
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is no JSON") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path}: the header is no JSON object")
    return facts


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
    from torchxrayvision.checkpoints import load_tensors

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
