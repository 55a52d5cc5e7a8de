"""Stony Brook: severity of COVID-19 on radiographs (RALO)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.columns import days
from torchxrayvision.datasets.findings import FindingColumns
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.reading import read_csv
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table, value
from torchxrayvision.errors import DatasetError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from torchxrayvision.datasets.release import SourceContext

_SCORES = {"Geographic Extent": "Total GEOGRAPHIC", "Lung Opacity": "Total OPACITY"}


def read_scores(path: Path) -> pd.DataFrame:
    """The table of scores, whose first line is a banner that names the raters.

    Args:
        path: ralo-dataset-metadata.csv.

    Returns:
        The table; pandas numbers the columns of the second rater: ``Total OPACITY.1``.
    """
    with path.open(encoding="utf-8-sig") as stream:
        banner = "Total OPACITY" not in stream.readline()
    return read_csv(path, skiprows=int(banner), encoding="utf-8-sig")


def _numbered(context: SourceContext) -> pd.DataFrame:
    from pandas.api.types import is_integer_dtype

    frame = context.tables["csvpath"]
    need_columns(frame, ["Subject_ID", "Exam_DateTime", *_SCORES.values()], context)
    # Files are named by the row of the table as released, which is the index of a table that was
    # read, and of what somebody kept of it.
    if not (is_integer_dtype(frame.index.dtype) and frame.index.is_unique):
        msg = (
            f"{context.dataset}: files are named by the row of the table as released, so the "
            f"index of a DataFrame must be unique row numbers, got {frame.index[:3].tolist()}; "
            f"pass the path, or the frame that read_csv made or rows of it"
        )
        raise DatasetError(msg)
    means = {finding: _mean(frame, score, context) for finding, score in _SCORES.items()}
    return frame.assign(row=frame.index.to_numpy(), **means)


def _mean(frame: pd.DataFrame, score: str, context: SourceContext) -> pd.Series[Any]:
    """The mean of the raters who gave a score; 1.5.7 wants all of them."""
    raters = frame.filter(regex=rf"^{score}(\.\d+)?$")
    return raters.mean(axis=1, skipna=not context.compat)


def _day(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return days(frame["Exam_DateTime"].astype("str").str[:8])  # "20200408_093015"


class StonyBrookCOVID_Dataset(SpecDataset):
    """Stony Brook RALO: 2,373 radiographs of COVID-19 with scores of extent and opacity.

    Labels are scores from 0 to 8, not findings: *Geographic Extent* and *Lung Opacity*, each the
    mean of the raters who gave one; NaN where none did. All images are AP. ``offset_day_int`` is
    the day of the examination, counted from 1 January 1970.

    Images are named by the number of their row in the table as released. 1.5.7 numbered the rows
    that were left, and kept the labels of all. The count is that of the release.

    Args:
        imgpath: Folder CXR_images_scored.
        csvpath: ralo-dataset-metadata.csv, with the banner above its header or without; or a
            DataFrame of some of its rows, whose index still counts those of the release from 0.
        views: "AP" or "*"; there is no other.
    """

    spec = DatasetSpec(
        title="Stony Brook Medicine COVID-19, radiographic assessment of lung opacity",
        reference=Reference(
            authors="Cohen JP, Shen B, Abbasi A, et al.",
            title="Radiographic Assessment of Lung Opacity Score Dataset",
            year=2021,
            venue="Zenodo",
            url="https://doi.org/10.5281/zenodo.4633999",
        ),
        license=License(
            name="See the record at Zenodo",
            url="https://doi.org/10.5281/zenodo.4633999",
            note="The terms were not seen when this was written.",
        ),
        homepage="https://doi.org/10.5281/zenodo.4633999",
        tables=(
            Table(
                "csvpath",
                read=read_scores,
                description="ralo-dataset-metadata.csv of the Zenodo record",
            ),
        ),
        join=_numbered,
        images=Files("{row}.jpg", layout="the folder CXR_images_scored"),
        findings=FindingColumns({finding: finding for finding in _SCORES}, scores=True),
        view=value("AP"),
        default_views=("AP",),
        patient="Subject_ID",
        columns={"patientid": "Subject_ID", "offset_day_int": _day},
        scores=True,
        score_range=(0.0, 8.0),
        verified="the four columns that are read, out of public code that reads them; others and "
        "the order are open, and any number of raters is taken",
        parameters="imgpath, csvpath, transform, data_aug, views, seed, *, unique_patients",
    )
