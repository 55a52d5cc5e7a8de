"""Masks from boxes, ellipses and polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchxrayvision.errors import DatasetError
from torchxrayvision.masks.checks import checked_boxes, checked_numbers, checked_shape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from torchxrayvision.masks.checks import Mask, Shape


def boxes_to_mask(
    boxes: ArrayLike,
    shape: Shape,
    source_shape: Shape | None = None,
    *,
    form: Literal["xywh", "xyxy"] = "xywh",
    dtype: DTypeLike = bool,
) -> NDArray[Any]:
    """Fill boxes, united.

    Corners are scaled from ``source_shape`` to ``shape`` and then cut to whole pixels; of
    ``"xywh"`` the size is scaled and cut on its own, as 1.5.7 does. A box therefore never grows,
    and one narrower than a pixel vanishes.

    Args:
        boxes: (N, 4) or (4,), pixels of ``source_shape``; N may be 0.
        shape: Height and width of the mask, pixels.
        source_shape: Height and width of the image that the boxes were drawn on; ``shape`` by
            default.
        form: ``"xywh"``, left, top, width, height; ``"xyxy"``, left, top, right, bottom.
        dtype: Of the mask. Memory outside the boxes is not touched, whatever it is.

    Returns:
        (H, W), 1 or True inside a box.

    Raises:
        DatasetError: If a number is missing or infinite, or a box ends before it starts.

    Example:
        >>> boxes_to_mask([512, 0, 512, 1024], (2, 4), (1024, 1024)).astype(int).tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    mask = np.zeros(checked_shape(shape), dtype)
    for left, top, right, bottom in box_edges(boxes, shape, source_shape, form=form):
        mask[top:bottom, left:right] = 1
    return mask


def box_edges(
    boxes: ArrayLike,
    shape: Shape,
    source_shape: Shape | None = None,
    *,
    form: Literal["xywh", "xyxy"] = "xywh",
) -> list[list[int]]:
    """What `boxes_to_mask` fills: left, top, right and bottom of the boxes with an area."""
    height, width = checked_shape(shape)
    given = checked_boxes(boxes, form)
    if not given.size:
        return []
    if source_shape is not None:
        source_height, source_width = checked_shape(source_shape)
        x_scale, y_scale = width / source_width, height / source_height
        given = given * (x_scale, y_scale, x_scale, y_scale)
    # Cut in float64 and clip before the cast: a wild number must not wrap round.
    cut = np.trunc(given)
    if form == "xywh":
        cut[:, 2:] += cut[:, :2]
    edges = np.clip(cut, 0, (width, height, width, height)).astype(int)
    filled: list[list[int]] = edges[(edges[:, 2:] > edges[:, :2]).all(axis=1)].tolist()
    return filled


def ellipse_to_mask(box: ArrayLike, shape: Shape) -> Mask:
    """Fill the ellipse that touches the sides of a box.

    Args:
        box: (4,), left, top, right, bottom in pixels.
        shape: Height and width of the mask, pixels.

    Returns:
        bool (H, W), True where the centre of the pixel is in the ellipse.

    Raises:
        DatasetError: If the box is malformed.

    Example:
        >>> ellipse_to_mask([0, 0, 4, 4], (4, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    """
    height, width = checked_shape(shape)
    mask = np.zeros((height, width), bool)
    left, top, right, bottom = checked_boxes(box, "xyxy")[0]
    if right == left or bottom == top:
        return mask
    rows = slice(max(0, int(top)), max(0, min(height, int(np.ceil(bottom)))))
    columns = slice(max(0, int(left)), max(0, min(width, int(np.ceil(right)))))
    y = (np.arange(rows.start, rows.stop) + 0.5 - (top + bottom) / 2) / ((bottom - top) / 2)
    x = (np.arange(columns.start, columns.stop) + 0.5 - (left + right) / 2) / ((right - left) / 2)
    mask[rows, columns] = (y**2)[:, None] + (x**2)[None, :] <= 1
    return mask


def polygon_to_mask(points: ArrayLike, shape: Shape) -> Mask:
    """Fill one polygon by the even-odd rule.

    Args:
        points: (N, 2) corners as x, y in pixels, or COCO's flat (2 N,); N of 3 or more. The
            polygon closes itself.
        shape: Height and width of the mask, pixels.

    Returns:
        bool (H, W), True where the centre of the pixel is inside. Left and upper edges count as
        inside and right and lower ones as outside, so polygons that share an edge share no pixel.

    Raises:
        DatasetError: If there are fewer than three corners, or a number is not finite.

    Example:
        >>> polygon_to_mask([0, 0, 3, 0, 0, 3], (3, 3)).astype(int).tolist()
        [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    """
    height, width = checked_shape(shape)
    corners = checked_numbers(points, "polygon")
    if corners.ndim == 1 and corners.size % 2 == 0:
        corners = corners.reshape(-1, 2)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        msg = (
            f"a polygon needs three corners or more as x, y pairs, got an array of shape "
            f"{corners.shape}"
        )
        raise DatasetError(msg)
    x0, y0 = corners.T
    x1, y1 = np.roll(corners, -1, axis=0).T
    # Rows whose centre lies between the ends of each edge; the lower end does not count.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(int)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(int)
    counts = last - first
    edge = np.repeat(np.arange(len(corners)), counts)
    row = np.arange(edge.size) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    slope = np.divide(x1 - x0, y1 - y0, out=np.zeros_like(x0), where=y1 != y0)
    crossing = x0[edge] + (row + 0.5 - y0[edge]) * slope[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(int)
    # A pixel is inside when an odd number of edges lie to its left.
    top, bottom = int(first.min()), int(last.max())
    left, right = (int(column.min()), int(column.max())) if column.size else (0, 0)
    span = right - left + 1
    toggles = np.bincount(
        (row - top) * span + column - left, minlength=(bottom - top) * span
    ).astype(np.uint8)
    odd = np.add.accumulate(toggles.reshape(bottom - top, span), axis=1, dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = odd[:, : right - left] & 1
    return mask
