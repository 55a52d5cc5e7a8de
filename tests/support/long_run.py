"""A long run with a small planted network; as a script, one that is killed again and again.

    python long_run.py FILMS FOLDER KILLS PAUSE SEED OPTIONS-AS-JSON

Writes FOLDER/whole.csv in one run and FOLDER/killed.csv in one that SIGKILL ends so many times.
Each run is a process, forked off before torch has done anything, so that it is imported once.
Each batch is followed by a pause of PAUSE seconds, so that there is a time to be killed in.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from torchxrayvision.inference import predict_to_file
from torchxrayvision.inputs import ReadOptions
from torchxrayvision.models import DenseNet

SIZE = 32
SMALL = {"growth_rate": 4, "block_config": (1, 1, 1, 1), "num_init_features": 8}


def network() -> DenseNet:
    """Three outputs, of which two are trained; the same tensors everywhere."""
    net = DenseNet(**SMALL, num_classes=3)
    generator = torch.Generator().manual_seed(7)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            scale = 1e-3 if name == "features.conv0.weight" else 0.3
            value.copy_(torch.rand(value.shape, generator=generator) * scale + scale / 10)
    with torch.no_grad():
        net.classifier.weight.sub_(net.classifier.weight.mean())
    net.targets, net.weights, net.input_resolution = ["Mass", "", "Hernia"], "planted", SIZE
    return net.eval()


def write_films(folder: Path, count: int, damaged: int = 0) -> Path:
    """`count` small films in folders of a hundred; of those, each `damaged`-th is cut."""
    for number in range(count):
        path = folder / f"{number // 100:03d}" / f"{number:05d}.png"
        if number % 100 == 0:
            path.parent.mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 36), np.uint8)
        Image.fromarray(pixels).save(path)
        if damaged and number % damaged == 0:
            path.write_bytes(path.read_bytes()[:200])
    return folder


def run(films: str, target: Path, pause: float, options: dict) -> int:
    """Start a run in a process of its own; returns its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        torch.set_num_threads(1)
        reading = ReadOptions(**options.get("reading", {"workers": 2}))
        predict_to_file(
            films,
            network(),
            target,
            engine="torch",
            batch_size=options["batch_size"],
            reading=reading,
            on_progress=lambda *_: time.sleep(pause),
        )
        status = 0
    except BaseException:  # noqa: BLE001 - a fork must not go on as the server
        traceback.print_exc()
    finally:
        os._exit(status)


def finish(process: int) -> None:
    """Wait for a run that must succeed."""
    status = os.waitpid(process, 0)[1]
    if status:
        sys.exit(f"a run ended with status {status}")


def kill_when(process: int, rows: Path, size: int) -> None:
    """Kill a run once its journal has so many bytes, which must be before it ends."""
    while not rows.exists() or rows.stat().st_size < size:
        if os.waitpid(process, os.WNOHANG) != (0, 0):
            sys.exit("a run ended before it was killed")
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def main(films: str, folder: str, kills: str, pause: str, seed: str, options: str) -> None:
    """Run once in peace and once under fire."""
    chosen, rng, count = json.loads(options), random.Random(int(seed)), int(kills)
    whole, killed = Path(folder, "whole.csv"), Path(folder, "killed.csv")
    rows = Path(folder, "killed.csv.part", "rows.bin")
    finish(run(films, whole, 0, chosen))
    images = whole.read_bytes().count(b"\n") - 1
    per_image = 8  # bytes in the journal, at least: two numbers
    for _ in range(count):
        before = rows.stat().st_size if rows.exists() else 0
        step = images * per_image // (count + 1)
        kill_when(run(films, killed, float(pause), chosen), rows, before + rng.randrange(step))
    finish(run(films, killed, 0, chosen))


if __name__ == "__main__":
    main(*sys.argv[1:])
