"""Runs of seconds on a tiny network, in processes that can be killed at a chosen instant."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import lightning.pytorch  # noqa: F401 - loaded once for all runs
import numpy as np
import torch
from torch import nn

from torchxrayvision.checkpoints import read_tensors
from torchxrayvision.models import XRayClassifier
from torchxrayvision.training import (
    Augmentation,
    Optimiser,
    PreparedImages,
    Recipe,
    fit,
)

NAMES = ("Mass", "Edema")


class TinyNet(XRayClassifier):
    """One convolution, a norm, dropout, and a head: what a state must hold in full."""

    architecture = "Tiny"

    def __init__(self, norm=True, dropout=0.3):
        super().__init__(targets=NAMES, input_resolution=None, op_threshs=None, apply_sigmoid=False)
        self.conv = nn.Conv2d(1, 6, 3, stride=2, bias=not norm)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(6, len(NAMES))

    @property
    def head(self):
        return self.classifier

    def _replace_head(self, layer):
        self.classifier = layer

    def _rescale(self, x):
        return x / 1024

    def _embed(self, x):
        return self.dropout(torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


def tiny_net(**kwargs):
    """The same network at every call; the caller's generator stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyNet(**kwargs)


def data(count=40, seed=0, size=16):
    """Images that are brighter where Mass is present; some labels of Edema unknown."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 2)).astype(np.float32)
    images = rng.integers(0, 120, (count, size, size)) + 80 * labels[:, 0, None, None]
    labels[rng.random(count) < 0.3, 1] = np.nan
    return PreparedImages(images.astype(np.uint8), labels, NAMES, patient_ids=np.arange(count) // 2)


def recipe(**changes):
    """Three epochs of seven steps, with everything on that a state must hold."""
    usual = {
        "resolution": 16,
        "epochs": 3,
        "batch_size": 4,
        "ema": 0.9,
        "patience": 5,
        "checkpoint_steps": 3,
        "augmentation": Augmentation(rotation=20, noise=0.05, gamma=0.2),
        "optimiser": Optimiser(lr=0.01),
        "loggers": (),
        "accelerator": "cpu",
        "seed": 5,
    }
    return Recipe(**{**usual, **changes})


def parts():
    """Training and validation images."""
    whole = data()
    return whole.subset(range(28)), whole.subset(range(28, 40))


def run(out, *, kill=None, resume=True, net=None, **changes):
    """One start of the run in `out`; `kill` is ("step" or "write", n): SIGKILL at the n-th."""
    torch.set_num_threads(1)
    if kill is not None:
        _arm(*kill)
    train, validation = parts()
    network = tiny_net(**(net or {}))
    return fit(
        recipe(**changes), train, validation, out=out, resume=resume, network=network,
        progress=False,
    )  # fmt: skip


def _arm(what, count):
    from torchxrayvision import files
    from torchxrayvision.training.module import Training

    owner, name = {"step": (Training, "optimizer_step"), "write": (files.os, "fsync")}[what]
    original, left = getattr(owner, name), [count]

    def last_call(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, last_call)


class Server:
    """A process that has loaded everything once and forks for each run, so that one costs little.

    Nothing runs in it before the fork, so it has no threads that a fork would lose.
    """

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
            },
        )

    def start(self, out, *, ranks=1, **kwargs):
        """`run` in a process of its own, or in several; minus the signal that ended the last."""
        order = {"ranks": ranks, "job": {"out": str(out), **kwargs}}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        """End it."""
        self._process.stdin.close()
        self._process.wait(120)
        self._process.stdout.close()


def serve():
    """Fork for each line of standard input; print how each run ended."""
    for line in sys.stdin:
        order = json.loads(line)
        port = free_port()
        children = [
            fork(order["job"], rank, order["ranks"], port) for rank in range(order["ranks"])
        ]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(min(codes, key=lambda code: code == 0), flush=True)  # noqa: T201 - the answer


def fork(job, rank, ranks, port):
    """Run a job in a child, told of its rank as torchrun tells it."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if ranks > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0",
            WORLD_SIZE=str(ranks), LOCAL_WORLD_SIZE=str(ranks),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test",
        )  # fmt: skip
    try:
        run(**job)
    except BaseException:  # noqa: BLE001 - a fork must not go on as the server
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop_at_step(count, start, monkeypatch):
    """Begin a run, and interrupt it as Ctrl-C does at its `count`-th optimiser step."""
    import pytest

    from torchxrayvision.training.module import Training

    steps = []
    original = Training.optimizer_step

    def stop(self, *args, **kwargs):
        steps.append(None)
        if len(steps) == count:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(Training, "optimizer_step", stop)
        start()


def tensors(path: Path):
    """Every tensor of a file as bytes."""
    return {k: v.numpy().tobytes() for k, v in read_tensors(path).tensors.items()}


if __name__ == "__main__":
    if sys.argv[1:]:
        run(**json.loads(sys.argv[1]))
    else:
        serve()
