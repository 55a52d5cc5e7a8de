"""The whole state of a run in one safetensors file: tensors, and all else as JSON in its header.

Lightning's own checkpoint is a pickle, which is a program. Here tensors go where tensors go, and
what remains must be plain: numbers, text, lists, tuples and dicts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from torchxrayvision.checkpoints import Unreadable, read_tensors, save_safetensors
from torchxrayvision.errors import CheckpointError

if TYPE_CHECKING:
    import os

_KEY: Final = "torchxrayvision.training"
_KIND: Final = "!"  # marks what JSON has no word for


def pack(value: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Take a nested state apart.

    Args:
        value: Tensors, None, bools, numbers, text, and lists, tuples and dicts of them.

    Returns:
        What JSON can hold, and the tensors by name.

    Raises:
        CheckpointError: If there is anything else in it.

    Example:
        >>> tree, tensors = pack({"step": 3, "moments": {0: torch.zeros(2)}})
        >>> list(tensors), unpack(tree, tensors)
        (['moments.0'], {'step': 3, 'moments': {0: tensor([0., 0.])}})
    """
    tensors: dict[str, torch.Tensor] = {}
    return _packed(value, "", tensors), tensors


def _packed(value: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    def inner(key: object, one: Any) -> Any:
        return _packed(one, f"{name}.{key}" if name else str(key), tensors)

    if isinstance(value, torch.Tensor):
        return _packed_tensor(value, name, tensors)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_KIND: "float", "value": repr(value)}
    if isinstance(value, list):
        return [inner(i, one) for i, one in enumerate(value)]
    if isinstance(value, tuple):
        return {_KIND: "tuple", "items": [inner(i, one) for i, one in enumerate(value)]}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key != _KIND for key in value):
            return {key: inner(key, one) for key, one in value.items()}
        pairs = [[inner(f"{key}.key", key), inner(key, one)] for key, one in value.items()]
        return {_KIND: "dict", "items": pairs}
    msg = f"the state of the run holds a {type(value).__name__} at {name!r}, which is neither a "
    raise CheckpointError(msg + "tensor nor plain data")


def _packed_tensor(value: torch.Tensor, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    while name in tensors:
        name += "'"
    tensors[name] = value
    # The order of axes in memory decides how loops are cut, and so the last bits.
    last = value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
    return {_KIND: "tensor", "name": name, "channels_last": last and not value.is_contiguous()}


def unpack(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Undo `pack`, whose results it takes; mappings become dicts."""
    if isinstance(tree, list):
        return [unpack(one, tensors) for one in tree]
    if not isinstance(tree, dict):
        return tree
    match tree.get(_KIND):
        case None:
            return {key: unpack(one, tensors) for key, one in tree.items()}
        case "tensor":
            form = torch.channels_last if tree["channels_last"] else torch.contiguous_format
            return tensors[tree["name"]].clone(memory_format=form)
        case "float":
            return float(tree["value"])
        case "tuple":
            return tuple(unpack(one, tensors) for one in tree["items"])
        case _:
            return {unpack(k, tensors): unpack(one, tensors) for k, one in tree["items"]}


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a nested state, see `pack`; the file is the new one or the old one, whatever happens.

    Raises:
        CheckpointError: If the state holds what cannot be kept.
    """
    tree, tensors = pack(state)
    try:
        save_safetensors(path, tensors, {"format": "pt", _KEY: json.dumps(tree, allow_nan=False)})
    except Unreadable as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_state(path: Path) -> dict[str, Any]:
    """Read the nested state that `write_state` wrote; nothing in the file is executed.

    Raises:
        CheckpointError: If it is not such a file, or damaged.
    """
    checkpoint = read_tensors(path)
    try:
        state = unpack(json.loads(checkpoint.values[_KEY]), checkpoint.tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not the state of a training run") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not the state of a training run")
    return state


class TensorsAndJson(CheckpointIO):
    """Lightning's checkpoints as `write_state` keeps them."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ARG002 - of Lightning
    ) -> None:
        """Write one."""
        write_state(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,  # noqa: ARG002 - states are moved where they are loaded
        weights_only: bool | None = None,  # noqa: ARG002 - nothing is ever executed
    ) -> dict[str, Any]:
        """Read one."""
        return read_state(Path(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove one."""
        Path(path).unlink(missing_ok=True)
