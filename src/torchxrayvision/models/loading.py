"""From an entry of the weights registry, or any checkpoint, to a loaded network, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import torch

from torchxrayvision import __version__
from torchxrayvision.checkpoints import (
    described_header,
    load_checkpoint,
    save_safetensors,
    state_dict_of,
)
from torchxrayvision.errors import (
    CheckpointError,
    UnknownNameError,
    counted,
)
from torchxrayvision.facts import OwnFile
from torchxrayvision.models.backbone import BACKBONES, Backbone, check_file_arguments
from torchxrayvision.models.base import load_strictly
from torchxrayvision.models.scaling import OUTPUT_KINDS, Preprocess, ResizeRoute
from torchxrayvision.weights import (
    ModelConfig,
    Weights,
    WeightsEnum,
    fetch_weights,
    list_weights,
    warn_of_terms,
)
from torchxrayvision.weights import get as get_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models.base import XRayClassifier, XRayModel


def resolve_weights_argument(
    weights: bool | str | Weights | WeightsEnum | None, *, default: str = "", family: str = ""
) -> Weights | None:
    """The entry that a constructor's `weights` means, if it is for the same network.

    Args:
        weights: True for the default, False or None for an untrained network, or a name, alias,
            entry or enum member.
        default: Name of the entry that True means.
        family: How the architecture of the weights must start; that of the default if empty.

    Returns:
        The entry, or None for an untrained network.

    Raises:
        UnknownNameError: If there is no such entry, or it belongs to another network.
    """
    if weights is None or weights is False:
        return None
    entry = get_entry(default if weights is True else weights)
    wanted = family or get_entry(default).architecture
    if not entry.architecture.startswith(wanted):
        known = [w.name for w in list_weights() if w.architecture.startswith(wanted)]
        advice = f"those are weights of {entry.architecture}"
        if entry.architecture.startswith(("densenet", "resnet", "unet")):
            advice += f": torchxrayvision.models.get_model({str(weights)!r})"
        raise UnknownNameError(f"{wanted} weights", str(weights), known, advice)
    return entry


def network_device(entry: Weights | None, compat: str | None = None) -> torch.device:
    """Where a network is built.

    Weights overwrite every tensor, so drawing random ones first would be wasted, and would advance
    the caller's generator; 1.5.7 does both, so that a later layer gets other numbers.

    Args:
        entry: The weights to come, if any.
        compat: See `COMPAT`.
    """
    meta = entry is not None and not check_compat(compat)
    return torch.device("meta") if meta else torch.get_default_device()


def load_weights(
    model: XRayModel,
    network: nn.Module,
    entry: Weights | None,
    *,
    cache_dir: str | None,
    names: Callable[[Checkpoint], dict[str, Tensor]] = state_dict_of,
    path: Path | None = None,
) -> None:
    """Fetch, read, load strictly, say where the tensors came from, switch to evaluation mode.

    Args:
        model: The model to describe.
        network: The part of it whose names the tensors have.
        entry: The weights; None leaves everything as it is.
        cache_dir: Folder for the download; None for the usual one.
        names: Turns what the file holds into tensors under the names of the network.
        path: The file, where the user has it in a place of its own.

    Raises:
        RemoteError: If the file cannot be fetched.
        CheckpointError: If it holds other tensors.

    Warns:
        LicenseWarning: If the weights may not be used commercially.
        DemonstrationWarning: If they are there to try the package with.
    """
    if entry is None:
        return
    warn_of_terms(entry)
    path = fetch_weights(entry, cache=cache_dir) if path is None else path
    if isinstance(entry.file, OwnFile):  # as saved: the names are those of the whole model
        tensors = load_checkpoint(path).tensors
        model.fit_to(tensors)
        load_strictly(model, aligned(tensors), source=str(path))
    else:
        load_strictly(network, names(load_checkpoint(path)), source=str(path))
    model.weights = entry.name
    model.weights_filename_local = str(path)
    model.eval()


def renamed_by(
    own_names: Callable[[dict[str, Tensor], str], dict[str, Tensor]],
) -> Callable[[Checkpoint], dict[str, Tensor]]:
    """For `names` of `load_weights`: tensors of a release under the names of a network.

    Args:
        own_names: Takes the tensors and what errors call their file.
    """
    return lambda checkpoint: aligned(own_names(state_dict_of(checkpoint), str(checkpoint.path)))


_ALIGNED: Final = 64  # bytes, as torch allocates


def aligned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in memory where torch would put them.

    Mapped ones lie wherever the file has them, for which kernels round in another way: the same
    network of two files would differ in the last bits.
    """
    return {k: v if v.data_ptr() % _ALIGNED == 0 else v.clone() for k, v in tensors.items()}


