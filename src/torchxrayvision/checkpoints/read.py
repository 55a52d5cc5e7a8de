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

import json
import stat
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from torchxrayvision.checkpoints.torchfile import Container, build_tensors, open_archive, recognise
from torchxrayvision.checkpoints.values import (
    DEFAULT,
    GlobalRef,
    InertObject,
    Limits,
    OtherKey,
    Storage,
    TensorRef,
    Unreadable,
    Unsupported,
)
from torchxrayvision.errors import CheckpointError
from torchxrayvision.files import write_atomically

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    import torch

_MAX_HEADER: Final = 16 << 20  # some 100,000 tensors


def described_header(key: str, described: Mapping[str, Any]) -> dict[str, str]:
    """The header of a safetensors file that holds a description beside the tensors.

    Args:
        key: Where it stands in the header.
        described: Anything that JSON holds.

    Returns:
        The header for `save_safetensors`.

    Example:
        >>> described_header("of.mine", {"side": 64})
        {'format': 'pt', 'of.mine': '{"side": 64}'}
    """
    return {"format": "pt", key: json.dumps(described)}


def save_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a file that is whole or, whatever stops the process, absent or as it was.

    Args:
        path: The file.
        tensors: By name, on any device; those that share memory are written each for itself.
        metadata: Words for the header.

    Raises:
        Unreadable: If the format lacks a dtype, or the header would be too large.
        OSError: If it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with write_atomically(path) as part:
            part.touch()  # with the rights that a new file has here; the package gives fewer
            rights = part.stat().st_mode
            save_file(_apart(tensors), part, dict(metadata))
            _check_header(part)
            _sort_metadata(part)
            part.chmod(rights)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"what safetensors cannot hold: {error}") from error


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER:
        raise Unreadable(f"a safetensors header of {length} bytes")


def _sort_metadata(path: Path) -> None:
    """Put the words of the header in order: safetensors writes them in another one each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # what is shorter is filled with spaces, as the format has it
            file.seek(8)
            file.write(text.ljust(length))


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors on the CPU, in the order of their axes, none on the memory of another."""
    held, seen = {}, set()
    for name, tensor in tensors.items():
        own = tensor.detach().to("cpu").contiguous()
        storage = own.untyped_storage()
        if storage.data_ptr() in seen:
            own = own.clone()
        seen.add(storage.data_ptr())
        held[name] = own
    return held


