"""ChestX-Det and ChestX-Det10: outlines and boxes drawn on images of NIH ChestX-ray14."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.annotations import BoxTable, Shapes
from torchxrayvision.datasets.findings import FindingFunction
from torchxrayvision.datasets.images import Files
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.releases.grounded import GroundedDataset, read_records
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.errors import DatasetError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.findings import Labels
    from torchxrayvision.datasets.release import SourceContext

_RENAME = {"Pleural Thickening": "Pleural_Thickening"}
_FINDINGS = (
    *("Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "Diffuse Nodule"),
    *("Effusion", "Emphysema", "Fibrosis", "Fracture", "Mass", "Nodule"),
    *("Pleural_Thickening", "Pneumothorax"),
)
_NOT_IN_DET10 = ("Cardiomegaly", "Diffuse Nodule", "Pleural_Thickening")
_SIDE = 1024  # images and coordinates are those of NIH ChestX-ray14


def _one_row_an_image(context: SourceContext) -> pd.DataFrame:
    """The images of both files; what is drawn on them goes into the table "annotations"."""
    import pandas as pd

    parts = {"train_json": "train", "test_json": "test"}
    given = {part: context.tables[name] for name, part in parts.items() if name in context.tables}
    if not given:
        msg = (
            f"{context.dataset} needs train_json or test_json, the annotation files of the "
            f"release; they are not packaged, so pass the paths of your copies"
        )
        raise DatasetError(msg)
    for table in given.values():
        need_columns(table, ["file_name", "syms", "boxes"], context)
    frame = pd.concat([t.assign(split=part) for part, t in given.items()], ignore_index=True)
    context.tables["annotations"] = pd.DataFrame(
        [drawn for entry in frame.to_dict("records") for drawn in _drawn(entry)],
        columns=["file_name", "finding", "x_min", "y_min", "x_max", "y_max", "polygon"],
    )
    syms = frame["syms"].map(lambda names: "|".join(map(str, _listed(names))))
    images = pd.DataFrame({"file_name": frame["file_name"], "split": frame["split"], "syms": syms})
    return images.drop_duplicates("file_name")


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _drawn(entry: Mapping[Any, Any]) -> list[tuple[Any, ...]]:
    """One tuple an annotation of an image: name, finding, box, outline as JSON."""
    syms, boxes, polygons = (_listed(entry.get(key)) for key in ("syms", "boxes", "polygons"))
    rows = []
    for i, finding in enumerate(syms):
        box = [float(number) for number in boxes[i]] if i < len(boxes) else [np.nan] * 4
        polygon = json.dumps(polygons[i]) if i < len(polygons) and polygons[i] else ""
        rows.append((entry["file_name"], finding, *box, polygon))
    return rows


def _draw(annotation: Mapping[str, Any], frame: tuple[int, int], shape: tuple[int, int]) -> Any:
    """The outline of an annotation where it has one, else its box."""
    from torchxrayvision import masks

    corners = json.loads(annotation["polygon"]) if annotation["polygon"] else []
    if len(corners) >= 3:
        scale = (shape[1] / frame[1], shape[0] / frame[0])
        return masks.polygon_to_mask(np.asarray(corners, dtype=np.float64) * scale, shape)
    box = [annotation[side] for side in ("x_min", "y_min", "x_max", "y_max")]
    return masks.boxes_to_mask(box, shape, frame, form="xyxy")


@dataclass(frozen=True, kw_only=True)
class _Outlines(Shapes):
    """Outlines or boxes; an annotation without either, or without an area, marks nothing."""

    def valid(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which annotations cover something."""
        size = table[["x_max", "y_max"]].to_numpy() - table[["x_min", "y_min"]].to_numpy()
        boxed: NDArray[np.bool_] = (size > 0).all(axis=1)
        return boxed | (table["polygon"] != "").to_numpy(dtype=bool)


