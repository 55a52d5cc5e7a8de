"""MS-CXR: phrases of reports, and the boxes that they mean, on MIMIC-CXR images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.annotations import BoxTable
from torchxrayvision.datasets.columns import extract
from torchxrayvision.datasets.findings import FindingRules
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.grounded import GroundedDataset
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import Row, Rule, SourceContext

_CATEGORIES = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Consolidation",
    "Edema": "Edema",
    "Effusion": "Pleural Effusion",
    "Lung Opacity": "Lung Opacity",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
_BOX_COLUMNS = ("dicom_id", "category_name", "path", "x", "y", "w", "h")
_SIZE_COLUMNS = ("image_width", "image_height")


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """The images, in order of first mention; the boxes stay in the table of the release."""
    boxes = context.tables["csvpath"]
    need_columns(boxes, [*_BOX_COLUMNS, *_SIZE_COLUMNS], context)
    kept = ["dicom_id", "path", *_SIZE_COLUMNS, *(["split"] if "split" in boxes else [])]
    frame = boxes[kept].drop_duplicates("dicom_id").reset_index(drop=True)
    named = boxes.groupby("dicom_id", sort=False)["category_name"].agg("|".join)
    return frame.assign(
        categories=named.loc[frame["dicom_id"]].to_numpy(),
        subject_id=extract(frame["path"], r"(?:^|/)p(?P<value>\d{8})(?:/|$)"),
    )


def _boxed(category: str) -> Rule:
    """1 where the category has a box; the release says nothing about the others."""

    def rule(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
        present = frame["categories"].map(lambda text: category in text.split("|"))
        return present.astype(float).where(present)

    return rule


def _path(row: Row) -> str:
    """Below the root of MIMIC-CXR-JPG; the table of some versions lacks the leading folder."""
    path = str(row["path"])
    return path if path.startswith("files/") else f"files/{path}"


class MSCXR_Dataset(GroundedDataset):
    """MS-CXR: boxes for phrases about eight findings, on MIMIC-CXR images of 851 patients.

    Board-certified radiologists matched phrases of the reports with boxes; several boxes of a
    finding in one image are united in its mask. A label is 1 where there is a box and NaN
    elsewhere: the images were chosen for their phrases, and a missing box says nothing. For
    negative labels use MIMIC-CXR's own, joined on ``dicom_id``.

    ``annotations(i)`` gives the boxes of an image with category and phrase, in the order of
    ``bbox``. The split (version 1.1.0 and later) is the authors' own and differs from that of
    MIMIC-CXR: an image of its *train* may be in MIMIC-CXR's *test*.

    Args:
        imgpath: Root of MIMIC-CXR-JPG, the folder that holds ``files``.
        csvpath: MS_CXR_Local_Alignment_v1.1.0.csv (or v1.0.0, which has no split).
        pathology_masks: Add the boxes as masks.
    """

    spec = DatasetSpec(
        title="MS-CXR",
        reference=Reference(
            authors="Boecking B, Usuyama N, Bannur S, et al.",
            title="Making the most of text semantics to improve biomedical vision-language "
            "processing",
            year=2022,
            venue="ECCV",
            url="https://doi.org/10.1007/978-3-031-20059-5_1",
        ),
        license=License(
            name="PhysioNet Credentialed Health Data License 1.5.0",
            url="https://physionet.org/content/ms-cxr/view-license/1.1.0/",
            note="Needs training in research with human subjects and a signed agreement.",
        ),
        homepage="https://physionet.org/content/ms-cxr/",
        tables=(Table("csvpath", description="MS_CXR_Local_Alignment_v1.1.0.csv of the release"),),
        join=_one_row_an_image,
        images=Files(_path, layout="files/p10/p10000032/s50414267/<dicom_id>.jpg"),
        findings=FindingRules({name: _boxed(raw) for name, raw in _CATEGORIES.items()}),
        patient="subject_id",
        cohort="MIMIC-CXR",
        compat_keeps_whole_rows=True,
        columns={"patientid": "subject_id"},
        masks=BoxTable(
            table="csvpath",
            image="dicom_id",
            finding="category_name",
            rename={raw: name for name, raw in _CATEGORIES.items()},
            box=("x", "y", "w", "h"),
            frame=("image_height", "image_width"),
        ),
        boxes=BoxTable(
            table="csvpath",
            image="dicom_id",
            box=("x", "y", "w", "h"),
            frame=("image_height", "image_width"),
        ),
        split="split",
        verified="the header of both versions, in code that reads them. The column split may be "
        "missing; further columns stay in annotations",
        parameters="imgpath, csvpath, transform, data_aug, seed, unique_patients, pathology_masks",
    )
