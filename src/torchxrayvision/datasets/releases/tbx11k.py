"""TBX11K."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchxrayvision.datasets.annotations import BoxTable
from torchxrayvision.datasets.findings import FindingColumns
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets.release import SourceContext

Part = Literal["train", "val", "trainval"]

PARTS = ("train", "val", "trainval")
CATEGORIES = ("ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis")
FINDINGS = (*CATEGORIES, "Tuberculosis")


def read_annotations(path: Path) -> pd.DataFrame:
    """COCO annotations as one row per box, and one row for an image without any.

    Args:
        path: TBX11K_train.json, TBX11K_val.json or TBX11K_trainval.json.

    Returns:
        Columns id, file_name, width, height of the image; category, x, y, w, h of the box, blank
        where there is none. In the order of the images.
    """
    import pandas as pd

    with path.open(encoding="utf-8") as stream:
        record = json.load(stream)
    names = {category["id"]: category["name"] for category in record["categories"]}
    boxes = [
        (box["image_id"], names[box["category_id"]], *box["bbox"]) for box in record["annotations"]
    ]
    images = pd.DataFrame(record["images"], columns=["id", "file_name", "width", "height"])
    table = pd.DataFrame(boxes, columns=["id", "category", "x", "y", "w", "h"])
    return images.merge(table, how="left", on="id")


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    boxes = context.tables["jsonpath"]
    frame = boxes.drop_duplicates("id")[["id", "file_name", "width", "height"]]
    marked = {name: boxes.loc[boxes["category"] == name, "id"] for name in CATEGORIES}
    marked["Tuberculosis"] = boxes.loc[boxes["category"].notna(), "id"]
    return frame.assign(**{name: frame["id"].isin(marked[name]).astype(int) for name in FINDINGS})


def _size(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return frame[["height", "width"]].to_numpy()


def _official_part(frame: pd.DataFrame, context: SourceContext) -> Any:
    """The part whose annotations were read; "trainval" does not say which image is in which."""
    part = context.arguments["split"]
    return np.full(len(frame), None if part == "trainval" else part, dtype=object)


class TBX11K_Dataset(SpecDataset):
    """TBX11K: 11,200 images, of which those with tuberculosis have boxes around its signs.

    An image is *ActiveTuberculosis*, *ObsoletePulmonaryTuberculosis* (healed) or
    *PulmonaryTuberculosis* where a box says so, and *Tuberculosis* where there is any box; healthy
    and otherwise sick images have 0 for all. *PulmonaryTuberculosis* has no box in the published
    annotations, so its label is always 0. Files are 512 by 512.

    ``bbox`` of a sample is float32 (n, 4): x, y, width, height in pixels of the image. A
    torchvision v2 transform moves the boxes with the image; any other transform leaves them as
    they are, as in 1.5.7. Column ``bbox`` of ``csv`` lists them as they are in the release. The
    images of `NLMTB_Dataset` are among these: keep them on one side.
    Counts are the publisher's.

    Args:
        imgpath: Folder of the release, with ``imgs`` and ``annotations``.
        split: Which annotations to read: "train", "val" or "trainval". The test set is blinded.
        pathology_masks: Add the boxes as masks, each under its finding and Tuberculosis.
        jsonpath: Annotations to read in place of those of `split`.
    """

    spec = DatasetSpec(
        title="TBX11K",
        reference=Reference(
            authors="Liu Y, Wu YH, Ban Y, Wang H, Cheng MM",
            title="Rethinking Computer-Aided Tuberculosis Diagnosis",
            year=2020,
            venue="CVPR",
            url="https://doi.org/10.1109/CVPR42600.2020.00272",
        ),
        license=License(
            name="CC BY-NC-SA 2.0",
            url="https://creativecommons.org/licenses/by-nc-sa/2.0/",
            commercial=False,
            note="Some images are from older sets with terms of their own.",
        ),
        homepage="https://github.com/yun-liu/Tuberculosis",
        tables=(
            Table(
                "jsonpath",
                read=read_annotations,
                description="annotations/json/TBX11K_train.json of the release",
            ),
        ),
        join=_one_row_an_image,
        images=Files("imgs/{file_name}", layout="the folder imgs with health, sick and tb"),
        findings=FindingColumns({name: name for name in FINDINGS}),
        masks=BoxTable(
            table="jsonpath",
            image="file_name",
            finding="category",
            box=("x", "y", "w", "h"),
            frame=("height", "width"),
            rename={name: (name, "Tuberculosis") for name in CATEGORIES},
        ),
        boxes=BoxTable(
            table="jsonpath",
            image="file_name",
            box=("x", "y", "w", "h"),
            frame=("height", "width"),
        ),
        cohort="NLM tuberculosis sets, Montgomery County and Shenzhen",
        expected_sizes=_size,
        split=_official_part,
        verified="all fields of the annotations",
        choices={"split": PARTS},
        parameters="imgpath, split='train', transform, data_aug, seed, *, pathology_masks, "
        "jsonpath",
    )

    def _prepare(self, given: dict[str, Any]) -> None:
        if given["jsonpath"] is None and given["imgpath"] is not None:
            name = f"TBX11K_{given['split']}.json"
            given["jsonpath"] = Path(given["imgpath"]) / "annotations" / "json" / name

    def _make_csv(self) -> pd.DataFrame:
        import pandas as pd

        frame = super()._make_csv()
        boxes = self._context.tables["jsonpath"].dropna(subset=["category"])
        corners = boxes[["x", "y", "w", "h"]].to_numpy(dtype=np.float64).tolist()
        listed: dict[Any, list[list[float]]] = {}
        for image, box in zip(boxes["id"].tolist(), corners, strict=True):
            listed.setdefault(image, []).append(box)
        found = [listed.get(image, []) for image in frame["id"].tolist()]
        return frame.assign(bbox=pd.Series(found, index=frame.index, dtype=object))
