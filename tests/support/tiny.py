"""A dataset of a handful of rows, declared like any other, to test the parts it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import torchxrayvision.datasets as xd
from torchxrayvision.datasets.findings import FindingColumns
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.spec import DatasetSpec, Table, equals
from torchxrayvision.facts import License, Reference

SHAPE = (12, 10)
NAMES = ("a", "b", "c", "d")


class Tiny(xd.SpecDataset):
    """Four images of three patients."""

    spec = DatasetSpec(
        title="Tiny",
        reference=Reference(
            authors="A", title="T", year=2020, venue="V", url="https://example.org/paper"
        ),
        license=License(name="CC0"),
        homepage="https://example.org",
        tables=(Table("csvpath"), Table("marks", optional=True)),
        images=Files("{name}.png", layout="one folder"),
        findings=FindingColumns({"Mass": "mass", "Edema": "edema"}),
        view="position",
        patient="subject",
        columns={
            "patientid": "subject",
            "age_years": "age",
            "sex_male": equals("sex", "M"),
            "sex_female": equals("sex", "F"),
        },
    )

    def __init__(self, imgpath=None, csvpath=None, marks=None, places=None, **kwargs):
        csvpath = rows() if csvpath is None else csvpath
        given = {"imgpath": imgpath, "csvpath": csvpath, "marks": marks, "views": "*"}
        given |= {**(places or {}), **kwargs.pop("arguments", {})}
        self._setup(given | kwargs)


def rows() -> pd.DataFrame:
    """The table: patients 7, 7, 8 and 9, one label unknown."""
    return pd.DataFrame(
        {
            "name": NAMES,
            "mass": [1.0, 0.0, -1.0, 1.0],
            "edema": [0.0, 1.0, 1.0, np.nan],
            "position": ["PA", "AP", "PA", "PA"],
            "subject": [7, 7, 8, 9],
            "age": [30, 31, 52, 80],
            "sex": ["M", "M", "F", "F"],
        }
    )


def tiny(folder: Path | None = None, *, kwargs=None, **changes) -> Tiny:
    """A `Tiny` of another spec; `kwargs` go to its constructor.

    It pickles only while no field of the spec is changed: its class has no name.
    """
    spec = replace(Tiny.spec, **changes)
    cls = type("Tiny", (Tiny,), {"spec": spec}) if changes else Tiny
    return cls(folder, **(kwargs or {}))


def picture(index: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Pixels of image `index`, uint8; black first, white last."""
    pixels = np.random.default_rng(index).integers(0, 256, shape).astype(np.uint8)
    pixels[0, 0], pixels[-1, -1] = 0, 255
    return pixels


def write_pictures(folder: Path, ending: str = ".png", shape: tuple[int, int] = SHAPE) -> Path:
    """The four images of `Tiny` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(NAMES):
        Image.fromarray(picture(index, shape)).save(folder / f"{name}{ending}")
    return folder


def as_image(index: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Image `index` as a dataset gives it."""
    scaled = picture(index, shape).astype(np.float64) / 255 * 2048 - 1024
    return scaled.astype(np.float32)[None]
