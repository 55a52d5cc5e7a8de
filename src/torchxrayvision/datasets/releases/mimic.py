"""MIMIC-CXR-JPG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.columns import days
from torchxrayvision.datasets.findings import FindingColumns, FindingFunction
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.reading import release_table
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.chexpert import CHEXPERT_FINDINGS
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.errors import DatasetError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.findings import Labels
    from torchxrayvision.datasets.release import Row, SourceContext

PARTS = ("train", "validate", "test")
LABELERS = ("chexpert", "negbio")
VIEW_RENAME = {"LATERAL": "L"}


_CLEARED = FindingColumns(CHEXPERT_FINDINGS.columns, normal_column="No Finding")


def _labels(frame: pd.DataFrame, context: SourceContext) -> Labels:
    """The rule of CheXpert; that of 1.5.7 clears Support Devices too, for this dataset alone."""
    return (_CLEARED if context.compat else CHEXPERT_FINDINGS).encode(frame, context)


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """The labels of each study beside the headers of its images, in the order of the labels."""
    labels, headers = context.tables["csvpath"], context.tables["metacsvpath"]
    key = ["subject_id", "study_id"]
    need_columns(labels, key, context)
    need_columns(headers, [*key, "dicom_id", "ViewPosition", "StudyDate"], context)
    # 1.5.7 keeps labelled studies that have no image.
    frame: pd.DataFrame = labels.merge(headers, how="left" if context.compat else "inner", on=key)
    parts = context.tables.get("splitcsvpath")
    if parts is not None:
        need_columns(parts, ["dicom_id", "split"], context)
        parts = parts[["dicom_id", "split"]].drop_duplicates("dicom_id")
        frame = frame.merge(parts, how="left", on="dicom_id")
    wanted = context.arguments["split"]
    if wanted is None:
        return frame
    if parts is None:
        msg = f"{context.dataset}: split={wanted!r} needs splitcsvpath, mimic-cxr-2.0.0-split.csv"
        raise DatasetError(msg)
    kept: pd.DataFrame = frame[frame["split"] == wanted]
    return kept


def _view(frame: pd.DataFrame, context: SourceContext) -> Any:
    view = frame["ViewPosition"]
    return view if context.compat else view.replace(VIEW_RENAME)


def _day(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return days(frame["StudyDate"])


def _path(row: Row) -> str:
    patient = str(row["subject_id"])
    return f"p{patient[:2]}/p{patient}/s{row['study_id']}/{row['dicom_id']}.jpg"


def _in_folder(folder: Path, kind: str) -> Path | None:
    """The table of one kind in the folder of the release, packed or not."""
    stem = f"mimic-cxr-2.0.0-{kind}.csv"
    return next((folder / name for name in (stem, f"{stem}.gz") if (folder / name).exists()), None)


class MIMIC_Dataset(SpecDataset):
    """MIMIC-CXR-JPG: 377,110 images of 227,827 studies at Beth Israel Deaconess Medical Center.

    Thirteen findings were read out of the reports by a program, CheXpert or NegBio: 1 present, 0
    absent, NaN for uncertain (-1) and not mentioned. They belong to the study, so all its images
    share them. *No Finding* says that all others are absent apart from *Support Devices*, as in
    CheXpert and BRAX. 1.5.7 clears that one too, for this dataset alone.

    Dates were moved into the future, by the same amount for all studies of a patient:
    ``offset_day_int`` orders the studies of one patient and says nothing else. Age and sex are in
    MIMIC-IV, not in this release. The view LATERAL is called "L" here.

    Counts are the publisher's, for version 2.0.0.

    Args:
        imgpath: Folder ``files`` of the release, which holds ``p10`` to ``p19``.
        csvpath: mimic-cxr-2.0.0-chexpert.csv or mimic-cxr-2.0.0-negbio.csv, plain or .gz; or the
            folder that holds the tables of the release.
        metacsvpath: mimic-cxr-2.0.0-metadata.csv. May be left out if `csvpath` is the folder.
        views: "PA", "AP", "L", "LL", "UNKNOWN", several, or "*".
        splitcsvpath: mimic-cxr-2.0.0-split.csv, the official split; gives the column ``split``
            and `official_splits`.
        split: Keep one official part: "train", "validate" or "test".
        labeler: Which program's labels to take where `csvpath` is the folder: "chexpert" (the
            default) or "negbio".
    """

    spec = DatasetSpec(
        title="MIMIC-CXR-JPG",
        reference=Reference(
            authors="Johnson AEW, Pollard TJ, Greenbaum NR, et al.",
            title="MIMIC-CXR-JPG, a large publicly available database of labeled chest radiographs",
            year=2019,
            venue="arXiv",
            url="https://arxiv.org/abs/1901.07042",
        ),
        license=License(
            name="PhysioNet Credentialed Health Data License 1.5.0",
            url="https://physionet.org/content/mimic-cxr-jpg/view-license/2.0.0/",
            note="Needs a credentialed account, training and a signed agreement; no sharing.",
        ),
        homepage="https://physionet.org/content/mimic-cxr-jpg/2.0.0/",
        tables=(
            Table(
                "csvpath", description="mimic-cxr-2.0.0-chexpert.csv or -negbio.csv of the release"
            ),
            Table("metacsvpath", description="mimic-cxr-2.0.0-metadata.csv of the release"),
            Table(
                "splitcsvpath",
                description="mimic-cxr-2.0.0-split.csv of the release",
                optional=True,
            ),
        ),
        join=_one_row_an_image,
        images=Files(_path, layout="the folder files of the release, with p10 to p19 in it"),
        findings=FindingFunction(_labels, CHEXPERT_FINDINGS.names),
        view=_view,
        patient="subject_id",
        cohort="MIMIC-CXR",
        columns={"patientid": "subject_id", "offset_day_int": _day},
        split="split",
        verified="headers of the tables of labels and of metadata; names of the columns of the "
        "split, in any order. Values of the metadata are from memory: other views stay as they "
        "are, and a date that is none becomes NaN",
        choices={"split": (*PARTS, None), "labeler": (*LABELERS, None)},
        parameters="imgpath, csvpath, metacsvpath, views, transform, data_aug, seed, "
        "unique_patients=True, *, splitcsvpath, split, labeler",
    )

    def _prepare(self, given: dict[str, Any]) -> None:
        csvpath, labeler = given["csvpath"], given["labeler"]
        folder = Path(csvpath).expanduser() if isinstance(csvpath, (str, Path)) else None
        if folder is not None and folder.is_dir():
            kinds = {"metacsvpath": "metadata", "splitcsvpath": "split"}
            given["csvpath"] = _in_folder(folder, labeler or "chexpert")
            given.update({k: _in_folder(folder, v) for k, v in kinds.items() if given[k] is None})
        elif labeler is not None:
            msg = (
                f"MIMIC_Dataset: labeler={labeler!r} chooses a table in the folder of the release, "
                f"so csvpath must be that folder, got {csvpath!r}"
            )
            raise DatasetError(msg)

    @property
    def metacsv(self) -> pd.DataFrame:
        """The headers of all images of the release, by ``subject_id`` and ``study_id``."""
        return release_table(self, "metacsvpath").set_index(["subject_id", "study_id"])
