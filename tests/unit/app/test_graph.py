"""The page on a graph: no torch until a heat map is asked for, the numbers of `xrv predict`."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import torchxrayvision as xrv
from support import page as pages
from support.dicom_results import calibration_of
from support.without_torch import environment
from torchxrayvision.app import Classifier, Networks
from torchxrayvision.inference import Graph, MaskGraph, NamedClassifier, open_graph

pytest.importorskip("starlette")

# What demonstration weights are.
pytestmark = pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")

# Asks a page as a browser would: findings of one image, of all, and the table.
ASKED = """
import json, sys, time
from pathlib import Path
from starlette.testclient import TestClient
from torchxrayvision.app import Access, Settings, create_app
from torchxrayvision.cli.page import _classifiers, _networks

folder, own, *how = sys.argv[1:]
graph = Path(how[1]) if how[0] == "graph" else None
weights = [how[1]] if graph is None else []
classifiers = _classifiers(weights, None, graph, "onnx", Path(own))
networks = _networks(classifiers, "demo-anatomy")
access = Access("127.0.0.1", 8000)
head = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}
app = create_app(networks, access, Settings(folder=Path(folder)))
with TestClient(app, base_url="http://127.0.0.1:8000", headers=head) as page:
    page.get("/?token=" + access.new_address().partition("token=")[2])
    while page.get("/api/images").json()["listing"]:
        time.sleep(0.05)
    listed = page.get("/api/images").json()["images"]
    keys = {entry["name"].rpartition("/")[2]: entry["key"] for entry in listed}
    found = {name: page.get(f"/api/images/{key}/findings").json() for name, key in keys.items()}
    assert page.get("/api/about").status_code == 200
    assert page.get(f"/api/images/{next(iter(keys.values()))}/thumbnail").status_code == 200
    table = page.get("/api/table.csv").text
