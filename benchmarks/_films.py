"""Files of real size for the benchmarks: simulated films with the noise of a detector, as PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_SIMULATED = 8  # the others are these, shifted and with other noise
_NOISE = {1024: 3.0, 2500: 6.0}  # of 2048 grey values; gives the bytes a pixel of published films


def write_films(folder: Path, shapes: list[tuple[int, int]]) -> list[Path]:
    """Write one 8-bit grey PNG for each shape.

    Args:
        folder: Made if absent.
        shapes: Height and width of each film.

    Returns:
        The files, in order.
    """
    from torchxrayvision.phantom import simulate

    folder.mkdir(exist_ok=True)
    count = min(_SIMULATED, len(shapes))
    bases = [simulate(index, seed=4, size=1024, views=("PA",)).image[0] for index in range(count)]
    paths = []
    for index, (height, width) in enumerate(shapes):
        rng = np.random.default_rng(index)
        picture = Image.fromarray(np.roll(bases[index % count], int(rng.integers(-40, 40)), 1))
        resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
        noise = rng.standard_normal((height, width), np.float32) * _NOISE.get(height, 3.0)
        grey = np.clip((resized + noise + 1024) * (255 / 2048), 0, 255).round().astype(np.uint8)
        paths.append(folder / f"{index:08d}_000.png")
        Image.fromarray(grey).save(paths[-1])
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
