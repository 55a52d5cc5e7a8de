"""Colour to grey, and Exif orientation, for pictures that are not DICOM."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageChops

from torchxrayvision.errors import ImageReadError
from torchxrayvision.images.common import foreign

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "channels_are_equal",
    "mean_of_channels",
    "mean_of_palette",
    "one_bit",
    "orientation_of",
    "pixels_of",
    "upright",
]


# ---- From a picture of Pillow to an array.

_TYPES: Final = {"L": np.dtype(np.uint8), "I;16": np.dtype("<u2")}


def pixels_of(image: Image.Image) -> NDArray[Any]:
    """The pixels of a decoded picture, without a copy where that can be had.

    NumPy reads a picture through two copies in new memory, which took a seventh of the time of
    a PNG. Through Arrow it lies where Pillow decoded it; that is done where pyarrow is loaded
    anyway, as it is beside every dataset, for its import costs more than a few files win.

    Args:
        image: Decoded, of any mode.

    Returns:
        Shape (H, W) or (H, W, C), read-only.
    """
    arrow = sys.modules.get("pyarrow")
    dtype = _TYPES.get(image.mode)
    # Pillow has the interface from 11.2 on.
    if arrow is not None and dtype is not None and hasattr(image, "__arrow_c_array__"):
        try:
            flat = arrow.array(image)
        except ValueError:  # a picture of more than 16 MB lies in several pieces
            return np.asarray(image)
        found: NDArray[Any] = flat.to_numpy().view(dtype)
        return found.reshape(image.height, image.width)
    return np.asarray(image)


# ---- The orientation in an Exif block, whatever the file around it.

_ORIENTATION = 274


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8; 1 where it is absent, undefined or damaged.

    Args:
        exif: The block, with or without ``Exif`` and two null bytes before it.
    """
    block = Image.Exif()
    try:
        with foreign("", ""):
            block.load(exif)
            value = block.get(_ORIENTATION, 1)
    except ImageReadError:  # a damaged block does not make the picture unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_ROWS = 64


def channels_are_equal(image: Image.Image) -> bool:
    """Whether a decoded RGB picture is grey: every pixel has three equal channels.

    Args:
        image: Decoded; False for any other mode than RGB.
    """
    if image.mode != "RGB":
        return False
    red, green, blue = image.split()
    return all(ImageChops.difference(red, other).getbbox() is None for other in (green, blue))


def mean_of_channels(pixels: NDArray[Any], peak: int) -> tuple[NDArray[Any], int]:
    """Grey of a colour picture: the mean of red, green and blue.

    Films scanned in colour mostly have three equal channels: those keep their dtype. Otherwise
    the sum of the channels is returned, which is exact in integers; the peak says so.

    Args:
        pixels: Shape (H, W, C); channels past the third (alpha) are dropped.
        peak: Value of white in one channel.

    Returns:
        Pixels of shape (H, W), and the value of white in them.
    """
    red, green, blue = (pixels[:, :, channel] for channel in range(3))
    for start in range(0, pixels.shape[0], _ROWS):  # true colour shows in the first rows
        rows = slice(start, start + _ROWS)
        if not (np.array_equal(red[rows], green[rows]) and np.array_equal(red[rows], blue[rows])):
            total: NDArray[Any] = red.astype(np.uint16 if peak <= 255 else np.uint32)
            np.add(total, green, out=total)
            np.add(total, blue, out=total)
            return total, 3 * peak
    return np.ascontiguousarray(red), peak


def mean_of_palette(indices: NDArray[Any], palette: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Grey of a picture of palette indices.

    Args:
        indices: Shape (H, W), uint8.
        palette: Shape (N, 3), uint8; indices past its end are black.

    Returns:
        Pixels of shape (H, W), and the value of white in them.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette[:256]
    grey, peak = mean_of_channels(table[np.newaxis], 255)
    return grey[0][indices], peak


def one_bit(pixels: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Zeros and ones; in the arrays that Pillow gives for mode 1, true is any byte but zero."""
    return np.not_equal(pixels.view(np.uint8), 0).view(np.uint8)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored pixels the way the orientation tag says that they are meant to be seen.

    Source: TIFF 6.0 section 8 and Exif 3.0 section 4.6.5, tag 274.

    Example:
        >>> upright(np.array([[1, 2], [3, 4]]), 6).tolist()
        [[3, 1], [4, 2]]
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    if flip_rows:
        pixels = pixels[::-1]
    if flip_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
