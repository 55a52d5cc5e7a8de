"""PadChest-GR: boxes as fractions, numbers of forty digits, sentences without keys."""

import json
from pathlib import Path

from fakes._fake import Fake, area, write_image, write_text

SHAPE = (64, 48)
STUDY = [f"2053668664013634823614867989189145588646{n}" for n in range(5)]
PATIENT = [f"8384253668443562910943{n}" for n in (1, 1, 2, 3, 4)]
IMAGES = [f"{study}_{n}_abc.png" for n, study in enumerate(STUDY)]


def build(folder: Path) -> Fake:
    """Five images of four patients in three parts; one normal, one without boxes."""
    reports = [
        {
            "StudyID": STUDY[0],
            "ImageID": IMAGES[0],
            "PreviousStudyID": None,
            "findings": [
                {
                    "sentence_en": "Bilateral pleural effusion.",
                    "sentence_es": "Derrame pleural bilateral.",
                    "abnormal": True,
                    # Two boxes of a finding that overlap.
                    "boxes": [[0.25, 0.5, 0.5, 1.0], [0.375, 0.75, 0.75, 1.0]],
                    "extra_boxes": [[0.0, 0.0, 0.25, 0.25]],
                    "labels": ["pleural effusion"],
                    "locations": [["bilateral"]],
                    "progression": None,
                },
                {
                    "sentence_en": "Consolidation with a nodule.",
                    "sentence_es": "Consolidacion con nodulo.",
                    "abnormal": True,
                    "boxes": [[0.5, 0.25, 0.75, 0.5]],
                    "extra_boxes": [],
                    "labels": ["Consolidation", "nodule"],
                    "locations": [],
                    "progression": "new",
                },
            ],
        },
        {
            "StudyID": STUDY[1],
            "ImageID": IMAGES[1],
            # Sentences without a finding lack the other keys.
            "findings": [{"sentence_en": "Normal heart.", "abnormal": False}],
        },
        {
            "StudyID": STUDY[2],
            "ImageID": IMAGES[2],
            "findings": [
                {
                    "sentence_en": "Pseudonodule.",
                    "abnormal": True,
                    "boxes": [[0.25, 0.25, 0.25, 0.5]],  # no width
                    "labels": ["pseudonodule"],
                }
            ],
        },
        {
            "StudyID": STUDY[3],
            "ImageID": IMAGES[3],
            "findings": [
                {
                    "sentence_en": "Scoliosis.",
                    "abnormal": True,
                    "boxes": [],
                    "labels": ["scoliosis"],
                }
            ],
        },
        {
            "StudyID": STUDY[4],
            "ImageID": IMAGES[4],
            "findings": [
                {
                    "sentence_en": "Cardiomegaly.",
                    "abnormal": True,
                    "boxes": [[0.0, 0.5, 1.0, 1.0]],
                    "labels": ["cardiomegaly"],
                },
                {"sentence_en": "No effusion.", "abnormal": False, "labels": ["pleural effusion"]},
            ],
        },
    ]
    parts = ["train", "train", "train", "validation", "test"]
    rows = [
        (0, "pleural effusion", "Pleural effusion"),
        (0, "Consolidation", "Consolidation"),
        (0, "nodule", "Nodule"),
        (1, "", ""),
        (2, "pseudonodule", "Nodule"),
        (3, "scoliosis", "Scoliosis"),
        (4, "cardiomegaly", "Cardiomegaly"),
    ]
    lines = ["StudyID,ImageID,PatientID,label,label_group,split"]
    lines += [
        f"{STUDY[n]},{IMAGES[n]},{PATIENT[n]},{label},{group},{parts[n]}"
        for n, label, group in rows
    ]
    for seed, name in enumerate(IMAGES):
        write_image(folder / "Padchest_GR_files" / "PadChest_GR" / name, SHAPE, seed, top=65535)
    path = folder / "grounded_reports_20240819.json"
    path.write_text(json.dumps(reports), encoding="utf-8")
    consolidation = area(SHAPE, (24, 16, 36, 32))
    return Fake(
        kwargs={
            "imgpath": folder,
            "jsonpath": path,
            "csvpath": write_text(folder / "master_table.csv", lines),
        },
        labels={
            IMAGES[0]: dict.fromkeys(["Effusion", "Consolidation", "Infiltration", "Nodule"], 1.0),
            IMAGES[1]: {},
            IMAGES[2]: {},
            IMAGES[3]: {"Scoliosis": 1.0},
            IMAGES[4]: {"Cardiomegaly": 1.0},
        },
        default=IMAGES,
        patients=dict(zip(IMAGES, PATIENT, strict=True)),
        masks={
            IMAGES[0]: {
                "Effusion": area(SHAPE, (12, 32, 24, 64), (18, 48, 36, 64)),
                "Consolidation": consolidation,
                "Infiltration": consolidation,
                "Nodule": consolidation,
            },
            IMAGES[4]: {"Cardiomegaly": area(SHAPE, (0, 32, 48, 64))},
        },
        boxes={
            IMAGES[0]: [(12, 32, 12, 32), (18, 48, 18, 16), (24, 16, 12, 16)],
            IMAGES[4]: [(0, 32, 48, 32)],
        },
        splits={"train": IMAGES[:3], "validation": [IMAGES[3]], "test": [IMAGES[4]]},
    )


BUILDERS = {"PadChestGR_Dataset": build}
