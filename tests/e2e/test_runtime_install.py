"""An installation without PyTorch, as deploy/requirements-runtime.txt describes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

import torchxrayvision as xrv
from support import dicom_results, long_run

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(
        not (ROOT / "deploy" / "requirements-runtime.txt").is_file(), reason="needs a clone"
    ),
]


def call(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_graph_is_run_where_there_is_no_torch(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    call(*pip, "--requirement", ROOT / "deploy" / "requirements-runtime.txt")
    call(*pip, "hatchling")
    call(*pip, "--no-deps", "--no-build-isolation", ROOT)
    films = long_run.write_films(tmp_path / "films", 3)
    graph, table = tmp_path / "demo.onnx", tmp_path / "t.csv"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = xrv.models.get_model("demo")
    xrv.inference.export(net, "onnx", graph)

    alone = {"PYTHONPATH": "", "XRV_CACHE_DIR": str(tmp_path / "cache")}
    absent = "import importlib.util as u; print([n for n in ('torch', 'pandas') if u.find_spec(n)])"
    assert call(python, "-c", absent, **alone).strip() == "[]"
    xrv_command = (python, "-m", "torchxrayvision")
    call(*xrv_command, "predict", films, "--graph", graph, "--output", table, **alone)
    expected = xrv.inference.predict(films, net, engine="torch")
    found = pd.read_csv(table)
    assert list(found["check"]) == list(expected["check"])
    for name in net.targets:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)

    call(*xrv_command, "predict", films, "--graph", graph, "--output", tmp_path / "t.parquet",
         **alone)  # fmt: skip
    call(*pip, "--requirement", ROOT / "deploy" / "requirements-serve.txt")
    assert call(python, "-c", absent, **alone).strip() == "[]"
    for folder in ("in", "out"):
        (tmp_path / folder).mkdir()
    film = dicom_results.write(tmp_path / "in", "german")
    settings = {
        "model": {"graph": str(graph)},
        "results": {"kinds": ["sr", "sc"], "heat_maps": False},
    }
    task = {"process": {"settings": settings | {"gate": {"screening": "note"}}}}
    (tmp_path / "in" / "task.json").write_text(json.dumps(task))
    folders = ("--in-dir", tmp_path / "in", "--out-dir", tmp_path / "out")
    call(*xrv_command, "serve", "--mercure", *folders, **alone)
    reports = [pydicom.dcmread(path) for path in (tmp_path / "out").glob("s?-*.dcm")]
    assert {made.Modality for made in reports} == {"SR", "OT"}
    assert {made.StudyInstanceUID for made in reports} == {pydicom.dcmread(film).StudyInstanceUID}

    # The demonstration weights have a graph in the package.
    alone["XRV_CACHE_DIR"] = str(tmp_path / "another cache")
    call(*xrv_command, "predict", films, "--weights", "demo", "--output", tmp_path / "demo.csv",
         **alone)  # fmt: skip
    packaged = pd.read_csv(tmp_path / "demo.csv")
    for name in net.targets:
        np.testing.assert_allclose(packaged[name], expected[name], atol=1e-5)

    outlines = tmp_path / "outlines"
    call(*xrv_command, "segment", films, "-w", "demo-anatomy", "--engine", "auto",
         "--out-dir", outlines, **alone)  # fmt: skip
    assert len(list(outlines.glob("*/masks/Heart.png"))) == 3

    done = subprocess.run(
        [str(python), "-m", "torchxrayvision", "predict", str(films), "--weights", "all"],
        capture_output=True, text=True, env={**os.environ, **alone}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "PyTorch is not installed" in " ".join(done.stderr.split())
