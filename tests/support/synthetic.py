"""Network tensors and radiograph-like pictures from a seed, the same in every environment."""

from __future__ import annotations

import zlib

import numpy as np


def fill(
    shapes: dict[str, tuple[int, ...]],
    seed: int = 0,
    *,
    first: float | None = 1e-3,
    residual: str = ".bn3.",
) -> dict[str, np.ndarray]:
    """A value for every tensor of a network, from its name and shape alone.

    BatchNorm statistics are away from 0 and 1, so that a network in training mode, or one with
    statistics of another layer, gives other outputs.

    Args:
        shapes: Shape of each tensor by name.
        seed: Another one gives other values.
        first: Standard deviation of the first layer's weights; None for that of every layer, for
            networks that see values near 1.
        residual: Part of the names of normalisations that end a residual branch.
    """
    return {name: _tensor(name, shape, seed, first, residual) for name, shape in shapes.items()}


def _tensor(
    name: str, shape: tuple[int, ...], seed: int, first: float | None, residual: str
) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.array(1000, dtype=np.int64)
    if kind == "running_var":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if kind == "running_mean" or (kind == "bias" and len(shape) == 1):
        return rng.normal(0, 0.1, shape).astype(np.float32)
    if len(shape) == 1 and residual in name:
        # Sixteen residual sums would otherwise grow a ResNet's logits into the thousands.
        return rng.uniform(0.1, 0.3, shape).astype(np.float32)
    if len(shape) == 1:
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    outer = name.endswith(("conv0.weight", "model.conv1.weight")) or name == "conv1.weight"
    if first is not None and outer:
        # The first layer sees values up to 1024.
        return rng.normal(0, first, shape).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    gain = 1.0 if len(shape) == 2 else 2.0
    return rng.normal(0, np.sqrt(gain / fan_in), shape).astype(np.float32)


def film(height: int, width: int, seed: int = 0, levels: int = 256) -> np.ndarray:
    """A grey picture with smooth and sharp parts, uint8 or uint16, shape (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / height - 0.5, x / width - 0.5
    picture = 0.7 - 0.5 * np.exp(-((np.abs(x) - 0.2) ** 2 / 0.02 + y**2 / 0.08))
    picture += 0.1 * np.sin(60 * y + 10 * x**2) + 0.02 * rng.standard_normal((height, width))
    picture[: height // 10, : width // 12] = 1.0
    scaled = np.clip(picture, 0, 1) * (levels - 1)
    return scaled.round().astype(np.uint8 if levels <= 256 else np.uint16)
