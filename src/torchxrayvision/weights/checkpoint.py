"""Read the tensors of a checkpoint without executing anything that is in it.

A file of ``torch.save`` is a program: unpickling it may import and call whatever the file
names. :func:`read_tensors` reads the same files (whole modules, state dicts, Lightning
checkpoints, TorchScript archives, before and after torch 1.6) as data. Classes need not be
installed, and objects that are no tensors stay inert.

Example:
    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp(), "net.pt")
    >>> torch.save({"epoch": 3, "state_dict": torch.nn.Linear(2, 1).state_dict()}, path)
    >>> checkpoint = read_tensors(path)
    >>> list(checkpoint.tensors), checkpoint.values
    (['state_dict.weight', 'state_dict.bias'], {'epoch': 3})
    >>> list(state_dict_of(checkpoint))
    ['weight', 'bias']
"""

from __future__ import annotations

import stat
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from torchxrayvision.errors import CheckpointError
from torchxrayvision.weights._build import build_tensors
from torchxrayvision.weights._containers import Container, open_archive, recognise
from torchxrayvision.weights._limits import DEFAULT, Limits, Refused
from torchxrayvision.weights._walk import walk

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    import torch

__all__ = [
    "DEFAULT",
    "Checkpoint",
    "Limits",
    "pick",
    "read_tensors",
    "state_dict_of",
    "strip_prefix",
]

# Keys under which trainers keep a network's state, most specific first.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights",
)  # fmt: skip
_DATA_PARALLEL = "module."
_SHOWN = 5

