"""The COVID-19 image data collection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.datasets.annotations import CocoRle
from torchxrayvision.datasets.findings import FindingFunction
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.release import Row, need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table, sexes
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.findings import Labels
    from torchxrayvision.datasets.release import SourceContext

NOT_LABELLED = ("todo", "Unknown")
CT_VIEWS = ("Axial", "Coronal")


def _labelled_films(context: SourceContext) -> pd.DataFrame:
    """Rows with a finding; the default leaves CT slices out, which 1.5.7 keeps."""
    frame = context.tables["csvpath"].rename(columns={"Patientid": "patientid"})
    needed = ["patientid", "offset", "sex", "age", "finding", "view", "filename"]
    need_columns(frame, needed, context)
    finding = frame["finding"]
    keep = finding.notna() & ~finding.isin(NOT_LABELLED)
    if not context.compat:
        keep &= ~frame["view"].isin(CT_VIEWS)
        if "modality" in frame.columns:  # the first form of the table has none
            keep &= frame["modality"].isna() | (frame["modality"] == "X-ray")
    return frame[keep]


def _labels(frame: pd.DataFrame, context: SourceContext) -> Labels:
    """Findings such as "Pneumonia/Viral/COVID-19": each step is one.

    The early tables have flat lists, "COVID-19, ARDS". 1.5.7 splits at "/" only and then looks
    for each term as part of the text.
    """
    codes, texts = frame["finding"].factorize()
    if context.compat:
        steps = [text.split("/") for text in texts]
    else:
        steps = [[step.strip() for step in re.split("[/,]", text)] for text in texts]
    names = tuple(sorted({step for found in steps for step in found if step}))
    wanted = texts if context.compat else steps
    table = [[name in found for name in names] for found in wanted]
    labels = np.array(table, dtype=np.float32).reshape(len(texts), len(names))
    return names, labels[codes]


_URL = "https://github.com/ieee8023/covid-chestxray-dataset"


class COVID19_Dataset(SpecDataset):
    """COVID-19 image data collection: radiographs of pneumonia out of publications and the web.

    Findings come from the table itself, so their list depends on the rows that are read. A text
    such as "Pneumonia/Viral/COVID-19" makes each of its steps present and every other finding
    absent; "Pneumonia" alone leaves its cause open, although the label of each cause is then 0.
    *No Finding* is one of the findings. Images that nobody has labelled ("todo", "Unknown") are
    left out, and so are CT slices.

    The table has had four forms since 2020; all are read. Cite and weigh with care: images come
    from many sources, which correlate with the finding. 535 images with the default arguments in
    a public copy of the last form.

    517 images have masks of the lungs, drawn by V7 Labs and packaged here (CC BY 4.0); 82 of
    these are empty. Pixels of a second, undocumented value are not lung, as in 1.5.7.

    Args:
        imgpath: Folder ``images`` of the repository, or the repository.
        csvpath: metadata.csv of the repository.
        views: "PA", "AP", "AP Supine", "AP Erect", "L", several, or "*"; None: "PA" and "AP".
        semantic_masks: Add ``semantic_masks`` with the mask "Lungs", where there is one.
        lungmaskpath: Table of lung masks: ``filename, height, width, counts`` (COCO's compressed
            run lengths).
    """

    dataset_url = _URL  # a name of 1.5.7

    spec = DatasetSpec(
        title="COVID-19 image data collection",
        reference=Reference(
            authors="Cohen JP, Morrison P, Dao L, Roth K, Duong TQ, Ghassemi M",
            title="COVID-19 Image Data Collection: Prospective Predictions Are the Future",
            year=2020,
            venue="arXiv",
            url="https://arxiv.org/abs/2006.11988",
        ),
        license=License(
            name="Various",
            url="https://github.com/ieee8023/covid-chestxray-dataset",
            note="Each image has its own terms, in the column license of the table; blank where "
            "nobody knows them.",
        ),
        homepage=_URL,
        tables=(
            Table("csvpath", description="metadata.csv of the covid-chestxray-dataset repository"),
            Table(
                "lungmaskpath",
                packaged="covid_lungs",
                columns=("filename", "height", "width", "counts"),
                description="a table of lung masks",
            ),
        ),
        join=_labelled_films,
        images=Files(
            "{filename}", layout="the folder images of the repository", folders=("images",)
        ),
        findings=FindingFunction(_labels),
        view="view",
        default_views=("PA", "AP"),
        # A script of its authors copied them in and numbered their patients anew.
        renumbered_cohorts=("COVID-19 Image Repository, Hannover Medical School",),
        columns={
            "patientid": "patientid",
            "offset_day_int": "offset",
            "age_years": "age",
            **sexes("sex", "M", "F"),
        },
        semantic=CocoRle(table="lungmaskpath", image="filename", finding=("Lungs",)),
        verified="headers of all four forms; that the last one has findings with '/' is from "
        "public code that reads it",
        parameters="imgpath, csvpath, views, transform, data_aug, seed, semantic_masks, *, "
        "lungmaskpath",
    )

    def get_semantic_mask_dict(
        self, image_name: str, this_shape: Sequence[int]
    ) -> dict[str, NDArray[np.float32]]:
        """The masks of an image by its name, without reading the image.

        Args:
            image_name: ``filename`` of the image.
            this_shape: Shape of the masks, (H, W) or the (1, H, W) of an image.

        Returns:
            Structure to its mask, float32 (1, H, W) of 0 and 1; empty where there is none.
        """
        import pandas as pd

        row = Row(pd.DataFrame({"filename": [image_name]}), 0)
        height, width = this_shape[-2:]
        return self._semantic_masks(row, (height, width))
