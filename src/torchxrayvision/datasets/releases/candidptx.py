"""CANDID-PTX: pneumothorax, chest tubes and rib fractures outlined on DICOM images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision import masks
from torchxrayvision.datasets.annotations import RleColumn
from torchxrayvision.datasets.columns import extract
from torchxrayvision.datasets.findings import FindingRules
from torchxrayvision.datasets.images import IndexedFiles
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.grounded import GroundedDataset
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.errors import DatasetError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import Rule, SourceContext

_SIDE = 1024
_TABLES = {
    "Pneumothorax": "csvpath",
    "Chest Tube": "chest_tube_csvpath",
    "Rib fracture": "rib_fracture_csvpath",
}
_IDS = ("SOPInstanceUID", "anon_SOPUID")
_RUNS = ("EncodedPixels", "mask_rle")
_ENDINGS = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """The images of the reports; the outlines of all three tables go into one."""
    import pandas as pd

    reports = context.tables["csvpath"]
    need_columns(reports, ["SOPInstanceUID", "EncodedPixels", "filename"], context)
    outlines = [
        _outlines(context.tables[argument], finding, context)
        for finding, argument in _TABLES.items()
        if argument in context.tables
    ]
    drawn = pd.concat(outlines, ignore_index=True)
    context.tables["annotations"] = drawn
    frame = reports[["SOPInstanceUID", "filename"]].drop_duplicates("SOPInstanceUID")
    frame = frame.reset_index(drop=True)
    uids = frame["SOPInstanceUID"].astype(str)
    for finding, argument in _TABLES.items():
        marked = uids.isin(drawn.loc[drawn["finding"] == finding, "SOPInstanceUID"]).astype(float)
        frame[finding] = marked if argument in context.tables else np.nan
    return frame.assign(patient=extract(frame["filename"].astype("str"), r"^P?(?P<value>\d+)_"))


def _outlines(table: pd.DataFrame, finding: str, context: SourceContext) -> pd.DataFrame:
    """Image and runs of one table; the tables name these columns in different ways."""
    import pandas as pd

    uid = next((name for name in _IDS if name in table), None)
    runs = next((name for name in _RUNS if name in table), None)
    if uid is None or runs is None:
        msg = (
            f"{context.dataset}: the table of {finding} needs one of the columns {list(_IDS)} and "
            f"one of {list(_RUNS)}; it has {list(table.columns)}"
        )
        raise DatasetError(msg)
    text = table[runs].astype("str").str.strip()
    drawn = table[runs].notna() & ~text.isin(["", "-1"])
    # The other two tables list images with a finding alone, so a row there counts without runs.
    listed = drawn if runs == "EncodedPixels" else table[uid].notna()
    outline = text.where(drawn, "-1")
    named = pd.DataFrame({"SOPInstanceUID": table[uid].astype(str), "runs": outline})
    return named[listed].assign(finding=finding)


def _uid(name: str) -> str:
    """File name to UID; the files of the release have no ending, and UIDs are full of dots."""
    for ending in _ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def _marked(finding: str) -> Rule:
    def rule(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
        return frame[finding]

    return rule


class CANDIDPTX_Dataset(GroundedDataset):
    """CANDID-PTX: 19,237 frontal images, with pneumothorax, chest tubes and rib fractures outlined.

    Outlines are by radiologists and radiology registrars in New Zealand; images are 1024 by 1024
    DICOM files of 8 bits. Outlines of a finding in one image are united. A label is 1 where a
    table has the image with an outline (or, for the two smaller tables, lists it at all), 0
    elsewhere, and NaN throughout for a table that was not given. *Rib fracture* is acute rib
    fractures alone. The texts of the reports are not kept; views, ages and sexes are in the DICOM
    headers.

    Args:
        imgpath: Folder ``dataset`` of the DICOM files, which are named by their UID.
        csvpath: Pneumothorax_reports.csv.
        chest_tube_csvpath: chest_tube.csv.
        rib_fracture_csvpath: acute_rib_fracture.csv (Rib_fracture_mask_rle.csv in another copy).
        unique_patients: Keep the first image of each patient, who is named in ``filename``.
        pathology_masks: Add the outlines as masks.
    """

    spec = DatasetSpec(
        title="CANDID-PTX",
        reference=Reference(
            authors="Feng S, Azzollini D, Kim JS, et al.",
            title="Curation of the CANDID-PTX dataset with free-text reports",
            year=2021,
            venue="Radiology: Artificial Intelligence",
            url="https://doi.org/10.1148/ryai.2021210136",
        ),
        license=License(
            name="Data use agreement of the authors",
            url="https://doi.org/10.17608/k6.auckland.14173982",
            commercial=False,
            note="Needs an online course in ethics and a signed agreement.",
        ),
        homepage="https://doi.org/10.17608/k6.auckland.14173982",
        tables=(
            Table("csvpath", description="Pneumothorax_reports.csv of the release"),
            Table("chest_tube_csvpath", optional=True, description="chest_tube.csv of the release"),
            Table(
                "rib_fracture_csvpath",
                optional=True,
                description="acute_rib_fracture.csv of the release",
            ),
        ),
        join=_one_row_an_image,
        images=IndexedFiles("{SOPInstanceUID}", key=_uid, layout="DICOM files named by their UID"),
        findings=FindingRules({finding: _marked(finding) for finding in _TABLES}),
        patient="patient",
        compat_keeps_whole_rows=True,
        columns={"patientid": "patient"},
        masks=RleColumn(
            table="annotations",
            image="SOPInstanceUID",
            finding="finding",
            column="runs",
            size=(_SIDE, _SIDE),
            decode=masks.decode_gap_rle,
        ),
        verified="SOPInstanceUID, EncodedPixels (-1, blank or SIIM's gaps and runs) and filename "
        "of the reports; anon_SOPUID of the other two. Their mask_rle is taken to be in "
        "the same form",
        parameters="imgpath, csvpath, chest_tube_csvpath, rib_fracture_csvpath, transform, "
        "data_aug, seed, unique_patients, pathology_masks",
    )
