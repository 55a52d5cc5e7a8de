"""Synthetic tensors for the classifiers of other groups, and what their golden records hold.

The recorder runs this in an environment with 1.5.7, the tests in this project's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import torch

from support.synthetic import fill, film

if TYPE_CHECKING:
    from pathlib import Path

    from torchxrayvision.weights import Weights

# For each model: the deviation of its first layer, where a residual branch ends, and the sides of
# the images that it sees: its own resolution and one that must be resized.
STYLES = {
    "jfhealthcare": {"first": 0.05},
    "chexpert": {"first": 0.3},
    "emory_hiti": {"first": None, "residual": ".bn2."},
    "mira": {"first": 0.01, "residual": ".bn2."},
    "xinario": {"first": None},
    "riken": {"first": None},
}
SIZES = {
    "jfhealthcare": (512, 333),
    "chexpert": (320, 401),
    "emory_hiti": (320, 401),
    "mira": (224, 301),
    "xinario": (224, 301),
    "riken": (320, 401),
}
HEAD_SCALE = 0.1
_HEADS = ("fc.", "fc_")
# Seven of the labels in an order of their own, so that the place of each must be looked up.
CHEXPERT_TASKS = (
    "No Finding",
    "Cardiomegaly",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pleural Effusion",
    "Fracture",
)


def values(model: str, shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict:
    """A tensor for every name; heads are small, so that probabilities are far from 0 and 1."""
    filled = fill(shapes, seed, **STYLES[model])
    return {
        name: torch.from_numpy(
            value * np.float32(HEAD_SCALE)
            if name.startswith(_HEADS) and name.endswith("weight")
            else value
        )
        for name, value in filled.items()
    }


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def batch(count: int, size: int) -> torch.Tensor:
    """Different radiograph-like pictures, shape (B, 1, S, S) in [-1024, 1024]."""
    films = [film(size, size, seed).astype(np.float32) for seed in range(1, count + 1)]
    return torch.from_numpy(np.stack(films)[:, None] / 255 * 2048 - 1024)


def record(model: torch.nn.Module, sizes: tuple[int, int], weigh: torch.Tensor) -> dict:
    """Outputs at two sizes and two batch sizes, and sums of the gradient to the input."""
    native, other = sizes
    with torch.no_grad():
        result = {
            f"{count}x{size}": model(batch(count, size)).double().tolist()
            for count, size in ((1, other), (2, native))
        }
    x = batch(1, native).requires_grad_()
    (model(x) * weigh).sum().backward()
    gradient = x.grad.double()
    result["gradient"] = {
        "sum": float(gradient.sum()),
        "abs": float(gradient.abs().sum()),
        "left": float(gradient[..., : native // 2].abs().sum()),
    }
    return result


def weighing(outputs: int) -> torch.Tensor:
    """Weights that tell the outputs apart in the gradient of their sum."""
    return torch.linspace(1, 2, outputs)


def ensemble_zip(path: Path, members: dict[str, dict[str, torch.Tensor]]) -> None:
    """The zip of an ensemble: under each name the checkpoint that its trainer wrote."""
    tasks = {name: place for place, name in enumerate(CHEXPERT_TASKS)}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, tensors in members.items():
            state = {f"module.model.{k}": v for k, v in tensors.items()}
            content = {"ckpt_info": {"epoch": 3}, "model_state": state, "task_sequence": tasks}
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=False)
            archive.writestr(name, stream.getvalue())


def described(name: str, path: Path) -> Weights:
    """An entry like the published one whose file is the one at `path`."""
    from torchxrayvision.facts import RemoteFile
    from torchxrayvision.weights import get

    entry = get(name)
    data = path.read_bytes()
    file = RemoteFile(
        url=entry.file.url,
        filename=path.name,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )
    return dataclasses.replace(entry, file=file)
