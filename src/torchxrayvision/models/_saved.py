"""A classifier as one file: its tensors, and what they mean in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision import __version__
from torchxrayvision.errors import CheckpointError
from torchxrayvision.models._arguments import check_file_arguments
from torchxrayvision.models._backbone import BACKBONES, Backbone
from torchxrayvision.models._calibration import OUTPUT_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchxrayvision.models._base import XRayClassifier

__all__ = [
    "apply_facts",
    "backbone_of",
    "facts_of",
    "header_of",
    "operating_points",
    "save_checkpoint",
]

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
    from torchxrayvision.weights._safetensors import save_safetensors

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
