"""SIIM-ACR: 1024 by 1024 DICOM files by study and series, gaps and runs down the columns."""

from pathlib import Path

import numpy as np

from fakes._fake import Fake, area, write_dicom, write_text

SHAPE = (1024, 1024)
ROOT = "1.2.276.0.7230010.3.1.4.8323329"
NAMES = [f"{ROOT}.6904.1517875201.850819", f"{ROOT}.13666.1517875247.117800", f"{ROOT}.5.1.9"]


def runs(x0: int, y0: int, x1: int, y1: int) -> str:
    """A box, half-open: the pixels to skip since the last run, then those to set."""
    height = y1 - y0
    between = f" {1024 - height} {height}" * (x1 - x0 - 1)
    return f"{x0 * 1024 + y0} {height}{between}"


def build(folder: Path) -> Fake:
    """Three images: none, two overlapping outlines (apart in the table), one."""
    table = [
        "ImageId, EncodedPixels",  # the space is in the release
        f"{NAMES[0]}, -1",
        f"{NAMES[1]}, {runs(100, 200, 140, 260)}",
        f"{NAMES[2]},{runs(0, 0, 1, 1)}",
        f"{NAMES[1]},{runs(120, 250, 160, 300)}",
    ]
    for seed, name in enumerate(NAMES):
        photometric = "MONOCHROME1" if seed == 2 else "MONOCHROME2"
        path = folder / f"{ROOT}.study{seed}" / f"{ROOT}.series{seed}" / f"{name}.dcm"
        write_dicom(path, SHAPE, seed, bits=8, photometric=photometric)
    both = np.logical_or(area(SHAPE, (100, 200, 140, 260)), area(SHAPE, (120, 250, 160, 300)))
    return Fake(
        kwargs={"imgpath": folder, "csvpath": write_text(folder / "train-rle.csv", table)},
        labels={NAMES[0]: {}, NAMES[1]: {"Pneumothorax": 1.0}, NAMES[2]: {"Pneumothorax": 1.0}},
        default=NAMES,
        masks={
            NAMES[1]: {"Pneumothorax": both},
            NAMES[2]: {"Pneumothorax": area(SHAPE, (0, 0, 1, 1))},
        },
    )


BUILDERS = {"SIIM_Pneumothorax_Dataset": build}
