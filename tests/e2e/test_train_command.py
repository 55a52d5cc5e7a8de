"""`xrv train`, from a recipe to weights that `load_checkpoint` reads."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

import torchxrayvision.cli as cli
from torchxrayvision.models import load_checkpoint

RECIPE = """
findings = ["Effusion"]
model = "torchvision:mobilenet_v3_small"
resolution = 32
batch_size = 8
epochs = 1
accelerator = "cpu"
augmentation = "strong"

[[datasets]]
name = "Phantom_Dataset"
args = { n = 16, size = 64 }
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(RECIPE)
    return path


def train(*arguments):
    return CliRunner().invoke(cli.app, ["train", *map(str, arguments)])


def test_a_recipe_becomes_weights_and_is_not_overwritten(config, monkeypatch, capsys):
    cache = config.parent / "cache"
    done = train("--config", config, "--cache", cache, "--workers", "1")
    assert done.exit_code == 0, done.output
    assert "mean AUROC" in done.output
    assert "epoch 1: training loss" in done.stderr
    assert "validation, which chose epoch 1 of 1: expect less for other patients" in done.stdout
    model = load_checkpoint(config.parent / "run" / "best.safetensors")
    assert model.targets == ["Effusion"]
    assert len(list(cache.glob("*/images.bin"))) == 1
    monkeypatch.setattr(sys, "argv", ["xrv", "train", "--config", str(config)])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "holds a run" in capsys.readouterr().err
    again = train("--config", config, "--cache", cache, "--resume")
    assert again.exit_code == 0, again.output


def test_a_mistyped_key_is_one_line(config, monkeypatch, capsys):
    config.write_text(RECIPE.replace("epochs", "epoch"))
    monkeypatch.setattr(sys, "argv", ["xrv", "train", "--config", str(config)])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "did you mean 'epochs'" in capsys.readouterr().err


def test_what_the_split_leaves_out_is_predicted_and_said_to_have_chosen_nothing(config):
    config.write_text("split = { fractions = [0.5, 0.25] }" + RECIPE)
    done = train("--config", config, "--cache", config.parent / "cache", "--workers", "1")
    assert done.exit_code == 0, done.output
    assert "test, which chose nothing" in done.stdout
    names = {path.name for path in (config.parent / "run").iterdir()}
    wanted = {"split.csv", "auroc.csv", "predictions-validation.csv", "predictions-test.csv"}
    assert wanted <= names
