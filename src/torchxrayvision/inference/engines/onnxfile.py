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
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import onnx_ir

Values = Callable[[], memoryview]

LARGE: Final = 1 << 16
"""Bytes of a tensor from which on its values are kept apart."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how a field of a message is stored


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
        from onnx import GraphProto, ModelProto, TensorProto

        head, bare = ModelProto(), GraphProto()
        head.CopyFrom(self.proto)
        head.ClearField("graph")
        bare.CopyFrom(self.proto.graph)
        del bare.initializer[:]
        parts: list[tuple[bytes, Values | None]] = []
        length = bare.ByteSize()
        for tensor in self.proto.graph.initializer:
            about, values = tensor.SerializeToString(), self.values.get(tensor.name)
            size = 0 if values is None else _size_of(tensor)
            if values is not None:
                about += _key(TensorProto.RAW_DATA_FIELD_NUMBER) + _varint(size)
            begun = _key(GraphProto.INITIALIZER_FIELD_NUMBER) + _varint(len(about) + size) + about
            parts.append((begun, values))
            length += len(begun) + size
        with path.open("wb") as file:
            file.write(head.SerializeToString())
            file.write(_key(ModelProto.GRAPH_FIELD_NUMBER) + _varint(length))
            file.write(bare.SerializeToString())
            for begun, values in parts:
                file.write(begun)
                if values is not None:
                    file.write(values())


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
    """
    from onnx import GraphProto, ModelProto, TensorProto

    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    values: dict[str, Values] = {}

    def tensor(content: memoryview) -> bytes:
        kept, found = b"", None
        for number, whole, inner in _fields(content):
            if number == TensorProto.RAW_DATA_FIELD_NUMBER:
                found = inner
            else:
                kept += bytes(whole)
        if found is None or found.nbytes < LARGE:
            return bytes(content)
        values[TensorProto.FromString(kept).name] = lambda: found
        return kept

    def graph(content: memoryview) -> bytes:
        parts = []
        for number, whole, inner in _fields(content):
            wanted = number == GraphProto.INITIALIZER_FIELD_NUMBER
            parts.append(_message(number, tensor(inner)) if wanted else bytes(whole))
        return b"".join(parts)

    parts = []
    for number, whole, inner in _fields(data):
        wanted = number == ModelProto.GRAPH_FIELD_NUMBER
        parts.append(_message(number, graph(inner)) if wanted else bytes(whole))
    return LightModel(ModelProto.FromString(b"".join(parts)), values)


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
