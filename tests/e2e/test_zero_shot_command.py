"""`xrv predict` by words, and what may and may not be made of its scores."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from support.releases import clip, clip_vocabulary, put
from torchxrayvision.cli import app
from torchxrayvision.weights import registry

pytest.importorskip("timm", reason="image encoders are timm's: extra zero-shot")
pytest.importorskip("tokenizers", reason="texts become numbers by it: extra zero-shot")
pytest.importorskip("transformers", reason="makes the tensors: extra dev")


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cache with a small XrayCLIP, and 24 images of as many patients with labels."""
    folder = tmp_path_factory.mktemp("words")
    clip().save_pretrained(folder / "reference")
    vocabulary, merges = clip_vocabulary()
    entry = put(
        "xrayclip", folder / "reference", folder / "cache",
        vocab=json.dumps(vocabulary), merges=merges,
    )  # fmt: skip
    (folder / "films").mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        level = 60 + 120 * (i % 2)
        pixels = rng.normal(level, 30, (64, 64)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "films" / f"{i:02}.png")
    table = {
        "path": [f"{i:02}.png" for i in range(24)],
        "patientid": range(24),
        "Effusion": [i % 2 for i in range(24)],
    }
    pd.DataFrame(table).to_csv(folder / "labels.csv", index=False)
    return folder, entry


@pytest.fixture
def here(place, monkeypatch):
    folder, entry = place
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XRV_CACHE_DIR", str(folder / "cache"))
    monkeypatch.setenv("XRV_OFFLINE", "1")
    monkeypatch.setitem(registry._by_name, "xrayclip", entry)
    return folder


PREDICT = ("predict", "films", "--weights", "xrayclip", "--engine", "torch", "--check", "off")


def test_words_become_columns_and_calls_only_by_calibration(here):
    done = run(*PREDICT, "--zero-shot", "Effusion", "--zero-shot", "lung mass", "--output", "s.csv")
    assert done.exit_code == 0, done.output
    scores = pd.read_csv("s.csv")
    assert list(scores) == ["path", "error", "Effusion", "lung mass"]
    assert scores["Effusion"].between(0, 1).all()
    assert "CC BY-NC" in done.output  # the terms are shown

    fixed = run("evaluate", "s.csv", "labels.csv", "--operating-point", "0.5")
    assert fixed.exit_code != 0
    assert "no scale" in " ".join(fixed.output.split())
    judged = run("evaluate", "s.csv", "labels.csv", "--json")
    assert judged.exit_code == 0, judged.output
    assert '"auroc"' in judged.output

    raw = run("calibrate", "s.csv", "labels.csv", "--to", "u.json", "--method", "unchanged")
    assert raw.exit_code != 0
    made = run("calibrate", "s.csv", "labels.csv", "--to", "c.json", "--method", "isotonic",
               "--reach", "sensitivity=0.9")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert json.loads((here / "c.json").read_text())["output"] == "zero-shot"

    words = ("--zero-shot", "Effusion", "--zero-shot", "lung mass")
    called = run(*PREDICT, *words, "--calibration", "c.json", "--output", "calls.csv")
    assert called.exit_code == 0, called.output
    assert "call Effusion" in list(pd.read_csv("calls.csv"))
    (here / "p.json").write_text(
        json.dumps({"Effusion": {"positive": ["edema"], "negative": ["no edema"]}}), "utf-8"
    )
    other = run(*PREDICT, *words, "--prompts", "p.json", "--calibration", "c.json", "--output",
                "x.csv")  # fmt: skip
    assert other.exit_code != 0
    assert "calibration" in str(other.exception or other.output)


def test_options_that_do_not_fit_the_weights_are_refused_with_what_to_type(here):
    for words, advice in (
        (PREDICT, "--zero-shot 'pleural effusion'"),
        (("predict", "films", "--weights", "rad-dino"), "--embeddings"),
        (("predict", "films", "--weights", "demo", "--zero-shot", "Mass"), "xrayclip"),
        ((*PREDICT, "--prompts", "labels.csv"), "--prompts needs --zero-shot"),
    ):
        done = run(*words)
        assert done.exit_code == 2, done.output
        assert advice in " ".join(done.output.split())


def test_findings_compared_with_each_other_warn_of_a_missing_normal(here):
    done = run(*PREDICT, "--zero-shot", "Effusion", "--zero-shot", "Edema", "--contrast",
               "findings", "--output", "f.csv")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "No Finding" in done.output
    scores = pd.read_csv("f.csv")
    assert np.allclose(scores["Effusion"] + scores["Edema"], 1, atol=1e-5)
