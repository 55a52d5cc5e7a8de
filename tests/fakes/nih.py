"""NIH ChestX-ray14 and Google's labels: 1024 by 1024 PNG files, header with its odd commas."""

from pathlib import Path

from fakes._fake import Fake, area, write_image, write_text

SHAPE = (1024, 1024)
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
# name, findings, patient, age, sex, view
ROWS = [
    ("00000001_000.png", "Cardiomegaly", 1, 57, "M", "PA"),
    ("00000001_001.png", "Cardiomegaly|Emphysema", 1, 58, "M", "PA"),
    ("00000002_000.png", "No Finding", 2, 80, "M", "AP"),
    ("00000003_000.png", "Pleural_Thickening|Infiltration", 3, 74, "F", "PA"),
    ("00000010_000.png", "Mass|Nodule", 10, 3, "F", "AP"),
    ("00000010_001.png", "Hernia", 10, 3, "F", "PA"),
]


def build(folder: Path) -> Fake:
    """Six images of four patients; two findings with two overlapping boxes in one image."""
    lines = [HEADER]
    for seed, (name, findings, patient, age, sex, view) in enumerate(ROWS):
        lines.append(f"{name},{findings},0,{patient},{age},{sex},{view},2682,2749,0.143,0.143")
        # The archives unpack into several folders; some users flatten them.
        sub = "images" if seed % 2 else "images_001/images"
        write_image(folder / sub / name, SHAPE, seed)
    boxes = [
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00000003_000.png,Infiltrate,100,200,300,400",
        "00000003_000.png,Infiltrate,300,500,300,200",
        "00000010_000.png,Mass,10,20,30,40",
        "00000010_000.png,Nodule,500,600,70,80",
    ]
    names = [row[0] for row in ROWS]
    return Fake(
        kwargs={
            "imgpath": folder,
            "csvpath": write_text(folder / "Data_Entry_2017_v2020.csv", lines),
            "bbox_list_path": write_text(folder / "BBox_List_2017.csv", boxes),
        },
        labels={
            name: dict.fromkeys((f for f in findings.split("|") if f != "No Finding"), 1.0)
            for name, findings, *_ in ROWS
        },
        views={row[0]: row[5] for row in ROWS},
        default=["00000001_000.png", "00000003_000.png", "00000010_001.png"],
        patients={row[0]: str(row[2]) for row in ROWS},
        ages={row[0]: float(row[3]) for row in ROWS},
        sexes={row[0]: row[4] for row in ROWS},
        # Patient 3 is in the official test list.
        splits={"train_val": [*names[:3], *names[4:]], "test": [names[3]]},
        masks={
            names[3]: {"Infiltration": area(SHAPE, (100, 200, 400, 600), (300, 500, 600, 700))},
            names[4]: {
                "Mass": area(SHAPE, (10, 20, 40, 60)),
                "Nodule": area(SHAPE, (500, 600, 570, 680)),
            },
        },
    )


def build_google(folder: Path) -> Fake:
    """Four images of three patients, in both official parts."""
    header = HEADER + ",Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id"
    rows = [
        ("00000013_008.png", 13, 60, "M", "AP", "NO,NO,YES,NO", "test"),
        ("00000013_026.png", 13, 57, "M", "PA", "NO,YES,NO,NO", "test"),
        ("00000013_030.png", 13, 57, "M", "PA", "NO,NO,NO,NO", "test"),
        ("00000211_006.png", 211, 58, "F", "PA", "YES,NO,NO,YES", "val"),
    ]
    lines = [header]
    for seed, (name, patient, age, sex, view, labels, part) in enumerate(rows):
        start = f"{name},No Finding,8,{patient},{age},{sex},{view}"
        lines.append(f"{start},3056,2544,0.139,0.139,{labels},{part}")
        write_image(folder / name, SHAPE, seed)
    return Fake(
        kwargs={"imgpath": folder, "csvpath": write_text(folder / "google2019.csv", lines)},
        labels={
            rows[0][0]: {"Lung Opacity": 1.0},
            rows[1][0]: {"Pneumothorax": 1.0},
            rows[2][0]: {},
            rows[3][0]: {"Fracture": 1.0, "Nodule/Mass": 1.0},
        },
        views={row[0]: row[4] for row in rows},
        default=[rows[1][0], rows[3][0]],
        patients={row[0]: str(row[1]) for row in rows},
        ages={row[0]: float(row[2]) for row in rows},
        sexes={row[0]: row[3] for row in rows},
        splits={"test": [row[0] for row in rows[:3]], "val": [rows[3][0]]},
    )


BUILDERS = {"NIH_Dataset": build, "NIH_Google_Dataset": build_google}