def _list(frame: pd.DataFrame, context: SourceContext) -> Labels:
    """1 where the finding is listed for an image, else 0."""
    skip = _NOT_IN_DET10 if context.arguments["version"] == "ChestX-Det10" else ()
    names = tuple(name for name in _FINDINGS if name not in skip)
    index = {name: j for j, name in enumerate(names)}
    labels = np.zeros((len(frame), len(names)), dtype=np.float32)
    for i, text in enumerate(frame["syms"]):
        for sym in text.split("|"):
            j = index.get(_RENAME.get(sym, sym))
            if j is not None:
                labels[i, j] = 1
    return names, labels


_ANNOTATION = {
    "table": "annotations",
    "image": "file_name",
    "finding": "finding",
    "rename": _RENAME,
    "frame": _SIDE,
}


class ChestXDet_Dataset(GroundedDataset):
    """ChestX-Det: 3,578 images of NIH ChestX-ray14 with thirteen findings outlined.

    Three board-certified radiologists drew every finding: a box and an outline. The older
    ChestX-Det10 has 3,543 of these images, ten of the findings (all but *Cardiomegaly*, *Diffuse
    Nodule* and *Pleural Thickening*), and boxes alone. Counts are those of the authors' README.

    A label is 1 where the finding was drawn and 0 elsewhere. Masks are the outlines, or the
    boxes where there is no outline; ``bbox`` holds the boxes, and ``annotations(i)`` everything
    with its finding. The split is the release's own. File names are new, so patients and views
    of ChestX-ray14 are not known.

    Args:
        imgpath: Folder of the PNG files, with the subfolders of the archives or without. The
            annotation files are looked for in it too.
        train_json: ChestX_Det_train.json (ChestX-Det10: train.json).
        test_json: ChestX_Det_test.json (ChestX-Det10: test.json). One of the two is enough.
        version: "ChestX-Det" or "ChestX-Det10": which findings there are.
        pathology_masks: Add the outlines as masks.

    Source:
        Lian et al., IEEE TMI 2021, https://doi.org/10.1109/TMI.2021.3070847; Liu et al., 2020,
        https://arxiv.org/abs/2006.10550 (ChestX-Det10).
    """

    spec = DatasetSpec(
        title="ChestX-Det",
        reference=Reference(
            authors="Lian J, Liu J, Zhang S, et al.",
            title="A structure-aware relation network for thoracic diseases detection and "
            "segmentation",
            year=2021,
            venue="IEEE Transactions on Medical Imaging",
            url="https://doi.org/10.1109/TMI.2021.3070847",
        ),
        license=License(
            name="No licence stated for the annotations; images as NIH ChestX-ray14",
            url="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
        ),
        homepage="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
        tables=(
            Table(
                "train_json",
                read=read_records,
                path_below_imgpath="ChestX_Det_train.json",
                optional=True,
                description="ChestX_Det_train.json of the release",
            ),
            Table(
                "test_json",
                read=read_records,
                path_below_imgpath="ChestX_Det_test.json",
                optional=True,
                description="ChestX_Det_test.json of the release",
            ),
        ),
        join=_one_row_an_image,
        images=Files(
            "{file_name}",
            layout="the PNG files of train_data.zip and test_data.zip, in one folder or several",
            folders=("train_data", "test_data", "train_data/train*", "test_data/test*"),
        ),
        findings=FindingFunction(_list, _FINDINGS),
        cohort="NIH ChestX-ray14",
        masks=_Outlines(draw=_draw, **_ANNOTATION),  # type: ignore[arg-type]
        boxes=BoxTable(
            box=("x_min", "y_min", "x_max", "y_max"),
            form="xyxy",
            **_ANNOTATION,  # type: ignore[arg-type]
        ),
        split="split",
        expected_sizes=(1024, 1024),
        verified="keys, names of the findings and form of the coordinates, against the release's "
        "README and code that reads it. An entry may lack polygons, or hold fewer boxes "
        "or polygons than findings",
        choices={"version": ("ChestX-Det", "ChestX-Det10")},
        parameters="imgpath, train_json, test_json, version='ChestX-Det', transform, data_aug, "
        "seed, pathology_masks",
    )