def preprocess_of(entry: Weights) -> Preprocess:
    """What the authors of weights do with square pictures, as a layer.

    Raises:
        ValueError: If the entry names nothing, as one of a user's own may.
    """
    if entry.preprocessing is None:
        msg = f"weights {entry.name!r} name no preprocessing, which this network needs"
        raise ValueError(msg)
    return Preprocess.of(entry.preprocessing)


def load_core_weights(
    model: XRayClassifier,
    network: nn.Module,
    entry: Weights,
    *,
    cache_dir: str | None,
    compat: str | None,
    op_threshs: Tensor | Sequence[float] | None,
) -> None:
    """As `load_weights`, with the targets, resolution and operating points of the entry."""
    load_weights(
        model, network, entry, cache_dir=cache_dir, names=lambda c: normalise_names(c.tensors)
    )
    apply_metadata(model, entry, compat, op_threshs)


def apply_metadata(
    model: XRayClassifier,
    entry: Weights,
    compat: str | None,
    op_threshs: Tensor | Sequence[float] | None = None,
) -> None:
    """Give a model the targets, resolution and operating points of an entry, or other points."""
    points = entry.compat_operating_points if check_compat(compat) else entry.operating_points
    model.targets = list(entry.targets)
    model.input_resolution = entry.input_resolution
    model.weights = entry.name
    if op_threshs is not None or points is not None:
        found = points if op_threshs is None else op_threshs
        model.op_threshs = torch.as_tensor(found, dtype=torch.float32)


COMPAT: Final = "xrv-1.5"
"""The value of `compat` that asks for the numbers of 1.5.7 where they differ."""


def check_compat(compat: str | None) -> bool:
    """Whether the numbers of 1.5.7 are asked for.

    Raises:
        UnknownNameError: If the value is neither None nor `"xrv-1.5"`.
    """
    if compat not in (None, COMPAT):
        raise UnknownNameError("compat", compat, [COMPAT])
    return compat == COMPAT


def split_width(architecture: str, usual: int) -> tuple[str, int]:
    """Name and width of an architecture such as `"resnet18-width32"`; 0 where it is no number."""
    name, _, width = architecture.partition("-width")
    return name, (int(width) if width.isdecimal() else 0) if width else usual


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
    if isinstance(model, Backbone):
        check_file_arguments(model.architecture, model.arguments, str(path))
    described = {**_described(model), **(facts or {})}
    tensors = {k: v for k, v in model.state_dict().items() if k != "op_threshs"}
    save_safetensors(Path(path), tensors, described_header(_KEY, described))
    return described


def header_of(model: XRayClassifier, input_resolution: int | None) -> dict[str, str]:
    """What the header of a safetensors file says, for `load_checkpoint` to understand it."""
    said = {**_described(model), "input_resolution": input_resolution}
    return described_header(_KEY, said)


def _described(model: XRayClassifier) -> dict[str, Any]:
    preprocess = getattr(model, "preprocess", None)
    return {
        "targets": list(model.targets),
        "input_resolution": getattr(model, "input_resolution", None),
        "resize_route": model.resize_route,
        "preprocessing": None if preprocess is None else preprocessing_of(preprocess),
        "operating_points": operating_points(model),
        "untrained": _untrained(model),
        "output": model.output,
        "architecture": model.architecture,
        "arguments": getattr(model, "arguments", {}),  # of a `Backbone` or an encoder
        "torchxrayvision": __version__,
    }


def preprocessing_of(layer: Preprocess) -> dict[str, float]:
    """What makes such a layer, as a file keeps it."""
    return {name: getattr(layer, name) for name in ("crop", "mean", "deviation")}


