"""The COVID-19 Image Repository of Hannover Medical School."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.columns import plausible_age
from torchxrayvision.datasets.findings import FindingRules
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.datasets.storage import plain_text
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import SourceContext


def _checked(context: SourceContext) -> pd.DataFrame:
    frame = context.tables["csvpath"]
    need_columns(frame, ["patient_id", "image_id", "projection"], context)
    for column in ("admission_offset", "age", "sex"):
        if column not in frame:
            frame = frame.assign(**{column: np.nan})
    return frame


def _view(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return plain_text(frame["projection"]).str.strip().str.upper()


def _days_since_admission(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001
    import pandas as pd

    # The release counts from the image to the admission: -4 is four days after it.
    return 0 - pd.to_numeric(frame["admission_offset"], errors="coerce")


def _covid(frame: pd.DataFrame, context: SourceContext) -> Any:
    """1 from the admission as a COVID-19 case on; what held before it, nobody says."""
    days = _days_since_admission(frame, context)
    return np.where(days < 0, np.nan, 1.0)


def _age(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return plausible_age(frame["age"])


class HannoverCOVID_Dataset(SpecDataset):
    """COVID-19 Image Repository: some 240 images of COVID-19 cases in Hannover, with laboratory.

    All patients are COVID-19 cases, so there are no negative labels. *COVID-19* is 1 from the day
    of admission with it, and NaN in the few images taken up to three weeks before. Nobody
    labelled what the images show: the label is of the case, not of the picture.

    ``csv`` keeps the columns of intensive care, death and laboratory values as they are; each
    ``*_offset`` counts days from the image, negative in the past. ``offset_day_int`` turns this
    round: days from the admission to the image. Laboratory values are rounded, and ``-inf`` and
    ``inf`` stand for outside the range of the method. Age, size and weight are withheld.

    Args:
        imgpath: The repository, with its folder ``png``. The NIfTI files are not read.
        csvpath: data.csv; looked for in `imgpath` too.
        views: "AP", "PA", both, or "*"; the default is both, for two in three are AP.
    """

    spec = DatasetSpec(
        title="COVID-19 Image Repository, Hannover Medical School",
        reference=Reference(
            authors="Winther HB, Laser H, Gerbel S, et al.",
            title="COVID-19 Image Repository",
            year=2020,
            venue="figshare",
            url="https://doi.org/10.6084/m9.figshare.12275009",
        ),
        license=License(
            name="CC BY 3.0",
            url="https://creativecommons.org/licenses/by/3.0/",
            commercial=True,
        ),
        homepage="https://github.com/ml-workgroup/covid-19-image-repository",
        tables=(
            Table(
                "csvpath", path_below_imgpath="data.csv", description="data.csv of the repository"
            ),
        ),
        join=_checked,
        images=Files("png/{image_id}.png", layout="png/<image_id>.png", folders=(".",)),
        findings=FindingRules({"COVID-19": _covid}),
        view=_view,
        default_views=("AP", "PA"),
        patient="patient_id",
        compat_keeps_whole_rows=True,
        columns={
            "patientid": "patient_id",
            "offset_day_int": _days_since_admission,
            "age_years": _age,
            **sexes("sex", "m", "f", "w"),
        },
        verified="header and values, in data.csv of the repository. admission_offset, age and "
        "sex may be missing; the readme writes *w* for the *f* of the table, and both "
        "are read",
        parameters="imgpath, csvpath, views, transform, data_aug, seed, unique_patients",
    )
