"""Files of real size for the benchmarks: simulated films with the noise of a detector, as PNG."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

_SIMULATED = 8  # the others are these, shifted and with other noise
_NOISE = {1024: 3.0, 2500: 6.0}  # of 2048 grey values; gives the bytes per pixel of published films


def grey_film(index: int, shape: tuple[int, int], bits: int = 8) -> np.ndarray:
    """One film.

    Args:
        index: Of a film; another one gives another.
        shape: Height and width.
        bits: 8, or 16 for 12 significant ones at the upper end, as many detectors store them.

    Returns:
        uint8 or uint16, of the shape.
    """
    rng = np.random.default_rng(index)
    shifted = np.roll(_simulated(index % _SIMULATED), int(rng.integers(-40, 40)), 1)
    picture = Image.fromarray(shifted).resize(shape[::-1], Image.Resampling.BICUBIC)
    noise = rng.standard_normal(shape, np.float32) * _NOISE.get(shape[0], 3.0)
    unit = np.clip((np.asarray(picture) + noise + 1024) / 2048, 0, 1)
    if bits == 8:
        return (unit * 255).round().astype(np.uint8)
    return (unit * 4095).round().astype(np.uint16) << 4


@cache
def _simulated(index: int) -> np.ndarray:
    from torchxrayvision.phantom import simulate

    return simulate(index, seed=4, size=1024, views=("PA",)).image[0]


def write_films(folder: Path, shapes: list[tuple[int, int]]) -> list[Path]:
    """Write one 8-bit grey PNG for each shape.

    Args:
        folder: Made if absent.
        shapes: Height and width of each film.

    Returns:
        The files, in order.
    """
    folder.mkdir(exist_ok=True)
    paths = []
    for index, shape in enumerate(shapes):
        paths.append(folder / f"{index:08d}_000.png")
        Image.fromarray(grey_film(index, shape)).save(paths[-1])
    return paths


def described(folder: Path) -> str:
    """How many files there are, and how large."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            sizes.setdefault((image.height, image.width), []).append(path.stat().st_size)
    parts = [
        f"{len(found)} of {height} x {width} with {np.mean(found) / 1e6:.2f} MB on average"
        for (height, width), found in sorted(sizes.items())
    ]
    return "Films, 8-bit PNG: " + ", ".join(parts)
