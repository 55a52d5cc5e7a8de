"""CheXpert: JPEG files in a tree of patients, uncertain and blank labels."""

from pathlib import Path

from fakes._fake import NAN, Fake, write_image, write_text

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
FINDINGS = {
    "Enlarged Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Lung Opacity",
    "Lung Lesion": "Lung Lesion",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Effusion": "Pleural Effusion",
    "Pleural Other": "Pleural Other",
    "Fracture": "Fracture",
    "Support Devices": "Support Devices",
}
# below the release, sex, age, frontal or lateral, AP/PA, No Finding, finding to raw value
ROWS = [
    ("train/patient00004/study1/view1_frontal.jpg", "Female", 20, "Frontal", "PA", "1.0",
     {"Enlarged Cardiomediastinum": "0.0", "Support Devices": "1.0"}),
    ("train/patient00004/study1/view2_lateral.jpg", "Female", 20, "Lateral", "", "1.0", {}),
    ("train/patient00002/study2/view1_frontal.jpg", "Female", 87, "Frontal", "PA", "",
     {"Lung Opacity": "1.0", "Edema": "-1.0"}),
    ("train/patient00002/study1/view1_frontal.jpg", "Female", 83, "Frontal", "PA", "",
     {"Edema": "1.0", "Effusion": "1.0", "Fracture": "0.0"}),
    ("train/patient00005/study1/view1_frontal.jpg", "Unknown", 0, "Frontal", "AP", "",
     {"Pneumothorax": "1.0"}),
    ("train/patient00006/study1/view1_frontal.jpg", "Male", 33, "Frontal", "LL", "",
     {"Atelectasis": "-1.0"}),
]  # fmt: skip


def labels_of(no_finding: str, raw: dict[str, str]) -> dict[str, float]:
    """What the labels of a row must be."""
    result = {}
    for finding in FINDINGS:
        value = {"1.0": 1.0, "0.0": 0.0}.get(raw.get(finding, ""), NAN)
        if no_finding == "1.0" and finding != "Support Devices":
            value = 0.0
        result[finding] = value
    return result


def build(folder: Path) -> Fake:
    """Six images of four patients; one patient's images have different labels."""
    lines = [HEADER]
    for seed, (path, sex, age, frontal, view, none, raw) in enumerate(ROWS):
        values = ",".join(raw.get(finding, "") for finding in FINDINGS)
        lines.append(f"CheXpert-v1.0-small/{path},{sex},{age},{frontal},{view},{none},{values}")
        write_image(folder / path, (320, 390), seed)
    views = {row[0]: "L" if row[3] == "Lateral" else row[4] for row in ROWS}
    return Fake(
        kwargs={"imgpath": folder, "csvpath": write_text(folder / "train.csv", lines)},
        labels={row[0]: labels_of(row[5], row[6]) for row in ROWS},
        views=views,
        # Sorted by patient; of patient00002 the first row of the table.
        default=[ROWS[2][0], ROWS[0][0]],
        patients={row[0]: row[0][13:18] for row in ROWS},
        ages={row[0]: float(row[2]) or NAN for row in ROWS},
        sexes={row[0]: {"Male": "M", "Female": "F"}.get(row[1], "") for row in ROWS},
        splits={"train": [row[0] for row in ROWS]},
    )


BUILDERS = {"CheX_Dataset": build}
