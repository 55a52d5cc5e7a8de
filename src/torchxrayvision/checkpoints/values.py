"""What the object stream of a checkpoint may say: bounds, inert values, and tensors described."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that hold before memory is taken or time is spent.

    The defaults leave room for a checkpoint of several gigabytes with its optimiser, and
    stop a crafted one within about two seconds and a few hundred megabytes.

    Args:
        file_bytes: Size of the file.
        pickle_bytes: Bytes of text and binary values in the object stream (tensors lie outside it).
        text_bytes: Bytes of one string in the object stream.
        operations: Steps of the object stream, and again of the walk over its objects.
        depth: Nesting of containers.
        tensors: Number of tensors, and of storages.
        members: Number of members of a zip archive.
        copied_bytes: Bytes that may be copied beyond what the file itself holds: to lay out strided
            tensors, to expand broadcast ones, to inflate compressed members.

    Example:
        >>> Limits(pickle_bytes=256 << 20).pickle_bytes
        268435456
    """

    file_bytes: int = 16 << 30
    pickle_bytes: int = 32 << 20
    text_bytes: int = 4 << 20
    operations: int = 1_000_000
    depth: int = 500
    tensors: int = 50_000
    members: int = 100_000
    copied_bytes: int = 64 << 20


DEFAULT = Limits()
"""What a file may ask for where nobody says otherwise."""


class Unreadable(Exception):  # noqa: N818 - a signal inside the reader, turned into CheckpointError
    """The reason why a file is not read, one clause without the file's name."""


# Nothing here is a class or a function that the file named. A global name becomes a
# :class:`GlobalRef`, whatever would be called or constructed becomes an :class:`InertObject` that
# remembers its arguments, and the few rebuilding functions of torch become descriptions.

# Bytes of one element; the names are those of torch's dtypes.
ITEM_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
    "complex128": 16, "complex64": 8,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1, "qint8": 1, "quint8": 1, "qint32": 4,
}  # fmt: skip

UNTYPED = ""  # the dtype of a storage of plain bytes; the tensor says its own

_STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64", "QInt8Storage": "qint8", "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32", "UntypedStorage": UNTYPED,
    "_UntypedStorage": UNTYPED,
}  # fmt: skip
_STORAGE_MODULES = {"torch", "torch.cuda", "torch.storage", "torch.mps", "torch.xpu"}
_STORAGE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")

_MAX_DIMENSIONS = 64
_MAX_ELEMENTS = 1 << 48


class GlobalRef:
    """A global name that the file mentions, such as ``torch._utils._rebuild_tensor_v2``."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class InertObject:
    """What would have been the result of a call or a construction; nothing was called."""

    __slots__ = ("args", "items", "kind", "pairs", "state")

    def __init__(self, kind: GlobalRef | InertObject, args: tuple[Any, ...]) -> None:
        self.kind = kind
        self.args = args
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []


class OtherKey:
    """Stands for a dict key that is no plain scalar, so that its hash is never computed."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Unsupported:
    """A tensor of a kind that is not read, and why."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


@dataclass(slots=True, eq=False)
class Storage:
    """A run of elements that the file keeps apart from the object stream."""

    key: str
    dtype: str
    numel: int

    @property
    def nbytes(self) -> int:
        """Bytes of the whole run."""
        return self.numel * ITEM_BYTES.get(self.dtype, 1)


@dataclass(slots=True, eq=False)
class TensorRef:
    """A tensor described and checked against its storage, not yet read."""

    storage: Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    numel: int = field(init=False)

    def __post_init__(self) -> None:
        self.numel = math.prod(self.size)

    @property
    def layout(self) -> tuple[str, str, int, tuple[int, ...], tuple[int, ...]]:
        """Equal for two tensors that are the same memory read the same way."""
        return self.storage.key, self.dtype, self.offset, self.size, self.stride

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie one after another in the storage."""
        expected = 1
        for length, step in zip(reversed(self.size), reversed(self.stride), strict=True):
            if length != 1 and step != expected:
                return False
            expected *= length
        return True


def storage_from(persistent_id: Any) -> tuple[str, str, int]:
    """Check a storage's persistent id: (key, dtype name, number of elements)."""
    if not isinstance(persistent_id, tuple) or len(persistent_id) not in (5, 6):
        raise Unreadable("a persistent id is not that of a storage")
    _, kind, key, location, numel = persistent_id[:5]
    if len(persistent_id) == 6 and persistent_id[5] is not None:
        raise Unreadable("a storage is a view of another storage (torch 0.3 and older)")
    if type(kind) is not GlobalRef:
        raise Unreadable("the type of a storage is not a name")
    module, _, name = kind.text.rpartition(".")
    if module not in _STORAGE_MODULES or name not in _STORAGE_DTYPES:
        raise Unreadable(f"{kind.text[:80]!r} is no storage type")
    if type(key) is not str or not _STORAGE_KEY.fullmatch(key):
        raise Unreadable("the key of a storage is not a plain word")
    if type(location) is not str or len(location) > 64:
        raise Unreadable("the device of a storage is not a word")
    if type(numel) is not int or not 0 <= numel <= _MAX_ELEMENTS:
        raise Unreadable("the number of elements of a storage is negative or absurd")
    return key, _STORAGE_DTYPES[name], numel


