"""Convolutions by Winograd's method: the same numbers, and only where it applies."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from torchxrayvision.inference.engines import onnxfile
from torchxrayvision.inference.engines import winograd as _winograd
from torchxrayvision.inference.engines.base import has_wide_convolutions
from torchxrayvision.inference.engines.onnxfile import LightModel, read_light
from torchxrayvision.inference.engines.winograd import minimal_filtering

CHANNELS, FILTERS = 5, 6


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    """So that small tensors will do; eight tiles are many."""
    monkeypatch.setattr(_winograd, "LEAST_CHANNELS", CHANNELS)
    monkeypatch.setattr(_winograd, "_FEWEST_TILES", 8)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def graph(
    rows, columns, *, kernel=(3, 3), bias=True, then=("Relu",), inputs=CHANNELS, **attributes
):
    """A convolution and what follows it, each operator taking the convolution's result."""
    weights = numbers(FILTERS, inputs // attributes.get("group", 1), *kernel, seed=1)
    constants = [numpy_helper.from_array(weights, "weight")]
    if bias:
        constants.append(numpy_helper.from_array(numbers(FILTERS, seed=2), "bias"))
    names = ["x", *(constant.name for constant in constants)]
    nodes = [helper.make_node("Conv", names, ["y"], **attributes)]
    nodes += [helper.make_node(operator, ["y"], [operator]) for operator in then]
    outputs = then or ("y",)
    return helper.make_model(
        helper.make_graph(
            nodes,
            "layer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", inputs, rows, columns])],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, list("nfhw")) for o in outputs],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )


def filtered(proto):
    """The graph by the method, with all its values in it."""
    light = minimal_filtering(LightModel(proto, {}))
    for tensor in light.proto.graph.initializer:
        if tensor.name in light.values:
            tensor.raw_data = bytes(light.values[tensor.name]())
    return light.proto


def operators(proto):
    return [node.op_type for node in proto.graph.node]


def run(proto, x):
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("then", [("Relu",), ()])
@pytest.mark.parametrize(
    ("rows", "columns", "holes"),
    [(8, 12, 1), (7, 14, 1), (3, 1, 1), (16, 8, 2), (10, 14, 2), (8, 8, 2)],
)
def test_the_numbers_are_those_of_the_convolution(rows, columns, holes, then, bias, count):
    padded = {"pads": [holes] * 4, "dilations": [holes] * 2}
    proto = filtered(graph(rows, columns, bias=bias, then=then, **padded))
    assert "MatMul" in operators(proto)
    x = numbers(count, CHANNELS, rows, columns)
    expected = functional.conv2d(
        torch.from_numpy(x).double(),
        torch.from_numpy(numbers(FILTERS, CHANNELS, 3, 3, seed=1)).double(),
        torch.from_numpy(numbers(FILTERS, seed=2)).double() if bias else None,
        padding=holes,
        dilation=holes,
    )
    (found,) = run(proto, x)
    np.testing.assert_allclose(found, expected.relu() if then else expected, atol=1e-4)


