"""A run that was killed ends as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal

import pytest

from support.training_runs import recipe, run, tensors
from torchxrayvision.errors import CheckpointError, ResumeError
from torchxrayvision.training.state import read_state

FILES = ("best.safetensors", "last.safetensors")
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder) == 0
    return folder


def same(folder, other):
    return all(tensors(folder / name) == tensors(other / name) for name in FILES)


# Steps within an epoch, its last step, its first; the files of a state, of weights, half written.
@pytest.mark.parametrize("kill", [("step", 5), ("step", 6), ("write", 0), ("write", 3)])
def test_one_kill_changes_no_bit(start, undisturbed, tmp_path, kill):
    assert start(tmp_path, kill=kill) == KILLED
    assert start(tmp_path) == 0
    assert same(tmp_path, undisturbed)


def test_a_kill_leaves_the_statistics_of_frozen_features(start, tmp_path):
    assert start(tmp_path / "one", trainable="head") == 0
    assert start(tmp_path / "two", trainable="head", kill=("step", 5)) == KILLED
    assert start(tmp_path / "two", trainable="head") == 0
    assert same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_five_kills_at_random_change_no_bit(start, undisturbed, tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(5):
        kill = rng.choice([("step", rng.randrange(9)), ("write", rng.randrange(5))])
        assert start(tmp_path, kill=kill) in (KILLED, 0)
    assert start(tmp_path) == 0
    assert same(tmp_path, undisturbed)
    assert not list(tmp_path.glob(".*.part*"))


def test_a_finished_run_is_not_run_again(undisturbed):
    before = {name: (undisturbed / name).stat().st_mtime_ns for name in FILES}
    result = run(undisturbed)
    assert result.epochs == 3
    assert [figures["epoch"] for figures in result.history] == [0, 1, 2]
    assert before == {name: (undisturbed / name).stat().st_mtime_ns for name in FILES}


def test_the_state_is_tensors_and_json(undisturbed):
    raw = (undisturbed / "resume.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert "torchxrayvision.training" in header["__metadata__"]
    assert not {p.name for p in undisturbed.rglob("*")} & {"resume.ckpt", "last.ckpt"}


def test_a_run_is_not_overwritten_and_not_mixed(undisturbed):
    with pytest.raises(ResumeError, match="holds a run"):
        run(undisturbed, resume=False)
    with pytest.raises(ResumeError, match="epochs = 3"):
        run(undisturbed, epochs=4)
    with pytest.raises(ResumeError, match="seed = 5"):
        run(undisturbed, seed=6)


def test_other_images_are_refused(undisturbed, monkeypatch):
    from support import training_runs

    monkeypatch.setattr(
        training_runs, "parts", lambda: (training_runs.data(28, seed=9), training_runs.data(12))
    )
    with pytest.raises(ResumeError, match="other images"):
        run(undisturbed)


def test_a_damaged_state_says_so(undisturbed, tmp_path):
    whole = (undisturbed / "resume.safetensors").read_bytes()
    (tmp_path / "resume.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError):
        run(tmp_path)
    with pytest.raises(CheckpointError, match="not the state"):
        read_state(undisturbed / "best.safetensors")


def test_the_early_end_is_remembered(start, tmp_path):
    changes = {"patience": 1, "epochs": 6, "ema": 0.0}
    assert start(tmp_path / "a", **changes) == 0
    epochs = len(read_state(tmp_path / "a" / "resume.safetensors")["history"])
    assert epochs < recipe(**changes).epochs
    # Started again after the last state was written, it must not train one epoch more.
    assert start(tmp_path / "a", **changes) == 0
    assert len(read_state(tmp_path / "a" / "resume.safetensors")["history"]) == epochs
