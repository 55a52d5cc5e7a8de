"""CheXpert Plus: the images of CheXpert with demographics, and labels of the reports."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.columns import plausible_age
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.reading import read_csv
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.chexpert import CHEXPERT_FINDINGS
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.datasets.storage import plain_text
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import Row, SourceContext

_NEEDED = ("path_to_image", "frontal_lateral", "ap_pa", "deid_patient_id", "age", "sex")
_RAW_LABELS = (*CHEXPERT_FINDINGS.columns.values(), "No Finding")
_REPORT = re.compile(r"report$|section_")


def _read_metadata(path: Path) -> pd.DataFrame:
    """Everything but the texts of the reports, which are most of the file."""
    if path.suffix == ".parquet":
        return read_csv(path)
    return read_csv(path, usecols=lambda name: not _REPORT.match(name))


def _read_labels(path: Path) -> pd.DataFrame:
    """A csv, or the release's files of one JSON object per line."""
    import pandas as pd

    if path.suffix not in (".json", ".jsonl"):
        return read_csv(path)
    with path.open(encoding="utf-8") as lines:
        return pd.DataFrame([json.loads(line) for line in lines if line.strip()])


def _with_labels(context: SourceContext) -> pd.DataFrame:
    frame = context.tables["csvpath"]
    need_columns(frame, _NEEDED, context)
    frame = frame[[name for name in frame.columns if not _REPORT.match(name)]]
    labels = context.tables.get("labelpath")
    if labels is None:
        return frame.assign(**dict.fromkeys(_RAW_LABELS, np.nan))
    need_columns(labels, ["path_to_image", *_RAW_LABELS], context)
    labels = labels[["path_to_image", *_RAW_LABELS]].drop_duplicates("path_to_image")
    kept = frame.drop(columns=[name for name in _RAW_LABELS if name in frame])
    return kept.merge(labels, on="path_to_image", how="left")


def _view(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    view = plain_text(frame["ap_pa"])
    return view.mask(frame["frontal_lateral"] == "Lateral", "L")


def _age(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    years = plausible_age(frame["age"])
    return years.where(years > 0)  # 0 stands for unknown, as in CheXpert


def _path(row: Row) -> str:
    """The file of a row in the format that was asked for."""
    if row["image_format"] == "dicom":
        if "path_to_dcm" in row:
            return str(row["path_to_dcm"])
        return str(PurePosixPath(row["path_to_image"]).with_suffix(".dcm"))
    return str(PurePosixPath(row["path_to_image"]).with_suffix(f".{row['image_format']}"))


class CheXpertPlus_Dataset(SpecDataset):
    """CheXpert Plus: about 223,000 images of 64,725 patients, with demographics and labels.

    The images of CheXpert in full resolution, with age, sex, race, ethnicity, insurance, body
    mass index and more in ``csv``. The texts of the reports are left in the file. Labels come
    from a label file of the release, made by CheXbert from one section of the report; without it
    all labels are NaN. 1 is present, 0 absent, NaN uncertain (-1) or not mentioned, and *No
    Finding* makes the others absent, apart from *Support Devices*, as in `CheX_Dataset`.

    The split is the release's: ``train`` and ``valid``, the latter CheXpert's 200 patients.
    ``patient_report_date_order`` counts the studies of a patient; days between them are not
    published. Count: patients from the paper.

    Args:
        imgpath: Folder that holds ``train`` and ``valid``.
        csvpath: df_chexpert_plus_240401.csv.
        labelpath: A file of the folder chexbert_labels, such as impression_fixed.json, or a csv
            with the same columns.
        image_format: "png" or "dicom", the files of this release; "jpg", those of CheXpert.
        views: "PA", "AP", "L", "LL", "RL", several, or "*".
    """

    spec = DatasetSpec(
        title="CheXpert Plus",
        reference=Reference(
            authors="Chambon P, Delbrouck JB, Sounack T, et al.",
            title="CheXpert Plus: augmenting a large chest X-ray dataset with text radiology "
            "reports, patient demographics and additional image formats",
            year=2024,
            venue="arXiv",
            url="https://arxiv.org/abs/2405.19538",
        ),
        license=License(
            name="Stanford University Dataset Research Use Agreement",
            url="https://aimi.stanford.edu/datasets/chexpert-plus",
            commercial=False,
        ),
        homepage="https://aimi.stanford.edu/datasets/chexpert-plus",
        tables=(
            Table("csvpath", read=_read_metadata, description="df_chexpert_plus_240401.csv"),
            Table(
                "labelpath",
                read=_read_labels,
                optional=True,
                description="a file of the folder chexbert_labels of the release",
            ),
        ),
        join=_with_labels,
        images=Files(_path, layout="train/patient00001/study1/view1_frontal.png, or .dcm or .jpg"),
        findings=CHEXPERT_FINDINGS,
        view=_view,
        patient="deid_patient_id",
        cohort="CheXpert",
        cohort_prefix="patient",
        compat_keeps_whole_rows=True,
        columns={
            "patientid": "deid_patient_id",
            "age_years": _age,
            **sexes("sex", "Male", "Female"),
        },
        split="split",
        verified="the header of the table and the form of the label files, in the release's "
        "readme and code that reads them. Columns after sex may be missing, as may "
        "path_to_dcm",
        choices={"image_format": ("png", "dicom", "jpg")},
        parameters="imgpath, csvpath, labelpath, image_format='png', views, transform, data_aug, "
        "seed, unique_patients=True",
    )
