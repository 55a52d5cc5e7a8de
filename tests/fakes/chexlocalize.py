"""CheXlocalize: CheXpert's validation and test images with segmentations in COCO's run lengths."""

import json
from pathlib import Path

import numpy as np

from fakes._fake import Fake, area, write_image, write_text
from fakes.chexpert import HEADER

WIDTH = 390
TASKS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Airspace Opacity", "Edema",
    "Consolidation", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Support Devices",
)  # fmt: skip
FINDINGS = {name: name for name in HEADER.split(",")[6:]} | {"Pleural Effusion": "Effusion"}
# below the release, sex, age, frontal or lateral, AP/PA, No Finding, positive columns
ROWS = [
    ("valid/patient64541/study1/view1_frontal.jpg", "Male", 73, "Frontal", "AP", "0.0",
     ["Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity"]),
    ("valid/patient64542/study1/view1_frontal.jpg", "Male", 70, "Frontal", "PA", "1.0",
     ["Support Devices"]),
    ("valid/patient64543/study1/view1_frontal.jpg", "Female", 85, "Frontal", "AP", "0.0",
     ["Edema", "Pleural Effusion"]),
    ("valid/patient64543/study1/view2_lateral.jpg", "Female", 85, "Lateral", "", "0.0",
     ["Edema"]),
    ("valid/patient64544/study1/view1_frontal.jpg", "Female", 42, "Frontal", "PA", "0.0", []),
]  # fmt: skip


def shape_of(path: str) -> tuple[int, int]:
    """Each image has a size of its own, wider than high."""
    return 320 + [row[0] for row in ROWS].index(path), WIDTH


def coco(mask: np.ndarray) -> str:
    """A mask as COCO's compressed run lengths; written from the description of the format."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    if flat[0]:
        runs.insert(0, 0)
    text = ""
    for i, run in enumerate(runs):
        number = run - runs[i - 2] if i > 2 else run
        while True:
            code, number = number & 31, number >> 5
            more = number != (-1 if code & 16 else 0)
            text += chr(48 + (code | (32 if more else 0)))
            if not more:
                break
    return text


def masks() -> dict[str, dict[str, np.ndarray]]:
    """Image to task to mask; images left out have no entry in the json."""
    first, second, third = (shape_of(ROWS[i][0]) for i in range(3))
    heart = (100, 150, 250, 300)
    return {
        ROWS[0][0]: {
            "Enlarged Cardiomediastinum": area(first, heart, (150, 50, 200, 200)),
            "Cardiomegaly": area(first, heart),
            "Airspace Opacity": area(first, (0, 0, 20, 30), (370, 10, 390, 320)),
        },
        ROWS[1][0]: {"Support Devices": area(second, (10, 10, 12, 200))},
        ROWS[2][0]: {
            "Edema": area(third, (30, 30, 60, 60)),
            "Pleural Effusion": area(third, heart),
        },
        ROWS[4][0]: {},
    }


def key(path: str) -> str:
    """patient64541_study1_view1_frontal"""
    return "_".join(path.removesuffix(".jpg").split("/")[1:])


def build(folder: Path) -> Fake:
    """Five images of four patients; one entry whose ten masks are all empty, one image without."""
    lines = [HEADER]
    for seed, (path, sex, age, frontal, view, none, positive) in enumerate(ROWS):
        values = ",".join("1.0" if name in positive else "0.0" for name in FINDINGS)
        lines.append(f"CheXpert-v1.0/{path},{sex},{age},{frontal},{view},{none},{values}")
        write_image(folder / "CheXpert-v1.0" / path, shape_of(path), seed)
    segmentations = {
        key(path): {
            task: {
                "size": list(shape_of(path)),
                "counts": coco(found.get(task, np.zeros(shape_of(path), dtype=bool))),
            }
            for task in TASKS
        }
        for path, found in masks().items()
    }
    (folder / "gt_segmentations_val.json").write_text(json.dumps(segmentations))
    views = {row[0]: "L" if row[3] == "Lateral" else row[4] for row in ROWS}
    names = {"Airspace Opacity": "Lung Opacity", "Pleural Effusion": "Effusion"}
    return Fake(
        kwargs={
            "imgpath": folder / "CheXpert-v1.0",
            "csvpath": write_text(folder / "val_labels.csv", lines),
            "segmentation_jsonpath": folder / "gt_segmentations_val.json",
        },
        labels={
            row[0]: {ours: float(column in row[6]) for column, ours in FINDINGS.items()}
            for row in ROWS
        },
        views=views,
        default=[row[0] for row in ROWS if row[3] == "Frontal"],
        patients={row[0]: row[0][13:18] for row in ROWS},
        ages={row[0]: float(row[2]) for row in ROWS},
        sexes={row[0]: row[1][0] for row in ROWS},
        splits={"valid": [row[0] for row in ROWS]},
        masks={
            path: {names.get(task, task): mask for task, mask in found.items()}
            for path, found in masks().items()
            if found
        },
        required=("csvpath",),
    )


def build_test(folder: Path) -> Fake:
    """The blinded test set: no sex, age or view; no name of the release in the paths."""
    columns = ["Path", *HEADER.split(",")[5:]]
    lines, labels = [",".join(columns)], {}
    for i, (path, positive) in enumerate(
        [
            ("test/patient64741/study1/view1_frontal.jpg", ["Edema", "Support Devices"]),
            ("test/patient64740/study1/view1_frontal.jpg", ["Lung Opacity"]),
            ("test/patient64740/study1/view2_lateral.jpg", []),
        ]
    ):
        lines.append(path + ",0.0" + "".join(f",{float(n in positive)}" for n in columns[2:]))
        write_image(folder / path, (64 + i, 48), i)
        labels[path] = {ours: float(name in positive) for name, ours in FINDINGS.items()}
    paths = list(labels)
    return Fake(
        kwargs={
            "imgpath": folder,
            "csvpath": write_text(folder / "test_labels.csv", lines),
        },
        labels=labels,
        default=[paths[1], paths[0]],
    )


BUILDERS = {"CheXlocalize_Dataset": build}
