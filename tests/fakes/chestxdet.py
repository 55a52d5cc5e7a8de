"""ChestX-Det: JSON lists of 1024 by 1024 images with boxes and outlines."""

import json
from pathlib import Path

import numpy as np

from fakes._fake import Fake, area, write_image

SHAPE = (1024, 1024)


def rectangle(x0, y0, x1, y1):
    """Corners of a box as an outline, clockwise."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def triangle_mask(x0, y0, side):
    """A right-angled triangle with its right angle at (x0, y0): centres strictly inside."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    return (x > x0) & (y > y0) & ((x - x0) + (y - y0) < side)


def build(folder: Path) -> Fake:
    """Six images: two overlapping outlines, a triangle, boxes alone, no finding, no area."""
    train = [
        {
            "file_name": "36302.png",
            "syms": ["Effusion", "Effusion", "Pleural Thickening"],
            "boxes": [[100, 200, 300, 400], [200, 300, 400, 500], [10, 20, 110, 120]],
            "polygons": [
                rectangle(100, 200, 300, 400),
                rectangle(200, 300, 400, 500),
                [[10, 20], [110, 20], [10, 120]],
            ],
        },
        {"file_name": "36346.png", "syms": [], "boxes": [], "polygons": []},
        # Entries of ChestX-Det10 have no outlines.
        {"file_name": "36490.png", "syms": ["Mass"], "boxes": [[799, 666, 937, 761]]},
        {
            "file_name": "36500.png",
            "syms": ["Diffuse Nodule"],
            "boxes": [[50, 50, 50, 90]],
            "polygons": [[]],
        },
    ]
    test = [
        {
            "file_name": "54280.png",
            "syms": ["Calcification"],
            "boxes": [[0, 0, 1024, 10]],
            "polygons": [rectangle(0, 0, 1024, 10)],
        },
        {"file_name": "54301.png", "syms": [], "boxes": [], "polygons": []},
    ]
    for seed, entry in enumerate([*train, *test]):
        part = "train_data/train" if seed < len(train) else "test_data/test"
        write_image(folder / part / entry["file_name"], SHAPE, seed)
    (folder / "ChestX_Det_train.json").write_text(json.dumps(train))
    (folder / "ChestX_Det_test.json").write_text(json.dumps(test))
    names = [entry["file_name"] for entry in [*train, *test]]
    return Fake(
        kwargs={
            "imgpath": folder,
            "train_json": folder / "ChestX_Det_train.json",
            "test_json": folder / "ChestX_Det_test.json",
        },
        labels={
            "36302.png": {"Effusion": 1.0, "Pleural_Thickening": 1.0},
            "36346.png": {},
            "36490.png": {"Mass": 1.0},
            "36500.png": {"Diffuse Nodule": 1.0},
            "54280.png": {"Calcification": 1.0},
            "54301.png": {},
        },
        default=names,
        masks={
            "36302.png": {
                "Effusion": area(SHAPE, (100, 200, 300, 400), (200, 300, 400, 500)),
                "Pleural_Thickening": triangle_mask(10, 20, 100),
            },
            "36490.png": {"Mass": area(SHAPE, (799, 666, 937, 761))},
            "54280.png": {"Calcification": area(SHAPE, (0, 0, 1024, 10))},
        },
        boxes={
            "36302.png": [(100, 200, 200, 200), (200, 300, 200, 200), (10, 20, 100, 100)],
            "36490.png": [(799, 666, 138, 95)],
            "54280.png": [(0, 0, 1024, 10)],
        },
        splits={"train": names[:4], "test": names[4:]},
    )


BUILDERS = {"ChestXDet_Dataset": build}
