"""The tuberculosis sets of the National Library of Medicine: Montgomery and Shenzhen."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.annotations import MaskFiles
from torchxrayvision.datasets.findings import FindingRules
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.spec import DatasetSpec, sexes, value
from torchxrayvision.errors import DatasetNotFoundError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from torchxrayvision.datasets.release import SourceContext

LAYOUT = "the folders CXR_png and ClinicalReadings of MontgomerySet or ChinaSet_AllFiles"

_NAME = re.compile(r"(?P<stem>(?P<patient>.+)_(?P<label>[01]))\.png", re.IGNORECASE)
_SAME_PATIENT = re.compile(r"same pt as (?P<stem>\w+)", re.IGNORECASE)
# Montgomery: "Patient's Sex: F \nPatient's Age: 027Y". Shenzhen: "male 45yrs", "femal 32yrs",
# "female24yrs", "male , 29yrs", "male 16month", "female 64days", "male 42".
_SEX = re.compile(r"(?:Sex:\s*|^\s*)(M|F)(?:ale|emale?)?(?=\W|\d|$)", re.IGNORECASE)
_AGE = re.compile(r"(?:Age:\s*|^\s*(?:male|female?)[\s,]*)(\d+)\s*([ymd]?)", re.IGNORECASE)
_UNITS_A_YEAR = {"": 1.0, "y": 1.0, "m": 12.0, "d": 365.25}


def read_age(text: str) -> float:
    """The age in a clinical reading.

    Args:
        text: A file of ClinicalReadings.

    Returns:
        Years, NaN where the reading has none.

    Example:
        >>> read_age("male 45yrs"), read_age("Patient's Age: 027Y"), read_age("male 6month")
        (45.0, 27.0, 0.5)
    """
    found = _AGE.search(text)
    if found is None:
        return float("nan")
    return int(found[1]) / _UNITS_A_YEAR[found[2].lower()]


def read_sex(text: str) -> str:
    """The sex in a clinical reading.

    Args:
        text: A file of ClinicalReadings.

    Returns:
        "M", "F", or "" where the reading says neither.

    Example:
        >>> read_sex("femal 32yrs"), read_sex("Patient's Sex: M"), read_sex("Patient's Sex: O")
        ('F', 'M', '')
    """
    found = _SEX.search(text)
    return "" if found is None else found[1].upper()


def _list_images(context: SourceContext) -> pd.DataFrame:
    """One row per file of CXR_png, in the order of names, with what its reading says."""
    import pandas as pd

    root = context.roots["imgpath"]
    if root is None or not (root / "CXR_png").is_dir():
        folder = None if root is None else root / "CXR_png"
        advice = f"pass the folder that holds {LAYOUT}"
        raise DatasetNotFoundError(context.dataset, "imgpath", str(folder), advice)
    names = sorted(path.name for path in (root / "CXR_png").iterdir())
    found = [match for match in map(_NAME.fullmatch, names) if match]
    readings = {match["stem"]: _reading(root, match["stem"]) for match in found}
    rows = []
    for match in found:
        stem = match["stem"]
        same = _SAME_PATIENT.search(readings[stem])
        # An image without a report names another image of the patient, whose sex is the same and
        # whose age need not be.
        other = same["stem"] if same else stem
        patient = other[:-2] if same else match["patient"]
        sex = read_sex(readings.get(other, ""))
        rows.append(
            (match.string, stem, int(match["label"]), patient, read_age(readings[stem]), sex)
        )
    columns = ["fname", "stem", "label", "patient", "age", "sex"]
    return pd.DataFrame(rows, columns=columns)


def _reading(root: Path, stem: str) -> str:
    path = root / "ClinicalReadings" / f"{stem}.txt"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _label(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return frame["label"].to_numpy(dtype=np.float32)


class NLMTB_Dataset(SpecDataset):
    """NLM tuberculosis sets: Montgomery County (138 images) and Shenzhen (662 images).

    The last digit of a file name says whether a radiologist saw signs of tuberculosis: 58 of 138
    in Montgomery, 336 of 662 in Shenzhen (counts of the publisher). All images are PA. Load each
    set by itself and join them with `MergeDataset`. Images of both are in TBX11K too.

    Ages and sexes come from the folder ClinicalReadings, where it is there; an odd reading gives
    NaN. An image whose reading names another one of the same patient counts as that patient's. The
    lungs of Montgomery are masked in the release (ManualMask); masks for some of Shenzhen were
    published apart from it as ``<name>_mask.png``.

    Args:
        imgpath: Folder of one set, with ``CXR_png`` in it.
        views: "PA" or "*"; there is no other.
        semantic_masks: Add ``semantic_masks`` with the mask "Lungs", where there is one.
        maskpath: Folder of the masks ``<name>_mask.png``; None: they are looked for below
            `imgpath`.
    """

    spec = DatasetSpec(
        title="NLM tuberculosis sets, Montgomery County and Shenzhen",
        reference=Reference(
            authors="Jaeger S, Candemir S, Antani S, Wang YX, Lu PX, Thoma G",
            title="Two public chest X-ray datasets for computer-aided screening of pulmonary "
            "diseases",
            year=2014,
            venue="Quantitative Imaging in Medicine and Surgery",
            url="https://doi.org/10.3978/j.issn.2223-4292.2014.11.20",
        ),
        license=License(
            name="Public domain, with a request to cite",
            url="https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html#tuberculosis-image-data-sets",
            note="Name the National Library of Medicine and the hospital, as the release asks.",
        ),
        homepage="https://lhncbc.nlm.nih.gov/LHC-downloads/downloads.html",
        join=_list_images,
        images=Files("CXR_png/{fname}", layout=LAYOUT),
        findings=FindingRules({"Tuberculosis": _label}),
        view=value("PA"),
        patient="patient",
        columns={
            "patientid": "patient",
            "age_years": "age",
            **sexes("sex", "M", "F"),
        },
        semantic=MaskFiles(
            files={
                "Lungs": (
                    Files("ManualMask/leftMask/{fname}"),
                    Files("ManualMask/rightMask/{fname}"),
                    Files("{stem}_mask.png", argument="maskpath", folders=("mask", "masks")),
                )
            }
        ),
        verified="names of files and folders, and the spellings of the readings",
        parameters="imgpath, transform, data_aug, seed, views, *, unique_patients, "
        "semantic_masks, maskpath",
    )

    def _prepare(self, given: dict[str, Any]) -> None:
        if given["maskpath"] is None:
            given["maskpath"] = given["imgpath"]
