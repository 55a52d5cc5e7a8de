"""CheXpert, and the labelling rule that it shares with its relatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.columns import extract
from torchxrayvision.datasets.findings import FindingColumns
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.datasets.storage import is_coded_text
from torchxrayvision.facts import License, Reference
from torchxrayvision.labels import CHEXPERT13, CHEXPERT_RENAME

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import Row, SourceContext

CHEXPERT_FINDINGS = FindingColumns(
    {name: CHEXPERT_RENAME.get(name, name) for name in CHEXPERT13},
    normal_column="No Finding",
    # The labeller says No Finding where there are devices and nothing else.
    unaffected_by_normal=("Support Devices",),
)
"""1 present, 0 absent, -1 (uncertain) and blank unknown; *No Finding* says all others absent."""


def _with_patient(context: SourceContext) -> pd.DataFrame:
    frame = context.tables["csvpath"]
    need_columns(frame, ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"], context)
    return frame.assign(PatientID=extract(frame["Path"], r"patient(?P<value>\d+)"))


def chexpert_view(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    """PA, AP, LL or RL as the table says; "L" for lateral images."""
    view = frame["AP/PA"]
    if is_coded_text(view) and "L" not in view.cat.categories:
        view = view.cat.add_categories(["L"])
    return view.mask(frame["Frontal/Lateral"] == "Lateral", "L")


def chexpert_age(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    """The age; 0 stands for unknown."""
    return frame["Age"].where(frame["Age"] > 0)


def _below_release(row: Row) -> str:
    """The path without the name of the release: ``CheXpert-v1.0-small/train/...``."""
    path = str(row["Path"])
    first, _, rest = path.partition("/")
    return rest if first.startswith("CheXpert-v1.0") else path


def official_part(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    """The folder of the release that an image is in: "train", "valid" or "test"."""
    part = frame["Path"].astype("str").str.extract(r"(?:^|/)(train|valid|val|test)/", expand=False)
    return part.replace("val", "valid").astype(object).to_numpy()


class CheX_Dataset(SpecDataset):
    """CheXpert: 223,414 training images of 64,540 patients, labelled by a program.

    Thirteen findings of the CheXpert labeller: 1 present, 0 absent, NaN for uncertain (-1) and
    not mentioned. Where it says *No Finding* the others are absent, apart from *Support
    Devices*. (An older rule cleared that one too, which is where the older totals 21,757 absent
    and 99,747 present of 191,010 images come from.)

    20,543 images with the default arguments (PA, one per patient). With ``compat="xrv-1.5"`` and
    one per patient, 3,197 of them carry labels of another image of the patient.

    Args:
        imgpath: Folder that holds ``train`` and ``valid``.
        csvpath: train.csv or valid.csv of the release.
        views: "PA", "AP", "L", "LL", "RL", several, or "*".
        flat_dir: Accepted as in 1.5.7; paths come from the table.
    """

    spec = DatasetSpec(
        title="CheXpert",
        reference=Reference(
            authors="Irvin J, Rajpurkar P, Ko M, et al.",
            title="CheXpert: a large chest radiograph dataset with uncertainty labels and expert "
            "comparison",
            year=2019,
            venue="AAAI",
            url="https://arxiv.org/abs/1901.07031",
        ),
        license=License(
            name="Stanford University Dataset Research Use Agreement",
            url="https://stanfordmlgroup.github.io/competitions/chexpert/",
            commercial=False,
        ),
        homepage="https://stanfordmlgroup.github.io/competitions/chexpert/",
        tables=(
            Table(
                "csvpath",
                packaged="chexpert",
                deferred_columns=CHEXPERT_FINDINGS.reads,
                description="train.csv or valid.csv",
            ),
        ),
        join=_with_patient,
        images=Files(
            _below_release,
            layout="the folders train and valid of CheXpert-v1.0 or CheXpert-v1.0-small",
        ),
        findings=CHEXPERT_FINDINGS,
        view=chexpert_view,
        patient="PatientID",
        cohort="CheXpert",
        columns={
            "patientid": "PatientID",
            "age_years": chexpert_age,
            **sexes("Sex", "Male", "Female"),
        },
        split=official_part,
        verified="all columns",
        parameters="imgpath, csvpath, views, transform, data_aug, flat_dir=True, seed, "
        "unique_patients=True",
    )
