"""CheXlocalize: CheXpert's validation and test images with segmentations."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.annotations import CocoRle
from torchxrayvision.datasets.columns import extract
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.chexpert import (
    CHEXPERT_FINDINGS,
    chexpert_age,
    chexpert_view,
    official_part,
)
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from torchxrayvision.datasets.release import Row, SourceContext

logger = logging.getLogger(__name__)

TASK_RENAME = {"Airspace Opacity": "Lung Opacity", "Pleural Effusion": "Effusion"}
"""Task of the segmentations to finding of the labels."""


def read_segmentations(path: Path) -> pd.DataFrame:
    """The segmentations of the release as one row per mask.

    Args:
        path: gt_segmentations_val.json or gt_segmentations_test.json: image to task to size
            (height, width) and compressed run lengths.

    Returns:
        Columns cxr_id, task, height, width, counts.

    Raises:
        ValueError: If the file holds something else.
    """
    import pandas as pd

    with path.open(encoding="utf-8") as stream:
        record = json.load(stream)
    try:
        rows = [
            (image, task, *mask["size"], mask["counts"])
            for image, tasks in record.items()
            for task, mask in tasks.items()
        ]
        return pd.DataFrame(rows, columns=["cxr_id", "task", "height", "width", "counts"])
    except (AttributeError, KeyError, TypeError) as error:
        msg = 'expected {image: {task: {"size": [height, width], "counts": "..."}}}'
        raise ValueError(msg) from error


def _with_missing_columns(context: SourceContext) -> pd.DataFrame:
    frame = context.tables["csvpath"]
    need_columns(frame, ["Path"], context)
    # "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"
    parts = frame["Path"].str.removesuffix(".jpg").str.split("/")
    frame = frame.assign(
        PatientID=extract(frame["Path"], r"patient(?P<value>\d+)"),
        cxr_id=parts.str[-3:].str.join("_").astype("str"),
    )
    # The blinded test set tells nothing about its patients, and the view only in the name.
    lateral = parts.str[-1].str.contains("lateral")
    absent: dict[str, Any] = {
        "Sex": "Unknown",
        "Age": float("nan"),
        "Frontal/Lateral": lateral.map({True: "Lateral", False: "Frontal"}),
        "AP/PA": "Unknown",
    }
    return frame.assign(**{name: v for name, v in absent.items() if name not in frame.columns})


def _below_release(row: Row) -> str:
    path = str(row["Path"])
    return path.partition("/")[2] if path.startswith("CheXpert-v1.0") else path


class _ValidOrVal(Files):
    """Files of CheXpert (folder ``valid``), of CheXlocalize (``val``), or of one such folder."""

    def _find(self, row: Row, context: SourceContext) -> Path | None:
        root, name = self.place(context), self.name(row)
        folder, _, below = name.partition("/")
        other = {"valid": "val", "val": "valid"}.get(folder, folder)
        places = (root / name, root / other / below, root / below)
        return next((path for path in places if path.is_file()), None)


class CheXlocalize_Dataset(SpecDataset):
    """CheXlocalize: CheXpert's 234 validation and 668 test images with radiologists' masks.

    Labels are a consensus of radiologists, for thirteen findings: 1 present, 0 absent; where
    there is *No Finding* all others are absent apart from *Support Devices*. Ten findings have
    masks (not Fracture, Pleural Other, Pneumonia): 187 validation and 499 test images have an
    entry for all ten, most of them empty; ``has_masks`` is True where some pixel is marked, and a
    sample holds the masks that are not empty. In the files *Lung Opacity* is called Airspace
    Opacity.

    The table of the test set has no age, sex or view: frontal images have the view "Unknown",
    lateral ones "L". The images are CheXpert's, so they must not meet ``CheX_Dataset`` in
    training. Counts are those of 1.5.7's documentation.

    Args:
        imgpath: Folder that holds ``valid`` (CheXpert) or ``val`` (CheXlocalize), or ``test``; or
            one of these folders.
        csvpath: valid.csv, val_labels.csv or test_labels.csv.
        views: "PA", "AP", "L", "Unknown", several, or "*"; None: all frontal ones.
        pathology_masks: Add the masks, at the size of the image. Without `segmentation_jsonpath`
            there are none to add.
        segmentation_jsonpath: gt_segmentations_val.json or gt_segmentations_test.json.
    """

    spec = DatasetSpec(
        title="CheXlocalize",
        reference=Reference(
            authors="Saporta A, Gui X, Agrawal A, et al.",
            title="Benchmarking saliency methods for chest X-ray interpretation",
            year=2022,
            venue="Nature Machine Intelligence",
            url="https://doi.org/10.1038/s42256-022-00536-x",
        ),
        license=License(
            name="Stanford University School of Medicine CheXlocalize Dataset Research Use "
            "Agreement",
            url="https://stanfordaimi.azurewebsites.net/datasets/"
            "23c56a0d-15de-405b-87c8-99c30138950c",
            commercial=False,
            note="Personal, non-commercial research; no redistribution, no derivative works.",
        ),
        homepage="https://github.com/rajpurkarlab/cheXlocalize",
        tables=(
            Table(
                "csvpath", description="valid.csv, val_labels.csv or test_labels.csv of the release"
            ),
            Table(
                "segmentation_jsonpath",
                read=read_segmentations,
                optional=True,
                description="gt_segmentations_val.json or gt_segmentations_test.json",
            ),
        ),
        join=_with_missing_columns,
        images=_ValidOrVal(
            _below_release, layout="valid (or val) or test, with folders patient.../study..."
        ),
        findings=CHEXPERT_FINDINGS,
        view=chexpert_view,
        default_views=("PA", "AP", "Unknown"),
        patient="PatientID",
        cohort="CheXpert",
        columns={
            "patientid": "PatientID",
            "age_years": chexpert_age,
            **sexes("Sex", "Male", "Female"),
        },
        masks=CocoRle(
            table="segmentation_jsonpath", image="cxr_id", finding="task", rename=TASK_RENAME
        ),
        split=official_part,
        verified="all columns of the validation set and the form of the segmentations; that the "
        "test set lacks age, sex and view is from 1.5.7's documentation",
        parameters="imgpath, csvpath, views, transform, data_aug, seed, unique_patients=True, "
        "pathology_masks=True, segmentation_jsonpath",
    )

    def _prepare(self, given: dict[str, Any]) -> None:
        if given["pathology_masks"] and given["segmentation_jsonpath"] is None:
            logger.info("no segmentation_jsonpath was given: samples have no pathology_masks")
            given["pathology_masks"] = False
