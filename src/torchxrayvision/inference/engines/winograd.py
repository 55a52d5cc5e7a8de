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
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.inference.engines.onnxfile import LightModel

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    import onnx
    from numpy.typing import NDArray

# With fewer channels in or out the sums cost more than the products save (docs/speed.md).
LEAST_CHANNELS: Final = 128
# Transformed kernels take four times the memory of the plain ones, 505 MB in PSPNet. With so many
# tiles per image, to transform them in every run costs up to 8 % of a layer; with 64 it was 38 %.
_FEWEST_TILES: Final = 128
# With more in, the transformed kernels and tiles are made for so many at a time, and the products
# added: those of all 2048 of a layer of PSPNet would take 300 MB.
_MOST_CHANNELS: Final = 512
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
_SUMS_OF_KERNEL: Final = np.einsum("ia,jb->ijab", _OF_KERNEL, _OF_KERNEL).reshape(-1, 9)
_OF_PRODUCTS: Final = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


def minimal_filtering(light: LightModel) -> LightModel:
    """A graph with its wide 3 x 3 convolutions by Winograd's method.

    A convolution with holes is one without, on images of every second (third, ...) pixel. Kernels
    of layers with many tiles stay as they are, but for their order, and the graph transforms those
    of a layer when it comes to it; the others are transformed here.

    Args:
        light: Its convolutions with known numbers of rows and columns are written anew where they
            have stride 1, padding that keeps the size, and at least 128 channels in and out. The
            kernels are constants, or parts of constants.

    Returns:
        A graph of the same inputs and outputs, which differ in their last bits.
    """
    import onnx

    layers, proto = _layers(light.proto), onnx.ModelProto()
    proto.CopyFrom(light.proto)
    del proto.graph.node[:]
    kernels, values = _Kernels(light), dict(light.values)
    shared = _Shared(proto.graph.input[0].name)
    for node in light.proto.graph.node:
        layer = layers.get(node.output[0])
        if layer is None:
            proto.graph.node.append(node)
        elif node.op_type == "Conv":
            writer = _Writer(layer.output, shared)
            _write(writer, layer)
            proto.graph.node.extend(writer.nodes)
            proto.graph.initializer.extend(writer.constants)
            for part in writer.kernels:
                proto.graph.initializer.add(name=part.name, data_type=_FLOAT, dims=part.dims)
                values[part.name] = partial(kernels.arranged, layer, part)
    used = {name for node in proto.graph.node for name in node.input}
    used.update(value.name for value in proto.graph.output)
    nodes = [n for n in proto.graph.node if n.op_type != "Slice" or used.intersection(n.output)]
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(kept)
    return LightModel(proto, {name: give for name, give in values.items() if name in used})


@dataclass(frozen=True, slots=True)
class _Part:
    """The kernels of some of the channels that a layer takes, as a constant of their own."""

    name: str
    start: int
    stop: int
    dims: tuple[int, ...]


class _Kernels:
    """The kernels of a graph, or parts of them that it cuts out.

    Args:
        light: The graph.
    """

    def __init__(self, light: LightModel) -> None:
        self._values = light.values
        self._tensors = {tensor.name: tensor for tensor in light.proto.graph.initializer}
        self._cuts = {n.output[0]: n for n in light.proto.graph.node if n.op_type == "Slice"}

    def arranged(self, layer: _Layer, part: _Part) -> memoryview:
        """A plane (K, channels) for each of the nine positions, or as they meet the tiles."""
        kernel = self._plain(layer.kernel)[:, part.start : part.stop]
        planes = np.ascontiguousarray(kernel.transpose(2, 3, 0, 1))
        if not layer.late:
            planes = _SUMS_OF_KERNEL.astype("<f4") @ planes.reshape(9, -1)
        return planes.reshape(-1).view(np.uint8).data

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