def _lengths(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > _MAX_DIMENSIONS:
        raise Unreadable(f"the {what} of a tensor is not a short tuple")
    for value in values:
        if type(value) is not int or not 0 <= value <= _MAX_ELEMENTS:
            raise Unreadable(
                f"the {what} of a tensor holds something negative, absurd or no integer"
            )
    return tuple(values)


def _describe(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: str | None = None
) -> TensorRef:
    if type(storage) is not Storage:
        raise Unreadable("a tensor is built on something that is no storage")
    if type(offset) is not int or not 0 <= offset <= _MAX_ELEMENTS:
        raise Unreadable("the offset of a tensor is negative, absurd or no integer")
    lengths, steps = _lengths(size, "shape"), _lengths(stride, "stride")
    if len(lengths) != len(steps):
        raise Unreadable("the shape and the stride of a tensor differ in length")
    ref = TensorRef(storage, dtype or storage.dtype or "uint8", offset, lengths, steps)
    if ref.numel > _MAX_ELEMENTS:
        raise Unreadable("a tensor declares an absurd number of elements")
    if ref.numel:
        span = offset + sum((n - 1) * step for n, step in zip(lengths, steps, strict=True)) + 1
        if span * ITEM_BYTES[ref.dtype] > storage.nbytes:
            raise Unreadable(f"a tensor reaches beyond the {storage.nbytes} bytes of its storage")
    return ref


def _at_least(args: tuple[Any, ...], count: int) -> None:
    if len(args) < count:
        raise Unreadable(f"a rebuilding function of torch has {len(args)} arguments, not {count}")


def _tensor(args: tuple[Any, ...]) -> TensorRef | Unsupported:
    _at_least(args, 4)
    metadata = args[6] if len(args) > 6 else None
    return _plain(_describe(*args[:4]), metadata)


def _tensor_with_dtype(args: tuple[Any, ...]) -> TensorRef | Unsupported:
    _at_least(args, 7)
    if type(args[6]) is not GlobalRef:
        raise Unreadable("the dtype of a tensor is not a name")
    module, _, dtype = args[6].text.rpartition(".")
    if module != "torch" or dtype not in ITEM_BYTES or dtype == "bool":
        return Unsupported(f"of dtype {args[6].text[:80]!r}")
    if type(args[0]) is Storage and args[0].dtype not in (UNTYPED, dtype):
        raise Unreadable("a tensor and its storage differ in dtype")
    metadata = args[7] if len(args) > 7 else None
    storage, offset, size, stride = args[:4]
    return _plain(_describe(storage, offset, size, stride, dtype), metadata)


def _plain(ref: TensorRef, metadata: Any) -> TensorRef | Unsupported:
    """The tensor, unless its elements are not the plain numbers of its bytes."""
    if ref.dtype.startswith("q"):
        return Unsupported("a quantised tensor")
    if metadata is None or metadata == {}:
        return ref
    if isinstance(metadata, dict) and not any(metadata.get(bit) for bit in ("conj", "neg")):
        return ref
    return Unsupported("a lazily conjugated or negated tensor")


def _first(args: tuple[Any, ...]) -> Any:
    _at_least(args, 1)
    return args[0]


def _subclass(args: tuple[Any, ...]) -> Any:
    """``_rebuild_from_type_v2(function, type, arguments, state)``: the tensor without its type."""
    _at_least(args, 3)
    function, _, inner = args[:3]
    if type(function) is not GlobalRef or type(inner) is not tuple:
        raise Unreadable("a tensor subclass is rebuilt from something that is no function name")
    # One step only: a subclass of a subclass is never written, and a chain would recurse.
    build = CONSTRUCTORS.get(function.text)
    if build is None or build is _subclass:
        return Unsupported(f"a tensor rebuilt by {function.text[:80]!r}")
    return build(inner)


def _sequence(args: tuple[Any, ...]) -> Any:
    """A set, list or tuple made of one list: the list itself, for nothing is ever hashed."""
    if not args:
        return []
    if len(args) == 1 and isinstance(args[0], list | tuple):
        return args[0]
    raise Unreadable("a set is made of something that is no list")


def _unsupported(reason: str) -> Callable[[tuple[Any, ...]], Unsupported]:
    return lambda _args: Unsupported(reason)


def _under(
    module: str, build: Callable[[tuple[Any, ...]], Any], *names: str
) -> dict[str, Callable[[tuple[Any, ...]], Any]]:
    return {f"{module}.{name}": build for name in names}


# The only names that mean anything; every other one stays an inert InertObject.
CONSTRUCTORS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    **_under("torch._utils", _tensor, "_rebuild_tensor", "_rebuild_tensor_v2"),
    **_under("torch._utils", _tensor_with_dtype, "_rebuild_tensor_v3"),
    **_under("torch._utils", _first, "_rebuild_parameter", "_rebuild_parameter_with_state"),
    **_under("torch._tensor", _subclass, "_rebuild_from_type", "_rebuild_from_type_v2"),
    **_under("torch.tensor", _subclass, "_rebuild_from_type", "_rebuild_from_type_v2"),
    **_under("builtins", _sequence, "set", "frozenset", "list", "tuple"),
    **_under("__builtin__", _sequence, "set", "frozenset", "list", "tuple"),
    **_under("torch", _sequence, "Size"),
    **_under(
        "torch.jit._pickle", _first, "build_intlist", "build_doublelist", "build_boollist",
        "build_tensorlist", "restore_type_tag",
    ),
    **_under(
        "torch._utils", _unsupported("a sparse or nested tensor"), "_rebuild_sparse_tensor",
        "_rebuild_sparse_csr_tensor", "_rebuild_nested_tensor",
    ),
    **_under("torch._utils", _unsupported("a quantised tensor"), "_rebuild_qtensor"),
    **_under(
        "torch._utils", _unsupported("a tensor without data"), "_rebuild_meta_tensor_no_storage"
    ),
    **_under(
        "torch._utils", _unsupported("a tensor kept as another object"),
        "_rebuild_wrapper_subclass", "_rebuild_device_tensor_from_numpy",
        "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_xla_tensor",
    ),
}  # fmt: skip
