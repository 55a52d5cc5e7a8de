"""`xrv benchmark`: rows fixed by hash, predictions that are kept, published numbers beside ours."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import torchxrayvision.datasets as xd
from fakes import nih
from torchxrayvision import benchmark, provenance
from torchxrayvision.benchmark import Published, get_protocol, list_protocols, plan, scores_of
from torchxrayvision.benchmark.running import _compared, measured, rows_of
from torchxrayvision.cli import app
from torchxrayvision.errors import DatasetError
from torchxrayvision.models import get_model

pytestmark = pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def demo():
    return get_model("demo").eval()


@pytest.mark.parametrize("name", list_protocols())
def test_a_protocol_names_what_there_is(name):
    protocol = get_protocol(name)
    cls = xd.get_dataset_class(protocol.dataset)
    if protocol.part:
        assert xd.find_official_split(protocol.dataset, protocol.part) is not None
    if cls.spec.findings.names:
        assert set(protocol.findings) <= set(cls.spec.findings.names)
    for said in protocol.published:
        assert 0.5 < said.auroc < 1
        assert said.source
        if said.weights:
            from torchxrayvision.weights import get

            assert get(said.weights).name == said.weights


@pytest.mark.parametrize("name", ["siim", "rsna", "nih-official"])
def test_the_rows_of_packaged_tables_are_those_of_the_protocol(name):
    found = plan(get_protocol(name), {})
    assert found["problems"] == []
    assert found["needs"] == ["imgpath"]
    assert found["images"] == {"siim": 12_047, "rsna": 26_684, "nih-official": 25_596}[name]


def test_a_table_that_is_missing_is_asked_for():
    found = plan(get_protocol("vindr-test"), {})
    assert found["needs"] == ["imgpath", "csvpath"]
    assert found["images"] is None
    done = run("benchmark", "vindr-test", "--dry-run", "--json")
    assert json.loads(done.output)[0]["needs"] == ["imgpath", "csvpath"]


def test_other_rows_are_refused(tmp_path):
    fake = nih.build(tmp_path / "nih")
    given = ["--imgpath", fake.kwargs["imgpath"], "--with", f"csvpath={fake.kwargs['csvpath']}"]
    done = run("benchmark", "nih-official", *given, "--out-dir", tmp_path / "o")
    assert done.exit_code == 2
    assert "images 1, not 25596" in done.output
    assert "--partial" in done.output
    shown = run("benchmark", "nih-official", *given, "--dry-run")
    assert "1 image in the table" in shown.output
    assert "0 of them are not in the folder" in shown.output


def test_predictions_are_kept_and_a_run_resumes(demo, tmp_path, monkeypatch):
    rows = rows_of(
        dataclasses.replace(get_protocol("siim"), dataset="Phantom_Dataset"),
        {"n": 40, "size": 64}, demo.input_resolution,
    )  # fmt: skip
    monkeypatch.setattr(benchmark.running, "_SAVE_EVERY", 1)
    whole = scores_of(demo, rows, tmp_path / "whole")
    assert whole.shape == (40, len(demo.targets))
    with torch.inference_mode():
        alone = demo(torch.from_numpy(rows[33]["img"])[None])[0].numpy()
    np.testing.assert_allclose(whole[33], alone, atol=1e-4)

    def stop(done, total):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scores_of(demo, rows, tmp_path / "two", on_progress=stop)
    seen = []
    again = scores_of(demo, rows, tmp_path / "two", on_progress=lambda d, _: seen.append(d))
    assert seen[0] > 16
    np.testing.assert_array_equal(again, whole)
    seen.clear()
    scores_of(demo, rows, tmp_path / "two", on_progress=lambda d, _: seen.append(d))
    assert seen == []


def test_images_that_cannot_be_read_are_left_out_and_counted(demo, tmp_path):
    rows = xd.Phantom_Dataset(n=30, size=64)
    scores = np.tile(np.linspace(0, 1, 30, dtype=np.float32)[:, None], (1, len(demo.targets)))
    scores[4] = np.nan
    cell = measured(demo, rows, scores, ["Effusion"])
    assert cell.failed == 1
    assert cell.table["n"].tolist() == [29, 29]
    with pytest.raises(DatasetError, match="knows none of"):
        measured(demo, rows, scores, ["Nothing"])


def test_published_numbers_stand_beside_ours():
    table = pd.DataFrame(
        {"finding": ["Mass", "mean"], "auroc": [0.8, 0.7], "low": [0.75, 0.65],
         "high": [0.85, 0.75], "reason": ["", ""]}
    )  # fmt: skip
    said = {"model": "X", "weights": "resnet18-res144-demo", "source": "here"}
    published = [
        Published(finding="Mass", auroc=0.9, low=0.78, high=0.92, **said),
        Published(finding="mean", auroc=0.8, **said),
    ]
    found = _compared(table, "demo", published)
    assert found["inside"].tolist() == ["inside", "outside"]
    assert found["published"].tolist() == [0.9, 0.8]
    assert "inside" not in _compared(table, "other", published)


def test_the_matrix_of_simulated_sites(tmp_path):
    on = [f"phantom site={site} n=36 size=64" for site in "AB"]
    words = ["benchmark", "cross-dataset", "--on", on[0], "--on", on[1], "--model", "demo"]
    done = run(*words, "--out-dir", tmp_path / "o", "--workers", 1)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "o" / "results.md").read_text()
    assert text.splitlines()[0] == f"| weights | {on[0]} | {on[1]} |"
    assert "(36 images, " in text
    table = pd.read_csv(tmp_path / "o" / "results.csv")
    assert set(table["dataset"]) == set(on)
    assert (table["low"] <= table["auroc"]).all() or table["reason"].notna().any()
    assert provenance.read(tmp_path / "o" / "results.csv")["command"] == "xrv benchmark"
    assert "mean AUROC" in (tmp_path / "o" / "results.svg").read_text("utf-8")
    assert run(*words, "--out-dir", tmp_path / "o").exit_code == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cross-dataset"], "takes its datasets as --on"),
        (["nothing", "--dry-run"], "nih-official"),
        (["siim"], "needs --imgpath FOLDER"),
        (["siim", "--with", "colour=red"], "does not take colour"),
    ],
)
def test_what_cannot_be_done_is_refused(words, message):
    done = run("benchmark", *words)
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
