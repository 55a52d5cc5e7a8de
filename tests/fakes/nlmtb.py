"""NLM tuberculosis sets: the label is in the file name, age and sex in a reading."""

from pathlib import Path

import numpy as np
from PIL import Image

from fakes._fake import NAN, Fake, area, write_image

SHAPE = (60, 50)
# stem, reading, patient, age, sex
MONTGOMERY = [
    ("MCUCXR_0001_0", "Patient's Sex: F \nPatient's Age: 027Y\nnormal", "MCUCXR_0001", 27.0, "F"),
    ("MCUCXR_0023_0", "Patient's Sex: O \nPatient's Age: 004Y\nnormal", "MCUCXR_0023", 4.0, ""),
    ("MCUCXR_0162_1", "Patient's Sex: M \nPatient's Age: 041Y\nRUL infiltrate", "MCUCXR_0162",
     41.0, "M"),
    # Another film of the patient above: no age of its own.
    ("MCUCXR_0166_1", "NO REPORT (same pt as MCUCXR_0162_1)", "MCUCXR_0162", NAN, "M"),
]  # fmt: skip
SHENZHEN = [
    ("CHNCXR_0001_0", "male 45yrs\nnormal", 45.0, "M"),
    ("CHNCXR_0042_0", "male 16month\nnormal", 16 / 12, "M"),
    ("CHNCXR_0043_0", "female 64days\nnormal", 64 / 365.25, "F"),
    ("CHNCXR_0100_0", "male 42\nnormal", 42.0, "M"),
    ("CHNCXR_0200_0", "femal 32yrs\nnormal", 32.0, "F"),
    ("CHNCXR_0327_1", "female24yrs\nbilateral secondary PTB", 24.0, "F"),
    ("CHNCXR_0400_1", "male , 29yrs  \t\nright PTB", 29.0, "M"),
    ("CHNCXR_0500_1", "Female, 28yrs\nleft secondary PTB", 28.0, "F"),
    ("CHNCXR_0600_1", "bilateral secondary PTB", NAN, ""),
]


def write_mask(path: Path, mask: np.ndarray) -> None:
    """A mask as the releases store it: 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def _readings(folder: Path, rows: list) -> None:
    for i, (stem, reading, *_) in enumerate(rows):
        write_image(folder / "CXR_png" / f"{stem}.png", (SHAPE[0] + i, SHAPE[1]), i)
        path = folder / "ClinicalReadings" / f"{stem}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{reading}\n", encoding="utf-8")
    # What archives and desktops leave behind is no image.
    (folder / "CXR_png" / "Thumbs.db").write_bytes(b"")


def build(folder: Path) -> Fake:
    """Montgomery: four images of three patients; three have masks of the lungs."""
    _readings(folder, MONTGOMERY)
    lungs = {}
    for i, (stem, *_) in enumerate(MONTGOMERY[:3]):
        shape = (SHAPE[0] + i, SHAPE[1])
        right, left = (5, 10, 20, 40), (30, 10, 45, 40 + i)
        write_mask(folder / "ManualMask" / "rightMask" / f"{stem}.png", area(shape, right))
        write_mask(folder / "ManualMask" / "leftMask" / f"{stem}.png", area(shape, left))
        lungs[f"CXR_png/{stem}.png"] = {"Lungs": area(shape, left, right)}
    paths = [f"CXR_png/{row[0]}.png" for row in MONTGOMERY]
    rows = dict(zip(paths, MONTGOMERY, strict=True))
    return Fake(
        kwargs={"imgpath": folder},
        labels={path: {"Tuberculosis": float(path[-5])} for path in paths},
        default=paths,
        views=dict.fromkeys(paths, "PA"),
        patients={path: row[2] for path, row in rows.items()},
        ages={path: row[3] for path, row in rows.items()},
        sexes={path: row[4] for path, row in rows.items()},
        semantic=lungs,
    )


def build_shenzhen(folder: Path) -> Fake:
    """Shenzhen: nine images with every odd reading; masks were published apart from them."""
    _readings(folder, SHENZHEN)
    mask = area(SHAPE, (5, 10, 20, 40), (30, 10, 45, 40))
    write_mask(folder / "masks" / f"{SHENZHEN[0][0]}_mask.png", mask)
    paths = [f"CXR_png/{row[0]}.png" for row in SHENZHEN]
    rows = dict(zip(paths, SHENZHEN, strict=True))
    return Fake(
        kwargs={"imgpath": folder, "maskpath": folder / "masks"},
        labels={path: {"Tuberculosis": float(path[-5])} for path in paths},
        default=paths,
        views=dict.fromkeys(paths, "PA"),
        patients={path: row[0][:-2] for path, row in rows.items()},
        ages={path: row[2] for path, row in rows.items()},
        sexes={path: row[3] for path, row in rows.items()},
        semantic={paths[0]: {"Lungs": mask}},
    )


BUILDERS = {"NLMTB_Dataset": build}
