"""Wide 3 x 3 convolutions of a graph by minimal filtering, in standard operators.

A tile of 4 x 4 results of a 3 x 3 convolution takes 144 multiplications a pair of channels;
Winograd's F(4 x 4, 3 x 3) takes 36, between sums with small fixed factors before and after. Here
the sums are convolutions of each channel for itself, and the products 36 matrix products. A runtime
is fast at both, where it has no kernel of its own for the method.

S. Winograd, Arithmetic Complexity of Computations (1980); A. Lavin and S. Gray, Fast Algorithms
for Convolutional Neural Networks, CVPR 2016, arXiv:1509.09308, whose matrices these are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.inference.engines.onnxfile import LightModel

if TYPE_CHECKING:
    from collections.abc import Container

    import onnx
    from numpy.typing import NDArray

# With fewer channels in or out the sums cost more than the products save (docs/speed.md).
LEAST_CHANNELS: Final = 128
_FLOAT: Final = 1  # float32 in a graph
_RESULTS: Final = 4  # side of a tile of results
_TILE: Final = 6  # and of what it is computed from
_OF_TILE: Final = np.array([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
])  # fmt: skip
_OF_KERNEL: Final = np.array(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
) / 24  # fmt: skip
_OF_PRODUCTS: Final = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


def minimal_filtering(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with its wide 3 x 3 convolutions by Winograd's method.

    A convolution with holes is one without, on images of every second (third, ...) pixel. The
    kernels are transformed by operators as well, so that the graph stays as small as it is; see
    `with_kernels`.

    Args:
        proto: Its convolutions with known numbers of rows and columns are written anew where they
            have stride 1, padding that keeps the size, and at least 128 channels in and out.

    Returns:
        A graph of the same inputs and outputs, which differ in their last bits.
    """
    return _filtered(proto)[0]


def with_kernels(light: LightModel) -> LightModel:
    """The same, with the transformed kernels in four times the memory of the plain ones.

    A runtime that transforms them when it loads the graph holds all three at that time: the plain
    ones, what it made of them, and its own copy. Here they are made while the file is written, one
    after the other.

    Args:
        light: See `minimal_filtering`; the kernels are among its values, or parts of those.
    """
    proto, chains = _filtered(light.proto)
    kernels = _Kernels(light)
    values = dict(light.values)
    replaced = {name for chain in chains for name in chain.nodes}
    nodes = [node for node in proto.graph.node if node.output[0] not in replaced]
    for chain in chains:
        layer = chain.layer
        shape = [_TILE * _TILE, layer.outputs, layer.inputs]
        proto.graph.initializer.add(name=chain.nodes[-1], data_type=_FLOAT, dims=shape)
        values[chain.nodes[-1]] = partial(kernels.transformed, layer.kernel)
    used = {name for node in nodes for name in node.input}
    used.update(value.name for value in proto.graph.output)
    nodes = [node for node in nodes if node.op_type != "Slice" or used.intersection(node.output)]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(kept)
    return LightModel(proto, {name: give for name, give in values.items() if name in used})


class _Kernels:
    """The kernels of a graph, or parts of them that it cuts out.

    Args:
        light: The graph.
    """

    def __init__(self, light: LightModel) -> None:
        self._values = light.values
        self._tensors = {tensor.name: tensor for tensor in light.proto.graph.initializer}
        self._cuts = {n.output[0]: n for n in light.proto.graph.node if n.op_type == "Slice"}

    def transformed(self, name: str) -> memoryview:
        """As they meet the tiles, (36, K, C)."""
        kernel = self._plain(name)
        by_position = kernel.transpose(2, 3, 0, 1).reshape(9, -1)
        sums = np.einsum("ia,jb->ijab", _OF_KERNEL, _OF_KERNEL).reshape(-1, 9)
        made: NDArray[np.float32] = sums.astype("<f4") @ by_position
        return made.reshape(-1).view(np.uint8).data

    def _plain(self, name: str) -> NDArray[np.float32]:
        from onnx import numpy_helper

        if name in self._cuts:
            source, *arguments = self._cuts[name].input
            starts, ends, axes, steps = (
                numpy_helper.to_array(self._tensors[argument]) for argument in arguments
            )
            whole = self._plain(source)
            cut = [slice(None)] * whole.ndim
            for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
                cut[axis] = slice(start, end, step)
            return whole[tuple(cut)]
        tensor = self._tensors[name]
        if name not in self._values:
            return np.asarray(numpy_helper.to_array(tensor), np.float32)
        return np.frombuffer(self._values[name](), "<f4").reshape(tensor.dims)


