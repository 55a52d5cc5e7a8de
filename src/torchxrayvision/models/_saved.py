"""A classifier as one file: its tensors, and what they mean in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision import __version__
from torchxrayvision.errors import CheckpointError
from torchxrayvision.models._backbone import BACKBONES, Backbone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchxrayvision.models._base import XRayClassifier

__all__ = ["backbone_of", "facts_of", "header_of", "save_checkpoint"]

_KEY: Final = "torchxrayvision.classifier"


def save_checkpoint(
    model: XRayClassifier, path: str | Path, *, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write a classifier as safetensors, so that `load_checkpoint` gives it back.

    Targets and resolution go into the header of the file. The file is whole or absent, whatever
    stops the process.

    Args:
        model: Any classifier. `load_checkpoint` recognises the networks of this package by their
            tensors, and a `Backbone` by its name.
        path: Where to; by convention it ends in `.safetensors`. Replaced if it exists.
        facts: More to keep in the header: anything JSON holds.

    Returns:
        Everything that the header says.

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
        "architecture": model.architecture,
        "arguments": model.arguments if isinstance(model, Backbone) else {},
        "torchxrayvision": __version__,
    }


def facts_of(values: Mapping[str, Any], outputs: int, path: str) -> dict[str, Any]:
    """What the header of a file says of the network in it.

    Args:
        values: The header's words.
        outputs: Number of outputs that the tensors have.
        path: What the error calls the file.

    Returns:
        Empty for a file that `save_checkpoint` did not write; else its `targets` and
        `input_resolution`, checked.

    Raises:
        CheckpointError: If the header contradicts itself or the tensors.
    """
    facts = _decoded(values, path)
    if not facts:
        return {}
    targets, resolution = facts.get("targets"), facts.get("input_resolution")
    named = isinstance(targets, list) and [type(name) for name in targets] == [str] * outputs
    sized = resolution is None or (type(resolution) is int and 0 < resolution <= 1 << 14)
    if not named or not sized:
        msg = f"{path}: the header's targets or input_resolution do not fit {outputs} outputs"
        raise CheckpointError(msg)
    return {"targets": targets, "input_resolution": resolution}


def backbone_of(values: Mapping[str, Any], path: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the `Backbone` in a file, or None if it holds another network.

    Args:
        values: The header's words.
        path: What the error calls the file.
    """
    facts = _decoded(values, path)
    name, arguments = facts.get("architecture"), facts.get("arguments", {})
    if not isinstance(name, str) or not name.startswith(BACKBONES):
        return None
    if not isinstance(arguments, dict):
        raise CheckpointError(f"{path}: the header's arguments are no table")
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
