"""RSNA Pneumonia: 1024 by 1024 DICOM files, one row a box."""

from pathlib import Path

from fakes._fake import NAN, Fake, area, write_dicom, write_text

SHAPE = (1024, 1024)
# patient, view, age, sex, photometric interpretation
ROWS = [
    ("00436515-870c-4b36-a041-de91049b9ab4", "AP", 32, "F", "MONOCHROME2"),
    ("0004cfab-14fd-4e49-80ba-63a80b6bddd6", "PA", 51, "F", "MONOCHROME1"),
    ("00569f44-917d-4c86-a842-81832af98c30", "PA", 155, "M", "MONOCHROME2"),
    ("00704310-78a8-4b38-8475-49f4573b2dbb", "PA", 75, "M", "MONOCHROME2"),
]

# The patient of the NIH image that each was made of.
NIH_PATIENTS = dict(
    zip((row[0] for row in ROWS), ("20673", "19124", "30247", "27731"), strict=True)
)


def build(folder: Path) -> Fake:
    """Four patients; two overlapping boxes, a box of no width, an impossible age."""
    boxes = [
        "patientId,x,y,width,height,Target",
        f"{ROWS[0][0]},264.0,152.0,213.0,379.0,1",
        f"{ROWS[0][0]},400.0,300.0,256.0,453.0,1",
        f"{ROWS[1][0]},,,,,0",
        f"{ROWS[2][0]},,,,,0",
        f"{ROWS[3][0]},10.0,20.0,100.0,50.0,1",
    ]
    headers = [
        ",BodyPartExamined,ConversionType,Filename,InstanceNumber,Modality,PatientAge,PatientID,"
        "PatientOrientation,PatientSex,PixelSpacing,SamplesPerPixel,SeriesNumber,ViewPosition"
    ]
    for i, (patient, view, age, sex, photometric) in enumerate(ROWS):
        headers.append(
            f"{i},CHEST,WSD,{patient}.dcm,1.0,CR,{age},{patient},,{sex},0.143,1.0,1.0,{view}"
        )
        # Bits stored 8, as in the challenge.
        write_dicom(folder / f"{patient}.dcm", SHAPE, i, bits=8, photometric=photometric)
    ordered = sorted(ROWS)
    first, last = ROWS[0][0], ROWS[3][0]
    union = area(SHAPE, (264, 152, 477, 531), (400, 300, 656, 753))
    single = area(SHAPE, (10, 20, 110, 70))
    return Fake(
        kwargs={
            "imgpath": folder,
            "csvpath": write_text(folder / "stage_2_train_labels.csv", boxes),
            "dicomcsvpath": write_text(folder / "headers.csv", headers),
            "extension": ".dcm",
        },
        labels={
            f"{row[0]}.dcm": dict.fromkeys(
                ("Lung Opacity", "Pneumonia"), float(row[0] in (first, last))
            )
            for row in ordered
        },
        views={f"{row[0]}.dcm": row[1] for row in ROWS},
        default=[f"{row[0]}.dcm" for row in ordered if row[1] == "PA"],
        patients={f"{row[0]}.dcm": NIH_PATIENTS[row[0]] for row in ROWS},
        ages={f"{row[0]}.dcm": float(row[2]) if row[2] < 120 else NAN for row in ROWS},
        sexes={f"{row[0]}.dcm": row[3] for row in ROWS},
        masks={
            f"{first}.dcm": {"Lung Opacity": union, "Pneumonia": union},
            f"{last}.dcm": {"Lung Opacity": single, "Pneumonia": single},
        },
    )


BUILDERS = {"RSNA_Pneumonia_Dataset": build}
