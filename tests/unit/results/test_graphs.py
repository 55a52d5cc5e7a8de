"""`xrv results` from graphs: the same findings and masks, without torch."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from support.dicom_results import write
from support.without_torch import NOT_INSTALLED, run_without_torch
from torchxrayvision import weights
from torchxrayvision.cli import app
from torchxrayvision.inference import MaskGraph, open_graph, open_mask_graph
from torchxrayvision.models import get_model
from torchxrayvision.results import Reader
from torchxrayvision.segmentation import get_segmenter

pytestmark = pytest.mark.filterwarnings("ignore")
DATA = Path(weights.__file__).parent / "data"
run_alone = functools.partial(run_without_torch, before=NOT_INSTALLED)
WAYS = {
    "names": ("--weights", "demo", "--segmenter", "demo-anatomy", "--engine", "onnx"),
    "files": ("--graph", DATA / "demo.onnx", "--segmenter", DATA / "demo-anatomy.onnx"),
}


def objects(folder: Path) -> dict[str, pydicom.Dataset]:
    """The objects of the one row of a table."""
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["error"] == ""
    return {kind: pydicom.dcmread(folder / row[kind]) for kind in ("sr", "seg") if kind in row}


def numbers(report: pydicom.Dataset) -> list[tuple[str, float]]:
    """What is measured in a report, by the meaning of its code."""
    found = []
    for item in report.walk_items() if hasattr(report, "walk_items") else _items(report):
        for value in item.get("MeasuredValueSequence", ()):
            name = item.ConceptNameCodeSequence[0].CodeMeaning
            found.append((name, float(value.NumericValue)))
    return found


def _items(item: pydicom.Dataset):
    yield item
    for inner in item.get("ContentSequence", ()):
        yield from _items(inner)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The film, and the objects of the networks in torch."""
    folder = tmp_path_factory.mktemp("films")
    film = write(folder, "PA")
    words = ["results", str(film), "--as", "sr,seg", "--weights", "demo", "--segmenter",
             "demo-anatomy", "--out-dir", str(folder / "torch")]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return film, objects(folder / "torch")


@pytest.mark.parametrize("way", WAYS)
def test_findings_and_masks_are_made_where_torch_is_not_installed(expected, tmp_path, way):
    film, wanted = expected
    words = ("--as", "sr,seg", *WAYS[way], "--out-dir", tmp_path / "out")
    run_alone(tmp_path / "cache", "results", film, *words)
    found = objects(tmp_path / "out")
    names, values = zip(*numbers(found["sr"]), strict=True)
    expected_names, expected_values = zip(*numbers(wanted["sr"]), strict=True)
    assert names == expected_names
    assert len(names) > 10
    np.testing.assert_allclose(values, expected_values, atol=1e-3)
    masks, expected_masks = (one["seg"].pixel_array for one in (found, wanted))
    assert masks.shape == expected_masks.shape
    assert expected_masks.any()
    assert (masks != expected_masks).mean() < 1e-4


def test_evidence_is_refused_or_left_out_where_torch_is_not_installed(expected, tmp_path):
    film, _ = expected
    words = (film, "--weights", "demo", "--engine", "auto", "--out-dir", tmp_path / "out")
    said = run_alone(tmp_path / "cache", "results", *words, code=2)
    assert "evidence needs PyTorch and the weights" in said
    assert "--no-evidence" in said
    run_alone(tmp_path / "cache", "results", *words, "--no-evidence")
    made = sorted(path.name[:3] for path in (tmp_path / "out").glob("*.dcm"))
    assert made == ["sc-", "sr-"]
    words = ("--weights", "demo", "--out-dir", tmp_path / "b")
    said = run_alone(tmp_path / "cache", "results", film, *words, code=2)
    assert "PyTorch is not installed; --engine auto takes" in said


def test_a_reader_takes_graphs_of_both_networks(expected, tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_CACHE_DIR", str(tmp_path))
    film, _ = expected
    graphs = open_graph(DATA / "demo.onnx"), open_mask_graph(DATA / "demo-anatomy.onnx")
    from_graphs = Reader(classifier=graphs[0], segmenter=graphs[1], most=0)
    from_networks = Reader(
        classifier=get_model("demo"), segmenter=get_segmenter("demo-anatomy"), most=0
    )
    found, wanted = from_graphs.read(film), from_networks.read(film)
    assert from_graphs.algorithms() == from_networks.algorithms()
    assert [one.label for one in found.findings] == [one.label for one in wanted.findings]
    assert found.cardiothoracic_ratio == pytest.approx(wanted.cardiothoracic_ratio, abs=1e-3)
    assert found.masks.keys() == wanted.masks.keys()
    assert isinstance(from_graphs.segmenter, MaskGraph)
    assert from_graphs.settings()["segmenter_engine"] == "onnx in float32"
    assert "segmenter_engine" not in from_networks.settings()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--graph", "a.onnx", "--weights", "demo"], "--graph stands alone"),
        (["--no-evidence", "--evidence", "Effusion"], "exclude each other"),
        (["--no-evidence", "--as", "pm"], "pm holds evidence"),
        (["--graph", DATA / "demo-anatomy.onnx", "--as", "sr"], "not of a classifier of findings"),
        (["--segmenter", DATA / "demo.onnx", "--as", "seg"], "not of a segmentation network"),
    ],
)
def test_what_does_not_go_together_is_refused(expected, tmp_path, options, reason):
    words = ["results", expected[0], "--out-dir", tmp_path / "out", "--weights", "demo"]
    if "--graph" in options:
        words = words[:-2]
    done = CliRunner().invoke(app, [str(word) for word in (*words, *options)])
    assert done.exit_code != 0
    said = " ".join(done.output.split()) + str(done.exception)
    assert reason in said
