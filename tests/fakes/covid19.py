"""COVID-19 image data collection: metadata.csv in the four forms that it has had."""

from pathlib import Path

import numpy as np

from fakes._fake import NAN, Fake, write_image, write_text

# The header of each era, as released; the later ones end in a comma.
HEADERS = {
    "a": "Patientid,offset,sex,age,finding,survival,view,date,location,filename,doi,url,license,"
    "notes",
    "b": "Patientid,offset,sex,age,finding,survival,view,modality,date,location,filename,doi,url,"
    "license,clinical notes,other notes,",
    "c": "patientid,offset,sex,age,finding,survival,intubated,intubation_present,went_icu,in_icu,"
    "needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,"
    "neutrophil_count,lymphocyte_count,view,modality,date,location,folder,filename,doi,url,"
    "license,clinical_notes,other_notes,",
    "d": "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,"
    "went_icu,in_icu,needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,"
    "neutrophil_count,lymphocyte_count,view,modality,date,location,folder,filename,doi,url,"
    "license,clinical_notes,other_notes,",
}
# A file whose lung mask is packaged, and the size of that mask.
MASKED, MASKED_SHAPE = "ryct.2020003.fig2-a.png", (156, 157)
# filename, patient, offset, sex, age, finding, view, modality
ROWS = [
    ("auntminnie-a-2020_01_28.jpeg", "2", "0", "M", "65", "Pneumonia/Viral/COVID-19", "PA",
     "X-ray"),
    ("auntminnie-b-2020_01_28.jpeg", "2", "3", "M", "65", "Pneumonia/Viral/COVID-19", "PA",
     "X-ray"),
    ("SARS-10.1148rg.242035193-g04mr34g0.jpg", "5", " ", "F", "", "Pneumonia/Viral/SARS", "AP",
     "X-ray"),
    (MASKED, "142a", "8", "M", "78", "Pneumonia/Bacterial/Staphylococcus/MRSA", "AP Supine",
     "X-ray"),
    ("lateral.jpg", "2", "0", "M", "65", "Pneumonia/Viral/COVID-19", "L", "X-ray"),
    ("slice.jpg", "44", "1", "F", "50", "Pneumonia/Viral/Herpes ", "Axial", "CT"),
    ("normal.png", "50", "", "F", "40", "No Finding", "PA", "X-ray"),
    ("todo.png", "51", "2", "", "33", "todo", "AP", "X-ray"),
    ("unknown.png", "52", "2", "M", "", "Unknown", "AP", "X-ray"),
    ("general.png", "53", "", "M", "61", "Pneumonia", "AP", "X-ray"),
]  # fmt: skip


def table(era: str, rows: list) -> list[str]:
    """The lines of metadata.csv; fields that the fake does not care about stay blank."""
    columns = HEADERS[era].split(",")
    lines = [HEADERS[era]]
    for name, patient, offset, sex, age, finding, view, modality in rows:
        known = {
            "patientid": patient, "Patientid": patient, "offset": offset, "sex": sex, "age": age,
            "finding": f'"{finding}"' if "," in finding else finding, "view": view,
            "modality": modality, "filename": name, "folder": "images",
            "location": '"Cho Ray Hospital, Ho Chi Minh City, Vietnam"',
            "date": '"January 22, 2020"',
        }  # fmt: skip
        lines.append(",".join(known.get(column, "") for column in columns))
    return lines


def lungs() -> dict:
    """The packaged lung mask of one file, decoded here: runs down the columns, COCO's text."""
    try:
        from torchxrayvision import tables
    except ImportError:  # 1.5.7 builds this release too, and brings its own masks
        return {}
    frame = tables.load("covid_lungs")
    text = str(frame.loc[frame["filename"] == MASKED, "counts"].iloc[0])
    runs, number, place = [], 0, 0
    for character in text:
        code = ord(character) - 48
        number |= (code & 31) << (5 * place)
        place += 1
        if not code & 32:
            number -= (1 << (5 * place)) if code & 16 else 0
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number, place = 0, 0
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return {MASKED: {"Lungs": flat.reshape(MASKED_SHAPE[::-1]).T}}


def build(folder: Path) -> Fake:
    """The last era: hierarchical findings; a CT slice, blanks, images that nobody has labelled."""
    for i, row in enumerate(ROWS):
        shape = MASKED_SHAPE if row[0] == MASKED else (64 + i, 48)
        write_image(folder / "images" / row[0], shape, i)
    films = [row for row in ROWS if row[7] == "X-ray" and row[5] not in ("todo", "Unknown")]
    labels = {row[0]: dict.fromkeys(row[5].split("/"), 1.0) for row in films}
    return Fake(
        kwargs={
            "imgpath": folder / "images",
            "csvpath": write_text(folder / "metadata.csv", table("d", ROWS)),
        },
        labels=labels,
        default=[row[0] for row in films if row[6] in ("PA", "AP")],
        views={row[0]: row[6] for row in films},
        patients={row[0]: row[1] for row in films},
        ages={row[0]: float(row[4]) if row[4] else NAN for row in films},
        sexes={row[0]: row[3] for row in films},
        days={row[0]: float(row[2]) if row[2].strip() else NAN for row in films},
        semantic=lungs(),
        required=("csvpath",),
    )


def build_era(folder: Path, era: str) -> Fake:
    """Three images in an early form of the table, whose findings are flat lists."""
    rows = [
        ("one.jpg", "1", "0", "M", "65", "COVID-19", "PA", "X-ray"),
        ("two.jpg", "2", "", "F", "50", "COVID-19, ARDS", "AP", "X-ray"),
        ("three.jpg", "3", "4", "F", "", "todo", "L", "X-ray"),  # nobody has labelled it
    ]
    for i, row in enumerate(rows):
        write_image(folder / "images" / row[0], (64 + i, 48), i)
    return Fake(
        kwargs={
            "imgpath": folder / "images",
            "csvpath": write_text(folder / "metadata.csv", table(era, rows)),
        },
        labels={
            "one.jpg": {"COVID-19": 1.0, "ARDS": 0.0},
            "two.jpg": {"COVID-19": 1.0, "ARDS": 1.0},
        },
        default=["one.jpg", "two.jpg"],
        days={"one.jpg": 0.0, "two.jpg": NAN},
    )


BUILDERS = {"COVID19_Dataset": build}
