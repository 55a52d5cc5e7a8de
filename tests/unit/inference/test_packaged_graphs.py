"""The graphs of the demonstration weights: those of the tensors, and at once usable anywhere."""

from __future__ import annotations

import functools
import json
import shutil
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from support import long_run
from support.without_torch import NOT_INSTALLED, run_without_torch
from torchxrayvision import weights
from torchxrayvision.errors import DependencyError, GraphError
from torchxrayvision.facts import PackagedFile
from torchxrayvision.inference import (
    Graph,
    MaskGraph,
    NamedClassifier,
    open_graph,
    open_mask_graph,
    predict,
    predict_to_file,
)
from torchxrayvision.inference.engines import graph as _graph
from torchxrayvision.inference.engines import graphfiles as _files
from torchxrayvision.inference.engines import named as _named
from torchxrayvision.inference.engines import runtime as _runtime
from torchxrayvision.inference.engines.kinds import sigmoid
from torchxrayvision.inference.engines.runtime import (
    SESSIONS,
    Choice,
    aligned,
    example_image,
    usable_threads,
)
from torchxrayvision.models import get_model

ROOT = Path(__file__).parents[3]
DATA = Path(weights.__file__).parent / "data"
STEMS = ("demo", "demo-anatomy")
KINDS = {"demo": Graph, "demo-anatomy": MaskGraph}
EACH = pytest.mark.parametrize("stem", STEMS)
run_alone = functools.partial(run_without_torch, before=NOT_INSTALLED)


def network(stem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_model(stem)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return long_run.write_films(tmp_path_factory.mktemp("films"), 6)


@pytest.fixture
def empty(monkeypatch, tmp_path):
    """An empty cache, and a Python that says torch is not installed."""
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(_graph, "torch_version", lambda: None)
    monkeypatch.setattr(_named, "torch_version", lambda: None)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tool():
    if not (ROOT / "tools").is_dir():
        pytest.skip("needs a clone")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT / "tools"))
        import build_demo_graphs

        yield build_demo_graphs


# ---- what they are --------------------------------------------------------------------------


@EACH
def test_a_graph_is_what_the_script_makes_of_the_tensors(stem, tool, tmp_path):
    made = tool.build(stem, tmp_path)
    card = json.loads((DATA / f"{stem}.onnx.json").read_text())
    again = json.loads(made.with_name(f"{stem}.onnx.json").read_text())
    examples = [np.array(each["runs"].pop("example")) for each in (card, again)]
    np.testing.assert_allclose(*examples, atol=1e-4)  # logits, of another processor
    if card["runs"]["made_by"]["torch"] != version("torch").partition("+")[0]:
        for each in (card, again):
            del each["runs"]["made_by"], each["files"][f"{stem}.onnx"]
    else:
        assert made.read_bytes() == (DATA / made.name).read_bytes()
    assert card == again


@EACH
def test_every_tensor_is_read_from_the_packaged_file(stem, tool):
    import onnx

    state = network(stem).state_dict()
    held = (DATA / f"{stem}.safetensors").read_bytes()
    proto = onnx.load(DATA / f"{stem}.onnx", load_external_data=False)
    found = set()
    for tensor in proto.graph.initializer:
        where = {entry.key: entry.value for entry in tensor.external_data}
        if not where:
            assert len(tensor.raw_data) < 1024, tensor.name
            continue
        assert where["location"] == f"{stem}.safetensors"
        start = int(where["offset"])
        values = np.frombuffer(held[start : start + int(where["length"])], np.float32)
        name = tensor.name.removeprefix("model.")
        np.testing.assert_array_equal(values, state[name].numpy().ravel())
        found.add(name)
    wide = {name for name, value in state.items() if value.ndim > 1}
    assert wide <= found
    assert (DATA / f"{stem}.onnx").stat().st_size < 50_000


@EACH
@pytest.mark.parametrize("engine", SESSIONS)
def test_outputs_are_those_of_torch(stem, engine, empty):
    net, entry = network(stem), weights.get(stem)
    graph = _files.packaged_graph(entry, engine, KINDS[stem])
    size = net.input_resolution
    images = aligned((3, 1, size, size))
    images[:] = np.random.default_rng(0).uniform(-1024, 1024, images.shape)
    images[1, 0] = example_image(size)
    names = list(graph.card["outputs"])
    session = SESSIONS[engine](graph.path, images, names, usable_threads())
    found = session.run()[0]
    with torch.inference_mode():
        expected = net(torch.from_numpy(images)).numpy()
    if stem == "demo-anatomy":  # logits of pixels
        found, expected = sigmoid(found), sigmoid(expected)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# ---- who uses them ---------------------------------------------------------------------------


