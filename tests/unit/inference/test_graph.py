"""Predicting from a graph: no torch, the same bytes, and nothing but the graph that was made."""

from __future__ import annotations

import functools
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from support import long_run
from support.dicom_results import calibration_of
from support.without_torch import run_without_torch
from torchxrayvision.cli import app
from torchxrayvision.errors import GraphError, UnknownNameError
from torchxrayvision.inference import (
    Graph,
    NamedClassifier,
    export,
    open_graph,
    predict,
    predict_to_file,
)
from torchxrayvision.inference.engines import graph as _graph
from torchxrayvision.inference.engines import runtime as _runtime
from torchxrayvision.inference.engines.kinds import convert, sigmoid
from torchxrayvision.inference.engines.runtime import Choice, Memory, aligned, usable_threads
from torchxrayvision.models import get_model, load_checkpoint, save_checkpoint

# A film of the folder is damaged.
run_blocked = functools.partial(run_without_torch, code=1)


def run(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(done.exception, SystemExit | None), done.output
    assert done.exit_code in (0, 1)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return long_run.write_films(tmp_path_factory.mktemp("films"), 10, damaged=5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = get_model("demo")
        net.set_operating_points([*net.op_threshs.tolist()[:-1], float("nan")])
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(net, path)
    return path


@pytest.fixture(scope="module")
def made(films, checkpoint, tmp_path_factory):
    """A cache with the converted network and its card, and the table of the run with torch."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XRV_CACHE_DIR", str(folder / "cache"))
        for kind in ("csv", "parquet"):
            run(
                "predict", films, "--checkpoint", checkpoint, "--engine", "onnx",
                "--output", folder / f"torch.{kind}", "--embeddings",
            )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def graphs(checkpoint, tmp_path_factory):
    """The network as files for other programs, with their cards."""
    folder = tmp_path_factory.mktemp("graphs")
    net = load_checkpoint(checkpoint)
    export(net, "onnx", folder / "small.onnx")
    export(net, "openvino", folder / "small.xml")
    return folder


@pytest.fixture
def named(made, checkpoint, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(made / "cache"))
    return NamedClassifier(checkpoint=checkpoint)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_table_has_the_same_bytes_without_torch(made, films, checkpoint, tmp_path, kind):
    table = tmp_path / f"t.{kind}"
    run_blocked(
        made / "cache", "predict", films, "--checkpoint", checkpoint, "--engine", "onnx",
        "--output", table, "--embeddings",
    )  # fmt: skip
    assert table.read_bytes() == (made / f"torch.{kind}").read_bytes()
    if kind == "csv":
        beside = (p.with_name(p.name + ".provenance.json") for p in (table, made / "torch.csv"))
        assert len({place.read_text() for place in beside}) == 1


def test_an_exported_graph_gives_the_same_numbers_without_torch(made, films, graphs, tmp_path):
    graph = graphs / "small.onnx"
    run_blocked(
        tmp_path / "other", "predict", films, "--graph", graph, "--output", tmp_path / "t.csv",
        "--embeddings",
    )  # fmt: skip
    assert (tmp_path / "t.csv").read_bytes() == (made / "torch.csv").read_bytes()


def test_calibrated_columns_are_those_of_the_path_with_torch(
    made, films, checkpoint, graphs, tmp_path, monkeypatch
):
    monkeypatch.setenv("XRV_CACHE_DIR", str(made / "cache"))
    net = load_checkpoint(checkpoint)
    calibration_of(net).save(tmp_path / "own.json")
    own = ("--calibration", tmp_path / "own.json")
    expected = predict(films, net, engine="torch", calibration=tmp_path / "own.json")
    ways = {
        "cache": ("--checkpoint", checkpoint, "--engine", "onnx"),
        "graph": ("--graph", graphs / "small.onnx"),
    }
    tables = {}
    for name, words in ways.items():
        place = tmp_path / f"{name}.csv"
        run_blocked(made / "cache", "predict", films, *words, *own, "--output", place)
        tables[name] = place.read_bytes()
    place = tmp_path / "torch.csv"
    predict_to_file(films, net, place, engine="onnx", calibration=tmp_path / "own.json")
    assert tables["cache"] == tables["graph"] == place.read_bytes()
    found = pd.read_csv(place, dtype=str, keep_default_na=False)
    assert list(found) == list(expected)
    columns = [name for name in expected if name.startswith("calibrated ")]
    assert len(columns) == sum(net.trained) - 1
    for name in columns:
        numbers = found[name].replace("", "nan").astype(float)
        np.testing.assert_allclose(numbers, expected[name], atol=1e-5)
        finding = name.removeprefix("calibrated ")
        for word in ("call", "set"):
            told = expected[f"{word} {finding}"].fillna("")
            assert list(found[f"{word} {finding}"]) == list(told.astype(str))


def test_a_calibration_of_other_weights_is_refused(films, graphs, checkpoint, tmp_path):
    other = calibration_of(load_checkpoint(checkpoint), weights_sha256="0" * 64)
    other.save(tmp_path / "other.json")
    said = run_blocked(
        tmp_path, "predict", films, "--graph", graphs / "small.onnx",
        "--calibration", tmp_path / "other.json", code=2,
    )  # fmt: skip
    assert "calibrate anew" in " ".join(said.split())


def test_one_film_is_answered_on_standard_output_without_torch(made, films, checkpoint):
    said = run_blocked(
        made / "cache", "predict", films / "000" / "00001.png", "--checkpoint", checkpoint,
        "--engine", "openvino", "--json", code=0,
    )  # fmt: skip
    (row,) = json.loads(said)
    assert row["error"] == ""
    assert 0 <= row["Effusion"] <= 1
    assert row["Support Devices"] is None  # which has no operating point


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_graph_stands_for_its_network_in_python(named, films, engine):
    graph = named.graph(engine)
    assert isinstance(graph, Graph)
    assert graph.check_kind(None) == named.load().check_kind(None)
    found = predict(films, graph, engine=engine)
    expected = predict(films, named.load(), engine="torch")
    assert list(found) == list(expected)
    for name in graph.targets:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    with pytest.raises(UnknownNameError, match="probability"):
        graph.check_kind("years")


def test_a_run_that_was_stopped_resumes_without_torch_and_with_it(made, films, named, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done < total:
            raise StopError

    for begun, resumed in (("torch", "onnx"), ("onnx", "onnx")):
        network, graph = named.load(), named.graph("onnx")
        first, then = (network, graph) if begun == "torch" else (graph, network)
        tables = [tmp_path / f"{begun}-{i}.csv" for i in range(2)]
        how = {"engine": begun, "batch_size": 4}
        predict_to_file(films, first, tables[0], **how)
        with pytest.raises(StopError):
            predict_to_file(films, first, tables[1], **how, on_progress=stop)
        if begun == "torch":  # the record says torch, and the graph knows its network
            place = tmp_path / "torch-1.csv.part" / "run.json"
            assert json.loads(place.read_text())["machine"]["engine"]["engine"] == "torch"
        predict_to_file(films, then, tables[1], **how)
        assert tables[0].read_bytes() == tables[1].read_bytes(), resumed


# ---- which graph is used --------------------------------------------------------------------


def measured(graph: Graph, choice: Choice) -> None:
    candidates = list(_runtime.exact_candidates("auto", wide=graph.card["runs"]["wide"]))
    runs = graph.card["runs"]
    key = _runtime.measurement_key(
        runs["network"], graph.input_resolution, usable_threads(), runs["made_by"]["torch"],
        candidates,
    )  # fmt: skip
    Memory(key).put(choice, {})


def test_auto_takes_the_graph_where_it_was_measured_to_be_the_fastest(
    named, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(_graph, "may_have_accelerator", lambda: False)
    assert named.graph("auto") is None
    assert not isinstance(named.open("auto"), Graph)
    graph = named.graph("onnx")
    memory = made / "cache" / "engines.json"
    before = memory.read_text()
    measured(graph, Choice("openvino"))
    assert named.graph("auto").choice == Choice("openvino")
    assert named.open("auto").choice == Choice("openvino")
    measured(graph, Choice("torch"))
    assert named.graph("auto") is None
    measured(graph, Choice("onnx"))
    monkeypatch.setattr(_graph, "may_have_accelerator", lambda: True)
    assert named.graph("auto") is None
    memory.write_text(before)


@pytest.mark.parametrize(
    "asked", [{"precision": "fast"}, {"engine": "torch"}, {"device": "cuda"}], ids=str
)
def test_torch_is_asked_for_what_a_graph_cannot(named, asked):
    assert named.graph(**{"engine": "onnx", **asked}) is None


@pytest.mark.parametrize(("images", "network"), [(500, False), (700, True)])
def test_a_long_run_loads_a_network_that_may_gain_by_winograds_method(named, images, network):
    graph = named.graph("onnx")
    assert graph.unmeasured
    assert graph.card["runs"]["seconds"] > 0
    graph.card["runs"]["seconds"] = 0.1
    assert (_graph.worth_measuring(graph, images) is not graph) is network


def test_another_torch_converts_anew(named, monkeypatch):
    monkeypatch.setattr(_graph, "torch_version", lambda: "2.0.0")
    assert named.graph("onnx") is None


def test_a_changed_file_of_weights_is_another_network(named, checkpoint, tmp_path):
    other = tmp_path / "other.safetensors"
    net = named.load()
    with torch.no_grad():
        net.head.bias += 1
    save_checkpoint(net, other)
    assert named.graph("onnx") is not None
    assert NamedClassifier(checkpoint=other).graph("onnx") is None


@pytest.mark.filterwarnings("ignore:.*demonstration weights")
def test_a_file_with_the_facts_of_published_weights_has_a_card(
    made, checkpoint, tmp_path, monkeypatch
):
    shutil.copytree(made / "cache", tmp_path / "cache")
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    both = NamedClassifier(weights="demo", checkpoint=checkpoint)
    assert both.graph("onnx") is None
    assert isinstance(both.open("onnx"), Graph)
    assert both.graph("onnx") is not None


@pytest.mark.parametrize("harm", ["graph", "card"])
def test_what_was_changed_in_the_cache_is_not_used(named, made, harm):
    (graph,) = (made / "cache" / "engines").glob("*[0-9a-f].onnx")
    (card,) = (made / "cache" / "engines").glob("card-*.json")
    place = graph if harm == "graph" else card
    whole = place.read_bytes()
    place.write_bytes(whole[:-9] + b"012345678")
    assert named.graph("onnx") is None
    place.write_bytes(whole)
    assert named.graph("onnx") is not None


@pytest.fixture
def exported(graphs, tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "graphs"
    shutil.copytree(graphs, folder)
    return folder / "small.onnx"


def rewrite(path: Path, change) -> None:
    card = path.with_name(path.name + ".json")
    facts = json.loads(card.read_text())
    change(facts)
    card.write_text(json.dumps(facts))


def test_a_graph_without_its_card_is_refused_with_advice(exported):
    exported.with_name("small.onnx.json").unlink()
    with pytest.raises(GraphError, match=r"xrv export WEIGHTS --to onnx"):
        open_graph(exported)


def test_a_graph_that_is_not_that_of_its_card_is_refused(exported):
    whole = exported.read_bytes()
    exported.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(GraphError, match=r"not the file that small\.onnx\.json describes"):
        open_graph(exported)


def test_a_machine_that_computes_other_numbers_is_refused(exported):
    rewrite(exported, lambda facts: facts["runs"]["example"].__setitem__(0, 3.0))
    with pytest.raises(GraphError, match="on this machine its probabilities differ"):
        open_graph(exported)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts["runs"].pop("features"),
        lambda facts: facts["targets"].append("More"),
        lambda facts: facts["runs"]["example"].pop(),
        lambda facts: facts.update(format="torchxrayvision-9"),
        lambda facts: facts["operating_points"].pop(),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(exported, change):
    rewrite(exported, change)
    with pytest.raises(GraphError, match="its card"):
        open_graph(exported)


def test_a_card_without_a_classifier_is_refused(exported):
    rewrite(exported, lambda facts: facts.pop("runs"))
    with pytest.raises(GraphError, match="only classifiers of findings"):
        open_graph(exported)


def test_an_openvino_file_runs_and_refuses_onnx(exported, films):
    path = exported.with_suffix(".xml")
    found = predict(films, open_graph(path))
    assert np.isfinite(found["Effusion"][found["error"] == ""]).all()
    with pytest.raises(GraphError, match="cannot be run by engine onnx"):
        open_graph(path, "onnx")
    path.with_suffix(".bin").write_bytes(b"other")
    with pytest.raises(GraphError, match=r"small\.bin is not the file"):
        open_graph(path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--weights", "demo"], "--graph stands alone"),
        (["--device", "cuda"], "cuda"),
        (["--cluster", "ray", "--output", "t.csv"], "not --graph"),
    ],
)
def test_what_does_not_go_with_a_graph_is_refused(exported, films, options, reason):
    done = CliRunner().invoke(app, ["predict", str(films), "--graph", str(exported), *options])
    assert done.exit_code == 2
    assert reason in " ".join(done.output.split())


# ---- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["logit", "probability", "operating-point"])
def test_numpy_gives_the_bits_of_torch(kind):
    net = long_run.network()
    net.set_operating_points([0.3, float("nan"), 0.7])
    generator = np.random.default_rng(0)
    logits = (generator.standard_normal((40_000, 3)) * 9).astype(np.float32)
    logits[:6] = [[0, -0.0, 200], [-200, 88, -88], [104, -104, 1e-30], [103.9, -103.9, 87],
                  [np.inf, -np.inf, np.nan], [-101, 99, -99]]  # fmt: skip
    raw = torch.from_numpy(logits)
    expected = net.named_values(net.convert(raw, kind), kind).numpy()
    points = net.op_threshs.numpy()
    np.testing.assert_array_equal(convert(logits, kind, points), expected)


def test_sigmoid_is_within_a_unit_in_the_last_place():
    x = np.linspace(-80, 80, 100_001, dtype=np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.abs(sigmoid(x) / exact - 1).max() < 2e-7


def test_operating_points_that_are_missing_are_said():
    with pytest.raises(ValueError, match="needs operating points"):
        convert(np.zeros((1, 2), np.float32), "operating-point", None)


def test_buffers_are_aligned():
    for shape in ((1, 1, 5, 5), (3, 7), (2, 1, 224, 224)):
        array = aligned(shape)
        assert array.ctypes.data % 64 == 0
        assert array.shape == shape
        assert (array == -1024).all()


@pytest.mark.parametrize("given", ["3", "3,2"])
def test_threads_are_those_of_torch(monkeypatch, given):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert usable_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= usable_threads() <= (os.cpu_count() or 1)