def read_safetensors(
    path: Path, limits: Limits = DEFAULT
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Map the file and return its tensors by name, and its metadata.

    A change to a tensor stays in memory; the file is mapped privately.

    Args:
        path: The file.
        limits: What it may ask for.

    Returns:
        The tensors, in the order of the file, and the words of the header.

    Raises:
        Unreadable: If the header is damaged or does not describe the file exactly.
    """
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    try:
        with safe_open(path, framework="pt") as found:
            names = found.offset_keys()
            if len(names) > limits.tensors:
                raise Unreadable(f"more than {limits.tensors} tensors")
            tensors = {name: _sound(found.get_tensor(name)) for name in names}
            return tensors, dict(found.metadata() or {})
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise Unreadable(f"a damaged safetensors file: {error}") from None


def _sound(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    if tensor.dtype is torch.bool:
        # Kernels may do anything with another byte in a bool.
        tensor.view(torch.uint8).clamp_(max=1)
    return tensor


ROOT = "tensor"  # the name of a tensor that is all a file holds
_MAX_NAME = 512
_GROUP_DEPTH = 3
_MAX_TEXT = 4096  # a longer string is left out of the values
_MAX_VALUES_TEXT = 4 << 20
_VALUE_DEPTH = 32
_CONTAINER_COST = 16  # steps that entering a container is worth
_SCRIPTED = "__torch__"
_ABSENT = object()


@dataclass
class Found:
    """What a walk found, all by dotted name in the order of the file."""

    tensors: dict[str, TensorRef] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def walk(root: Any, limits: Limits) -> Found:
    """Name every tensor below ``root``.

    A module gives the names of its ``state_dict()``: parameters, persistent buffers, then
    submodules. A dict gives its keys, a list its positions, any other object its attributes.

    Raises:
        Unreadable: If containers hold themselves, nest too deep, or unfold to too many names.
    """
    walker = _Walker(limits)
    walker.run(root)
    if isinstance(root, dict):
        walker.found.values = _Values(limits).of_dict(root)
    return walker.found


class _Frame:
    __slots__ = ("children", "group", "node", "prefix")

    def __init__(self, node: Any, prefix: str, *, group: bool) -> None:
        self.node = node
        self.prefix = prefix
        self.group = group
        self.children = _children(node)


class _Walker:
    """Depth first, without recursion, so that no file chooses the depth of the call stack."""

    def __init__(self, limits: Limits) -> None:
        self.found = Found()
        self._limits = limits
        self._left = limits.operations
        self._frames: list[_Frame] = []
        self._path: set[int] = set()
        self._seen: set[int] = set()  # plain objects, whose references may form any graph

    def run(self, root: Any) -> None:
        self._visit(ROOT if isinstance(root, TensorRef | Unsupported | Storage) else "", root)
        while self._frames:
            frame = self._frames[-1]
            for key, child in frame.children:
                self._charge(1)
                if type(child) in _LEAVES:
                    continue
                self._visit(self._join(frame.prefix, key), child)
                break
            else:
                self._frames.pop()
                self._path.discard(id(frame.node))

    def _charge(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise Unreadable(f"its objects unfold to more than {self._limits.operations} steps")

    @staticmethod
    def _join(prefix: str, key: str) -> str:
        if len(prefix) + len(key) > _MAX_NAME or not key.isprintable():
            raise Unreadable(f"the key of a dict is not a short printable word: {key[:40]!a}")
        return f"{prefix}.{key}" if prefix else key

    def _visit(self, name: str, node: Any) -> None:
        if type(node) is TensorRef:
            self._tensor(name, node)
        elif type(node) is Unsupported:
            self._skip(name, node.reason)
        elif type(node) is Storage:
            self._skip(name, "a bare storage")
        else:
            self._enter(name, node)

    def _tensor(self, name: str, ref: TensorRef) -> None:
        if name in self.found.tensors:
            self._skip(name, "a name that occurs twice")
            return
        if len(self.found.tensors) >= self._limits.tensors:
            raise Unreadable(f"more than {self._limits.tensors} tensors")
        self.found.tensors[name] = ref
        self._mark_groups()

    def _skip(self, name: str, reason: str) -> None:
        if len(self.found.skipped) >= self._limits.tensors:
            raise Unreadable(f"more than {self._limits.tensors} tensors that are not read")
        self.found.skipped[name] = reason
        self._mark_groups()

    def _mark_groups(self) -> None:
        for frame in self._frames[1 : _GROUP_DEPTH + 1]:
            if frame.group:
                self.found.groups.setdefault(frame.prefix)

    def _enter(self, name: str, node: Any) -> None:
        self._charge(_CONTAINER_COST)
        plain_object = type(node) is InertObject and not _is_module(node)
        if id(node) in (self._seen if plain_object else self._path):
            if plain_object:
                return
            raise Unreadable(f"a container holds itself at {name[:80]!r}")
        if len(self._frames) >= self._limits.depth:
            raise Unreadable(f"containers nested deeper than {self._limits.depth}")
        (self._seen if plain_object else self._path).add(id(node))
        above = self._frames[-1] if self._frames else None
        group = above is None or (above.group and type(above.node) is dict)
        self._frames.append(_Frame(node, name, group=group))


_LEAVES = {str, int, float, bool, bytes, type(None), GlobalRef, OtherKey}


def _attributes(node: InertObject) -> dict[Any, Any]:
    """The attributes that a BUILD gave: a dict, or with ``__slots__`` a pair of dicts."""
    if isinstance(node.state, dict):
        return node.state
    if isinstance(node.state, tuple) and len(node.state) == 2:
        return {k: v for part in node.state if isinstance(part, dict) for k, v in part.items()}
    return {}


def _is_module(node: InertObject) -> bool:
    if isinstance(node.kind, GlobalRef) and node.kind.text.startswith(_SCRIPTED):
        return True
    state = node.state
    return isinstance(state, dict) and all(
        isinstance(state.get(part), dict) for part in ("_parameters", "_buffers", "_modules")
    )


def _module_children(state: dict[Any, Any]) -> Iterator[tuple[Any, Any]]:
    hidden = state.get("_non_persistent_buffers_set")
    if not isinstance(hidden, list):
        hidden = []
    if len(hidden) > len(state["_buffers"]):
        raise Unreadable("a module hides more buffers than it has")
    names = {name for name in hidden if isinstance(name, str)}
    yield from state["_parameters"].items()
    yield from ((name, value) for name, value in state["_buffers"].items() if name not in names)
    yield from state["_modules"].items()


def _object_children(node: InertObject) -> Iterator[tuple[Any, Any]]:
    yield from _attributes(node).items()
    yield from node.pairs
    yield from enumerate(node.items)
    if node.state is None and not node.pairs and not node.items:
        yield from enumerate(node.args)  # a named tuple keeps its fields here


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(node, dict):
        pairs = node.items()
    elif isinstance(node, list | tuple):
        pairs = enumerate(node)
    elif isinstance(node, InertObject) and "_modules" in (state := _attributes(node)):
        pairs = _module_children(state) if _is_module(node) else _object_children(node)
    elif isinstance(node, InertObject):
        pairs = _object_children(node)
    else:
        pairs = ()
    return ((_key(key, position), value) for position, (key, value) in enumerate(pairs))


def _key(key: Any, position: int) -> str:
    if type(key) is str:
        return key
    if type(key) is bytes:
        return key.decode("latin-1")
    return f"#{position}" if type(key) is OtherKey else str(key)


class _Values:
    """Numbers, words, lists and dicts beside the tensors, such as an epoch or a list of tasks."""

    def __init__(self, limits: Limits) -> None:
        self._left = limits.operations
        self._text = _MAX_VALUES_TEXT

    def of_dict(self, node: dict[Any, Any], depth: int = 0) -> dict[str, Any]:
        result = {}
        for position, (key, child) in enumerate(node.items()):
            name = _key(key, position)
            value = self._of(child, depth + 1) if len(name) <= _MAX_NAME else _ABSENT
            if value is not _ABSENT:
                result[name] = value
        return result

    def _of(self, node: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise Unreadable("its plain values unfold to too many")
        if isinstance(node, str):
            return self._word(node)
        if node is None or isinstance(node, bool | int | float):
            return node
        self._left -= _CONTAINER_COST
        if depth >= _VALUE_DEPTH:
            return _ABSENT
        if isinstance(node, dict):
            inner = self.of_dict(node, depth)
            return inner if inner or not node else _ABSENT
        if isinstance(node, list | tuple):
            items = [self._of(item, depth + 1) for item in node]
            return _ABSENT if any(item is _ABSENT for item in items) else items
        return _ABSENT

    def _word(self, text: str) -> Any:
        if len(text) > min(_MAX_TEXT, self._text):
            return _ABSENT
        self._text -= len(text)
        return text


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
    except Unreadable as error:
        raise CheckpointError(f"{path}: {error}") from _drop_traceback(error)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file does not exist") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _EXPECTED as error:
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise CheckpointError(f"{path}: malformed ({detail})") from _drop_traceback(error)


def _drop_traceback(error: Exception) -> Exception:
    """The error without its frames, which would keep all that was read in memory."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def _read(path: Path, limits: Limits) -> Checkpoint:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("a folder, not a file" if path.is_dir() else "not a regular file")
    if status.st_size > limits.file_bytes:
        raise Unreadable(f"{status.st_size} bytes; the limit is {limits.file_bytes}")
    with path.open("rb") as file:
        container = recognise(file.read(512), status.st_size)
        if container == "safetensors":
            return _read_safetensors(path, limits)
        return _read_torch(path, file, status.st_size, container, limits)


def _read_safetensors(path: Path, limits: Limits) -> Checkpoint:

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
        raise Unreadable(reason)
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