def test_demo_answers_at_once_where_torch_is_not_installed(films, tmp_path, monkeypatch):
    tables = {}
    for engine in ("auto", "onnx", "openvino"):
        out = tmp_path / f"{engine}.csv"
        cache = tmp_path / f"cache-{engine}"
        run_alone(cache, "predict", films, "--weights", "demo", "--engine", engine, "--output", out)
        tables[engine] = out.read_bytes()
        assert not list(cache.rglob("*.onnx"))
    assert tables["auto"] == tables["onnx"]
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path))
    for engine in ("onnx", "openvino"):
        out = tmp_path / "torch.csv"
        with pytest.warns(match="demonstration weights"):
            predict_to_file(films, "demo", out, engine=engine, overwrite=True)
        assert tables[engine] == out.read_bytes()
        predict_to_file(films, network("demo"), out, engine=engine, overwrite=True)  # converted
        columns = {"usecols": list(weights.get("demo").targets)}
        found, expected = (pd.read_csv(tmp_path / f"{n}.csv", **columns) for n in (engine, "torch"))
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_demo_answers_with_a_cache_that_cannot_be_written(films, tmp_path):
    cache = tmp_path / "file"
    cache.write_text("in the way")
    said = run_alone(cache, "predict", films, "--weights", "demo", "--json")
    assert '"error": ""' in said


def test_other_weights_still_need_torch_or_a_graph(films, tmp_path):
    said = run_alone(tmp_path, "predict", films, "--weights", "all", code=2)
    assert "PyTorch is not installed, and no graph of this network is in the cache" in said


def test_a_damaged_file_is_said_and_not_used(films, empty, tmp_path, monkeypatch):
    for name in ("demo.onnx", "demo.onnx.json", "demo.safetensors"):
        shutil.copy(DATA / name, tmp_path / name)
    monkeypatch.setattr(_files, "locate_weights", lambda _: tmp_path / "demo.safetensors")
    monkeypatch.setattr(_files, "torch_version", lambda: None)
    entry = weights.get("demo")
    assert _files.packaged_graph(entry, "onnx", Graph) is not None
    whole = (tmp_path / "demo.safetensors").read_bytes()
    (tmp_path / "demo.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(GraphError, match=r"demo\.safetensors is not the file"):
        _files.packaged_graph(entry, "onnx", Graph)
    monkeypatch.setattr(_files, "torch_version", lambda: "2.14.1")
    assert _files.packaged_graph(entry, "onnx", Graph) is None


def test_the_card_is_that_of_the_record():
    for stem, opened in (("demo", open_graph), ("demo-anatomy", open_mask_graph)):
        entry = weights.get(stem)
        graph = opened(DATA / f"{stem}.onnx")
        assert (graph.weights, tuple(graph.targets)) == (entry.name, entry.targets)
        assert graph.weights_sha256 == entry.file.sha256
        assert graph.input_resolution == entry.input_resolution
        if stem == "demo":
            np.testing.assert_allclose(graph.op_threshs, entry.operating_points, rtol=1e-6)


def test_auto_takes_what_is_installed_where_torch_is_not(empty, monkeypatch):
    named = NamedClassifier(weights="demo")
    with pytest.warns(match="demonstration weights"):
        assert named.graph("auto").choice == Choice("onnx")
    monkeypatch.setattr(_runtime, "find_spec", lambda name: name == "openvino")
    with pytest.warns(match="demonstration weights"):
        assert named.graph("auto").choice == Choice("openvino")
    monkeypatch.setattr(_runtime, "find_spec", lambda _: None)
    assert named.graph("auto") is None
    with pytest.raises(GraphError, match="onnxruntime or openvino, of which neither"):
        named.load()
    monkeypatch.setattr(SESSIONS["onnx"], "package", "not-installed")
    with pytest.raises(DependencyError, match="not-installed"):
        named.graph("onnx")


def test_auto_asks_torch_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path))
    named = NamedClassifier(weights="demo")
    assert named.graph("auto") is None
    assert named.graph("torch") is None
    with pytest.warns(match="demonstration weights"):
        assert named.graph("onnx").path == DATA / "demo.onnx"
    assert NamedClassifier(weights="demo", compat="1.5.7").graph("onnx") is None


def test_weights_that_are_not_packaged_have_no_such_graph(empty, tmp_path):
    assert NamedClassifier(weights="all").graph("onnx") is None
    entry = weights.get("demo")
    assert isinstance(entry.file, PackagedFile)
    without = replace(entry, file=replace(entry.file, filename="absent.safetensors"))
    assert _files.packaged_graph(without, "onnx", Graph) is None


def test_python_predicts_by_name_from_the_packaged_graph(films, tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path))
    with pytest.warns(match="demonstration weights"):
        found = predict(films, "demo", engine="onnx")
    assert not list(tmp_path.rglob("*.onnx"))
    expected = predict(films, network("demo"), engine="torch")
    for name in weights.get("demo").targets:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
