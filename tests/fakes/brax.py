"""BRAX: PNG files of many sizes, CheXpert's labels, ages cut at 85, strips that are no film."""

from pathlib import Path

from fakes._fake import NAN, Fake, write_image, write_text

HEADER = (
    ",DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,No Finding,"
    "Enlarged Cardiomediastinum,Cardiomegaly,Lung Lesion,Lung Opacity,Edema,Consolidation,"
    "Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices,"
    "ViewPosition,Rows,Columns,Manufacturer"
)
FINDINGS = HEADER.split(",")[8:22]
# image, patient, sex, age, accession, view, raw labels, rows, columns
ROWS = [
    ("id_b/Study_1.2/Series_1/image-01", "id_b", "M", "35", "1", "PA",
     {"No Finding": "1", "Support Devices": "1"}, 1000, 900),
    ("id_b/Study_1.2/Series_1/image-02", "id_b", "M", "35", "1", "L",
     {"No Finding": "1", "Support Devices": "1"}, 1000, 900),
    ("id_a/Study_1.3/Series_1/image-03", "id_a", "F", "85 or more", "1", "PA",
     {"Pleural Effusion": "1", "Edema": "-1"}, 2000, 1500),
    ("id_a/Study_1.4/Series_1/image-04", "id_a", "F", "85 or more", "2", "PA",
     {"Pneumonia": "0", "Edema": "1", "Lung Lesion": "1"}, 2000, 1500),
    ("id_c/Study_1.5/Series_1/image-05", "id_c", "F", "", "3", "",
     {"Lung Opacity": "1", "Pneumonia": "-1"}, 800, 800),
    # A strip: the header says 19 times as high as wide.
    ("id_d/Study_1.6/Series_1/image-06", "id_d", "M", "50", "4", "PA",
     {"Fracture": "1"}, 1900, 100),
]  # fmt: skip


def label(raw: dict[str, str], finding: str) -> float:
    """What the label of an image must be."""
    if raw.get("No Finding") == "1" and finding != "Support Devices":
        return 0.0
    return {"1": 1.0, "0": 0.0}.get(raw.get(finding, ""), NAN)


def build(folder: Path) -> Fake:
    """Six images of four patients; one patient with two studies, one image no film."""
    lines = [HEADER]
    for i, (image, patient, sex, age, accession, view, raw, height, width) in enumerate(ROWS):
        values = ",".join(raw.get(finding, "") for finding in FINDINGS)
        dicom = f"Anonymized_DICOMs/{image}.dcm"
        lines.append(
            f"{i},{dicom},images/{image}.png,{patient},{sex},{age},{accession},20080101,{values},"
            f"{view},{height},{width},Philips"
        )
        write_image(folder / "images" / f"{image}.png", (64 + i, 48), i)
    films = ROWS[:-1]
    names = [
        ("Effusion" if name == "Pleural Effusion" else name, name)
        for name in FINDINGS
        if name != "No Finding"
    ]
    return Fake(
        kwargs={
            "imgpath": folder / "images",
            "csvpath": write_text(folder / "master_spreadsheet_update.csv", lines),
        },
        labels={
            f"{row[0]}.png": {
                ours: label(row[6], raw) for ours, raw in names if raw != "No Finding"
            }
            for row in films
        },
        views={f"{row[0]}.png": row[5] or "UNKNOWN" for row in films},
        default=[f"{ROWS[0][0]}.png", f"{ROWS[2][0]}.png"],  # in the order of the table
        patients={f"{row[0]}.png": row[1] for row in films},
        ages={f"{row[0]}.png": {"85 or more": 85.0, "": NAN}.get(row[3], 35.0) for row in films},
        sexes={f"{row[0]}.png": row[2] for row in films},
        required=("csvpath",),
    )


BUILDERS = {"BRAX_Dataset": build}
