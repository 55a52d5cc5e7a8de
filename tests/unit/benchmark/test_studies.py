"""Covariate shift on simulated sites, and explanations against masks."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from fakes import chexlocalize
from torchxrayvision import evaluation, explain, provenance
from torchxrayvision.benchmark import (
    Protocol,
    Shift,
    covariate_shift,
    localise,
    otsu_region,
    rows_of,
    shift,
)
from torchxrayvision.cli import app
from torchxrayvision.errors import DatasetError
from torchxrayvision.models import get_model

pytestmark = pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning")

SMALL = Shift(size=32, drawn=500, pool=20, steps=2, seeds=2, epochs=3)
WORDS = [f"{name}={getattr(SMALL, name)}" for name in ("size", "drawn", "pool", "steps", "seeds")]
WORDS = [word for name in [*WORDS, "epochs=3"] for word in ("--with", name)]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


# ---- covariate shift ---------------------------------------------------------------------------


def test_a_study_has_each_ratio_and_test_and_resumes(tmp_path, monkeypatch):
    whole = covariate_shift(SMALL, tmp_path / "whole")
    assert whole[["ratio", "test"]].to_numpy().tolist() == [
        [ratio, test] for ratio in (0.0, 1.0) for test in ("same", "even", "opposite")
    ]
    assert whole["auroc"].between(0, 1).all()

    def stop(done, total):
        assert total == 4
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        covariate_shift(SMALL, tmp_path / "two", on_progress=stop)
    trained = []
    before = shift._trained
    monkeypatch.setattr(shift, "_trained", lambda *a: trained.append(1) or before(*a))
    again = covariate_shift(SMALL, tmp_path / "two")
    assert len(trained) == 2
    pd.testing.assert_frame_equal(again, whole)


def test_the_mean_over_seeds_is_that_of_the_scores(tmp_path):
    """At ratio 1 the site says all, so a test that is mixed alike is easier than the opposite."""
    table = covariate_shift(SMALL, tmp_path).set_index(["ratio", "test"])["auroc"]
    assert table[1.0, "same"] > table[1.0, "opposite"]
    assert table[0.0, "same"] > table[0.0, "opposite"]


def test_too_few_images_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="give more than drawn=60"):
        covariate_shift(Shift(size=32, drawn=60, pool=50), tmp_path)


def test_the_command_of_covariate_shift(tmp_path):
    said = run("benchmark", "covariate-shift", "--dry-run", *WORDS)
    assert "needs no data: 20 images" in said.output
    assert "4 small networks" in said.output.replace("\n", " ")
    done = run("benchmark", "covariate-shift", *WORDS, "--out-dir", tmp_path / "o")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "o" / "results.csv")
    assert len(table) == 6
    assert "out of distribution" in (tmp_path / "o" / "results.svg").read_text("utf-8")
    assert provenance.read(tmp_path / "o" / "results.csv")["options"]["seeds"] == 2
    assert run("benchmark", "covariate-shift", *WORDS, "--out-dir", tmp_path / "o").exit_code == 2
    wrong = run("benchmark", "covariate-shift", "--with", "colour=1", "--dry-run")
    assert wrong.exit_code == 2
    assert "covariate-shift takes the numbers size, drawn" in wrong.output


# ---- explanations against masks ----------------------------------------------------------------


def test_the_region_is_that_of_otsu_s_threshold():
    """By the definition: of all parts in two, the one whose means lie furthest apart."""
    rng = np.random.default_rng(0)
    heat = rng.gamma(2, size=(40, 40))
    heat[5:12, 8:20] += 6
    values, best, threshold = np.sort(heat.ravel()), -1.0, 0.0
    for i in range(1, len(values)):
        apart = i * (len(values) - i) * (values[:i].mean() - values[i:].mean()) ** 2
        if apart > best:
            best, threshold = apart, values[i]
    assert (otsu_region(heat) != (heat >= threshold)).mean() < 0.005  # of 256 grey values
    assert not otsu_region(-heat).any()


class Marked:
    """Two images of one patient and one of another, with one finding marked."""

    def __init__(self):
        self.pathologies, self.images = ["Effusion"], []
        self.csv = pd.DataFrame({"patientid": ["a", "a", "b"]})
        rng = np.random.default_rng(1)
        for _ in range(3):
            mask = np.zeros((1, 144, 144), np.float32)
            mask[0, 90:130, 20:60] = 1
            image = rng.normal(-300, 100, (1, 144, 144)).astype(np.float32)
            self.images.append({"img": image, "pathology_masks": {0: mask}})

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return self.images[i]

    def image_path(self, i):
        return f"{i}.png"


@pytest.fixture(scope="module")
def demo():
    return get_model("demo").eval()


def test_scores_are_those_of_the_pointing_game_and_of_iou(demo, tmp_path):
    marked = Marked()
    seen = []
    table = localise(
        demo,
        marked,
        tmp_path,
        methods=["gradcam", "rollout"],
        on_progress=lambda *a: seen.append(a),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert table["method"].unique().tolist() == ["gradcam"]  # the network has no attention
    shared, hits = [], []
    for sample in marked.images:
        x = torch.from_numpy(sample["img"])[None]
        heat = explain.attribute(demo, x, "Effusion", "gradcam")[0].detach().numpy()
        mask = sample["pathology_masks"][0][0] > 0
        shared.append(evaluation.iou(otsu_region(heat), mask))
        hits.append(explain.pointing_game([heat], [mask]).accuracy)
    row = table.iloc[0]
    assert row["iou"] == pytest.approx(np.mean(shared))
    assert row["hits"] == pytest.approx(np.mean(hits))
    assert row["chance"] == pytest.approx(40 * 40 / 144**2)
    assert row["reason"] == "too few patients for an interval: fewer than 5"
    assert np.isnan(row["hits_low"])
    seen.clear()
    (file,) = tmp_path.glob("*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][:20])  # as a kill leaves it
    again = localise(
        demo,
        marked,
        tmp_path,
        methods=["gradcam", "rollout"],
        on_progress=lambda *a: seen.append(a),
    )
    assert seen == [(2, 3), (3, 3)]
    pd.testing.assert_frame_equal(again, table)


def test_images_without_masks_are_refused(demo, tmp_path):
    marked = Marked()
    marked.images = [{"img": sample["img"]} for sample in marked.images]
    with pytest.raises(DatasetError, match="no image has a mask"):
        localise(demo, marked, tmp_path, methods=["gradcam"])


def test_masks_of_simulated_images_have_intervals(demo, tmp_path):
    protocol = Protocol(name="x", title="x", dataset="Phantom_Dataset")
    given = {"n": 24, "size": 96, "pathology_masks": True}
    rows = rows_of(protocol, given, int(demo.input_resolution))
    table = localise(demo, rows, tmp_path, methods=["cam"]).set_index("finding")
    known = table[(table["n"] >= 10) & (table.index != "mean")]
    assert len(known)
    assert (known["hits_low"] <= known["hits"]).all()
    assert (known["iou_high"] >= known["iou"]).all()
    assert table.loc["mean", "findings"] == len(table) - 1


def test_chexlocalize_scores_explanations_where_masks_are_given(tmp_path):
    fake = chexlocalize.build(tmp_path / "data")
    given = {n: v for n, v in fake.kwargs.items() if n in ("csvpath", "segmentation_jsonpath")}
    words = [word for n, v in given.items() for word in ("--with", f"{n}={v}")]
    words += ["--imgpath", fake.kwargs["imgpath"], "--partial", "--model", "demo"]
    shown = run("benchmark", "chexlocalize", "--dry-run")
    assert "segmentation_jsonpath" in shown.output
    out = tmp_path / "o"
    done = run(
        "benchmark", "chexlocalize-valid", *words, "--method", "cam", "--method", "gradients",
        "--out-dir", out, "--workers", 1, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    explained = json.loads(done.stdout)[-1]["explanations"]
    assert {row["method"] for row in explained} == {"cam", "gradients"}
    table = pd.read_csv(out / "explanations.csv")
    assert len(table) == len(explained)
    assert table["hits"].between(0, 1).all()
    assert provenance.read(out / "explanations.csv")["options"]["benchmark"] == "chexlocalize-valid"
    wrong = run("benchmark", "chexlocalize-valid", *words, "--method", "magic", "--out-dir", out,
                "--overwrite")  # fmt: skip
    assert wrong.exit_code == 2
