"""VinDr-PCXR: DICOM files of children, misspelt names, boxes in pixels of the file."""

from pathlib import Path

from fakes._fake import Fake, area, write_dicom, write_text

SHAPE = (96, 80)
LABELS = (
    "No finding,Bronchitis,Brocho-pneumonia,Other disease,Bronchiolitis,Situs inversus,Pneumonia,"
    "Pleuro-pneumonia,Diagphramatic hernia,Tuberculosis,Congenital emphysema,CPAM,"
    "Hyaline membrane disease,Mediastinal tumor,Lung tumor"
)
BOXES = "image_id,rad_ID,class_name,x_min,y_min,x_max,y_max,class_id"
# split, image, reader, diagnoses of the table
ROWS = [
    ("train", "0124f624d1d8a4a6aa9bd8e8b3c5d3a1", "R1", ["Brocho-pneumonia", "Other disease"]),
    ("train", "1a2b3c4d5e6f708192a3b4c5d6e7f809", "R2", ["No finding"]),
    ("train", "2b3c4d5e6f708192a3b4c5d6e7f8091a", "R1", ["Diagphramatic hernia"]),
    ("test", "3c4d5e6f708192a3b4c5d6e7f8091a2b", "R3", ["Pneumonia"]),
    ("test", "4d5e6f708192a3b4c5d6e7f8091a2b3c", "R3", ["No finding"]),
]


def build(folder: Path) -> Fake:
    """Five images in both parts; two boxes of a finding, a box of no height, no finding."""
    names = [f"{split}/{image}.dicom" for split, image, *_ in ROWS]
    ids = [row[1] for row in ROWS]
    tables = {part: [f"image_id,rad_ID,{LABELS}"] for part in ("train", "test")}
    for seed, (split, image, reader, present) in enumerate(ROWS):
        flags = [f"{float(name in present)}" for name in LABELS.split(",")]
        tables[split].append(",".join([image, reader, *flags]))
        kind = "MONOCHROME1" if seed % 2 else "MONOCHROME2"
        write_dicom(folder / names[seed], SHAPE, seed, photometric=kind)
    boxes = {
        "train": [
            BOXES,
            f"{ids[0]},R1,Diffuse aveolar opacity,10.0,20.0,30.0,40.0,3",
            f"{ids[0]},R1,Diffuse aveolar opacity,20.0,30.0,50.0,60.0,3",
            f"{ids[0]},R1,Pleural effusion,5.0,70.0,40.0,90.0,7",
            f"{ids[1]},R2,No finding,,,,,0",
            f"{ids[2]},R1,Consolidation,10.0,50.0,20.0,50.0,2",
        ],
        "test": [
            BOXES,
            f"{ids[3]},R3,Consolidation,10.0,50.0,20.0,70.0,2",
            f"{ids[4]},R3,No finding,,,,,0",
        ],
    }
    paths = {
        f"{part}_csvpath": write_text(folder / f"image_labels_{part}.csv", tables[part])
        for part in tables
    } | {
        f"{part}_bbox_csvpath": write_text(folder / f"annotations_{part}.csv", boxes[part])
        for part in boxes
    }
    return Fake(
        kwargs={"imgpath": folder, **paths},
        labels={
            names[0]: dict.fromkeys(
                ["Bronchopneumonia", "Other disease", "Diffuse alveolar opacity", "Effusion"], 1.0
            ),
            names[1]: {},
            # Said to be there, though the box has no height.
            names[2]: {"Diaphragmatic hernia": 1.0, "Consolidation": 1.0},
            names[3]: {"Pneumonia": 1.0, "Consolidation": 1.0},
            names[4]: {},
        },
        default=names,
        views=dict.fromkeys(names, "PA"),
        masks={
            names[0]: {
                "Diffuse alveolar opacity": area(SHAPE, (10, 20, 30, 40), (20, 30, 50, 60)),
                "Effusion": area(SHAPE, (5, 70, 40, 90)),
            },
            names[3]: {"Consolidation": area(SHAPE, (10, 50, 20, 70))},
        },
        boxes={
            names[0]: [(10, 20, 20, 20), (20, 30, 30, 30), (5, 70, 35, 20)],
            names[3]: [(10, 50, 10, 20)],
        },
        splits={"train": names[:3], "test": names[3:]},
    )


BUILDERS = {"VinDrPCXR_Dataset": build}
