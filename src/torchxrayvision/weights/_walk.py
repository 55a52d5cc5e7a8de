"""From the inert values of an object stream to named tensors and plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torchxrayvision.weights._limits import Limits, Refused
from torchxrayvision.weights._nodes import Instance, Name, OtherKey, Storage, TensorRef, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["ROOT", "Found", "walk"]

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
        Refused: If containers hold themselves, nest too deep, or unfold to too many names.
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
            raise Refused(f"its objects unfold to more than {self._limits.operations} steps")

    @staticmethod
    def _join(prefix: str, key: str) -> str:
        if len(prefix) + len(key) > _MAX_NAME or not key.isprintable():
            raise Refused(f"the key of a dict is not a short printable word: {key[:40]!a}")
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
            raise Refused(f"more than {self._limits.tensors} tensors")
        self.found.tensors[name] = ref
        self._mark_groups()

    def _skip(self, name: str, reason: str) -> None:
        if len(self.found.skipped) >= self._limits.tensors:
            raise Refused(f"more than {self._limits.tensors} tensors that are not read")
        self.found.skipped[name] = reason
        self._mark_groups()

    def _mark_groups(self) -> None:
        for frame in self._frames[1 : _GROUP_DEPTH + 1]:
            if frame.group:
                self.found.groups.setdefault(frame.prefix)

    def _enter(self, name: str, node: Any) -> None:
        self._charge(_CONTAINER_COST)
        plain_object = type(node) is Instance and not _is_module(node)
        if id(node) in (self._seen if plain_object else self._path):
            if plain_object:
                return
            raise Refused(f"a container holds itself at {name[:80]!r}")
        if len(self._frames) >= self._limits.depth:
            raise Refused(f"containers nested deeper than {self._limits.depth}")
        (self._seen if plain_object else self._path).add(id(node))
        above = self._frames[-1] if self._frames else None
        group = above is None or (above.group and type(above.node) is dict)
        self._frames.append(_Frame(node, name, group=group))


_LEAVES = {str, int, float, bool, bytes, type(None), Name, OtherKey}


def _attributes(node: Instance) -> dict[Any, Any]:
    """The attributes that a BUILD gave: a dict, or with ``__slots__`` a pair of dicts."""
    if isinstance(node.state, dict):
        return node.state
    if isinstance(node.state, tuple) and len(node.state) == 2:
        return {k: v for part in node.state if isinstance(part, dict) for k, v in part.items()}
    return {}


def _is_module(node: Instance) -> bool:
    if isinstance(node.kind, Name) and node.kind.text.startswith(_SCRIPTED):
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
        raise Refused("a module hides more buffers than it has")
    names = {name for name in hidden if isinstance(name, str)}
    yield from state["_parameters"].items()
    yield from ((name, value) for name, value in state["_buffers"].items() if name not in names)
    yield from state["_modules"].items()


def _object_children(node: Instance) -> Iterator[tuple[Any, Any]]:
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
    elif isinstance(node, Instance) and "_modules" in (state := _attributes(node)):
        pairs = _module_children(state) if _is_module(node) else _object_children(node)
    elif isinstance(node, Instance):
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
            raise Refused("its plain values unfold to too many")
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
