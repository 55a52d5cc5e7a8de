"""The SIIM-ACR Pneumothorax Segmentation challenge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.annotations import RleColumn
from torchxrayvision.datasets.findings import FindingRules
from torchxrayvision.datasets.images import IndexedFiles
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.facts import License, Reference
from torchxrayvision.masks import decode_gap_rle

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import Row, SourceContext

_RUNS = " EncodedPixels"  # the header of the release has a space there


class _Runs(RleColumn):
    """Run lengths, those of one image united; 1.5.7 shows the last ones only."""

    def found(self, row: Row, context: SourceContext) -> tuple[Any, list[int]]:
        """The table, and the positions of the runs of a row's image."""
        table, positions = super().found(row, context)
        return table, positions[-1:] if context.compat else positions


_MASKS = _Runs(
    table="csvpath",
    image="ImageId",
    finding=("Pneumothorax",),
    column=_RUNS,
    size=(1024, 1024),
    decode=decode_gap_rle,
)


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """Images in the order of the table, and how many outlines each has."""
    table = context.tables["csvpath"].rename(columns={_RUNS.strip(): _RUNS})  # stage 2 has none
    need_columns(table, ["ImageId", _RUNS], context)
    context.tables["csvpath"] = table
    outlined = _MASKS.valid(table)
    if context.compat:
        return table.assign(outlines=outlined.astype(np.int64))
    codes, images = table["ImageId"].factorize()
    counts = np.bincount(codes, weights=outlined, minlength=len(images)).astype(np.int64)
    first = table[["ImageId"]].drop_duplicates()
    return first.assign(outlines=counts)


def _pneumothorax(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return frame["outlines"] > 0


class SIIM_Pneumothorax_Dataset(SpecDataset):
    """SIIM-ACR Pneumothorax Segmentation: 12,047 images out of NIH ChestX-ray14.

    Radiologists outlined pneumothoraces in 2,669 images, 624 of them with several outlines. The
    table has a row an outline (12,954 in all); here a row is an image, its outlines are united,
    and column ``outlines`` counts them. With ``compat="xrv-1.5"`` a row is a row of the table and
    the mask is the last outline. Images are known by UIDs, so patients are unknown.

    Args:
        imgpath: Folder of the DICOM files, at any depth.
        csvpath: train-rle.csv of stage 1 or stage_2_train.csv.
        unique_patients: Accepted as in 1.5.7; it changes nothing.
        pathology_masks: Add the outlines as masks.

    Example:
        >>> from torchxrayvision.datasets import SIIM_Pneumothorax_Dataset
        >>> dataset = SIIM_Pneumothorax_Dataset()
        >>> dataset.totals()
        {'Pneumothorax': {0.0: 9378, 1.0: 2669}}
    """

    spec = DatasetSpec(
        title="SIIM-ACR Pneumothorax Segmentation",
        reference=Reference(
            authors="Society for Imaging Informatics in Medicine, American College of Radiology",
            title="SIIM-ACR Pneumothorax Segmentation",
            year=2019,
            venue="Kaggle",
            url="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
        ),
        license=License(
            name="Rules of the SIIM-ACR Pneumothorax Segmentation challenge",
            url="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation/rules",
            note="Academic research and education; read the rules before any other use.",
        ),
        homepage="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
        tables=(
            Table("csvpath", packaged="siim", description="train-rle.csv or stage_2_train.csv"),
        ),
        join=_one_row_an_image,
        images=IndexedFiles(
            "{ImageId}",
            layout="the files <study>/<series>/<ImageId>.dcm of the challenge",
            extensions=(".dcm",),
        ),
        findings=FindingRules({"Pneumothorax": _pneumothorax}),
        cohort="NIH ChestX-ray14",
        masks=_MASKS,
        expected_sizes=(1024, 1024),
        verified="all columns",
        parameters="imgpath, csvpath, transform, data_aug, seed, unique_patients=True, "
        "pathology_masks",
    )

    def get_pathology_mask_dict(
        self, image_name: str, this_size: int | tuple[int, int]
    ) -> dict[int, Any]:
        """`get_mask_dict` under the name that it has in 1.5.7.

        Args:
            image_name: ImageId.
            this_size: Height and width of the mask, or one number for a square.

        Returns:
            Index of the finding to its mask, float32 (1, H, W) of 0 and 1.
        """
        return self.get_mask_dict(image_name, this_size)