@dataclass(frozen=True, slots=True)
class _Chain:
    """The operators that transform the kernels of a layer, by their results, the last one last."""

    layer: _Layer
    nodes: tuple[str, ...]


def _filtered(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[_Chain]]:
    import onnx
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(proto, data_prop=True).graph
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input)
    }
    kernels = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:  # a part of one is one as well
        if _cuts_kernel(node, kernels):
            kernels[node.output[0]] = shapes.get(node.output[0], [])
    rectified = _rectified(proto.graph)
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    del changed.graph.node[:]
    done, chains = set(), []
    for node in proto.graph.node:
        layer = _layer(node, kernels, shapes, rectified)
        if layer is not None:
            writer = _Writer(layer.output)
            _write(writer, layer)
            changed.graph.node.extend(writer.nodes)
            changed.graph.initializer.extend(writer.constants)
            chains.append(_Chain(layer, writer.of_kernels))
            done.add(layer.output)
        elif not done.intersection(node.output):
            changed.graph.node.append(node)
    return changed, chains


def _cuts_kernel(node: onnx.NodeProto, known: Container[str]) -> bool:
    """Whether a node cuts a constant part out of a constant."""
    return (
        node.op_type == "Slice"
        and len(node.input) == 5
        and all(name in known for name in node.input)
    )


def _rectified(graph: onnx.GraphProto) -> dict[str, str]:
    """Values that nothing but a rectification uses, and what comes of them."""
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    return {
        node.input[0]: node.output[0]
        for node in graph.node
        if node.op_type == "Relu" and uses[node.input[0]] == 1
    }


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution that is written anew, with the rectification that follows it."""

    input: str
    kernel: str
    bias: str | None
    output: str
    inputs: int
    outputs: int
    rows: int
    columns: int
    dilation: int
    rectify: bool


def _layer(
    node: onnx.NodeProto,
    kernels: dict[str, list[int]],
    shapes: dict[str, list[int]],
    rectified: dict[str, str],
) -> _Layer | None:
    """What a node is, if it is a convolution that gains."""
    from onnx.helper import get_attribute_value

    if node.op_type != "Conv" or len(kernels.get(node.input[1], ())) != 4:
        return None
    given: dict[str, Any] = {a.name: get_attribute_value(a) for a in node.attribute}
    outputs, inputs, *sides = kernels[node.input[1]]
    dilation = max(given.get("dilations", [1]))
    kept = {
        "auto_pad": b"NOTSET", "group": 1, "strides": [1, 1], "dilations": [dilation] * 2,
        "pads": [dilation] * 4,
    }  # fmt: skip
    defaults = {**kept, "pads": [0] * 4, "dilations": [1] * 2}
    if sides != [3, 3] or min(inputs, outputs) < LEAST_CHANNELS:
        return None
    if any(given.get(name, defaults[name]) != value for name, value in kept.items()):
        return None
    *_, rows, columns = shapes.get(node.input[0], [0, 0])
    if not rows or not columns or rows % dilation or columns % dilation:
        return None
    bias = node.input[2] if len(node.input) > 2 else None
    output = node.output[0]
    return _Layer(
        node.input[0], node.input[1], bias, rectified.get(output, output), inputs, outputs,
        rows, columns, dilation, output in rectified,
    )  # fmt: skip


class _Writer:
    """Nodes one after the other, with the names that they need.

    Args:
        name: Begins the names of all.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.of_kernels: tuple[str, ...] = ()

    def constant(self, values: NDArray[Any] | list[int]) -> str:
        """The name of a constant, float32 if it is an array and else int64."""
        from onnx import numpy_helper

        kind = np.float32 if isinstance(values, np.ndarray) else np.int64
        name = f"{self._name}/constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of what an operator gives."""
        from onnx import helper

        name = output or f"{self._name}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def reshape(self, values: str, *shape: int) -> str:
        """The same values in another shape; 0 keeps a size, -1 takes what is left."""
        return self("Reshape", values, self.constant(list(shape)))


