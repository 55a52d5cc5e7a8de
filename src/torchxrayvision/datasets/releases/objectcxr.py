"""object-CXR: foreign objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.annotations import Shapes
from torchxrayvision.datasets.findings import FindingRules
from torchxrayvision.datasets.images import ZipFiles
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.spec import DatasetSpec, Table
from torchxrayvision.errors import DatasetError
from torchxrayvision.facts import License, Reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.release import SourceContext

RECTANGLE, ELLIPSE, POLYGON = "0", "1", "2"


def shapes(text: str) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """The objects in an annotation.

    Args:
        text: ``TYPE x1 y1 x2 y2 ...`` of each object, separated by ";". TYPE is 0 for a
            rectangle and 1 for an ellipse, both given by two corners, 2 for a polygon.

    Yields:
        Type and corners, (n, 2) as x, y in pixels.

    Raises:
        DatasetError: If it cannot be read so.

    Example:
        >>> [(kind, len(corners)) for kind, corners in shapes("0 1 2 5 9;2 0 0 4 0 4 4")]
        [('0', 2), ('2', 3)]
    """
    for part in filter(None, map(str.strip, text.split(";"))):
        kind, *numbers = part.split()
        try:
            corners = np.array(numbers, dtype=np.float64).reshape(-1, 2)
        except ValueError:
            corners = np.zeros((0, 2))
        few = len(corners) < 3 if kind == POLYGON else len(corners) != 2
        if kind not in (RECTANGLE, ELLIPSE, POLYGON) or few:
            msg = (
                f"object-CXR: expected '0 x1 y1 x2 y2' (rectangle), '1 x1 y1 x2 y2' (ellipse) or "
                f"'2 x1 y1 x2 y2 x3 y3 ...' (polygon), got {part[:60]!r}"
            )
            raise DatasetError(msg)
        yield kind, corners


def draw(
    annotation: Mapping[str, Any],
    frame: tuple[int, int],  # noqa: ARG001 - coordinates are pixels of the image itself
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """The objects of an image, united, bool (H, W)."""
    from torchxrayvision import masks

    united = np.zeros(shape, dtype=bool)
    for kind, corners in shapes(str(annotation["annotation"])):
        box = [*corners.min(axis=0), *corners.max(axis=0)]
        if kind == RECTANGLE:
            united |= masks.boxes_to_mask(box, shape, form="xyxy")
        elif kind == ELLIPSE:
            united |= masks.ellipse_to_mask(box, shape)
        else:
            united |= masks.polygon_to_mask(corners, shape)
    return united


class _Objects(Shapes):
    def valid(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows hold an object with an area."""
        marked = super().valid(table).copy()
        for i in np.flatnonzero(marked):
            found = shapes(str(table["annotation"].iloc[i]))
            marked[i] = any((np.ptp(np.trunc(corners), axis=0) > 0).all() for _, corners in found)
        return marked


def _checked(context: SourceContext) -> pd.DataFrame:
    frame = context.tables["csvpath"]
    need_columns(frame, ["image_name", "annotation"], context)
    return frame.copy()


def _has_object(frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG001 - a rule
    return frame["annotation"].notna().to_numpy(dtype=np.float32)


class ObjectCXR_Dataset(SpecDataset):
    """object-CXR: 10,000 radiographs, half of them with foreign objects (MIDL 2020 challenge).

    The images come from some 300 township hospitals in China. Twelve physicians marked foreign
    objects within the lung fields; support devices were left out on purpose. 8,000 images are for
    training, 1,000 for development, 1,000 for test; each part is a zip and a table of its own.
    Counts are the publisher's.

    Objects are rectangles, ellipses or polygons in pixels of the image. All are of one finding,
    *Foreign Object*, and united in its mask. ``has_masks`` is True where some object has an area.

    Args:
        imgzippath: train.zip or dev.zip. It is opened anew in each process.
        csvpath: train.csv or dev.csv.
        pathology_masks: Add the objects as a mask.
    """

    spec = DatasetSpec(
        title="object-CXR",
        reference=Reference(
            authors="JF Healthcare",
            title="object-CXR: automatic detection of foreign objects on chest X-rays",
            year=2020,
            venue="MIDL",
            url="https://jfhealthcare.github.io/object-CXR/",
        ),
        license=License(
            name="CC BY-NC 4.0",
            url="https://creativecommons.org/licenses/by-nc/4.0/",
            commercial=False,
            note="Not confirmed on the page of the challenge when this was written.",
        ),
        homepage="https://jfhealthcare.github.io/object-CXR/",
        tables=(Table("csvpath", description="train.csv or dev.csv of the challenge"),),
        join=_checked,
        images=ZipFiles(
            "{image_name}",
            argument="imgzippath",
            layout="a zip with the JPEG files in train/",
            folders=("train", "dev", "test"),
        ),
        findings=FindingRules({"Foreign Object": _has_object}),
        masks=_Objects(
            table="csvpath",
            image="image_name",
            finding=("Foreign Object",),
            draw=draw,
            column="annotation",
        ),
        verified="all columns",
        parameters="imgzippath, csvpath, transform, data_aug, seed, *, pathology_masks",
    )
