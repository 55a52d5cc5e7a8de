"""BRAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.chexpert import CHEXPERT_FINDINGS
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import Row, SourceContext


def _checked(context: SourceContext) -> pd.DataFrame:
    frame = context.tables["csvpath"]
    needed = ["PngPath", "PatientID", "PatientSex", "PatientAge", "ViewPosition"]
    if context.arguments["max_aspect_ratio"] is not None:
        needed += ["Rows", "Columns"]
    need_columns(frame, needed, context)
    return frame.copy()


def _strip(frame: pd.DataFrame, context: SourceContext) -> Any:
    """Files whose header says that they are far too long for a chest radiograph."""
    limit = context.arguments["max_aspect_ratio"]
    if limit is None:
        return np.zeros(len(frame), dtype=bool)
    sides = frame[["Rows", "Columns"]].to_numpy(dtype=np.float64, na_value=np.nan)
    return sides.max(axis=1) > limit * sides.min(axis=1)


def _age(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return frame["PatientAge"].astype("str").str.extract(r"(\d+)", expand=False)


def _path(row: Row) -> str:
    return str(row["PngPath"]).removeprefix("images/")


class BRAX_Dataset(SpecDataset):
    """BRAX: 40,967 images of Hospital Israelita Albert Einstein in São Paulo.

    Thirteen findings were read out of Portuguese reports by a version of the CheXpert labeller: 1
    present, 0 absent, NaN for uncertain (-1) and not mentioned. Where it says *No Finding* the
    others are absent, apart from *Support Devices*.

    Ages end at "85 or more", which is 85 here. About a quarter of the images have no view; theirs
    is "UNKNOWN". Twelve files are strips, 19 to 213 times as long as wide, and are left out; no
    other file is longer than 9 times its width. Counts are those of the release and of 1.5.7's
    documentation. AccessionNumber alone does not name a study: take it with PatientID.

    Args:
        imgpath: Folder ``images`` of the release.
        csvpath: master_spreadsheet_update.csv.
        views: "PA", "AP", "L", "RL", "UNKNOWN", several, or "*".
        unique_patients: Keep the first image of each patient, in the order of the table.
        max_aspect_ratio: Leave out images whose longer side, as Rows and Columns have it, is
            more than this many times the shorter one; None keeps all.
    """

    spec = DatasetSpec(
        title="BRAX",
        reference=Reference(
            authors="Reis EP, de Paiva JPQ, da Silva MCB, et al.",
            title="BRAX, Brazilian labeled chest x-ray dataset",
            year=2022,
            venue="Scientific Data",
            url="https://doi.org/10.1038/s41597-022-01608-8",
        ),
        license=License(
            name="PhysioNet Credentialed Health Data License 1.5.0",
            url="https://physionet.org/content/brax/view-license/1.1.0/",
            note="Needs a credentialed account, training and a signed agreement; no sharing.",
        ),
        homepage="https://physionet.org/content/brax/1.1.0/",
        tables=(Table("csvpath", description="master_spreadsheet_update.csv of the release"),),
        join=_checked,
        images=Files(_path, layout="the folder images of the release"),
        findings=CHEXPERT_FINDINGS,
        view="ViewPosition",
        patient="PatientID",
        patient_order="appearance",
        compat_keeps_whole_rows=True,
        drop=_strip,
        columns={
            "patientid": "PatientID",
            "age_years": _age,
            **sexes("PatientSex", "M", "F"),
        },
        verified="names of the columns, pieced together from public code that reads them; their "
        "order and the form of the dates are from memory, so columns are found by name and dates "
        "are not read",
        parameters="imgpath, csvpath, views, transform, data_aug, seed, unique_patients=True, "
        "max_aspect_ratio=10",
    )