assert not {"torch", "pandas"} & set(sys.modules)
print(json.dumps({"found": found, "table": table}))
"""


@pytest.fixture(scope="module")
def net():
    return xrv.models.get_model("demo")


@pytest.fixture(scope="module")
def made(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "films").mkdir()
    for number, data in enumerate((pages.chest_dicom(), pages.chest_png16(index=7))):
        (folder / "films" / f"{number}.{('dcm', 'png')[number]}").write_bytes(data)
    calibration_of(net).save(folder / "own.json")
    xrv.inference.export(net, "onnx", folder / "demo.onnx")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XRV_CACHE_DIR", str(folder / "cache"))
        assert isinstance(NamedClassifier(weights="demo").open("onnx"), Graph)
    return folder


@pytest.mark.parametrize("source", ["cache", "graph"])
def test_the_page_without_torch_says_what_predict_says(made, net, tmp_path, source):
    how = ("weights", "demo") if source == "cache" else ("graph", str(made / "demo.onnx"))
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(made / "films"), str(made / "own.json"), *how],
        capture_output=True, text=True, timeout=120, check=False,
        env=environment(tmp_path / "site", made / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for name, answer in said["found"].items():
        (file,) = (made / "films").glob(name)
        (row,) = xrv.inference.predict(file, net, engine="onnx").to_dict("records")
        (own,) = xrv.inference.predict(
            file, net, engine="onnx", calibration=made / "own.json"
        ).to_dict("records")
        (exact,) = xrv.inference.predict(file, net, engine="torch").to_dict("records")
        assert answer["check"] == row["check"]
        assert len(answer["findings"]) == sum(net.trained)
        for finding in answer["findings"]:
            assert np.float32(finding["value"]) == row[finding["name"]]
            assert finding["value"] == pytest.approx(exact[finding["name"]], abs=1e-5)
            if finding["calibrated"] is not None:
                value = finding["calibrated"]["value"]
                assert np.float32(value) == own[f"calibrated {finding['name']}"]
        assert sum(f["calibrated"] is not None for f in answer["findings"]) > 0
    assert len(said["table"].splitlines()) == 3


def page_of(model, folder, **more):
    nets = Networks([Classifier(model, **more)], None)
    page = pages.client(nets)
    (key,) = pages.add(page, "0.dcm", (folder / "films" / "0.dcm").read_bytes())
    return page, key


def test_heat_maps_of_a_graph_come_from_its_network(made, net, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(made / "cache"))
    graph = NamedClassifier(weights="demo").open("onnx")
    answers = []
    for model in (graph, net):
        page, key = page_of(model, made)
        found = page.get(f"/api/images/{key}/evidence", params={"finding": "Effusion"})
        assert found.status_code == 200
        answers.append(found.content)
    assert answers[0] == answers[1]


def test_what_needs_gradients_says_that_it_needs_the_network(made, monkeypatch):
    page, key = page_of(open_graph(made / "demo.onnx"), made)
    found = page.get(f"/api/images/{key}/evidence", params={"finding": "Effusion"})
    assert found.status_code == 422
    assert "heat maps need the network itself" in found.json()["error"]["detail"]
    assert page.get(f"/api/images/{key}/findings").status_code == 200
    # The report needs none; the picture draws one.
    assert page.get(f"/api/images/{key}/dicom", params={"kinds": "sr"}).status_code == 200
    refused = page.get(f"/api/images/{key}/dicom", params={"kinds": "sc"})
    assert "heat maps need" in refused.json()["error"]["detail"]


@pytest.mark.filterwarnings("ignore")
def test_structures_come_from_a_graph_where_torch_is_not_installed(made):
    nets = Networks([Classifier(open_graph(made / "demo.onnx"))], "demo-anatomy")
    page = pages.client(nets)
    (key,) = pages.add(page, "0.dcm", (made / "films" / "0.dcm").read_bytes())
    with pytest.MonkeyPatch.context() as patched:
        for module in ("inference.engines.graph", "inference.engines.named", "app.networks"):
            patched.setattr(f"torchxrayvision.{module}.torch_version", lambda: None)
        found = page.get(f"/api/images/{key}/structures").json()
    assert isinstance(nets.segmenter, MaskGraph)
    assert nets.segmenter_sha256 == xrv.weights.get("demo-anatomy").file.sha256
    page = pages.client(Networks(nets.classifiers, "demo-anatomy"))
    (key,) = pages.add(page, "0.dcm", (made / "films" / "0.dcm").read_bytes())
    expected = page.get(f"/api/images/{key}/structures").json()
    pixels = [[part["pixels"] for part in told["structures"]] for told in (found, expected)]
    np.testing.assert_allclose(*pixels, rtol=1e-3)


def test_structures_say_that_they_need_torch(made, monkeypatch):
    monkeypatch.setattr("torchxrayvision.inference.engines.graph.torch_version", lambda: None)
    nets = Networks([Classifier(open_graph(made / "demo.onnx"))], "chestx_det")
    page = pages.client(nets)
    (key,) = pages.add(page, "0.dcm", (made / "films" / "0.dcm").read_bytes())
    found = page.get(f"/api/images/{key}/structures")
    assert found.status_code == 422
    assert "structures need PyTorch" in found.json()["error"]["detail"]


def test_all_images_are_read_by_one_engine_that_stays_open(made, net, monkeypatch):
    classifier = Classifier(open_graph(made / "demo.onnx"))
    files = [xrv.inputs.InputFile(p, p.name) for p in sorted((made / "films").iterdir())]
    reading = xrv.inputs.ReadOptions(workers=1)
    together = classifier.read(files, reading)
    first = classifier._opened[True]
    (alone,) = classifier.read(files[:1], reading)
    classifier.read(files, reading)
    assert classifier._opened[True] is first
    np.testing.assert_allclose(alone.values, together[0].values, atol=1e-5)
    assert alone.check == together[0].check
