"""The RSNA Pneumonia Detection Challenge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.annotations import BoxTable
from torchxrayvision.datasets.columns import plausible_age
from torchxrayvision.datasets.findings import FindingColumns
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.reading import release_table
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.datasets.storage import rows_of
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import SourceContext


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """The first box of each image beside the fields of its DICOM header, sorted by patient."""
    import pandas as pd

    boxes, headers = context.tables["csvpath"], context.tables["dicomcsvpath"]
    need_columns(boxes, ["patientId", "Target"], context)
    need_columns(headers, ["PatientID", "ViewPosition", "PatientAge"], context)
    boxes = boxes.drop_duplicates("patientId").sort_values("patientId", kind="stable")
    rows = rows_of(boxes["patientId"], headers["PatientID"])
    parts = [boxes[rows >= 0], headers.drop(columns="PatientID").take(rows[rows >= 0])]
    frame = pd.concat([part.reset_index(drop=True) for part in parts], axis=1)
    return frame if context.compat else frame.assign(**_origin(frame["patientId"]))


def _origin(names: pd.Series[Any]) -> dict[str, Any]:
    """Columns that say which NIH image each image was made of, blank where that is not known."""
    from torchxrayvision import tables

    columns = ["nih_image", "nih_test"]
    matches = tables.load("rsna_nih", ["patientId", *columns])
    rows = rows_of(names, matches["patientId"])
    found = matches[columns].reindex(rows)  # -1, for a name that is not there, is no row
    return {
        "nih_image": found["nih_image"].to_numpy(),
        "nih_test": found["nih_test"].eq(other=True).to_numpy(dtype=bool),
    }


def _nih_patient(frame: pd.DataFrame, context: SourceContext) -> Any:
    """The patient as NIH numbers it; an image without a match counts as a patient of its own."""
    images = _nih_image(frame, context)
    patients = images.str[:8].str.lstrip("0")
    return patients.where(images.notna(), frame["patientId"].astype(object))


def _nih_image(frame: pd.DataFrame, context: SourceContext) -> Any:
    import pandas as pd

    need_columns(frame, ["patientId"], context)
    if "nih_image" in frame.columns:
        return frame["nih_image"].astype(object)
    names = frame["patientId"].astype(object)
    return pd.Series(_origin(names)["nih_image"], names.index, dtype=object)


def _unmatched(frame: pd.DataFrame, context: SourceContext) -> Any:
    return _nih_image(frame, context).isna()


def _patientid(frame: pd.DataFrame, context: SourceContext) -> Any:
    return frame["patientId"] if context.compat else _nih_patient(frame, context)


def _age(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return plausible_age(frame["PatientAge"])  # the headers go up to 155


class RSNA_Pneumonia_Dataset(SpecDataset):
    """RSNA Pneumonia Detection Challenge: 26,684 frontal images out of NIH ChestX-ray14.

    Radiologists drew boxes around opacities suspicious for pneumonia; 6,012 images have some
    (30,227 rows, one per box). *Lung Opacity* and *Pneumonia* are the same label. 14,511 images
    with the default arguments (PA).

    The release's ``patientId`` names an image. 26,586 images were matched to the NIH image that
    they were made of, in column ``nih_image``; ``patientid`` is the patient of that image, as NIH
    numbers it, or the ``patientId`` where there is no match (98 images, each taken as a patient;
    splits and merges that rest on it say so); the matches are those of TorchXRayVision's authors
    (``torchxrayvision.tables.info("rsna_nih")``). 7,170 images are of patients in NIH's official
    test list, in column ``nih_test``: leave them out of training if a model is to be tested there.
    With ``compat="xrv-1.5"`` ``patientid`` is the ``patientId``, as in 1.5.7; `split_by_patient`
    keeps the patients of NIH apart in both modes. ``unique_patients`` is accepted and changes
    nothing.

    Args:
        imgpath: Folder of the images.
        csvpath: stage_2_train_labels.csv.
        dicomcsvpath: Fields of the DICOM headers, one row per image.
        views: "PA", "AP", both, or "*".
        nrows: Read only the first rows of `csvpath`.
        pathology_masks: Add the boxes as masks, under both findings.
        extension: ".jpg", or ".dcm" for the files of the challenge.
        unique_patients: Changes nothing.
    """

    spec = DatasetSpec(
        title="RSNA Pneumonia Detection Challenge",
        reference=Reference(
            authors="Shih G, Wu CC, Halabi SS, et al.",
            title="Augmenting the National Institutes of Health chest radiograph dataset with "
            "expert annotations of possible pneumonia",
            year=2019,
            venue="Radiology: Artificial Intelligence",
            url="https://doi.org/10.1148/ryai.2019180041",
        ),
        license=License(
            name="Terms of the RSNA Pneumonia Detection Challenge",
            url="https://www.rsna.org/education/ai-resources-and-training/"
            "ai-image-challenge/rsna-pneumonia-detection-challenge-2018",
            note="Academic research and education; read the terms before any other use.",
        ),
        homepage="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
        tables=(
            Table(
                "csvpath", packaged="rsna", description="stage_2_train_labels.csv of the challenge"
            ),
            Table(
                "dicomcsvpath", packaged="rsna_dicom", description="a table of the DICOM headers"
            ),
        ),
        join=_one_row_an_image,
        images=Files(
            "{patientId}{extension}",
            layout="one folder of files <patientId>.dcm (extension='.dcm') or .jpg",
            folders=("stage_2_train_images", "stage_2_test_images", "stage_1_train_images"),
        ),
        findings=FindingColumns({"Lung Opacity": "Target", "Pneumonia": "Target"}),
        view="ViewPosition",
        cohort="NIH ChestX-ray14",
        true_patient=_nih_patient,
        unknown_patient=_unmatched,
        columns={
            "patientid": _patientid,
            "age_years": _age,
            **sexes("PatientSex", "M", "F"),
        },
        masks=BoxTable(
            table="csvpath",
            image="patientId",
            finding=("Lung Opacity", "Pneumonia"),
            box=("x", "y", "width", "height"),
            frame=1024,
        ),
        expected_sizes=(1024, 1024),
        verified="all columns",
        parameters="imgpath, csvpath, dicomcsvpath, views, transform, data_aug, nrows, seed, "
        "pathology_masks, extension='.jpg', *, unique_patients",
    )

    @property
    def raw_csv(self) -> pd.DataFrame:
        """The labels as released: one row per box, or an image without any."""
        return release_table(self, "csvpath")

    @property
    def dicomcsv(self) -> pd.DataFrame:
        """Fields of the DICOM headers by ``PatientID``, which names an image."""
        return release_table(self, "dicomcsvpath").set_index("PatientID")
