"""How much faster is XRayResizer than in 1.5.7, with the same numbers?

XRayResizer on the float32 image that 1.5.7 takes ("float32"), and the same from the integer
pixels of a file, as the inference pipeline does ("uint8", "uint16"). 1.5.7 has to be given the
float32 image in every case; converting it is not counted.

    python benchmarks/bench_resize.py --baseline-python PATH
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from _alternate import THREADS, Timings, main, timed

SHAPES = [(1024, 1024), (2500, 2048)]
SIZES = [224, 512]


def pixels_of(shape: tuple[int, int]) -> np.ndarray:
    """A smooth picture with noise, uint8, in all the values of the type."""
    row, column = (np.arange(n, dtype=np.float32) / 200 for n in shape)
    noise = np.random.default_rng(0).normal(0, 0.1, shape)
    value = (np.sin(row)[:, None] * np.cos(column) + 1) / 2 + noise
    return (np.clip(value, 0, 1) * 255).astype(np.uint8)


def image_of(pixels: np.ndarray) -> np.ndarray:
    """The float32 image (1, H, W) in [-1024, 1024] of 1.5.7."""
    return (pixels.astype(np.float32) / 255 * 2048 - 1024)[None]


def cases() -> Iterator[tuple[str, int, np.ndarray]]:
    for height, width in SHAPES:
        pixels = pixels_of((height, width))
        for size in SIZES:
            yield f"{height} x {width} to {size}", size, pixels


def version_1(out: Path) -> Timings:
    from torchxrayvision.datasets import XRayResizer

    timings: Timings = {}
    for name, size, pixels in cases():
        resize = partial(XRayResizer(size), image_of(pixels))
        seconds = timed(resize, 5)
        timings |= {f"{name}, {kind}": seconds for kind in ("float32", "uint8", "uint16")}
        np.save(out / f"{name}.npy", resize())
    return timings


def this_package(out: Path) -> Timings:
    from torchxrayvision.transforms import XRayResizer
    from torchxrayvision.transforms.resampling import _operator, resize

    def first_use() -> None:
        _operator.cache_clear()
        run()

    timings: Timings = {}
    for name, size, pixels in cases():
        shape = (size, size)
        wide = pixels.astype(np.uint16) * 257  # 255 becomes 65535: the same image in 16 bits
        kinds = {
            "float32": partial(XRayResizer(size), image_of(pixels)),
            "uint8": partial(resize, pixels[None], shape, scale=2048 / 255, offset=-1024),
            "uint16": partial(resize, wide[None], shape, scale=2048 / 65535, offset=-1024),
        }
        for kind, run in kinds.items():
            timings[f"{name}, {kind}"] = timed(run, 15)
            np.save(out / f"{name}, {kind}.npy", run())
        timings[f"{name}, first use of the size"] = timed(first_use, 7)
    return timings


def check(old: Path, new: Path) -> str:
    worst = max(
        float(np.abs(np.load(file) - np.load(old / f"{file.stem.split(',')[0]}.npy")).max())
        for file in new.glob("*.npy")
    )
    return f"Largest difference from 1.5.7 on the range of 2048: {worst:.1e}"


if __name__ == "__main__":
    main(__doc__, version_1, this_package, settings=THREADS, check=check)
