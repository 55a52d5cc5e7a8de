"""NIH ChestX-ray14, and Google's expert labels for some of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision import tables
from torchxrayvision.datasets.annotations import BoxTable
from torchxrayvision.datasets.findings import FindingColumns, FindingText, separated
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.reading import release_table
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.facts import License, Reference
from torchxrayvision.labels import NIH14, NIH_RENAME

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import SourceContext


_IMAGES = Files(
    "{Image Index}",
    layout="the PNG files of images_001.tar.gz to images_012.tar.gz, in one folder or several",
    folders=("images", "images_*", "images_*/images"),
)
_LATER = (
    *("Finding Labels", "Follow-up #", "OriginalImage[Width", "Height]"),
    *("OriginalImagePixelSpacing[x", "y]"),
)
# The header of the file has one name for the four numbers: "Bbox [x,y,w,h]".
_BOX = ("Bbox [x", "y", "w", "h]")
_SEX = ("Patient Gender", "Patient Sex")  # renamed in the table of 2020
_TERMS = License(
    name="No restriction stated",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    note="Cite the paper, link to the NIH Clinical Center site and acknowledge it as the provider.",
)


def _official_part(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    """The part "test" for the patients of NIH's test_list.txt, "train_val" for all others."""
    tested = tables.load("nih_test")["Patient ID"].astype(str)
    return np.where(frame["patientid"].astype(str).isin(tested), "test", "train_val")


class NIH_Dataset(SpecDataset):
    """NIH ChestX-ray14: 112,120 frontal images of 30,805 patients.

    Fourteen findings were read out of the reports by a program; the authors give its accuracy as
    above 90 %, and later readers found it lower for several findings. 880 images have boxes,
    drawn by a radiologist, for eight findings; boxes are in pixels of the 1024 by 1024 files.

    28,868 images with the default arguments (PA, one per patient).
    ``official_split("test")`` gives NIH's test list, 25,596 images of 2,797 patients with all views
    and images, and ``"train_val"`` the other 86,524.

    Args:
        imgpath: Folder of the PNG files, flat or with the subfolders of the archives.
        csvpath: Data_Entry_2017_v2020.csv.
        bbox_list_path: BBox_List_2017.csv.
        views: "PA", "AP", both, or "*".
        pathology_masks: Add the boxes as masks.

    Example:
        >>> from torchxrayvision.datasets import NIH_Dataset
        >>> dataset = NIH_Dataset()
        >>> len(dataset), dataset.totals()["Hernia"][1.0]
        (28868, 81)
    """

    spec = DatasetSpec(
        title="NIH ChestX-ray14",
        reference=Reference(
            authors="Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM",
            title="ChestX-ray8: Hospital-scale chest X-ray database and benchmarks on "
            "weakly-supervised classification and localization of common thorax diseases",
            year=2017,
            venue="CVPR",
            url="https://arxiv.org/abs/1705.02315",
        ),
        license=_TERMS,
        homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        tables=(
            Table(
                "csvpath",
                packaged="nih",
                description="Data_Entry_2017_v2020.csv of the release",
                deferred_columns=_LATER,
            ),
            Table(
                "bbox_list_path",
                packaged="nih_boxes",
                description="BBox_List_2017.csv of the release",
            ),
        ),
        images=_IMAGES,
        findings=FindingText("Finding Labels", {name: (name,) for name in NIH14}, separated("|")),
        view="View Position",
        patient="Patient ID",
        cohort="NIH ChestX-ray14",
        columns={
            "patientid": "Patient ID",
            "age_years": "Patient Age",
            **sexes(_SEX, "M", "F"),
        },
        masks=BoxTable(
            table="bbox_list_path",
            image="Image Index",
            finding="Finding Label",
            box=_BOX,
            frame=1024,
            rename=NIH_RENAME,
        ),
        split=_official_part,
        expected_sizes=(1024, 1024),
        verified="all columns",
        parameters="imgpath, csvpath, bbox_list_path, views, transform, data_aug, seed, "
        "unique_patients=True, pathology_masks",
    )

    @property
    def pathology_maskscsv(self) -> pd.DataFrame:
        """One box per row: ``Image Index``, ``Finding Label``, ``x``, ``y``, ``w``, ``h``."""
        boxes = release_table(self, "bbox_list_path").rename(columns={_BOX[0]: "x", _BOX[3]: "h"})
        boxes["Finding Label"] = boxes["Finding Label"].replace(dict(NIH_RENAME))
        return boxes[["Image Index", "Finding Label", "x", "y", "w", "h"]]


class NIH_Google_Dataset(SpecDataset):
    """Expert labels by Google for 4,376 images of NIH ChestX-ray14.

    Four findings, adjudicated by three radiologists: 2,414 images for validation and 1,962 for
    test (the official split, column ``Set Id``). 810 images with the default arguments.

    Args:
        imgpath: Folder of the NIH PNG files.
        csvpath: The table of labels.
        views: "PA", "AP", both, or "*".
        nrows: Read only the first rows of the table.
    """

    spec = DatasetSpec(
        title="NIH ChestX-ray14, expert labels by Google",
        reference=Reference(
            authors="Majkowska A, Mittal S, Steiner DF, et al.",
            title="Chest radiograph interpretation with deep learning models: assessment with "
            "radiologist-adjudicated reference standards and population-adjusted evaluation",
            year=2020,
            venue="Radiology",
            url="https://doi.org/10.1148/radiol.2019191293",
        ),
        license=_TERMS,
        homepage="https://pubs.rsna.org/doi/10.1148/radiol.2019191293",
        tables=(
            Table(
                "csvpath",
                packaged="nih_google",
                description="the table of adjudicated labels",
                deferred_columns=(*_LATER, "Patient Age", "Patient Gender", "Set Id"),
            ),
        ),
        images=_IMAGES,
        findings=FindingColumns(
            {
                "Lung Opacity": "Airspace opacity",
                "Fracture": "Fracture",
                "Nodule/Mass": "Nodule or mass",
                "Pneumothorax": "Pneumothorax",
            },
            values={"YES": 1.0, "NO": 0.0},
        ),
        view="View Position",
        patient="Patient ID",
        cohort="NIH ChestX-ray14",
        columns={
            "patientid": "Patient ID",
            "age_years": "Patient Age",
            **sexes(_SEX, "M", "F"),
        },
        split="Set Id",
        expected_sizes=(1024, 1024),
        verified="all columns",
        parameters="imgpath, csvpath, views, transform, data_aug, nrows, seed, "
        "unique_patients=True",
    )
