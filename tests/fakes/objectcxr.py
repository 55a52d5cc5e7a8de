"""object-CXR: a zip of JPEG files; shapes around foreign objects in one text."""

import zipfile
from pathlib import Path

import numpy as np

from fakes._fake import Fake, area, write_image, write_text

RECTANGLES = "0 10 5 20 15;0 15 10 30 20"
ELLIPSE = "1 10 10 30 20"
POLYGON = "2 5 5 15 5 15 25 5 25"
ROWS = [
    ("00001.jpg", RECTANGLES),
    ("00002.jpg", ""),
    ("00003.jpg", ELLIPSE),
    ("00004.jpg", POLYGON),
    ("00005.jpg", "0 7 7 7 20"),  # a rectangle of no width: an object, yet nothing to draw
]


def shape_of(number: int) -> tuple[int, int]:
    """Each image has a size of its own."""
    return 40 + number, 50


def ellipse(shape: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Boolean array: pixels whose centre is inside, one by one."""
    mask = np.zeros(shape, dtype=bool)
    for y in range(shape[0]):
        for x in range(shape[1]):
            across = (x + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
            down = (y + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
            mask[y, x] = across**2 + down**2 <= 1
    return mask


def build(folder: Path) -> Fake:
    """Five images: two rectangles that overlap, an ellipse, a polygon, an object without area."""
    lines = ["image_name,annotation"]
    archive = folder / "train.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for seed, (name, annotation) in enumerate(ROWS):
            lines.append(f"{name},{annotation}")
            out.write(write_image(folder / "loose" / name, shape_of(seed), seed), f"train/{name}")
    return Fake(
        kwargs={
            "imgzippath": archive,
            "csvpath": write_text(folder / "train.csv", lines),
        },
        labels={name: {"Foreign Object": float(bool(text))} for name, text in ROWS},
        default=[name for name, _ in ROWS],
        masks={
            "00001.jpg": {"Foreign Object": area(shape_of(0), (10, 5, 20, 15), (15, 10, 30, 20))},
            "00003.jpg": {"Foreign Object": ellipse(shape_of(2), 10, 10, 30, 20)},
            "00004.jpg": {"Foreign Object": area(shape_of(3), (5, 5, 15, 25))},
        },
        required=("csvpath",),
    )


BUILDERS = {"ObjectCXR_Dataset": build}
