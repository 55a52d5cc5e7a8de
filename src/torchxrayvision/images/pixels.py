"""Colour to grey, and Exif orientation, for images that are not DICOM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageChops

from torchxrayvision.errors import ImageReadError
from torchxrayvision.images.common import third_party_decoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_WHOLE = 8 << 20  # bytes: NumPy takes a larger image through two more copies of all of it
_BAND = 1 << 20


def _crops(image: Image.Image) -> Iterator[Image.Image]:
    rows = max(1, _BAND // (image.width * len(image.getbands())))
    for start in range(0, image.height, rows):
        yield crop_rows(image, start, min(start + rows, image.height))


def crop_rows(image: Image.Image, start: int, stop: int) -> Image.Image:
    """Some rows; ``Image.crop`` would ask whether Pillow's own bound allows so many pixels."""
    return image._new(image.im.crop((0, start, image.width, stop)))


def bands_of(image: Image.Image) -> Iterator[tuple[int, NDArray[Any]]]:
    """First row and pixels of each band of rows, which stays in the cache."""
    start = 0
    for band in _crops(image):
        yield start, np.asarray(band)
        start += band.height


def pixels_of(image: Image.Image) -> NDArray[Any]:
    """The pixels (H, W) or (H, W, C) of a decoded image, in little more memory than they take."""
    if image.width * image.height * len(image.getbands()) <= _WHOLE:
        return np.asarray(image)
    found: NDArray[Any] | None = None
    for start, band in bands_of(image):
        if found is None:
            found = np.empty((image.height, *band.shape[1:]), band.dtype)
        found[start : start + len(band)] = band
    return np.asarray(image) if found is None else found


def grey_of(image: Image.Image) -> tuple[NDArray[Any], int]:
    """Grey (H, W) of a decoded image of 8 bits, with or without alpha, and the value of white.

    Images scanned in colour mostly have three equal channels: one of them is kept. Otherwise the
    sum of the channels is returned, which is exact in integers; the value of white says so.
    """
    if len(image.getbands()) < 3:
        return pixels_of(image), 255
    if channels_are_equal(image):
        return pixels_of(image.getchannel(0)), 255
    total = np.zeros((image.height, image.width), np.uint16)
    add_channels(image, total)
    return total, 3 * 255


def add_channels(image: Image.Image, total: NDArray[Any], factor: int = 1) -> None:
    """Add red, green and blue of a decoded image, times a factor, to a total of shape (H, W)."""
    for start, band in bands_of(image):
        rows = total[start : start + len(band)]
        for channel in range(3):
            part = band[:, :, channel]
            rows += part if factor == 1 else part * total.dtype.type(factor)


_ORIENTATION = 274


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8, in a block of Exif; 1 where it is absent, undefined or damaged."""
    block = Image.Exif()
    try:
        with third_party_decoder("", ""):
            block.load(exif)
            value = block.get(_ORIENTATION, 1)
    except ImageReadError:  # a damaged block does not make the image unreadable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


_ROWS = 64


def channels_are_equal(image: Image.Image) -> bool:
    """Whether a decoded image is RGB or RGBA with three equal channels in every pixel."""
    if image.mode not in ("RGB", "RGBA"):
        return False
    return all(
        ImageChops.difference(red, other).getbbox() is None
        for band in _crops(image)
        for red, *others in [band.split()[:3]]
        for other in others
    )


def mean_of_channels(pixels: NDArray[Any], peak: int) -> tuple[NDArray[Any], int]:
    """Grey (H, W) of pixels (H, W, C), and the value of white; channels past the third are dropped.

    As in `grey_of`, `peak` being the value of white in one channel.
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
    """Grey of palette indices (H, W), and the value of white; past the palette (N, 3) is black."""
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
