"""REFLACX: a folder a reading, phases with other findings, images of MIMIC-CXR."""

from pathlib import Path

import numpy as np

from fakes._fake import NAN, Fake, write_image, write_text

SHAPE = (320, 390)
STEM = "id,split,eye_tracking_data_discarded,image,dicom_id,subject_id,image_size_x,image_size_y"
PHASE_1 = [
    "Airway wall thickening",
    "Atelectasis",
    "Consolidation",
    "Emphysema",
    "Enlarged cardiac silhouette",
    "Fibrosis",
    "Fracture",
    "Groundglass opacity",
    "Mass",
    "Nodule",
    "Other",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary edema",
    "Quality issue",
    "Support devices",
    "Wide mediastinum",
]
PHASE_3 = [
    "Abnormal mediastinal contour",
    "Acute fracture",
    "Atelectasis",
    "Consolidation",
    "Enlarged cardiac silhouette",
    "Enlarged hilum",
    "Groundglass opacity",
    "Hiatal hernia",
    "High lung volume / emphysema",
    "Interstitial lung disease",
    "Lung nodule or mass",
    "Other",
    "Pleural abnormality",
    "Pneumothorax",
    "Pulmonary edema",
    "Support devices",
]
RENAMED = {
    "Pulmonary edema": "Edema",
    "Pleural effusion": "Effusion",
    "Pleural thickening": "Pleural_Thickening",
    "Enlarged hilum": "Hilar Enlargement",
    "Lung nodule or mass": "Nodule/Mass",
    "Support devices": "Support Devices",
}
IDS = ["02aa804e-bde0afdd", "174413ec-4ec4c1f7", "2a2277a9-b0ded155"]
PATHS = [
    f"files/p10/p10000032/s50414267/{IDS[0]}.jpg",
    f"files/p10/p10000032/s53189527/{IDS[1]}.jpg",
    f"files/p11/p11000183/s58733084/{IDS[2]}.jpg",
]


def finding(raw):
    return RENAMED.get(raw, raw)


def labels_of(columns, present):
    """1 for what is present, 0 for the phase's other findings, NaN for those of other phases."""
    every = {finding(raw): NAN for raw in [*PHASE_1, *PHASE_3]}
    asked = {finding(raw): float(raw in present) for raw in columns}
    return {
        name: v for name, v in {**every, **asked}.items() if name not in ("Other", "Quality issue")
    }


def reading(name, split, position, columns, certainties):
    """A line of the metadata: certainties of 0 unless stated, devices as booleans."""
    subject = PATHS[position].split("/")[2][1:]
    image = f"physionet.org/files/mimic-cxr/2.0.0/{PATHS[position][:-4]}.dcm"
    defaults = {"Support devices": "False", "Quality issue": "False", "Other": ""}
    values = [str(certainties.get(raw, defaults.get(raw, 0))) for raw in columns]
    start = f"{name},{split},False,{image},{IDS[position]},{subject},{SHAPE[1]},{SHAPE[0]}"
    return ",".join([start, *values])


def ellipses(folder, name, columns, drawn):
    """The file of one reading: corners, certainty, a boolean a finding."""
    labels = [raw for raw in columns if raw not in ("Other", "Quality issue")]
    lines = [",".join(["xmin,ymin,xmax,ymax,certainty", *labels])]
    for corners, certainty, marked in drawn:
        flags = [str(raw in marked) for raw in labels]
        lines.append(",".join([*map(str, corners), str(certainty), *flags]))
    write_text(folder / "main_data" / name / "anomaly_location_ellipses.csv", lines)


def ellipse(x0, y0, x1, y1):
    """Pixels whose centre is in the ellipse."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    a, b = (x1 - x0) / 2, (y1 - y0) / 2
    return ((x - (x0 + x1) / 2) / a) ** 2 + ((y - (y0 + y1) / 2) / b) ** 2 <= 1


def build(folder: Path) -> Fake:
    """Three images of two patients: two readers of the first, one each of the others."""
    context = folder / "reflacx"
    first = {"Atelectasis": 5, "Mass": 4, "Pulmonary edema": 1, "Support devices": "True"}
    second = {"Atelectasis": 2, "Mass": 1, "Pulmonary edema": 1, "Support devices": "True"}
    third = {"Lung nodule or mass": 3, "Enlarged hilum": 2, "Other": "scar|clip"}
    write_text(
        context / "main_data" / "metadata_phase_1.csv",
        [
            ",".join([STEM, *PHASE_1]),
            reading("P101R000001", "train", 0, PHASE_1, first),
            reading("P101R000002", "train", 0, PHASE_1, second),
            reading("P102R000003", "train", 1, PHASE_1, {}),
        ],
    )
    write_text(
        context / "main_data" / "metadata_phase_3.csv",
        [",".join([STEM, *PHASE_3]), reading("P300R000004", "test", 2, PHASE_3, third)],
    )
    boxes = [(50, 60, 150, 200), (120, 100, 220, 180), (200, 200, 300, 300), (10, 10, 90, 50)]
    ellipses(
        context,
        "P101R000001",
        PHASE_1,
        [
            (boxes[0], 5, ["Atelectasis"]),
            (boxes[2], 4, ["Mass", "Atelectasis"]),
            ((5, 5, 5, 9), 5, ["Fracture"]),  # no width
        ],
    )
    ellipses(
        context,
        "P101R000002",
        PHASE_1,
        [(boxes[1], 3, ["Atelectasis"]), (boxes[3], 2, ["Mass"])],
    )
    ellipses(context, "P102R000003", PHASE_1, [])  # the folder of P300R000004 is missing
    for seed, path in enumerate(PATHS):
        write_image(folder / path, SHAPE, seed)
    # Mean certainties of the first image: Atelectasis 3.5, Mass 2.5, edema 1.
    return Fake(
        kwargs={"imgpath": folder, "reflacxpath": context},
        labels={
            PATHS[0]: labels_of(PHASE_1, ["Atelectasis", "Support devices"]),
            PATHS[1]: labels_of(PHASE_1, []),
            PATHS[2]: labels_of(PHASE_3, ["Lung nodule or mass"]),
        },
        default=PATHS,
        patients=dict(zip(PATHS, ["10000032", "10000032", "11000183"], strict=True)),
        masks={
            PATHS[0]: {
                "Atelectasis": ellipse(*boxes[0]) | ellipse(*boxes[1]) | ellipse(*boxes[2]),
                "Mass": ellipse(*boxes[2]),
            }
        },
        splits={"train": PATHS[:2], "test": PATHS[2:]},
        required=("reflacxpath",),
    )


BUILDERS = {"REFLACX_Dataset": build}
