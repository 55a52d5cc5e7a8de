"""Record what TorchXRayVision 1.5.7 and scikit-image 0.26 make of small images.

Run in an environment that holds the two and OpenCV, and not in the one of this package::

    python tools/record_golden_transforms.py tests/golden/resize.npz

Inputs are not stored: ``pattern`` computes them, here and in the tests.
"""

from __future__ import annotations

import contextlib
import io
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from skimage.transform import resize

from torchxrayvision.datasets import XRayCenterCrop, XRayResizer

# Height and width before and after: down, up, one of each, equal, one pixel, extreme ratios.
SIZES = [
    ((1, 1), (1, 1)), ((1, 1), (5, 5)), ((1, 9), (3, 4)), ((9, 1), (4, 3)), ((2, 2), (1, 1)),
    ((2, 2), (7, 7)), ((3, 3), (2, 2)), ((5, 5), (5, 5)), ((5, 8), (5, 4)), ((8, 5), (4, 5)),
    ((6, 6), (12, 12)), ((7, 7), (10, 10)), ((10, 10), (7, 7)), ((16, 16), (8, 8)),
    ((16, 16), (15, 15)), ((15, 15), (16, 16)), ((20, 20), (3, 3)), ((33, 50), (16, 16)),
    ((50, 33), (16, 16)), ((33, 33), (1, 1)), ((64, 64), (32, 32)), ((64, 48), (24, 24)),
    ((63, 64), (32, 31)), ((12, 90), (40, 8)), ((90, 12), (8, 40)), ((50, 50), (49, 49)),
    ((49, 49), (50, 50)), ((128, 100), (28, 28)), ((131, 97), (31, 31)), ((257, 255), (32, 32)),
    ((300, 7), (7, 30)), ((7, 300), (30, 7)), ((400, 5), (2, 9)), ((1, 700), (1, 3)),
    ((700, 1), (3, 1)), ((250, 205), (22, 22)), ((512, 512), (17, 17)), ((320, 390), (40, 40)),
    ((1000, 3), (4, 4)), ((3, 1000), (4, 4)), ((30, 30), (44, 37)),
]  # fmt: skip
ENGINES = [pair for pair in SIZES if pair[1][0] == pair[1][1] <= 24]  # a square, and a small one
CROPS = [(8, 8), (9, 6), (6, 9), (5, 8), (8, 5), (7, 4), (4, 7), (1, 6), (10, 3), (11, 2)]


def pattern(height: int, width: int) -> np.ndarray:
    """An uneven uint8 image that any program computes alike."""
    row, column = np.indices((height, width))
    return ((row * 7919 + column * 104729 + row * column * 31) % 256).astype(np.uint8)


def kinds(pixels: np.ndarray) -> dict[str, np.ndarray]:
    signed = (pixels * (2048 / 255) - 1024).astype(np.float32)
    return {
        "signed": signed,  # both signs: nothing to cut
        "bright": signed / 2 + 700,  # above 0 everywhere: cut to the range of the image
        "dark": signed / 2 - 700,
        "mask": pixels > 127,
    }


def main(target: Path) -> None:
    record: dict[str, np.ndarray] = {}
    for before, after in SIZES:
        for kind, image in kinds(pattern(*before)).items():
            name = f"{kind}_{before[0]}x{before[1]}_{after[0]}x{after[1]}"
            result = resize(image[None], (1, *after), mode="constant", preserve_range=True)[0]
            record[name] = result.astype(bool if kind == "mask" else np.float32)
    for before, (size, _) in ENGINES:
        image = kinds(pattern(*before))["signed"][None]
        name = f"{before[0]}x{before[1]}_{size}"
        with contextlib.redirect_stdout(io.StringIO()):  # 1.5.7 prints advice
            record[f"xrv_{name}"] = XRayResizer(size)(image)
            record[f"cv2_{name}"] = XRayResizer(size, engine="cv2")(image)
    for height, width in CROPS:
        record[f"crop_{height}x{width}"] = XRayCenterCrop()(pattern(height, width)[None])
    np.savez_compressed(target, **record)
    print(f"{target}: {len(record)} arrays, {target.stat().st_size} bytes, from", end=" ")
    print(*(f"{name} {version(name)}" for name in ("torchxrayvision", "scikit-image", "numpy")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
