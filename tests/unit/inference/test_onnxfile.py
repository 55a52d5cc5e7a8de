"""Graphs whose large tensors stay where they are: the same files, without copies."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from torchxrayvision.inference.engines import onnxfile, runtime
from torchxrayvision.inference.engines.onnxfile import LARGE, LightModel, mapped_graph, read_light

SIDE = 256  # of a matrix with four times `LARGE` bytes


def model():
    """Two large tensors, a small one, and fields on both sides of the graph."""
    rng = np.random.default_rng(0)
    large = [rng.random((SIDE, SIDE)).astype(np.float32) for _ in range(2)]
    small = np.arange(4, dtype=np.int64)
    tensors = [numpy_helper.from_array(large[0], "a"), numpy_helper.from_array(small, "small"),
               numpy_helper.from_array(large[1], "b")]  # fmt: skip
    nodes = [helper.make_node("MatMul", ["x", "a"], ["y"]),
             helper.make_node("MatMul", ["y", "b"], ["z"])]  # fmt: skip
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, SIDE]) for n in "xz"]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    entry = made.metadata_props.add()
    entry.key, entry.value = "torchxrayvision", "facts"
    return made


def test_a_file_is_read_without_its_tensors_and_written_whole(tmp_path):
    expected = model()
    (tmp_path / "given.onnx").write_bytes(expected.SerializeToString())
    light = read_light(tmp_path / "given.onnx")
    assert set(light.values) == {"a", "b"}
    assert light.proto.ByteSize() < 1000
    light.write(tmp_path / "written.onnx")
    found = onnx.load(tmp_path / "written.onnx")
    onnx.checker.check_model(found)
    for tensor in found.graph.initializer:
        assert tensor.doc_string.strip() == ""
        tensor.ClearField("doc_string")
    assert found == expected


def test_tensors_are_found_where_they_lie_in_the_file(tmp_path):
    path = tmp_path / "given.onnx"
    (tmp_path / "plain.onnx").write_bytes(model().SerializeToString())
    read_light(tmp_path / "plain.onnx").write(path)
    content = path.read_bytes()
    graph = onnx.ModelProto.FromString(mapped_graph(path)).graph
    assert graph.ByteSize() < 1000
    for tensor, expected in zip(graph.initializer, model().graph.initializer, strict=True):
        if tensor.name == "small":
            assert tensor == expected
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        begun, length = int(where["offset"]), int(where["length"])
        assert (where["location"], begun % 64) == ("given.onnx", 0)
        assert content[begun : begun + length] == expected.raw_data


@pytest.mark.parametrize("aligned", [True, False])
def test_a_session_gives_the_numbers_of_the_file(tmp_path, aligned):
    path = tmp_path / "given.onnx"
    path.write_bytes(model().SerializeToString())
    if aligned:
        read_light(path).write(tmp_path / "aligned.onnx")
        path = tmp_path / "aligned.onnx"
    x = np.random.default_rng(1).random((1, SIDE)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(runtime._FOLDER_OF_WEIGHTS, str(tmp_path))
    light = onnxruntime.InferenceSession(mapped_graph(path), options, ["CPUExecutionProvider"])
    np.testing.assert_array_equal(light.run(None, {"x": x})[0], expected)


def test_writing_holds_one_tensor_at_a_time(tmp_path):
    light = LightModel(model(), {})
    values = {}
    for tensor in light.proto.graph.initializer:
        if len(tensor.raw_data) >= LARGE:
            values[tensor.name] = lambda: memoryview(np.full(1 << 22, 7, np.uint8))
            tensor.ClearField("raw_data")
    tracemalloc.start()
    LightModel(light.proto, values).write(tmp_path / "large.onnx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "large.onnx").stat().st_size > 2 << 22
    assert peak < 1.5 * (1 << 22)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**40])
def test_numbers_of_seven_bits(value):
    written = onnxfile._varint(value)
    assert onnxfile._read_varint(memoryview(written + b"\x01"), 0) == (value, len(written))


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x07\x07")
    with pytest.raises(ValueError, match="unknown way"):
        read_light(tmp_path / "a.onnx")