def _untrained(model: XRayClassifier) -> list[str]:
    if model.weights is None:  # of a network in training nobody has said so
        return sorted(model.untrained)
    pairs = zip(model.targets, model.trained, strict=True)
    return [name for name, known in pairs if name and not known]


def operating_points(model: XRayClassifier) -> list[float | None] | None:
    """Operating points for JSON, which has no NaN: None stands for an output without one."""
    points = model.op_threshs
    return None if points is None else [None if p != p else p for p in points.float().tolist()]


def read_header_facts(values: Mapping[str, Any], outputs: int, path: str) -> dict[str, Any]:
    """What the header of a file says of the network in it, with so many outputs.

    Returns:
        Empty for a file that `save_checkpoint` did not write; else its `targets`,
        `input_resolution`, `operating_points`, `output`, `untrained`, `preprocessing` and
        `resize_route`, checked. The last five are None where the model had none or an older
        version wrote the file.

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
        "untrained": _are_some_of(facts.get("untrained"), facts.get("targets")),
        "preprocessing": ModelConfig.takes("preprocessing", facts.get("preprocessing")),
        "resize_route": facts.get("resize_route") in (None, *get_args(ResizeRoute)),
    }
    if wrong := [name for name, fits in fitting.items() if not fits]:
        msg = f"{path}: the header's {' and '.join(wrong)} do not fit {counted(outputs, 'output')}"
        raise CheckpointError(msg)
    return {name: facts.get(name) for name in fitting}


def _are_names(value: Any, outputs: int) -> bool:
    return isinstance(value, list) and [type(name) for name in value] == [str] * outputs


def _are_some_of(value: Any, names: Any) -> bool:
    return value is None or (isinstance(value, list) and all(one in names for one in value))


def _is_side(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value <= 1 << 14)


def _are_points(value: Any, outputs: int) -> bool:
    if value is None:
        return True
    if not isinstance(value, list) or len(value) != outputs:
        return False
    return all(p is None or (type(p) is float and 0 <= p <= 1) for p in value)


def apply_facts(model: XRayClassifier, facts: Mapping[str, Any]) -> None:
    """Give a model what `read_header_facts` says of its outputs, and of how images are prepared."""
    if (points := facts.get("operating_points")) is not None:
        model.set_operating_points([float("nan") if p is None else p for p in points])
    if (output := facts.get("output")) is not None:
        model.output = output
    model.untrained = frozenset(facts.get("untrained") or ())
    if (layer := facts.get("preprocessing")) is not None and hasattr(model, "preprocess"):
        model.preprocess = Preprocess(**layer)
    model.resize_route = facts.get("resize_route") or model.resize_route


def file_arguments(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """What the header of a file says that its network was built with.

    Raises:
        CheckpointError: If that is no table.
    """
    arguments = _decoded(values, path).get("arguments", {})
    if not isinstance(arguments, dict):
        raise CheckpointError(f"{path}: the header's arguments are not a table")
    return arguments


def backbone_of(values: Mapping[str, Any], path: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the `Backbone` in a file, or None if it holds another network.

    Raises:
        CheckpointError: If the header asks for more than the shape of a network.
    """
    facts = _decoded(values, path)
    name = facts.get("architecture")
    if not isinstance(name, str) or not name.startswith(BACKBONES):
        return None
    arguments = file_arguments(values, path)
    check_file_arguments(name, arguments, path)
    return name, arguments


def stated_architecture(values: Mapping[str, Any], path: str) -> str | None:
    """Name of the network that the header of a file says it holds, or None."""
    name = _decoded(values, path).get("architecture")
    return name if isinstance(name, str) else None


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


def normalise_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip what training wrappers put before every name, and 1.5.7's operating points."""
    names = {k: v for k, v in tensors.items() if k.rpartition(".")[2] != "op_threshs"}
    for _ in range(3):  # DataParallel in Lightning in 1.5.7's ResNet: three layers at most
        prefix = next(
            (p for p in ("module.", "model.", "net.") if all(k.startswith(p) for k in names)), None
        )
        if prefix is None or not names:
            break
        names = {k.removeprefix(prefix): v for k, v in names.items()}
    return names