@pytest.mark.parametrize(
    "other",
    [
        {"pads": [1] * 4, "strides": [2, 2]},
        {"pads": [0] * 4},
        {},
        {"pads": [2] * 4, "kernel": (5, 5)},
        {"pads": [1] * 4, "inputs": CHANNELS - 1},
        {"pads": [1] * 4, "inputs": 6, "group": 2},
        {"pads": [2] * 4, "dilations": [2, 2], "rows": 9},
        {"pads": [2, 1, 2, 1], "dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"pads": [1] * 4, "rows": "unknown"},
    ],
)
def test_other_convolutions_stay_as_they_are(other):
    proto = graph(**{"rows": 8, "columns": 8, **other})
    assert operators(filtered(proto)) == ["Conv", "Relu"]


def test_a_result_that_others_use_is_not_rectified_for_them():
    proto = graph(8, 8, then=("Relu", "Neg"), pads=[1] * 4)
    x = numbers(1, CHANNELS, 8, 8)
    for expected, found in zip(run(proto, x), run(filtered(proto), x), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_graph_that_was_given_stays_and_the_new_one_is_hardly_larger(monkeypatch):
    monkeypatch.setattr(f"{__name__}.FILTERS", 300)
    proto = graph(16, 8, inputs=300, pads=[1] * 4)
    before = proto.SerializeToString()
    assert filtered(proto).ByteSize() < len(before) + 20_000
    assert proto.SerializeToString() == before


@pytest.mark.parametrize(
    ("layer", "wide"),
    [
        (nn.Conv2d(5, 6, 3), True),
        (nn.Conv2d(5, 6, 3, dilation=2), True),
        (nn.Conv2d(4, 6, 3), False),
        (nn.Conv2d(6, 6, 3, groups=2), False),
        (nn.Conv2d(6, 6, 3, stride=2), False),
        (nn.Conv2d(6, 6, 1), False),
    ],
)
def test_networks_with_such_layers_are_known_before_they_are_converted(layer, wide):
    assert has_wide_convolutions(nn.Sequential(nn.Conv2d(1, 5, 3), layer)) == wide


@pytest.mark.parametrize("rows", [8, 16])
def test_channels_go_through_in_parts_and_are_added(monkeypatch, rows):
    """Of five channels two, two and one."""
    monkeypatch.setattr(_winograd, "_MOST_CHANNELS", 2)
    proto = graph(rows, 12, pads=[1] * 4)
    changed = filtered(proto)
    assert operators(changed).count("MatMul") == 3
    sizes = [tensor.dims[-1] for tensor in changed.graph.initializer if "/kernels" in tensor.name]
    assert sizes == [2, 2, 1]
    x = numbers(2, CHANNELS, rows, 12)
    np.testing.assert_allclose(run(changed, x)[0], run(proto, x)[0], atol=1e-4)


@pytest.mark.parametrize(("side", "late"), [(16, True), (8, False)])
def test_a_runtime_transforms_the_kernels_of_many_tiles_late(tmp_path, side, late):
    """Transformed ones of all layers took half a gigabyte in PSPNet."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    changed = filtered(graph(side, side, pads=[1] * 4))
    onnxruntime.InferenceSession(
        changed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kept = onnx.load(tmp_path / "optimised.onnx").graph.initializer
    sizes = {int(np.prod(tensor.dims)) for tensor in kept}
    assert (9 * FILTERS * CHANNELS in sizes) == late
    assert (36 * FILTERS * CHANNELS in sizes) == (not late)


def test_layers_of_one_width_share_their_sums():
    proto = graph(16, 12, pads=[1] * 4, inputs=FILTERS)
    proto.graph.node[1].output[0] = "rectified"
    proto.graph.node.append(
        helper.make_node("Conv", ["rectified", "weight"], ["Relu"], pads=[1] * 4)
    )
    changed = filtered(proto)
    assert operators(changed).count("MatMul") == 2
    assert operators(changed).count("Expand") == 4  # of tiles, products, kernels, and one bias
    x = numbers(2, FILTERS, 16, 12)
    np.testing.assert_allclose(run(changed, x)[0], run(proto, x)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("part", [True, False])
def test_kernels_come_from_the_file_or_are_cut_out_of_what_is_there(
    tmp_path, part, apart, monkeypatch
):
    """Also those that the graph cuts out of a larger tensor, which is then left out."""
    monkeypatch.setattr(onnxfile, "LARGE", 100 if apart else 1 << 30)
    proto = graph(8, 12, pads=[1] * 4)
    if part:
        whole = numbers(FILTERS, CHANNELS + 2, 3, 3, seed=3)
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(whole, "whole"))
        ends = {"start": 2, "end": CHANNELS + 2, "axis": 1, "step": 1}
        cut = [numpy_helper.from_array(np.array([value]), name) for name, value in ends.items()]
        proto.graph.initializer.extend(cut)
        names = ["whole", *(tensor.name for tensor in cut)]
        proto.graph.node.insert(0, helper.make_node("Slice", names, ["weight"]))
    x = numbers(2, CHANNELS, 8, 12)
    (expected,) = run(proto, x)
    (tmp_path / "plain.onnx").write_bytes(proto.SerializeToString())
    light = minimal_filtering(read_light(tmp_path / "plain.onnx"))
    light.write(tmp_path / "changed.onnx")
    found = onnx.load(tmp_path / "changed.onnx")
    assert operators(found).count("MatMul") == 1
    assert "Slice" not in operators(found)
    assert "whole" not in {tensor.name for tensor in found.graph.initializer}
    np.testing.assert_allclose(run(found, x)[0], expected, atol=1e-4)
