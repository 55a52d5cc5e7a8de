"""Pixel arrays to the range of the models, with the mistakes that are easy to make named."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.errors import ImageRangeError, ImageRangeWarning, ImageShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["normalize"]

_MOST_CHANNELS = 4


def normalize(img: ArrayLike, maxval: float, reshape: bool = False) -> NDArray[np.float32]:
    """Scale pixel values from [0, maxval] to [-1024, 1024].

    Args:
        img: Pixel values in [0, `maxval`]; any shape, or (H, W) or (H, W, C) with `reshape`.
        maxval: Largest value that the encoding allows: 255 for 8 bits, 65535 for 16 bits, 1 for
            fractions. Not the largest value present.
        reshape: Return (1, H, W): of a colour picture the first channel, as TorchXRayVision
            1.5.7 does. `read_image` and `load_image` take the mean of the channels.

    Returns:
        float32 array of the shape of `img`, or (1, H, W).

    Raises:
        ImageRangeError: If a value is negative, above `maxval`, infinite or not a number, or if
            `maxval` is not positive.
        ImageShapeError: If `img` is empty, or not a picture and `reshape` is set.

    Warns:
        ImageRangeWarning: If the values look like another scale: fractions in [0, 1] with a
            `maxval` above 1, or 8-bit values with a larger `maxval`.

    Example:
        >>> import numpy as np
        >>> normalize(np.array([[0, 255]], dtype=np.uint8), 255)
        array([[-1024.,  1024.]], dtype=float32)
        >>> normalize(np.array([[0.0, 1.0]]), 1, reshape=True).shape
        (1, 1, 2)
    """
    array = np.asarray(img)
    top = float(maxval)
    if not (np.isfinite(top) and top > 0):
        msg = f"maxval must be positive, got {maxval!r}; pass 255 for 8 bits, 65535 for 16 bits"
        raise ImageRangeError(msg)
    if array.size == 0:
        msg = f"img is empty, its shape is {array.shape}"
        raise ImageShapeError(msg)
    if reshape:
        array = _one_channel(array)
    _check_range(array, top)
    scaled = array.astype(np.float32)
    scaled /= np.float32(top)
    scaled *= 2
    scaled -= 1
    scaled *= 1024
    return scaled


def _one_channel(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3 and array.shape[2] <= _MOST_CHANNELS:
        array = array[:, :, 0]
    if array.ndim != 2:
        msg = (
            f"img must have shape (H, W) or (H, W, C), got {array.shape}; "
            "leave reshape out if it is (1, H, W) already"
        )
        raise ImageShapeError(msg)
    return array[np.newaxis]


def _check_range(array: NDArray[Any], top: float) -> None:
    if array.dtype.kind not in "buif":
        msg = f"img must hold real numbers, its dtype is {array.dtype}"
        raise ImageRangeError(msg)
    highest = float(array.max())
    lowest = float(array.min()) if array.dtype.kind in "if" else 0.0
    if not (np.isfinite(highest) and np.isfinite(lowest)):
        msg = "img holds values that are infinite or not a number"
        raise ImageRangeError(msg)
    if highest > top:
        msg = f"img holds {highest:g}, above maxval={top:g}; pass the largest value of the encoding"
        raise ImageRangeError(msg)
    if lowest < 0:
        scaled = " It looks scaled to [-1024, 1024] already." if lowest <= -256 else ""
        msg = f"img holds {lowest:g}, and values must be in [0, {top:g}].{scaled}"
        raise ImageRangeError(msg)
    _warn_of_scale(array.dtype, highest, top)


def _warn_of_scale(dtype: np.dtype[Any], highest: float, top: float) -> None:
    fractions = dtype.kind in "bf" and 0 < highest <= 1 < top
    eight_bits = top > 255 and (dtype == np.uint8 or (dtype.kind == "f" and 1 < highest <= 255))
    if fractions or eight_bits:
        fitting = 1 if fractions else 255
        msg = (
            f"img holds values in [0, {highest:g}] of dtype {dtype} with maxval={top:g}: it "
            f"comes out almost black. If its scale is [0, {fitting}], pass maxval={fitting}"
        )
        warnings.warn(msg, ImageRangeWarning, stacklevel=4)
