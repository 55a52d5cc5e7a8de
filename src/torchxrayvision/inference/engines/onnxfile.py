"""ONNX files whose weights go from where they are to the disk, without a copy in memory.

A message of protocol buffers holds the weights, its serialised bytes hold them again, and so does
every copy that is changed. Here the messages are light: the values of large tensors stay in the
network, or in the file that they came from, and are written after the graph that names them.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import onnx_ir

Values = Callable[[], memoryview]

LARGE: Final = 1 << 16
"""Bytes of a tensor from which on its values are kept apart."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how a field of a message is stored
# Numbers of fields in ONNX: of a model, of a graph, and of a tensor.
_GRAPH: Final = 7
_INITIALIZER: Final = 5
_DATA_TYPE, _NAME, _RAW_DATA, _DOC_STRING = 2, 8, 9, 12
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_EXTERNAL: Final = 1  # a location
_KINDS: Final = (1, 7)  # of tensors that are mapped: float32 and int64
_ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class LightModel:
    """A graph, and beside it the values of its large tensors.

    Args:
        proto: The graph; its large tensors have name, type and shape, and no values.
        values: Name of each large tensor to a function that gives its bytes.
    """

    proto: onnx.ModelProto
    values: Mapping[str, Values]

    def write(self, path: Path) -> None:
        """Write the graph as any program reads it, with its tensors in the same file.

        Args:
            path: Replaced if it exists.
        """
        from onnx import GraphProto, ModelProto

        head, bare = ModelProto(), GraphProto()
        head.CopyFrom(self.proto)
        head.ClearField("graph")
        bare.CopyFrom(self.proto.graph)
        del bare.initializer[:]
        first, graph = head.SerializeToString(), bare.SerializeToString()
        tensors = [_Stored.of(t, self.values.get(t.name)) for t in self.proto.graph.initializer]
        length = len(graph) + sum(stored.length for stored in tensors)
        with path.open("wb") as file:
            file.write(first + _key(_GRAPH) + _varint(length) + graph)
            for stored in tensors:
                stored.write(file)


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """A tensor as it is written: of a large one the values come last, at a place that is aligned.

    Args:
        about: What is said of it.
        size: Bytes of the values that are kept apart.
        values: Gives them, if there are any.
    """

    about: bytes
    size: int
    values: Values | None

    @classmethod
    def of(cls, tensor: onnx.TensorProto, values: Values | None) -> _Stored:
        size = 0 if values is None else _size_of(tensor)
        return cls(tensor.SerializeToString(), size, values)

    @property
    def _inside(self) -> int:
        """Bytes of the message, wherever it lies."""
        if self.values is None:
            return len(self.about)
        blanks = 2 * len(_blanks(0)) + _ALIGNMENT
        return len(self.about) + len(_key(_RAW_DATA) + _varint(self.size)) + self.size + blanks

    @property
    def length(self) -> int:
        """Bytes that it takes up in its graph."""
        return len(_key(_INITIALIZER) + _varint(self._inside)) + self._inside

    def write(self, file: BinaryIO) -> None:
        """Write it where the file is."""
        file.write(_key(_INITIALIZER) + _varint(self._inside) + self.about)
        if self.values is None:
            return
        begun = _key(_RAW_DATA) + _varint(self.size)
        # Comments of blanks before and after, as many in all wherever the tensor lies.
        before = -(file.tell() + len(_blanks(0)) + len(begun)) % _ALIGNMENT
        file.write(_blanks(before) + begun)
        file.write(self.values())
        file.write(_blanks(_ALIGNMENT - before))


def _blanks(count: int) -> bytes:
    return _message(_DOC_STRING, b" " * count)


def _size_of(tensor: onnx.TensorProto) -> int:
    from onnx.helper import tensor_dtype_to_np_dtype

    item: int = tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    count: int = math.prod(tensor.dims)
    return count * item


def lighten(model: onnx_ir.Model) -> LightModel:
    """A graph that torch converted, without a copy of its weights.

    Args:
        model: Loses the values of its large tensors.
    """
    import onnx_ir

    values: dict[str, Values] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < LARGE:
            continue
        values[name] = _bytes_of(tensor)
        value.const_value = onnx_ir.ExternalTensor(
            "", None, None, tensor.dtype, shape=onnx_ir.Shape(tensor.shape.numpy()), name=name
        )
    proto = onnx_ir.to_proto(model)
    for written in proto.graph.initializer:
        if written.name in values:
            written.ClearField("external_data")
            written.ClearField("data_location")
    return LightModel(proto, values)