# What reading a damaged file may raise below; anything else would be a fault of this package.
_EXPECTED = (
    ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError, TypeError,
    ValueError, struct.error, zlib.error,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds.

    Args:
        path: The file.
        tensors: By dotted name, in the order of the file; contiguous, on the CPU, without gradient.
            Tensors that are one in the file are one here.
        container: How the file keeps them.
        globals: The global names that the file mentions, and how often; none was looked up.
        values: Numbers, words, lists and dicts that lie beside the tensors, such as an epoch.
        skipped: Tensors that were not read (sparse, quantised, without data), and why.
        groups: Names of the dicts or modules, up to three levels down, that hold the tensors.
    """

    path: str
    tensors: dict[str, torch.Tensor]
    container: Container
    globals: Mapping[str, int] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()


def read_tensors(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Checkpoint:
    """Read every tensor of a checkpoint; execute nothing.

    The names of a module are those of its ``state_dict()``; below a dict or a list, a key or
    a position comes in front of them (``state_dict.conv1.weight``). A file that is one tensor
    gives it the name ``tensor``. Constants of TorchScript code are left out.

    Args:
        path: A file of ``torch.save`` (any version since 0.4), ``torch.jit.save`` or safetensors.
        limits: Bounds on what the file may declare.

    Returns:
        The tensors, and what else the file says as plain data.

    Raises:
        CheckpointError: If the file is missing, damaged, hostile, of another kind, or without
            tensors. No other exception is raised for any content of the file.
    """
    path = Path(path)
    try:
        return _read(path, limits)
    except Refused as error:
        raise CheckpointError(f"{path}: {error}") from _bare(error)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file does not exist") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _EXPECTED as error:
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise CheckpointError(f"{path}: malformed ({detail})") from _bare(error)


def _bare(error: Exception) -> Exception:
    """The error without its frames, which would keep all that was read in memory."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _read(path: Path, limits: Limits) -> Checkpoint:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused("a folder, not a file" if path.is_dir() else "not a regular file")
    if status.st_size > limits.file_bytes:
        raise Refused(f"{status.st_size} bytes; the limit is {limits.file_bytes}")
    with path.open("rb") as file:
        container = recognise(file.read(512), status.st_size)
        if container == "safetensors":
            return _read_safetensors(path, limits)
        return _read_torch(path, file, status.st_size, container, limits)


def _read_safetensors(path: Path, limits: Limits) -> Checkpoint:
    from torchxrayvision.weights._safetensors import read_safetensors

    tensors, metadata = read_safetensors(path, limits)
    return Checkpoint(
        path=str(path), tensors=tensors, container="safetensors", values=dict(metadata)
    )


def _read_torch(
    path: Path, file: BinaryIO, size: int, container: Container, limits: Limits
) -> Checkpoint:
    archive = open_archive(file, size, container, limits)
    found = walk(archive.root, limits)
    if not found.tensors:
        reason = "holds no tensors"
        if found.skipped:
            name, why = next(iter(found.skipped.items()))
            reason += f" that can be read; {len(found.skipped)} cannot, such as {name!r}: {why}"
        raise Refused(reason)
    return Checkpoint(
        path=str(path),
        tensors=build_tensors(found.tensors, archive, limits),
        container=archive.container,
        globals=dict(archive.names),
        values=found.values,
        skipped=found.skipped,
        groups=tuple(found.groups),
    )


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(map(repr, listed[:_SHOWN])) + more


def strip_prefix(
    tensors: Mapping[str, torch.Tensor], prefixes: str | Iterable[str] = ("module.", "model.")
) -> dict[str, torch.Tensor]:
    """Remove the first of ``prefixes`` that every name has.

    Args:
        tensors: By name, such as ``module.conv1.weight``.
        prefixes: One prefix with its dot, or several to try in order.

    Returns:
        The same tensors under the shorter names, in the same order.

    Raises:
        CheckpointError: If no prefix is common to all names, with the names that lack it.

    Example:
        >>> import torch
        >>> list(strip_prefix({"module.a": torch.zeros(1), "module.b": torch.zeros(1)}))
        ['a', 'b']
    """
    tried = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
    for prefix in tried:
        if tensors and all(name.startswith(prefix) and name != prefix for name in tensors):
            return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    odd = {name for name in tensors if not any(name.startswith(p) for p in tried)} or set(tensors)
    raise CheckpointError(
        f"not every name starts with {' or '.join(map(repr, tried))}: {_names(odd)}"
    )


def pick(tensors: Mapping[str, torch.Tensor], group: str) -> dict[str, torch.Tensor]:
    """Select the tensors below one name, and remove that name from theirs.

    Args:
        tensors: By dotted name.
        group: The name above them, such as ``state_dict`` or ``models.0``.

    Raises:
        CheckpointError: If nothing is below that name, with the names there are.

    Example:
        >>> import torch
        >>> list(pick({"net.a": torch.zeros(1), "step": torch.zeros(1)}, "net"))
        ['a']
    """
    prefix = f"{group}."
    chosen = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
    if not chosen:
        first = {name.partition(".")[0] for name in tensors}
        raise CheckpointError(f"no tensors below {group!r}; the first names are {_names(first)}")
    return chosen


def state_dict_of(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """Find the network's state in a checkpoint of unknown making.

    A bare state dict and a whole module are taken as they are. Where a dict keeps the state
    below a name that trainers use (:data:`WRAPPERS`), or below its only name, that one
    is taken, again and again; an optimiser beside it is left out. A prefix ``module.`` that
    ``DataParallel`` gave to every name is then removed.

    Args:
        checkpoint: What :func:`read_tensors` returned.

    Returns:
        Tensors under the names that the network's own ``state_dict()`` would have.

    Raises:
        CheckpointError: If several groups could be meant (choose one with :func:`pick`), or if a
            tensor of the state is one that was not read.
    """
    group = _network_group(checkpoint)
    prefix = f"{group}." if group else ""
    for name, reason in checkpoint.skipped.items():
        if name.startswith(prefix):
            raise CheckpointError(f"{checkpoint.path}: {name!r} is {reason}, which is not read")
    chosen = pick(checkpoint.tensors, group) if group else dict(checkpoint.tensors)
    if all(name.startswith(_DATA_PARALLEL) for name in chosen):
        return strip_prefix(chosen, _DATA_PARALLEL)
    return chosen


def _network_group(checkpoint: Checkpoint) -> str:
    """The innermost group that a trainer's names lead to; empty where the file is the state."""
    group, known = "", False
    while True:
        inner = _direct_groups(checkpoint, group)
        wrapper = next((inner[name] for name in WRAPPERS if name in inner), None)
        if wrapper is not None:
            group, known = wrapper, True
        elif not known and _holds_all(checkpoint, group, inner.values()):
            group = _the_only(checkpoint, inner)
        else:
            return group


def _direct_groups(checkpoint: Checkpoint, group: str) -> dict[str, str]:
    """Key to full name of the groups just below one."""
    prefix = f"{group}." if group else ""
    below = [name for name in checkpoint.groups if name.startswith(prefix) and name != group]
    direct = [name for name in below if not any(name.startswith(f"{other}.") for other in below)]
    return {name[len(prefix) :]: name for name in direct}


def _holds_all(checkpoint: Checkpoint, group: str, inner: Iterable[str]) -> bool:
    prefix = f"{group}." if group else ""
    starts = tuple(f"{name}." for name in inner)
    names = [name for name in checkpoint.tensors if name.startswith(prefix)]
    return bool(starts) and all(name.startswith(starts) for name in names)


def _the_only(checkpoint: Checkpoint, inner: Mapping[str, str]) -> str:
    if len(inner) == 1:
        return next(iter(inner.values()))
    raise CheckpointError(
        f"{checkpoint.path}: holds several groups of tensors, {_names(inner)}; "
        "choose one with pick()"
    )
