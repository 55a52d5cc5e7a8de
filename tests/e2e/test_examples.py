"""The programs in examples/ do what they say, on simulated radiographs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import torchxrayvision as xrv
from fakes import nlmtb
from torchxrayvision.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [
    pytest.mark.filterwarnings("ignore::torchxrayvision.errors.DemonstrationWarning"),
    # The examples are run on purpose with the weights that are in the package.
]


def run(name, *arguments):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Simulated frontal radiographs as files, with a table of findings: folder and table."""
    folder = tmp_path_factory.mktemp("phantom") / "release"
    command = ["phantom", "--out-dir", str(folder), "-n", "16", "--seed", "4", "--size", "160"]
    result = CliRunner().invoke(app, [*command, "--view", "PA"])
    assert result.exit_code == 0, result.output
    return folder, folder / "labels.csv"


def test_every_example_is_short_and_tested():
    names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    tested = Path(__file__).read_text("utf-8")
    for name in names:
        assert f'run("{name}"' in tested or f'"{name}",' in tested, name
        assert len((EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()) <= 60, name
    assert len(names) == 7


def test_process_image(release, capsys):
    image = min((release[0] / "images").glob("*.png"))
    found = run("process_image", image, "--weights", "demo")
    expected = xrv.inference.predict([str(image)], "demo", output="probability")
    for name, value in found.items():
        assert value == pytest.approx(float(expected[name].iloc[0]), abs=1e-3)
    assert "Effusion" in capsys.readouterr().out


def test_process_batch(release, tmp_path):
    broken, table = tmp_path / "broken.png", tmp_path / "findings.csv"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nno more")
    failed = run("process_batch", release[0] / "images", broken, table, "--weights", "demo")
    assert failed == 1
    rows = pd.read_csv(table)
    assert len(rows) == 17
    assert rows["error"].notna().sum() == 1


def test_dataset_utils(capsys):
    sizes = run("dataset_utils")
    assert sum(sizes) == 80
    assert sizes[0] > sizes[2] > 0
    assert "Effusion" in capsys.readouterr().out


def test_train_model(release, tmp_path):
    out = tmp_path / "mine.safetensors"
    columns = ("--column", "Effusion", "--column", "Mass")
    losses = run(
        "train_model", release[1], release[0], *columns, "--weights", "demo", "--epochs", 2,
        "--out", out,
    )  # fmt: skip
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert xrv.models.load_checkpoint(out).targets == ["Effusion", "Mass"]


def test_train_ae(tmp_path):
    out = tmp_path / "ae.pt"
    errors = run("train_ae", "--size", 32, "--count", 16, "--epochs", 2, "--out", out)
    assert errors[1] < errors[0]
    state = torch.load(out, weights_only=True)
    xrv.autoencoders.ResNetAE50().load_state_dict(state)


def test_model_calibrate(release, capsys):
    thresholds = run("model_calibrate", release[1], release[0], "--weights", "demo")
    assert thresholds
    assert all(0 < value < 1 for value in thresholds.values())
    assert "AUROC" in capsys.readouterr().out


def test_dataset_verify(tmp_path, capsys):
    fake = nlmtb.build(tmp_path)
    assert run("dataset_verify", "NLMTB_Dataset", "--imgpath", fake.kwargs["imgpath"])
    assert "0 unreadable" in capsys.readouterr().out
    first = tmp_path / fake.default[0]
    first.write_bytes(first.read_bytes()[:200])
    assert not run("dataset_verify", "NLMTB_Dataset", "--imgpath", fake.kwargs["imgpath"])
    assert first.name in capsys.readouterr().out
