"""TBX11K: COCO annotations of 512 by 512 PNG files."""

import json
from pathlib import Path

from fakes._fake import Fake, area, write_image

SHAPE = (512, 512)
CATEGORIES = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis")
# id of the image, name, (category, box) of each annotation
TRAIN = [
    (1, "tb/tb0005.png", [(1, (380.0, 126.0, 40.0, 44.0))]),
    (2, "tb/tb0007.png", [(2, (307.5, 62.25, 135.0, 146.5)), (2, (100.0, 52.0, 26.0, 16.0))]),
    (601, "health/h0001.png", []),
    # Two boxes of one finding that overlap, beside one of another.
    (3, "tb/tb0011.png", [(1, (10, 10, 50, 50)), (1, (40, 40, 50, 50)), (2, (300, 300, 9, 9))]),
    (4400, "sick/s0001.png", []),
]
VAL = [(700, "tb/tb0013.png", [(1, (200.0, 200.0, 20.0, 30.0))]), (701, "health/h0009.png", [])]


def coco(rows: list, first: int = 1) -> dict:
    """The annotations as the release writes them."""
    images = [
        {
            "id": key, "file_name": name, "width": 512, "height": 512, "license": 1,
            "date_captured": "2020-06-24 12:42:41.793194", "coco_url": "", "flickr_url": "",
        }
        for key, name, _ in rows
    ]  # fmt: skip
    boxes = [(key, category, box) for key, _, found in rows for category, box in found]
    annotations = [
        {
            "id": number, "image_id": key, "category_id": category, "iscrowd": 0,
            "area": int(box[2] * box[3]), "bbox": list(box), "width": 512, "height": 512,
        }
        for number, (key, category, box) in enumerate(boxes, first)
    ]  # fmt: skip
    categories = [
        {"id": number, "name": name, "supercategory": "Tuberculosis"}
        for number, name in enumerate(CATEGORIES, 1)
    ]
    return {"categories": categories, "images": images, "annotations": annotations}


def mask_of(found: list, wanted: tuple[int, ...]) -> dict:
    """The union of the boxes of some categories, cut to whole pixels."""
    boxes = [tuple(int(n) for n in box) for category, box in found if category in wanted]
    return area(SHAPE, *((x, y, x + w, y + h) for x, y, w, h in boxes))


def masks_of(found: list) -> dict:
    """Masks by finding; every box is tuberculosis."""
    masks = {CATEGORIES[c - 1]: mask_of(found, (c,)) for c, _ in found}
    return {**masks, "Tuberculosis": mask_of(found, (1, 2, 3))}


def build(folder: Path) -> Fake:
    """Five images for training, two for validation."""
    for seed, (_, name, _) in enumerate(TRAIN + VAL):
        write_image(folder / "imgs" / name, SHAPE, seed)
    annotations = folder / "annotations" / "json"
    annotations.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)):
        (annotations / f"TBX11K_{part}.json").write_text(json.dumps(coco(rows)))
    return Fake(
        kwargs={"imgpath": folder, "jsonpath": annotations / "TBX11K_train.json"},
        labels={
            f"imgs/{name}": dict.fromkeys(
                [CATEGORIES[c - 1] for c, _ in found] + ["Tuberculosis"], 1.0
            )
            if found
            else {}
            for _, name, found in TRAIN
        },
        default=[f"imgs/{name}" for _, name, _ in TRAIN],
        splits={"train": [f"imgs/{name}" for _, name, _ in TRAIN]},
        masks={f"imgs/{name}": masks_of(found) for _, name, found in TRAIN if found},
        boxes={f"imgs/{name}": [box for _, box in found] for _, name, found in TRAIN},
    )


BUILDERS = {"TBX11K_Dataset": build}