def _write(write: _Writer, layer: _Layer) -> None:
    """The nodes of a layer; comments give the shapes, N being the images."""
    holes, outputs = layer.dilation, layer.outputs
    rows, columns = layer.rows // holes, layer.columns // holes
    x = layer.input
    if holes > 1:
        x = write("SpaceToDepth", x, blocksize=holes)
        x = write.reshape(x, -1, layer.inputs, rows, columns)  # (N * holes^2, C, H, W)
    x = _products(write, layer, x, rows, columns)
    last = layer.output if holes == 1 else ""
    x = _results(write, layer, x, rows, columns, last)
    if holes > 1:
        x = write.reshape(x, -1, holes * holes * outputs, rows, columns)
        write("DepthToSpace", x, blocksize=holes, mode="DCR", output=layer.output)


def _products(write: _Writer, layer: _Layer, x: str, rows: int, columns: int) -> str:
    """(N, C, H, W) to the products (N, K * 36, tiles down, tiles across)."""
    down, across = -(-rows // _RESULTS), -(-columns // _RESULTS)
    points, tiles = _TILE * _TILE, down * across
    below, right = down * _RESULTS - rows, across * _RESULTS - columns
    sums = np.einsum("ia,jb->ijab", _OF_TILE, _OF_TILE).reshape(points, 1, _TILE, _TILE)
    x = write(
        "Conv", x, _each(write, sums, layer.inputs), group=layer.inputs, kernel_shape=[_TILE] * 2,
        strides=[_RESULTS] * 2, pads=[1, 1, 1 + below, 1 + right],
    )  # fmt: skip
    x = write.reshape(x, 0, layer.inputs, points, tiles)
    x = write("Transpose", x, perm=[2, 1, 0, 3])  # (36, C, N, tiles)
    x = write.reshape(x, points, layer.inputs, -1)
    x = write("MatMul", _kernels(write, layer), x)  # (36, K, N * tiles)
    x = write.reshape(x, points, layer.outputs, -1, tiles)
    x = write("Transpose", x, perm=[2, 1, 0, 3])
    return write.reshape(x, 0, layer.outputs * points, down, across)


def _kernels(write: _Writer, layer: _Layer) -> str:
    """The kernels (K, C, 3, 3) as they meet the tiles, (36, K, C)."""
    before = len(write.nodes)
    sums = np.einsum("ia,jb->ijab", _OF_KERNEL, _OF_KERNEL).reshape(-1, 9)
    x = write("Transpose", layer.kernel, perm=[2, 3, 0, 1])
    x = write.reshape(x, 9, layer.outputs * layer.inputs)
    x = write("MatMul", write.constant(sums), x)
    x = write.reshape(x, _TILE * _TILE, layer.outputs, layer.inputs)
    write.of_kernels = tuple(node.output[0] for node in write.nodes[before:])
    return x


def _results(write: _Writer, layer: _Layer, x: str, rows: int, columns: int, output: str) -> str:
    """The products to the results (N, K, H, W)."""
    pixels = _RESULTS * _RESULTS
    sums = np.einsum("pi,qj->pqij", _OF_PRODUCTS, _OF_PRODUCTS).reshape(pixels, -1, 1, 1)
    inputs = [x, _each(write, sums, layer.outputs)]
    if layer.bias is not None:
        bias = write.reshape(layer.bias, layer.outputs, 1)
        bias = write("Expand", bias, write.constant([layer.outputs, pixels]))
        inputs.append(write.reshape(bias, layer.outputs * pixels))
    x = write("Conv", *inputs, group=layer.outputs, kernel_shape=[1, 1])
    if layer.rectify:  # before the pixels are put in place, so that it is one with the sums
        x = write("Relu", x)
    whole = rows % _RESULTS == 0 and columns % _RESULTS == 0
    x = write("DepthToSpace", x, blocksize=_RESULTS, mode="CRD", output=output if whole else "")
    if whole:
        return x
    ends = write.constant([rows, columns])
    return write("Slice", x, write.constant([0, 0]), ends, write.constant([2, 3]), output=output)


def _each(write: _Writer, sums: NDArray[Any], channels: int) -> str:
    """The same kernels (F, G, h, w) for each channel, (channels * F, G, h, w)."""
    x = write("Expand", write.constant(sums), write.constant([channels, *sums.shape]))
    return write.reshape(x, channels * len(sums), *sums.shape[1:])