def _bytes_of(tensor: onnx_ir.TensorProtocol) -> Values:
    def values() -> memoryview:
        array = np.ascontiguousarray(tensor.numpy())
        stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return stored.reshape(-1).view(np.uint8).data

    return values


def read_light(path: Path) -> LightModel:
    """A graph whose large tensors stay in its file.

    Args:
        path: A whole ONNX file with its tensors in it; it must stay as it is meanwhile.

    Raises:
        ValueError: If it is none.
    """
    from onnx import ModelProto

    values: dict[str, Values] = {}

    def leave(about: _About, stored: memoryview) -> bytes:
        values[about.name] = lambda: stored
        return about.message

    return LightModel(ModelProto.FromString(_without_tensors(_mapped(path), leave)), values)


def mapped_graph(path: Path) -> bytes:
    """A graph that says of its large tensors where they lie in its own file.

    A runtime maps them from there, where it would hold two more copies of what it reads in one
    piece. Needs no package but NumPy.

    Args:
        path: A whole ONNX file with its tensors in it, without links in its path. It must not be
            written to while a runtime has it open; to put another in its place is no harm.

    Returns:
        The graph, to be loaded with the folder of the file for what is outside it.

    Raises:
        ValueError: If it is none.
    """
    file = _mapped(path)
    begun = _address(memoryview(file))

    def leave(about: _About, stored: memoryview) -> bytes:
        offset = _address(stored) - begun
        if about.kind not in _KINDS or offset % _ALIGNMENT:
            return about.message + _message(_RAW_DATA, bytes(stored))
        where = {"location": path.name, "offset": str(offset), "length": str(len(stored))}
        entries = (
            _message(1, key.encode()) + _message(2, value.encode()) for key, value in where.items()
        )
        elsewhere = b"".join(_message(_EXTERNAL_DATA, entry) for entry in entries)
        return about.message + elsewhere + _varint(_DATA_LOCATION << 3) + _varint(_EXTERNAL)

    return _without_tensors(file, leave)


def _address(part: memoryview) -> int:
    return np.frombuffer(part, np.uint8).ctypes.data


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True, slots=True)
class _About:
    """A tensor without its values.

    Args:
        message: What the file says of it.
        name: Its name.
        kind: Number of its type.
    """

    message: bytes
    name: str
    kind: int


def _without_tensors(file: mmap.mmap, leave: Callable[[_About, memoryview], bytes]) -> bytes:
    """The message in a file, with what is to be said of each large tensor in its place."""
    parts = []
    for number, whole, inner in _fields(memoryview(file)):
        if number != _GRAPH:
            parts.append(bytes(whole))
            continue
        within = []
        for field, all_of_it, content in _fields(inner):
            if field == _INITIALIZER and len(content) >= LARGE:
                within.append(_message(field, _tensor(content, leave)))
            else:
                within.append(bytes(all_of_it))
        parts.append(_message(number, b"".join(within)))
    return b"".join(parts)


def _tensor(content: memoryview, leave: Callable[[_About, memoryview], bytes]) -> bytes:
    kept, name, kind = b"", "", 0
    stored: memoryview | None = None
    for number, whole, inner in _fields(content):
        if number == _RAW_DATA:
            stored = inner
            continue
        if number == _DOC_STRING:  # what aligns the values in their file
            continue
        kept += bytes(whole)
        if number == _NAME:
            name = str(inner, "utf-8")
        elif number == _DATA_TYPE:
            kind = _read_varint(whole, 1)[0]
    if stored is None or len(stored) < LARGE:
        return bytes(content)
    return leave(_About(kept, name, kind), stored)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Number, all bytes and content of each field; the content of numbers is empty."""
    at = 0
    while at < len(message):
        begun = at
        key, at = _read_varint(message, at)
        inside, kind = at, key & 7
        if kind == _VARINT:
            _, at = _read_varint(message, at)
            inside = at
        elif kind == _BYTES:
            size, inside = _read_varint(message, at)
            at = inside + size
        elif kind in (_FIXED32, _FIXED64):
            at = inside = at + (4 if kind == _FIXED32 else 8)
        else:
            msg = f"field {key >> 3} of a message is stored in an unknown way ({kind})"
            raise ValueError(msg)
        yield key >> 3, message[begun:at], message[inside:at]


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _key(number: int) -> bytes:
    return _varint(number << 3 | _BYTES)


def _message(number: int, content: bytes) -> bytes:
    return _key(number) + _varint(len(content)) + content
