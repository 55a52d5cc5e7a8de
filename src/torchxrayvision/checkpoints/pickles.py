"""A reader of object streams (pickle protocols 2 to 5) that can only build inert values.

This is not an ``Unpickler`` with a guarded ``find_class``: it knows no import, no call and
no attribute. Numbers, strings, tuples, lists and dicts become themselves; all else becomes
one of the inert values below. The opcodes are those that picklers of protocol 2 and
later emit, in Python and in TorchScript's C++ writer; any other ends the reading.
Opcodes: https://github.com/python/cpython/blob/3.11/Lib/pickletools.py
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable


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


def _named(prefixes: tuple[str, ...], names: tuple[str, ...]) -> list[str]:
    return [f"{prefix}.{name}" for prefix in prefixes for name in names]


_UTILS = ("torch._utils",)
_BUILTINS = ("builtins", "__builtin__")

# The only names that mean anything; every other one stays an inert InertObject.
CONSTRUCTORS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    **dict.fromkeys(_named(_UTILS, ("_rebuild_tensor", "_rebuild_tensor_v2")), _tensor),
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    **dict.fromkeys(
        _named(_UTILS, ("_rebuild_parameter", "_rebuild_parameter_with_state")), _first
    ),
    **dict.fromkeys(
        _named(("torch._tensor", "torch.tensor"), ("_rebuild_from_type", "_rebuild_from_type_v2")),
        _subclass,
    ),
    **dict.fromkeys(_named(_BUILTINS, ("set", "frozenset", "list", "tuple")), _sequence),
    "torch.Size": _sequence,
    **dict.fromkeys(
        _named(
            ("torch.jit._pickle",),
            ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist",
             "restore_type_tag"),
        ),
        _first,
    ),
    **dict.fromkeys(
        _named(
            _UTILS,
            ("_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor", "_rebuild_nested_tensor"),
        ),
        _unsupported("a sparse or nested tensor"),
    ),
    "torch._utils._rebuild_qtensor": _unsupported("a quantised tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unsupported("a tensor without data"),
    **dict.fromkeys(
        _named(
            _UTILS,
            ("_rebuild_wrapper_subclass", "_rebuild_device_tensor_from_numpy",
             "_rebuild_device_tensor_from_cpu_tensor", "_rebuild_xla_tensor"),
        ),
        _unsupported("a tensor kept as another object"),
    ),
}  # fmt: skip

_MAX_INTEGER_BYTES = 64
_MAX_NAME_BYTES = 1024
_SAFE_INTEGER = 1 << 60  # below it, different integers have different hashes
_SCALARS = {str, float, bool, bytes, type(None)}
_MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict"}
_CUT_SHORT = "the object stream is cut short"


class Interpreter:
    """Reads one object stream after another from a file.

    A short read of an argument is not looked for where it happens: the next opcode is then
    missing, and that ends the reading. Lengths are checked before anything is read by them.

    Args:
        file: Where to read; it stands after the stream's last byte when :meth:`read` returns.
        size: Bytes of the file, for what a string may declare.
        limits: Bounds on operations, depth and bytes, over all streams of the file together.
        names: Counts every mention of a global name.
    """

    __slots__ = (
        "_file", "_known", "_left", "_limits", "_marks", "_memo", "_names", "_pairs", "_read",
        "_room", "_stack", "storages",
    )  # fmt: skip

    def __init__(self, file: BinaryIO, size: int, limits: Limits, names: Counter[str]) -> None:
        self._file = file
        self._read = file.read
        self._limits = limits
        self._room = min(size, limits.pickle_bytes)
        self._left = limits.operations
        self._pairs = 0
        self._names = names
        self._known: dict[str, GlobalRef] = {}
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> Any:
        """The value of the next stream.

        Raises:
            Unreadable: If the stream is cut short, malformed, or asks for more than its limits.
        """
        self._stack, self._marks, self._memo = [], [], {}
        try:
            self._run()
            return self._stack.pop()
        except IndexError:
            reason = "a value is due where the stack of the object stream is empty"
            raise Unreadable(reason if self._read(1) else _CUT_SHORT) from None
        except KeyError:
            raise Unreadable("the object stream asks its memo for what it never stored") from None
        except struct.error:
            raise Unreadable(_CUT_SHORT) from None

    def _run(self) -> None:
        read, operation = self._read, _OPERATIONS.get
        for count in range(self._left):
            code = read(1)
            step = operation(code)
            if step is not None:
                step(self)
            elif code == b".":
                self._left -= count
                return
            else:
                self._unknown(code)
        raise Unreadable(f"more than {self._limits.operations} operations")

    @staticmethod
    def _unknown(code: bytes) -> NoReturn:
        if not code:
            raise Unreadable(_CUT_SHORT)
        import pickletools

        letter = code.decode("latin-1")
        known = next((op for op in pickletools.opcodes if op.code == letter), None)
        what = f"the opcode {known.name}" if known else f"the byte 0x{code.hex()}"
        raise Unreadable(f"{what} in the object stream, which torch.save never writes")

    # Numbers and constants

    def _protocol(self) -> None:
        if (version := self._read(1)) > b"\x05":
            raise Unreadable(f"pickle protocol {version[0]} is unknown")

    def _frame(self) -> None:
        self._read(8)  # a hint for readers that buffer; this one trusts no length

    def _none(self) -> None:
        self._stack.append(None)

    def _true(self) -> None:
        self._stack.append(True)

    def _false(self) -> None:
        self._stack.append(False)

    def _one_byte(self) -> None:
        self._stack.append(self._read(1)[0])

    def _two_bytes(self) -> None:
        self._stack.append(int.from_bytes(self._read(2), "little"))

    def _four_bytes(self) -> None:
        self._stack.append(int.from_bytes(self._read(4), "little", signed=True))

    def _long(self, count: int) -> None:
        if count > _MAX_INTEGER_BYTES:
            raise Unreadable(f"an integer of {count} bytes")
        self._stack.append(int.from_bytes(self._read(count), "little", signed=True))

    def _float(self) -> None:
        self._stack.append(struct.unpack(">d", self._read(8))[0])

    # Strings and bytes

    def _value(self, count: int) -> bytes:
        """Bytes of a declared length, checked before they are asked for."""
        if count > self._room:
            raise Unreadable(f"a value declares {count} bytes where {self._room} are allowed")
        self._room -= count
        data = self._read(count)
        if len(data) != count:
            raise Unreadable(_CUT_SHORT)
        return data

    def _text(self, count: int) -> None:
        if count > self._limits.text_bytes:
            raise Unreadable(
                f"a string declares {count} bytes; the limit is {self._limits.text_bytes}"
            )
        self._stack.append(_decoded(self._value(count)))

    def _short_text(self) -> None:
        self._text(self._read(1)[0])

    def _usual_text(self) -> None:
        self._text(int.from_bytes(self._read(4), "little"))

    def _old_text(self, count: int) -> None:
        self._stack.append(self._value(count).decode("latin-1"))  # a string of Python 2

    def _binary(self, count: int) -> None:
        self._stack.append(self._value(count))

    # Containers

    def _mark(self) -> None:
        if len(self._marks) >= self._limits.depth:
            raise Unreadable(f"containers nested deeper than {self._limits.depth}")
        self._marks.append(len(self._stack))

    def _to_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _pop(self) -> None:
        if self._marks and self._marks[-1] >= len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _pop_to_mark(self) -> None:
        self._to_mark()

    def _empty_tuple(self) -> None:
        self._stack.append(())

    def _empty_list(self) -> None:
        self._stack.append([])

    def _empty_dict(self) -> None:
        self._stack.append({})

    def _tuple(self) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def _tuple1(self) -> None:
        self._stack[-1] = (self._stack[-1],)

    def _tuple2(self) -> None:
        last = self._stack.pop()
        self._stack[-1] = (self._stack[-1], last)

    def _tuple3(self) -> None:
        last, middle = self._stack.pop(), self._stack.pop()
        self._stack[-1] = (self._stack[-1], middle, last)

    def _frozen_set(self) -> None:
        items = self._to_mark()
        self._stack.append(items)

    def _extend(self, items: Iterable[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is InertObject:
            target.items.extend(items)
        else:
            raise Unreadable("something is appended to what is no list")

    def _append(self) -> None:
        item = self._stack.pop()
        self._extend((item,))

    def _appends(self) -> None:
        self._extend(self._to_mark())

    def _set(self, flat: list[Any]) -> None:
        if len(flat) % 2:
            raise Unreadable("a dict has a key without a value")
        target = self._stack[-1]
        pairs = zip(map(_key, flat[::2]), flat[1::2], strict=True)
        if type(target) is dict:
            target.update(pairs)
        elif type(target) is InertObject:
            target.pairs.extend(pairs)
        else:
            raise Unreadable("an item is set on what is no dict")

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _set_items(self) -> None:
        self._set(self._to_mark())

    # Memo: a dict, so that an index of 2**32 - 1 takes no memory

    def _put(self) -> None:
        self._memo[self._read(1)[0]] = self._stack[-1]

    def _long_put(self) -> None:
        self._memo[int.from_bytes(self._read(4), "little")] = self._stack[-1]

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self) -> None:
        self._stack.append(self._memo[self._read(1)[0]])

    def _long_get(self) -> None:
        self._stack.append(self._memo[int.from_bytes(self._read(4), "little")])

    # Names, calls and state: recorded, never done

    def _name(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        self._names[text] += 1
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = GlobalRef(text)
        self._stack.append(known)

    def _line(self) -> str:
        line = self._file.readline(_MAX_NAME_BYTES)
        self._room -= len(line)
        if not line.endswith(b"\n") or self._room < 0:
            raise Unreadable("a global name is cut short or absurdly long")
        return _decoded(line[:-1])

    def _global(self) -> None:
        module = self._line()
        self._name(module, self._line())

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Unreadable("a global name is no string")
        if len(name) + len(module) > _MAX_NAME_BYTES:
            raise Unreadable("a global name is absurdly long")
        self._name(module, name)

    def _reduce(self) -> None:
        args, kind = self._stack.pop(), self._stack.pop()
        if type(kind) is GlobalRef and type(args) is tuple:
            if kind.text in _MAPPINGS:
                self._stack.append(self._mapping(args))
                return
            if (build := CONSTRUCTORS.get(kind.text)) is not None:
                self._stack.append(build(args))
                return
        self._instance(kind, args)

    def _instance(self, kind: Any, args: Any) -> None:
        if type(kind) not in (GlobalRef, InertObject):
            raise Unreadable(f"a {type(kind).__name__} is called")
        if type(args) is not tuple:
            raise Unreadable("the arguments of a call are no tuple")
        self._stack.append(InertObject(kind, args))

    def _mapping(self, args: tuple[Any, ...]) -> dict[Any, Any]:
        """``OrderedDict()``; Python 2 gives it a list of pairs. ``defaultdict`` names a factory."""
        pairs = args[0] if args and isinstance(args[0], list | tuple) else ()
        self._pairs += len(pairs)  # many calls may name one long list
        if self._pairs > self._limits.operations:
            raise Unreadable(f"dicts are made of more than {self._limits.operations} pairs")
        result = {}
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise Unreadable("a dict is made of something that is no pair")
            result[_key(pair[0])] = pair[1]
        return result

    def _new(self) -> None:
        args, kind = self._stack.pop(), self._stack.pop()
        self._instance(kind, args)

    def _new_with_keywords(self) -> None:
        self._stack.pop()
        self._new()

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is InertObject:
            target.state = state
        elif type(target) is not dict:  # an OrderedDict's own attributes are of no use
            raise Unreadable(f"the state of a {type(target).__name__} is replaced")

    def _persistent(self) -> None:
        pid = self._stack.pop()
        kind = pid[0] if type(pid) is tuple and pid else None
        if type(kind) is bytes:
            kind = kind.decode("latin-1")
        if kind == "module" and len(pid) == 4 and type(pid[1]) is GlobalRef:
            self._stack.append(
                pid[1]
            )  # ('module', class, source file, source): torch 1.5 and older
            return
        if kind != "storage":
            raise Unreadable("a persistent id is neither of a storage nor of a module")
        key, dtype, numel = storage_from(pid)
        storage = self.storages.setdefault(key, Storage(key, dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise Unreadable(f"storage {key} is declared twice, differently")
        if len(self.storages) > self._limits.tensors:
            raise Unreadable(f"more than {self._limits.tensors} storages")
        self._stack.append(storage)


def _key(key: Any) -> Any:
    """The key, unless its hash could be made expensive or equal to many others."""
    if type(key) in _SCALARS or (type(key) is int and abs(key) < _SAFE_INTEGER):
        return key
    return OtherKey(key)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise Unreadable("a string is not UTF-8") from None


def _sized(
    method: Callable[[Interpreter, int], None], length_bytes: int
) -> Callable[[Interpreter], None]:
    """An operation that starts with an unsigned length of so many bytes."""

    def step(machine: Interpreter) -> None:
        length = machine._read(length_bytes)
        if len(length) != length_bytes:
            raise Unreadable(_CUT_SHORT)
        method(machine, int.from_bytes(length, "little"))

    return step


_OPERATIONS: dict[bytes, Callable[[Interpreter], None]] = {
    b"\x80": Interpreter._protocol,
    b"\x95": Interpreter._frame,
    b"N": Interpreter._none,
    b"\x88": Interpreter._true,
    b"\x89": Interpreter._false,
    b"K": Interpreter._one_byte,  # BININT1
    b"M": Interpreter._two_bytes,  # BININT2
    b"J": Interpreter._four_bytes,  # BININT
    b"\x8a": _sized(Interpreter._long, 1),
    b"\x8b": _sized(Interpreter._long, 4),
    b"G": Interpreter._float,
    b"X": Interpreter._usual_text,  # BINUNICODE
    b"\x8c": Interpreter._short_text,
    b"\x8d": _sized(Interpreter._text, 8),
    b"U": _sized(Interpreter._old_text, 1),  # SHORT_BINSTRING
    b"T": _sized(Interpreter._old_text, 4),
    b"C": _sized(Interpreter._binary, 1),  # SHORT_BINBYTES
    b"B": _sized(Interpreter._binary, 4),
    b"\x8e": _sized(Interpreter._binary, 8),
    b"\x96": _sized(Interpreter._binary, 8),  # BYTEARRAY8
    b"(": Interpreter._mark,
    b"0": Interpreter._pop,
    b"1": Interpreter._pop_to_mark,
    b")": Interpreter._empty_tuple,
    b"\x85": Interpreter._tuple1,
    b"\x86": Interpreter._tuple2,
    b"\x87": Interpreter._tuple3,
    b"t": Interpreter._tuple,
    b"]": Interpreter._empty_list,
    b"a": Interpreter._append,
    b"e": Interpreter._appends,
    b"}": Interpreter._empty_dict,
    b"s": Interpreter._set_item,
    b"u": Interpreter._set_items,
    b"\x8f": Interpreter._empty_list,  # EMPTY_SET
    b"\x90": Interpreter._appends,  # ADDITEMS
    b"\x91": Interpreter._frozen_set,
    b"q": Interpreter._put,
    b"r": Interpreter._long_put,
    b"\x94": Interpreter._memoize,
    b"h": Interpreter._get,
    b"j": Interpreter._long_get,
    b"c": Interpreter._global,
    b"\x93": Interpreter._stack_global,
    b"R": Interpreter._reduce,
    b"\x81": Interpreter._new,
    b"\x92": Interpreter._new_with_keywords,
    b"b": Interpreter._build,
    b"Q": Interpreter._persistent,
}
