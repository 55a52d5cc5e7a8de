"""MIMIC-CXR-JPG: a table of labels a study, a table of headers an image, the official split."""

from pathlib import Path

from fakes._fake import NAN, Fake, write_image, write_text

LABELS = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,"
    "Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,"
    "Pneumothorax,Support Devices"
)
HEADERS = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning"
)
FINDINGS = LABELS.split(",")[2:]
# study: patient, finding to raw value
STUDIES = {
    50414267: (10000032, {"No Finding": "1.0", "Support Devices": "1.0"}),
    53189527: (10000032, {"Pleural Effusion": "1.0", "Edema": "-1.0", "Pneumonia": "0.0"}),
    57375967: (10000764, {"Consolidation": "1.0", "Atelectasis": "-1.0"}),
    57375968: (10000764, {"Pneumonia": "1.0", "Consolidation": "0.0"}),
    50771383: (10000898, {"Cardiomegaly": "0.0", "Fracture": "1.0"}),
    59999999: (10000935, {"No Finding": "1.0"}),  # it has no image
}
# image, study, raw view, date, part
IMAGES = [
    ("02aa804e-bde0afdd-112c0b34-7bc16630-4e384014", 50414267, "PA", 21800506, "train"),
    ("174413ec-4ec4c1f7-34ea26b7-c5f994f8-79ef1962", 50414267, "LATERAL", 21800506, "train"),
    ("2a2277a9-b0ded155-c0de8eb9-c124d10e-82c5caab", 53189527, "PA", 21800626, "train"),
    ("096052b7-d256dc40-453a102b-fa7d01c6-1b22c6b4", 57375967, "AP", 22121015, "test"),
    ("b79e55c3-735ce5ac-64412506-cdc9ea79-f1af521f", 57375968, "AP", 22121101, "test"),
    ("dcfeeac4-1597e318-d0e6736a-8b2c2238-47ac3f1b", 50771383, "LL", 21880329, "validate"),
    ("2dd8f5bc-1b2ac5ef-5ee2b1ae-0a4d8e6f-3c1b5a77", 50771383, "", 21880329, "validate"),
]
UNLABELLED = ("fffabebf-74fd3a1f-673b6b41-96ec0ac9-2ab69818", 10000980, 51111111, "PA")


def label(raw: dict[str, str], finding: str) -> float:
    """What the label of a study must be; Support Devices are no finding."""
    if raw.get("No Finding") == "1.0" and finding != "Support Devices":
        return 0.0
    return {"1.0": 1.0, "0.0": 0.0}.get(raw.get(finding, ""), NAN)


def build(folder: Path) -> Fake:
    """Seven images of three patients; a study without images, an image without labels."""
    labels = [LABELS]
    for study, (patient, raw) in STUDIES.items():
        labels.append(f"{patient},{study}," + ",".join(raw.get(name, "") for name in FINDINGS))
    headers, split, paths = [HEADERS], ["dicom_id,study_id,subject_id,split"], {}
    for seed, (image, study, view, date, part) in enumerate(IMAGES):
        patient = STUDIES[study][0]
        headers.append(
            f"{image},{patient},{study},CHEST (PA AND LAT),{view},3056,2544,{date},213014.531,"
            "CHEST (PA AND LAT),,Erect"
        )
        split.append(f"{image},{study},{patient},{part}")
        paths[image] = f"p{patient // 1000000}/p{patient}/s{study}/{image}.jpg"
        write_image(folder / "files" / paths[image], (64 + seed, 48), seed)
    image, patient, study, view = UNLABELLED
    headers.append(f"{image},{patient},{study},CHEST (PORTABLE AP),{view},10,10,21800101,1.5,,,")
    split.append(f"{image},{study},{patient},train")
    # The labels of a study are those of each of its images; images in the order of the labels.
    ordered = [row for study in STUDIES for row in IMAGES if row[1] == study]
    path = {row[0]: paths[row[0]] for row in ordered}
    names = {"PA": "PA", "AP": "AP", "LATERAL": "L", "LL": "LL", "": "UNKNOWN"}
    findings = [
        ("Effusion" if name == "Pleural Effusion" else name, name)
        for name in FINDINGS
        if name != "No Finding"
    ]
    days = {21800506: 76827, 21800626: 76878, 22121015: 88676, 22121101: 88693, 21880329: 79711}
    return Fake(
        kwargs={
            "imgpath": folder / "files",
            "csvpath": write_text(folder / "mimic-cxr-2.0.0-chexpert.csv", labels),
            "metacsvpath": write_text(folder / "mimic-cxr-2.0.0-metadata.csv", headers),
            "splitcsvpath": write_text(folder / "mimic-cxr-2.0.0-split.csv", split),
        },
        labels={
            path[row[0]]: {
                ours: label(STUDIES[row[1]][1], raw)
                for ours, raw in findings
                if raw != "No Finding"
            }
            for row in ordered
        },
        views={path[row[0]]: names[row[2]] for row in ordered},
        default=[path[IMAGES[0][0]]],
        patients={path[row[0]]: str(STUDIES[row[1]][0]) for row in ordered},
        days={path[row[0]]: days[row[3]] for row in ordered},
        splits={
            part: [path[row[0]] for row in ordered if row[4] == part]
            for part in ("train", "test", "validate")
        },
        required=("csvpath", "metacsvpath"),
    )


BUILDERS = {"MIMIC_Dataset": build}
