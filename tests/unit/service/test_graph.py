"""A service whose networks are graphs: workers that import neither torch nor pandas."""

from __future__ import annotations

import dataclasses
import io
import signal
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from support.dicom_results import calibration_of, write
from support.without_torch import environment
from torchxrayvision.errors import GraphError, ServiceError
from torchxrayvision.inference import Graph, export
from torchxrayvision.models import get_model, save_checkpoint
from torchxrayvision.results import Reader, make_objects
from torchxrayvision.service import config_of, status
from torchxrayvision.service.work import Worker
from torchxrayvision.service.worker import ImageWorker

# What demonstration weights are.
pytestmark = pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")


@pytest.fixture(scope="module")
def net():
    return get_model("demo")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write(tmp_path_factory.mktemp("films"), "japanese")


@pytest.fixture(scope="module")
def made(net, tmp_path_factory):
    """A cache in which the network was converted by a first start, its graph, a calibration."""
    folder = tmp_path_factory.mktemp("made")
    calibration_of(net).save(folder / "own.json")
    export(net, "onnx", folder / "demo.onnx")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XRV_CACHE_DIR", str(folder / "cache"))
        first = ImageWorker(settings(folder, weights="demo", engine="onnx"))
        assert isinstance(first._reader.classifier, Graph)
    return folder


@pytest.fixture
def without_torch(made, tmp_path, monkeypatch):
    """Processes that are started now cannot import torch or pandas."""
    for name, value in environment(tmp_path / "site", made / "cache").items():
        monkeypatch.setenv(name, value)


def settings(folder, kinds=("sr",), *, heat_maps=True, **model):
    return config_of(
        {
            "folder": str(folder / "state"),
            "model": model,
            "results": {"kinds": list(kinds), "heat_maps": heat_maps},
            "gate": {"screening": "note"},
        }
    )


def content(objects):
    """Objects without what is new at each making."""
    said = []
    for made in objects:
        new = [e.keyword for e in made if e.VR in ("DA", "TM", "DT") or e.keyword.endswith("UID")]
        for keyword in {*new, "ContributingEquipmentSequence"}:
            if keyword in made:
                del made[keyword]
        said.append(made.to_json())
    return said


def answered(config, film, folder):
    """What a worker process of its own makes of a film: its version, and the objects."""
    worker = Worker(config)
    try:
        worker.ask([{"file": str(film), "folder": str(folder)}])
        answer = worker.answer(60)
    finally:
        worker.close()
    assert answer["outcome"] == "read", answer
    return worker.model, [pydicom.dcmread(folder / o["file"]) for o in answer["objects"]]


@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
@pytest.mark.parametrize("source", ["cache", "graph"])
def test_a_worker_without_torch_makes_the_objects_of_one_with_it(
    made, net, film, tmp_path, without_torch, source, calibrated
):
    model = {
        "cache": {"weights": "demo", "engine": "onnx"},
        "graph": {"graph": str(made / "demo.onnx")},
    }[source]
    own = made / "own.json" if calibrated else None
    more = {"calibration": str(own)} if calibrated else {}
    kinds = ("sr", "sc")
    config = settings(tmp_path, kinds, heat_maps=False, **model, **more)
    version, found = answered(config, film, tmp_path / "out")
    reader = Reader(classifier=net, most=0, engine="onnx", calibration=own)
    expected = make_objects(reader.read(film), kinds)
    written = []
    for (one,) in expected.values():
        file = io.BytesIO()
        one.save_as(file, enforce_file_format=True)
        written.append(pydicom.dcmread(io.BytesIO(file.getvalue())))
    assert content(found) == content(written)
    algorithms = reader.algorithms()[0]
    assert f"classifier={algorithms.name}@{algorithms.sha256[:16]}" in version
    plain = Reader(classifier=net, most=0, calibration=own)
    for ours, theirs in zip(reader.read(film).findings, plain.read(film).findings, strict=True):
        assert ours.value == pytest.approx(theirs.value, abs=1e-5)


