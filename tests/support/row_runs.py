"""Runs of the screening, of segmentations and of explanations; as a script, a slow one to kill.

python row_runs.py KIND FILMS FOLDER PAUSE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from support import long_run
from torchxrayvision.explain import explain_to_folder
from torchxrayvision.inputs import ReadOptions
from torchxrayvision.models import UNet
from torchxrayvision.screening import check_to_file
from torchxrayvision.segmentation import segment_to_folder

TABLES = {"check": "checks.csv", "segment": "measures.csv", "explain": "explanations.json"}


def segmenter() -> UNet:
    """A network whose masks depend on the image; the same tensors everywhere."""
    torch.manual_seed(3)
    net = UNet(targets=["Heart", "Left Lung", "Right Lung"], width=4)
    net.input_resolution = 32
    return net.eval()


def run(kind: str, films: Path, folder: Path, *, reading: ReadOptions | None = None, **options):
    """One run; returns what it gives."""
    reading = reading or ReadOptions(workers=1)
    if kind == "check":
        return check_to_file(films, folder / TABLES[kind], reading=reading, **options)
    if kind == "segment":
        return segment_to_folder(
            films, segmenter(), folder, batch_size=2, reading=reading, **options
        )
    return explain_to_folder(
        films,
        long_run.network(),
        ["Mass", "Hernia"],
        folder,
        boxes=True,
        reading=reading,
        **options,
    )


if __name__ == "__main__":
    words = sys.argv[1:]
    torch.set_num_threads(1)
    pause = float(words[3])
    run(words[0], Path(words[1]), Path(words[2]), on_progress=lambda *_: time.sleep(pause))
