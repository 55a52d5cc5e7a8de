"""VinDr-PCXR: images of children, with diagnoses and boxes of findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.datasets.annotations import BoxTable
from torchxrayvision.datasets.findings import FindingFunction, numbers
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.grounded import GroundedDataset
from torchxrayvision.datasets.spec import DatasetSpec, Table, value
from torchxrayvision.errors import DatasetError, EmptyDatasetError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from torchxrayvision.datasets.findings import Labels
    from torchxrayvision.datasets.release import SourceContext

_DIAGNOSES: Mapping[str, str] = {
    "Bronchiolitis": "Bronchiolitis",
    "Bronchitis": "Bronchitis",
    "Bronchopneumonia": "Brocho-pneumonia",
    "CPAM": "CPAM",
    "Congenital emphysema": "Congenital emphysema",
    "Diaphragmatic hernia": "Diagphramatic hernia",
    "Hyaline membrane disease": "Hyaline membrane disease",
    "Lung tumor": "Lung tumor",
    "Mediastinal tumor": "Mediastinal tumor",
    "Other disease": "Other disease",
    "Pleuropneumonia": "Pleuro-pneumonia",
    "Pneumonia": "Pneumonia",
    "Situs inversus": "Situs inversus",
    "Tuberculosis": "Tuberculosis",
}
"""Diagnosis to its column; the release misspells some."""

_DRAWN: Mapping[str, str] = {
    "Anterior mediastinal mass": "Anterior mediastinal mass",
    "Aortic enlargement": "Aortic enlargement",
    "Atelectasis": "Atelectasis",
    "Boot-shaped heart": "Boot-shaped heart",
    "Bronchial thickening": "Bronchial thickening",
    "Bronchiectasis": "Bronchectasis",
    "Calcification": "Calcification",
    "Cardiomegaly": "Cardiomegaly",
    "Chest wall mass": "Chest wall mass",
    "Clavicle fracture": "Clavicle fracture",
    "Consolidation": "Consolidation",
    "Dextro cardia": "Dextro cardia",
    "Diffuse alveolar opacity": "Diffuse aveolar opacity",
    "Edema": "Edema",
    "Effusion": "Pleural effusion",
    "Egg on string sign": "Egg on string sign",
    "Emphysema": "Emphysema",
    "Enlarged PA": "Enlarged PA",
    "Expanded edges of the anterior ribs": "Expanded edges of the anterior ribs",
    "ILD": "Interstitial lung disease - ILD",
    "Infiltration": "Infiltration",
    "Intrathoracic digestive structure": "Intrathoracic digestive structure",
    "Lung cavity": "Lung cavity",
    "Lung cyst": "Lung cyst",
    "Lung hyperinflation": "Lung hyperinflation",
    "Mediastinal shift": "Mediastinal shift",
    "Other Lesion": "Other lesion",
    "Other nodule/mass": "Other nodule/mass",
    "Other opacity": "Other opacity",
    "Paravertebral mass": "Paraveterbral mass",
    "Peribronchovascular interstitial opacity": "Peribronchovascular interstitial opacity",
    "Pleural_Thickening": "Pleural thickening",
    "Pneumothorax": "Pneumothorax",
    "Pulmonary Fibrosis": "Pulmonary fibrosis",
    "Reticulonodular opacity": "Reticulonodular opacity",
    "Stomach on the right side": "Stomach on the right side",
}
"""Finding with boxes to its class name; the release misspells some."""

_TABLES = {
    "train": ("train_csvpath", "train_bbox_csvpath"),
    "test": ("test_csvpath", "test_bbox_csvpath"),
}
_BOX = ("x_min", "y_min", "x_max", "y_max")


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """The images of both parts; their boxes go into the table "boxes"."""
    import pandas as pd

    frames, boxes = [], [pd.DataFrame(columns=["image_id", "class_name", *_BOX])]
    for split, (labels, drawn) in _TABLES.items():
        if labels in context.tables:
            need_columns(context.tables[labels], ["image_id"], context)
            if not len(context.tables[labels]):
                raise EmptyDatasetError(f"{context.dataset}: the table {labels} has no row")
            part = context.tables[labels].assign(split=split, drawn=drawn in context.tables)
            frames.append(part)
        if drawn in context.tables:
            need_columns(context.tables[drawn], ["image_id", "class_name", *_BOX], context)
            boxes.append(context.tables[drawn])
    if not frames:
        msg = (
            f"{context.dataset} needs train_csvpath or test_csvpath, the tables of labels; they "
            f"are not packaged, so pass the paths of your copies"
        )
        raise DatasetError(msg)
    context.tables["boxes"] = pd.concat([part for part in boxes if len(part)] or boxes[:1])
    return pd.concat(frames, ignore_index=True).drop_duplicates("image_id")


def _diagnosed(frame: pd.DataFrame, context: SourceContext) -> Labels:
    """Diagnoses as their columns say; findings 1 with a box and 0 without."""
    need_columns(frame, _DIAGNOSES.values(), context)
    diagnosed = numbers(frame, _DIAGNOSES.values())
    diagnosed[(diagnosed != 0) & (diagnosed != 1)] = np.nan
    boxes = context.tables["boxes"]
    found = np.zeros((len(frame), len(_DRAWN)), dtype=np.float32)
    for j, raw in enumerate(_DRAWN.values()):
        found[:, j] = frame["image_id"].isin(boxes.loc[boxes["class_name"] == raw, "image_id"])
    found[~frame["drawn"].to_numpy(dtype=bool)] = np.nan
    return (*_DIAGNOSES, *_DRAWN), np.concatenate([diagnosed, found], axis=1)


_BOXES = BoxTable(
    table="boxes",
    image="image_id",
    finding="class_name",
    rename={raw: name for name, raw in _DRAWN.items()},
    box=_BOX,
    form="xyxy",
)


class VinDrPCXR_Dataset(GroundedDataset):
    """VinDr-PCXR: 9,125 images of children, with fourteen diagnoses and 36 findings with boxes.

    7,728 images for training and 1,397 for test, the official split, from a hospital in Hanoi;
    experienced radiologists gave diagnoses to the image and boxes to findings. Counts are those of
    the label tables. A diagnosis is 1 or 0 as its column says; a finding is 1 with a box, 0
    without, and NaN where the table of boxes was not given. The release misspells some names
    (*Brocho-pneumonia*, *Diagphramatic hernia*, *Bronchectasis*, *Diffuse aveolar opacity*,
    *Paraveterbral mass*); here they are spelt right.

    Masks are the boxes, in pixels of the DICOM files. All images are PA. Patients are not named,
    and the files do not say; ages and sexes are in the DICOM headers.

    Args:
        imgpath: Root of the release, with the folders ``train`` and ``test``; the four tables are
            looked for in it too.
        train_csvpath: image_labels_train.csv. One of the two tables of labels is enough.
        test_csvpath: image_labels_test.csv.
        train_bbox_csvpath: annotations_train.csv.
        test_bbox_csvpath: annotations_test.csv.
        views: "PA" or "*".
        pathology_masks: Add the boxes as masks.
    """

    spec = DatasetSpec(
        title="VinDr-PCXR",
        reference=Reference(
            authors="Pham HH, Nguyen NH, Tran TT, Nguyen TNM, Nguyen HQ",
            title="PediCXR: an open, large-scale chest radiograph dataset for interpretation of "
            "common thoracic diseases in children",
            year=2023,
            venue="Scientific Data",
            url="https://doi.org/10.1038/s41597-023-02102-5",
        ),
        license=License(
            name="PhysioNet Credentialed Health Data License 1.5.0",
            url="https://physionet.org/content/vindr-pcxr/view-license/1.0.0/",
            note="Needs training in research with human subjects and a signed agreement.",
        ),
        homepage="https://physionet.org/content/vindr-pcxr/",
        tables=tuple(
            Table(
                argument,
                path_below_imgpath=f"{stem}_{split}.csv",
                optional=True,
                description=f"{stem}_{split}.csv",
            )
            for split, arguments in _TABLES.items()
            for argument, stem in zip(arguments, ("image_labels", "annotations"), strict=True)
        ),
        join=_one_row_an_image,
        images=Files("{split}/{image_id}.dicom", layout="train/<image_id>.dicom", folders=(".",)),
        findings=FindingFunction(_diagnosed, (*_DIAGNOSES, *_DRAWN)),
        view=value("PA"),
        masks=_BOXES,
        boxes=_BOXES,
        split="split",
        verified="all columns of labels, the class names, and image_id, class_name and the "
        "corners of the boxes, in code that reads the release. Other columns may be "
        "missing",
        parameters="imgpath, train_csvpath, test_csvpath, train_bbox_csvpath, test_bbox_csvpath, "
        "views, transform, data_aug, seed, pathology_masks",
    )