def test_another_engine_is_another_version(made, net, film, tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(made / "cache"))
    versions = {
        engine: ImageWorker(settings(tmp_path, weights="demo", engine=engine)).model
        for engine in ("torch", "onnx", "openvino", "auto")
    }
    assert len(set(versions.values())) == 3
    assert versions["auto"] == versions["torch"]  # nothing was measured


def test_heat_maps_of_a_graph_come_from_its_network(made, net, film, tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(made / "cache"))
    config = settings(tmp_path, ("sr", "sc"), weights="demo", engine="onnx")
    worker = ImageWorker(config)
    assert isinstance(worker._reader.classifier, Graph)
    found = worker._reader.read(film)
    expected = dataclasses.replace(worker._reader, classifier=net, engine="torch").read(film)
    assert list(found.heats) == list(expected.heats) != []
    for name, heat in found.heats.items():
        assert (heat == expected.heats[name]).all()


def test_heat_maps_without_the_network_end_the_start(made, monkeypatch, tmp_path):
    from torchxrayvision.inference import open_graph

    graph = open_graph(made / "demo.onnx")
    with pytest.raises(GraphError, match=r"heat maps need the network itself, and demo\.onnx"):
        Reader(classifier=graph)
    assert Reader(classifier=graph, most=0).algorithms()[0].sha256
    monkeypatch.setattr("torchxrayvision.inference.engines.graph.torch_version", lambda: None)
    monkeypatch.setenv("XRV_CACHE_DIR", str(made / "cache"))
    with pytest.raises(GraphError, match="heat maps need PyTorch, which is not installed"):
        ImageWorker(settings(tmp_path, ("sr", "sc"), weights="demo", engine="onnx"))


def test_a_calibration_of_other_weights_ends_the_start_without_torch(
    made, net, tmp_path, without_torch
):
    calibration_of(net, weights_sha256="0" * 64).save(tmp_path / "other.json")
    model = {"graph": str(made / "demo.onnx"), "calibration": str(tmp_path / "other.json")}
    with pytest.raises(ServiceError, match="calibrate anew"):
        Worker(settings(tmp_path, **model))


def test_the_whole_service_reads_a_film_without_torch(made, film, tmp_path, without_torch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.dcm").write_bytes(film.read_bytes())
    place = tmp_path / "serve.toml"
    place.write_text(
        f'folder = "state"\n[model]\ngraph = "{made / "demo.onnx"}"\n'
        '[results]\nkinds = ["sr"]\n[gate]\nscreening = "note"\n[limits]\nfree_bytes = 0\n'
        '[[watch]]\nfolder = "in"\nevery = 0.1\nsettle = 0\n'
    )
    command = [sys.executable, "-m", "torchxrayvision", "serve", "--config", place]
    service = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    try:
        config = config_of({"folder": str(tmp_path / "state")})
        assert until(lambda: done(config) or service.poll() is not None)
        assert service.poll() is None, service.communicate()[1]
        assert done(config) == 1
    finally:
        service.send_signal(signal.SIGTERM)
        said = service.communicate(timeout=60)[1]
    assert service.returncode == 0, said
    assert "Traceback" not in said


def done(config):
    if not Path(config.folder, "queue.sqlite").exists():
        return 0
    jobs = status(config)["jobs"]
    assert not jobs["failed"], status(config)
    return jobs["produced"] + jobs["delivered"]


def until(true, seconds=60):
    import time

    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def test_the_process_that_converted_is_replaced_by_one_without_torch(tmp_path, monkeypatch):
    started = []
    start = Worker._start

    def counted(self, config):
        started.append(start(self, config))
        return started[-1]

    monkeypatch.setattr(Worker, "_start", counted)
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "own.safetensors"
    save_checkpoint(get_model("demo"), path)
    packaged, own = {"weights": "demo"}, {"weights": "", "checkpoint": str(path)}
    for network, expected in ((own, [True, False]), (own, [False]), (packaged, [False])):
        started.clear()
        worker = Worker(settings(tmp_path, **network, engine="onnx"))
        worker.close()
        assert [answer["converted"] for answer in started] == expected
        assert len({answer["model"] for answer in started}) == 1
