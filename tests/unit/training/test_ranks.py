"""Two processes that share each batch end where one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support import training_runs
from torchxrayvision.checkpoints import read_tensors
from torchxrayvision.training.order import Batches
from torchxrayvision.training.state import read_state

# Batch norm sees half a batch in each process, and dropout draws in each: both are left out.
PLAIN = {"net": {"norm": False, "dropout": 0.0}, "patience": 0}


def same_end(one, two):
    for name in ("best.safetensors", "last.safetensors"):
        first, second = (read_tensors(folder / name).tensors for folder in (one, two))
        start = training_runs.tiny_net(**PLAIN["net"]).state_dict()
        for key in first:
            torch.testing.assert_close(first[key], second[key], rtol=1e-4, atol=1e-5)
            assert (first[key] - start[key]).abs().max() > 1e-2
    histories = [read_state(folder / "resume.safetensors")["history"] for folder in (one, two)]
    for a, b in zip(*histories, strict=True):
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-4)
        assert a["auroc"] == pytest.approx(b["auroc"], abs=1e-6)


def test_two_ranks_match_one(start, tmp_path):
    assert start(tmp_path / "one", **PLAIN) == 0
    assert start(tmp_path / "two", ranks=2, **PLAIN) == 0
    same_end(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_torchrun_matches_one(start, tmp_path):
    assert start(tmp_path / "one", **PLAIN) == 0
    script = Path(training_runs.__file__)
    job = json.dumps({"out": str(tmp_path / "two"), **PLAIN})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", script, job],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(script.parents[1]), *sys.path]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    same_end(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("seed", [None, 4])
def test_processes_share_each_batch_without_loss(world, seed):
    whole = [set(draw.indices.tolist()) for draw in Batches(23, 6, seed)]
    shares = [
        [draw.indices.tolist() for draw in Batches(23, 6, seed, r, world)] for r in range(world)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert set().union(*parts) == batch
        assert all(parts)


def test_the_order_is_a_function_of_seed_and_epoch_and_can_start_anywhere():
    batches, other = Batches(20, 4, seed=1), Batches(20, 4, seed=1)
    batches.set_epoch(3)
    whole = [draw.indices.tolist() for draw in batches]
    other.set_epoch(3, 2)
    assert [draw.indices.tolist() for draw in other] == whole[2:]
    assert len(other) == len(whole) == 5
    other.set_epoch(3)  # Lightning says it again before it starts
    assert [draw.indices.tolist() for draw in other] == whole[2:]
    other.set_epoch(4)
    assert len(list(other)) == 5
    assert [draw.indices.tolist() for draw in other] != whole
    assert sorted(index for batch in whole for index in batch) == list(range(20))
