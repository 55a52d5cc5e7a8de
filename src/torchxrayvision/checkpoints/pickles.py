"""A reader of object streams (pickle protocols 2 to 5) that can only build inert values.

This is not an ``Unpickler`` with a guarded ``find_class``: it knows no import, no call and
no attribute. Numbers, strings, tuples, lists and dicts become themselves; all else becomes
one of the inert values of `values`. The opcodes are those that picklers of protocol 2 and
later emit, in Python and in TorchScript's C++ writer; any other ends the reading.
Opcodes: https://github.com/python/cpython/blob/3.11/Lib/pickletools.py
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from torchxrayvision.checkpoints.values import (
    CONSTRUCTORS,
    GlobalRef,
    InertObject,
    Limits,
    OtherKey,
    Storage,
    Unreadable,
    storage_from,
)

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable

_MAX_INTEGER_BYTES = 64
_MAX_NAME_BYTES = 1024
_SAFE_INTEGER = 1 << 60  # below it, different integers have different hashes
_SCALARS = {str, float, bool, bytes, type(None)}
_MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "builtins.dict"}
_CUT_SHORT = "the object stream is cut short"


class Interpreter:
    """Reads one object stream after another from a file.

    A short read of an argument is not looked for where it happens: the next opcode is then
    missing, and that ends the reading. Lengths are checked before anything is read by them. The
    limits hold for all streams of the file together; `names` counts every global that is mentioned.
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

    def _integer(self, count: int, *, signed: bool = False) -> None:
        self._stack.append(int.from_bytes(self._read(count), "little", signed=signed))

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

    def _put(self, count: int) -> None:
        self._memo[int.from_bytes(self._read(count), "little")] = self._stack[-1]

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, count: int) -> None:
        self._stack.append(self._memo[int.from_bytes(self._read(count), "little")])

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


_OPERATIONS: dict[bytes, Callable[[Interpreter], object]] = {
    b"\x80": Interpreter._protocol,
    b"\x95": Interpreter._frame,
    b"N": lambda machine: machine._stack.append(None),
    b"\x88": lambda machine: machine._stack.append(True),
    b"\x89": lambda machine: machine._stack.append(False),
    b"K": partial(Interpreter._integer, count=1),  # BININT1
    b"M": partial(Interpreter._integer, count=2),  # BININT2
    b"J": partial(Interpreter._integer, count=4, signed=True),  # BININT
    b"\x8a": _sized(Interpreter._long, 1),
    b"\x8b": _sized(Interpreter._long, 4),
    b"G": Interpreter._float,
    b"X": _sized(Interpreter._text, 4),  # BINUNICODE
    b"\x8c": _sized(Interpreter._text, 1),
    b"\x8d": _sized(Interpreter._text, 8),
    b"U": _sized(Interpreter._old_text, 1),  # SHORT_BINSTRING
    b"T": _sized(Interpreter._old_text, 4),
    b"C": _sized(Interpreter._binary, 1),  # SHORT_BINBYTES
    b"B": _sized(Interpreter._binary, 4),
    b"\x8e": _sized(Interpreter._binary, 8),
    b"\x96": _sized(Interpreter._binary, 8),  # BYTEARRAY8
    b"(": Interpreter._mark,
    b"0": Interpreter._pop,
    b"1": Interpreter._to_mark,
    b")": lambda machine: machine._stack.append(()),
    b"\x85": Interpreter._tuple1,
    b"\x86": Interpreter._tuple2,
    b"\x87": Interpreter._tuple3,
    b"t": Interpreter._tuple,
    b"]": lambda machine: machine._stack.append([]),
    b"a": Interpreter._append,
    b"e": Interpreter._appends,
    b"}": lambda machine: machine._stack.append({}),
    b"s": Interpreter._set_item,
    b"u": Interpreter._set_items,
    b"\x8f": lambda machine: machine._stack.append([]),  # EMPTY_SET
    b"\x90": Interpreter._appends,  # ADDITEMS
    b"\x91": Interpreter._frozen_set,
    b"q": partial(Interpreter._put, count=1),
    b"r": partial(Interpreter._put, count=4),
    b"\x94": Interpreter._memoize,
    b"h": partial(Interpreter._get, count=1),
    b"j": partial(Interpreter._get, count=4),
    b"c": Interpreter._global,
    b"\x93": Interpreter._stack_global,
    b"R": Interpreter._reduce,
    b"\x81": Interpreter._new,
    b"\x92": Interpreter._new_with_keywords,
    b"b": Interpreter._build,
    b"Q": Interpreter._persistent,
}
