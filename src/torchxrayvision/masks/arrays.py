"""What one does with masks once they are arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import DatasetError
from torchxrayvision.masks.checks import checked_mask, checked_shape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.masks.checks import Mask, Shape


def union(masks: Iterable[ArrayLike], shape: Shape | None = None) -> Mask:
    """Unite masks of one shape.

    Args:
        masks: Any number of bool (H, W).
        shape: Height and width, needed only if there may be no mask.

    Returns:
        bool (H, W), True where any mask is.

    Raises:
        DatasetError: If shapes differ, or there is neither a mask nor a shape.

    Example:
        >>> union([[[True, False]], [[False, False]]]).tolist()
        [[True, False]]
    """
    total: Mask | None = None if shape is None else np.zeros(checked_shape(shape), bool)
    for mask in masks:
        array = checked_mask(mask)
        if total is None:
            total = array.copy()
        elif total.shape != array.shape:
            msg = f"masks of one image must have one shape, got {total.shape} and {array.shape}"
            raise DatasetError(msg)
        else:
            total |= array
    if total is None:
        msg = "no mask to unite; pass shape=(height, width) for an empty result"
        raise DatasetError(msg)
    return total


def resize_mask(mask: ArrayLike, shape: Shape) -> Mask:
    """Resize by the nearest pixel, so that the result stays a mask.

    Args:
        mask: bool (H, W).
        shape: Height and width of the result, pixels.

    Returns:
        bool of ``shape``: each pixel is the one of ``mask`` that contains its centre.

    Example:
        >>> resize_mask([[True, False]], (2, 4)).astype(int).tolist()
        [[1, 1, 0, 0], [1, 1, 0, 0]]
    """
    array = checked_mask(mask)
    height, width = checked_shape(shape)
    if array.shape == (height, width):
        return array.copy()
    rows = (2 * np.arange(height) + 1) * array.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * array.shape[1] // (2 * width)
    resized: Mask = array.take(rows, axis=0).take(columns, axis=1)
    return resized


def mask_to_box(mask: ArrayLike) -> tuple[int, int, int, int] | None:
    """Find the smallest box around a mask.

    Args:
        mask: bool (H, W).

    Returns:
        Left, top, right, bottom in pixels, half open; None for an empty mask.

    Example:
        >>> mask_to_box([[False, True, True], [False, False, False]])
        (1, 0, 3, 1)
    """
    array = checked_mask(mask)
    rows, columns = np.flatnonzero(array.any(axis=1)), np.flatnonzero(array.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def masks_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Measure the overlap of every mask of one stack with every mask of another.

    Args:
        first: bool (N, H, W).
        second: bool (M, H, W).

    Returns:
        float64 (N, M): pixels in both over pixels in either, 0 to 1; NaN where both are empty.

    Raises:
        DatasetError: If the images differ in shape.

    Example:
        >>> masks_iou([[[True, True]]], [[[True, False]], [[True, True]]]).tolist()
        [[0.5, 1.0]]
    """
    left, right = np.asarray(first, bool), np.asarray(second, bool)
    if left.ndim != 3 or right.ndim != 3 or left.shape[1:] != right.shape[1:]:
        msg = f"stacks (N, H, W) and (M, H, W) are needed, got {left.shape} and {right.shape}"
        raise DatasetError(msg)
    left = left.reshape(len(left), -1)
    right = right.reshape(len(right), -1)
    # float64: sums of pixels are exact, and the product runs in BLAS.
    both = left.astype(np.float64) @ right.T.astype(np.float64)
    either = left.sum(axis=1)[:, None] + right.sum(axis=1)[None, :] - both
    overlap: NDArray[np.float64] = np.full(both.shape, np.nan)
    np.divide(both, either, out=overlap, where=either > 0)
    return overlap