def _layers(proto: onnx.ModelProto) -> dict[str, _Layer]:
    """What is written anew, by the results of the nodes that it takes the place of."""
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
    found: dict[str, _Layer] = {}
    for node in proto.graph.node:
        layer = _layer(node, kernels, shapes, rectified)
        if layer is not None:
            found |= dict.fromkeys((node.output[0], layer.output), layer)
    return found


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

    @property
    def late(self) -> bool:
        """Whether the kernels are transformed when the layer runs."""
        side = self.dilation * _RESULTS
        return -(-self.rows // side) * -(-self.columns // side) * self.dilation**2 >= _FEWEST_TILES


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


@dataclass(eq=False)
class _Shared:
    """What the layers of a graph have in common, made where the first of them needs it.

    Args:
        images: Name of the input of the graph.
        made: Names of what was made.
    """

    images: str
    made: dict[str, str] = field(default_factory=dict)


class _Writer:
    """Nodes one after the other, with the names that they need.

    Args:
        name: Begins the names of all.
        shared: Of the graph.

    Attributes:
        nodes: In order.
        constants: That they need, besides the kernels.
        kernels: Parts of the kernels that they need.
    """

    def __init__(self, name: str, shared: _Shared) -> None:
        self._name = name
        self.shared = shared
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.kernels: list[_Part] = []

    def once(self, key: str, make: Callable[[], str]) -> str:
        """The name of what `make` writes, if no layer before has written it."""
        if key not in self.shared.made:
            self.shared.made[key] = make()
        return self.shared.made[key]

    def part(self, start: int, stop: int, *dims: int) -> str:
        """The name of the kernels (*dims, stop - start) of some of the channels."""
        part = _Part(f"{self._name}/kernels{start}", start, stop, (*dims, stop - start))
        self.kernels.append(part)
        return part.name

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
    total = ""
    for start in range(0, layer.inputs, _MOST_CHANNELS):
        stop = min(start + _MOST_CHANNELS, layer.inputs)
        channels, part = stop - start, x
        if channels < layer.inputs:
            ends = (write.constant([end]) for end in (start, stop, 1))
            part = write("Slice", x, *ends)
        part = write(
            "Conv", part, _each(write, "tile", sums, channels), group=channels,
            kernel_shape=[_TILE] * 2, strides=[_RESULTS] * 2, pads=[1, 1, 1 + below, 1 + right],
        )  # fmt: skip
        part = write.reshape(part, 0, channels, points, tiles)
        part = write("Transpose", part, perm=[2, 1, 0, 3])  # (36, C, N, tiles)
        part = write.reshape(part, points, channels, -1)
        if layer.late:
            kernels = write.part(start, stop, 1, 9, layer.outputs)
            kernels = _transformed(write, kernels, layer.outputs, channels)
        else:
            kernels = write.part(start, stop, points, layer.outputs)
        part = write("MatMul", kernels, part)  # (36, K, N * tiles)
        total = write("Add", total, part) if total else part
    total = write.reshape(total, points, layer.outputs, -1, tiles)
    total = write("Transpose", total, perm=[2, 1, 0, 3])
    return write.reshape(total, 0, layer.outputs * points, down, across)


def _transformed(write: _Writer, kernels: str, outputs: int, inputs: int) -> str:
    """Kernels (1, 9, K, C) as they meet the tiles, (36, K, C).

    A convolution whose own kernels are the sums: it reads the constants from where the file is
    mapped, where a product of matrices would keep them in another order as well.
    """
    sums = _SUMS_OF_KERNEL.reshape(-1, 9, 1, 1)

    def known_late() -> str:
        # A runtime would compute once and for all whatever is made of constants alone, and hold
        # the transformed kernels of all layers. So the sums are expanded by the number of images
        # or by 1, whichever is less.
        images = write("Shape", write.shared.images, start=0, end=1)
        return write("Expand", write.constant(sums), write("Min", images, write.constant([1])))

    x = write("Conv", kernels, write.once("kernel", known_late), kernel_shape=[1, 1])
    return write.reshape(x, _TILE * _TILE, outputs, inputs)


def _results(write: _Writer, layer: _Layer, x: str, rows: int, columns: int, output: str) -> str:
    """The products to the results (N, K, H, W)."""
    pixels = _RESULTS * _RESULTS
    sums = np.einsum("pi,qj->pqij", _OF_PRODUCTS, _OF_PRODUCTS).reshape(pixels, -1, 1, 1)
    inputs = [x, _each(write, "products", sums, layer.outputs)]
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


def _each(write: _Writer, what: str, sums: NDArray[Any], channels: int) -> str:
    """The same kernels (F, G, h, w) for each channel, (channels * F, G, h, w)."""

    def make() -> str:
        x = write("Expand", write.constant(sums), write.constant([channels, *sums.shape]))
        return write.reshape(x, channels * len(sums), *sums.shape[1:])

    return write.once(f"{what} of {channels} channels", make)
