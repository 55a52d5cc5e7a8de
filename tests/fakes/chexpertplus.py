"""CheXpert Plus: reports among the metadata, labels as one JSON object a line."""

import json
from pathlib import Path

from fakes._fake import NAN, Fake, write_image, write_text

HEADER = (
    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,"
    "report,section_narrative,section_clinical_history,section_history,section_comparison,"
    "section_technique,section_procedure_comments,section_findings,section_impression,"
    "section_end_of_impression,section_summary,section_accession_number,age,sex,race,ethnicity,"
    "interpreter_needed,insurance_type,recent_bmi,deceased,split"
)
FINDINGS = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Enlarged Cardiomediastinum": "Enlarged Cardiomediastinum",
    "Fracture": "Fracture",
    "Lung Lesion": "Lung Lesion",
    "Lung Opacity": "Lung Opacity",
    "Effusion": "Pleural Effusion",
    "Pleural Other": "Pleural Other",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
    "Support Devices": "Support Devices",
}
# path without its ending, frontal or lateral, ap_pa, order, age, sex, split, labels
ROWS = [
    ("train/patient42142/study5/view1_frontal", "Frontal", "AP", 5, 61, "Female", "train",
     {"No Finding": 1.0, "Support Devices": 1.0}),
    ("train/patient42142/study2/view1_frontal", "Frontal", "PA", 2, 60, "Female", "train",
     {"Edema": 1.0, "Pneumonia": -1.0}),
    ("train/patient42142/study3/view1_frontal", "Frontal", "PA", 3, 60, "Female", "train",
     {"Pleural Effusion": 1.0, "Fracture": 0.0}),
    ("train/patient42142/study2/view2_lateral", "Lateral", "", 2, 60, "Female", "train",
     {"Edema": 1.0}),
    ("train/patient00007/study1/view1_frontal", "Frontal", "PA", 1, 0, "Unknown", "train", None),
    ("valid/patient64541/study1/view1_frontal", "Frontal", "AP", 1, 73, "Male", "valid",
     {"Cardiomegaly": 1.0}),
]  # fmt: skip


def labels_of(raw: dict[str, float] | None) -> dict[str, float]:
    """What the labels of a row must be; None: the label file lacks the image."""
    raw = raw or {}
    result = {name: raw.get(column, NAN) for name, column in FINDINGS.items()}
    result = {name: NAN if value == -1 else value for name, value in result.items()}
    if raw.get("No Finding") == 1:
        result |= {name: 0.0 for name in FINDINGS if name != "Support Devices"}
    return result


def build(folder: Path) -> Fake:
    """Six images of three patients in PNG; a report of several lines, a row without labels."""
    lines, labels = [HEADER], []
    for seed, (path, side, view, order, age, sex, split, raw) in enumerate(ROWS):
        patient = path.split("/")[1]
        report = '"NARRATIVE:\nchest, two views\n""stable"""'
        sections = ",".join(["text"] * 11)
        lines.append(
            f"{path}.jpg,{path}.dcm,{side},{view},{patient},{order},{report},{sections},{age},"
            f"{sex},White,Not Hispanic,No,Medicare,24.5,No,{split}"
        )
        write_image(folder / f"{path}.png", (64, 48), seed)
        if raw is not None:
            values = {column: raw.get(column) for column in [*FINDINGS.values(), "No Finding"]}
            labels.append(json.dumps({"path_to_image": f"{path}.jpg", **values}))
    names = [f"{row[0]}.png" for row in ROWS]
    return Fake(
        kwargs={
            "imgpath": folder,
            "csvpath": write_text(folder / "df_chexpert_plus_240401.csv", lines),
            "labelpath": write_text(folder / "chexbert_labels" / "impression_fixed.json", labels),
        },
        labels={name: labels_of(row[7]) for name, row in zip(names, ROWS, strict=True)},
        default=[names[4], names[1]],
        views={
            name: "L" if row[1] == "Lateral" else row[2]
            for name, row in zip(names, ROWS, strict=True)
        },
        patients={name: name.split("/")[1] for name in names},
        ages={name: float(row[4]) or NAN for name, row in zip(names, ROWS, strict=True)},
        sexes={
            name: {"Male": "M", "Female": "F"}.get(row[5], "")
            for name, row in zip(names, ROWS, strict=True)
        },
        splits={"train": names[:5], "valid": names[5:]},
        required=("csvpath",),
    )


BUILDERS = {"CheXpertPlus_Dataset": build}
