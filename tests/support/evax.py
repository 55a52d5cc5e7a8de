"""Checkpoints of the EVA-X release with made tensors, in its container."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch

from torchxrayvision.facts import RemoteFile
from torchxrayvision.weights import Weights, get

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "evax.json").read_text())
"""Shapes of the tensors and what the authors' network gives of them; see `source` there."""
SIZES = ("tiny", "small", "base")


def made(name: str, shape: list[int]) -> torch.Tensor:
    """The tensor of that name by the golden file's rule."""
    start = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
    wave = np.sin(np.arange(math.prod(shape)) * 0.7310585 + start * 6.2831853)
    if len(shape) == 1 and name.endswith("weight"):
        wave = 1 + 0.2 * wave
    elif len(shape) >= 2 and "pos_embed" not in name and "token" not in name:
        wave = wave * math.sqrt(2 / math.prod(shape[1:]))
    else:
        wave = 0.1 * wave
    return torch.tensor(wave.reshape(shape), dtype=torch.float32)


def positions(reach: int) -> dict[str, torch.Tensor]:
    """Tables of rotary positions of 14 x 14 patches, counted to `reach` a side."""
    bands = 1 / 10000 ** (torch.arange(0, 32, 2) / 32)
    angle = (torch.arange(14) / 14 * reach)[:, None] * bands
    angle = angle.repeat_interleave(2, dim=1)
    both = torch.cat(
        [angle[:, None].expand(14, 14, 32), angle[None].expand(14, 14, 32)], dim=2
    ).reshape(196, 64)
    return {"freqs_cos": both.cos(), "freqs_sin": both.sin()}


def state(size: str) -> dict[str, torch.Tensor]:
    """Every tensor of one size, tables of positions too."""
    tables = positions(16 if size == "base" else 14)
    return {
        name: tables[name.rpartition(".")[2]] if "rope" in name else made(name, shape)
        for name, shape in GOLDEN[f"eva_x_{size}"]["tensors"].items()
    }


def golden_input() -> torch.Tensor:
    """What the golden figures were computed of, shape (2, 1, 224, 224), standardised."""
    k = np.arange(224 * 224).reshape(224, 224)
    waves = [1.5 * np.sin(k * 0.0113 * (b + 1)) + 0.5 * np.cos(k * 0.37) for b in range(2)]
    return torch.tensor(np.stack(waves), dtype=torch.float32)[:, None]


def released(name: str, tensors: dict[str, torch.Tensor], folder: Path) -> Weights:
    """An entry like the published one whose file holds `tensors` as the release packs them."""
    path = folder / get(name).file.filename
    settings = argparse.Namespace(lr=1e-3, model="eva", output_dir="runs")
    optimizer = {"state": {0: {"step": 7}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    torch.save({"model": tensors, "optimizer": optimizer, "epoch": 3, "args": settings}, path)
    content = path.read_bytes()
    file = RemoteFile(
        url=get(name).file.url,
        filename=path.name,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
    return dataclasses.replace(get(name), file=file)
