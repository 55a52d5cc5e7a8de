"""PadChest: 16-bit PNG files, the header of the release, labels as Python prints a list."""

from pathlib import Path

from fakes._fake import NAN, Fake, write_image, write_text

HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
    "ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,"
    "PhotometricInterpretation_DICOM,PixelRepresentation_DICOM,PixelAspectRatio_DICOM,"
    "SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,WindowWidth_DICOM,Rows_DICOM,"
    "Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
    "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
)
FINDINGS = (
    *("Air Trapping", "Aortic Atheromatosis", "Aortic Elongation", "Atelectasis"),
    *("Bronchiectasis", "Cardiomegaly", "Consolidation", "Costophrenic Angle Blunting", "Edema"),
    *("Effusion", "Emphysema", "Fibrosis", "Flattened Diaphragm", "Fracture", "Granuloma"),
    *("Hemidiaphragm Elevation", "Hernia", "Hilar Enlargement", "Infiltration", "Mass", "Nodule"),
    *("Pleural_Thickening", "Pneumonia", "Pneumothorax", "Scoliosis", "Support Devices", "Tube"),
    "Tuberculosis",
)
UNKNOWN = dict.fromkeys(FINDINGS, NAN)
A, B, C, D, E = (
    "839860488694292331637988235681460987",
    "313572750430997347502932654319389875966",
    "57318658589166976721539477911794614480",
    "9",
    "93",
)
# Rows in the order of the table: image, folder, study day, patient, birth, sex, projection, labels,
# and what must come out; None where the row must not.
ROWS = [
    ("c1.png", 0, 20140915, A, "1930.0", "F", "PA", "['normal']", {}),
    (
        "b2.png",
        0,
        20150914,
        B,
        "1929.0",
        "M",
        "PA",
        "['cardiomegaly', ' pacemaker', 'pseudonodule', 'unchanged']",
        {"Cardiomegaly": 1.0, "Support Devices": 1.0},
    ),
    (
        "b1.png",
        1,
        20160101,
        B,
        "1929.0",
        "M",
        "PA",
        "['calcified granuloma', 'subcutaneous emphysema', 'pericardial effusion', '']",
        {"Granuloma": 1.0},
    ),
    (
        "b0.png",
        1,
        20160101,
        B,
        "1929.0",
        "M",
        "L",
        "['tuberculosis sequelae', 'mediastinal mass', 'callus rib fracture']",
        {"Fracture": 1.0},
    ),
    ("e1.png", 54, 20090301, E, "", "O", "AP_horizontal", "['exclude']", None),
    ("e2.png", 54, 20090301, E, "", "O", "AP_horizontal", "['unchanged', '']", UNKNOWN),
    ("d1.png", 54, 20120229, D, "2002.0", "M", "PA", "['pneumonia']", None),
    (
        "d2.png",
        54,
        20130228,
        D,
        "2002.0",
        "M",
        "PA",
        "['hydropneumothorax', ' air bronchogram', 'NSG tube', 'suboptimal study']",
        dict.fromkeys(("Effusion", "Pneumothorax", "Consolidation", "Infiltration", "Tube"), 1.0),
    ),
    ("a1.png", 2, 20120312, C, "1940.0", "F", "PA", "", None),
    (
        "216840111366964012989926673512011083134050913_00-168-009.png",
        2,
        20120312,
        C,
        "1940.0",
        "F",
        "PA",
        "['normal']",
        None,
    ),
    ("a3.png", 2, 20120312, C, "1940.0", "F", "EXCLUDE", "['suboptimal study']", UNKNOWN),
]
DAYS = {"c1": 16328, "b2": 16692, "b1": 16801, "b0": 16801, "e2": 14304, "d2": 15764, "a3": 15411}
VIEWS = {"AP_horizontal": "AP Supine"}


def build(folder: Path) -> Fake:
    """Eleven rows of five patients, of which seven are usable images."""
    lines = [HEADER]
    for seed, (name, place, day, patient, birth, sex, projection, labels, wanted) in enumerate(
        ROWS
    ):
        lines.append(
            f"{seed},{name},{place},{day},{name[:-4]}9,{patient},{birth},{sex},POSTEROANTERIOR,"
            f"{projection},Manual review of DICOM fields,No,CR,ImagingDynamicsCompanyLtd,"
            "MONOCHROME2,0,,0.14,12,2092.0,2251.0,1728,1872,250.0,2.0,2500.0,10.0,-1.42,"
            f'{4765777 + seed},sin hallazgos,Physician,"{labels}",[],[],[],[]'
        )
        if wanted is not None:
            # The archives unpack into the folders 0 to 54; some users flatten them.
            sub = "" if seed % 2 else str(place)
            write_image(folder / sub / name, (64, 48), seed, top=65535)
    used = sorted((row for row in ROWS if row[-1] is not None), key=lambda row: row[0])
    return Fake(
        kwargs={"imgpath": folder, "csvpath": write_text(folder / "PADCHEST.csv", lines)},
        labels={row[0]: row[-1] for row in used},
        views={row[0]: VIEWS.get(row[6], row[6]) for row in used},
        default=["b2.png", "c1.png", "d2.png"],
        patients={row[0]: row[3] for row in used},
        ages={row[0]: row[2] // 10_000 - float(row[4] or "nan") for row in used},
        sexes={row[0]: row[5] if row[5] in "MF" else "" for row in used},
        days={row[0]: float(DAYS[row[0][:-4]]) for row in used},
    )


BUILDERS = {"PC_Dataset": build}
