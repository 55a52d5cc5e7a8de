"""What every function of masks holds its arguments to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Mask = NDArray[np.bool_]
    Shape = tuple[int, int]


def checked_shape(shape: Shape) -> Shape:
    """Height and width of a mask as positive whole numbers."""
    height, width = (int(n) for n in shape)
    if height < 1 or width < 1:
        msg = f"a mask needs a height and a width of one pixel or more, got {tuple(shape)}"
        raise DatasetError(msg)
    return height, width


def checked_mask(mask: ArrayLike) -> Mask:
    """A mask as a boolean array (H, W) that holds at least one pixel."""
    array = np.asarray(mask, bool)
    if array.ndim != 2 or not array.size:
        msg = f"a mask is an array (H, W), got one of shape {array.shape}"
        raise DatasetError(msg)
    return array


def checked_numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Finite numbers as float64; `what` is what the error calls them."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        msg = f"{what}: numbers are needed, got {shown(values)}"
        raise DatasetError(msg) from None
    if not np.isfinite(array).all():
        msg = f"{what}: a number is missing or infinite: {shown(values)}"
        raise DatasetError(msg)
    return array


def checked_boxes(boxes: ArrayLike, form: str) -> NDArray[np.float64]:
    """Boxes as float64 (N, 4), in the form `"xywh"` or `"xyxy"`, none of negative size."""
    array = checked_numbers(boxes, "box")
    if array.size == 0:
        return np.zeros((0, 4))
    array = np.atleast_2d(array)
    if form not in ("xywh", "xyxy"):
        msg = f"form must be 'xywh' or 'xyxy', got {form!r}"
        raise DatasetError(msg)
    if array.ndim != 2 or array.shape[1] != 4:
        msg = f"boxes are an array (N, 4), got one of shape {array.shape}"
        raise DatasetError(msg)
    size = array[:, 2:] if form == "xywh" else array[:, 2:] - array[:, :2]
    if (size < 0).any():
        wrong = array[(size < 0).any(axis=1)][0].tolist()
        msg = f"a box ends before it starts: {wrong} read as {form}"
        raise DatasetError(msg)
    return array


def shown(value: object) -> str:
    """A value as an error shows it, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
