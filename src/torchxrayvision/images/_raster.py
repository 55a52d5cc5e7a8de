"""A picture as its file stores it, and what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ImageInfo", "Raster", "spread"]

_BLOCK_PIXELS = 1 << 17  # 512 KiB of float32: the passes over a block stay in the second cache


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInfo:
    """What the header of a file says.

    Args:
        format: ``"png"``, ``"jpeg"``, ``"tiff"`` or ``"dicom"``.
        height: Rows of the picture as it is returned, upright.
        width: Columns of the picture as it is returned, upright.
        bits: Declared bits of a sample (DICOM: Bits Stored).
        photometric: ``"MONOCHROME1"`` (white is zero), ``"MONOCHROME2"`` (black is zero),
            ``"RGB"``, ``"PALETTE COLOR"`` or ``"CMYK"``; for DICOM the value in the file.
        channels: Samples a pixel, alpha included.
        signed: Whether samples are two's complement.
        frames: Frames or pages.
        orientation: TIFF or Exif orientation, 1 to 8; already applied to the pixels.
        transfer_syntax: DICOM transfer syntax UID, guessed where the file lacks it; else None.
        pixel_spacing: Millimetres between rows and between columns, or None. DICOM: Pixel
            Spacing, else Imager Pixel Spacing (in the plane of the detector).
    """

    format: str
    height: int
    width: int
    bits: int
    photometric: str
    channels: int = 1
    signed: bool = False
    frames: int = 1
    orientation: int = 1
    transfer_syntax: str | None = None
    pixel_spacing: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Raster:
    """Pixels as stored, with the line that takes them to [-1024, 1024].

    ``value = pixels * scale + offset``; `scale` is negative where the file stores white as its
    smallest value. A colour file whose channels differ holds their sum, so that the mean is exact.

    Args:
        pixels: Shape (H, W), the dtype of the file where possible; read-only or not.
        scale: Grey units a stored unit.
        offset: Grey value of a stored zero.
        info: What the header says.

    Example:
        >>> info = ImageInfo(format="png", height=1, width=3, bits=8, photometric="MONOCHROME2")
        >>> pixels = np.array([[0, 51, 255]], dtype=np.uint8)
        >>> Raster(pixels=pixels, scale=2048 / 255, offset=-1024.0, info=info).to_array()
        array([[[-1024. ,  -614.4,  1024. ]]], dtype=float32)
    """

    pixels: NDArray[Any]
    scale: float
    offset: float
    info: ImageInfo

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.pixels.shape
        return height, width

    def to_array(self) -> NDArray[np.float32]:
        """The picture for a model.

        The arithmetic is that of `normalize`, step by step in float32, so that the values equal
        to the last bit those of TorchXRayVision 1.5.7 for pixels of up to 16 bits.

        Returns:
            float32, shape (1, H, W), values in [-1024, 1024].
        """
        exact = self.pixels.dtype.itemsize <= 2 or self.pixels.dtype == np.float32
        work = np.float32 if exact else np.float64
        span = work(2048.0 / abs(self.scale))
        black = work((-1024.0 - self.offset) / self.scale)
        out = np.empty((1, *self.pixels.shape), np.float32)
        rows = max(1, _BLOCK_PIXELS // max(1, self.pixels.shape[1]))
        for start in range(0, self.pixels.shape[0], rows):
            source = self.pixels[start : start + rows]
            block = out[0, start : start + rows] if work is np.float32 else np.empty(source.shape)
            if self.scale < 0:
                np.subtract(black, source, out=block)
            elif black:
                np.subtract(source, black, out=block)
            else:
                block[...] = source
            block /= span
            block *= 2
            block -= 1
            block *= 1024
            if work is np.float64:
                out[0, start : start + rows] = block
        return out


def spread(low: float, high: float, *, white_is_low: bool = False) -> tuple[float, float]:
    """Scale and offset that take [low, high] to [-1024, 1024], or to [1024, -1024].

    Example:
        >>> spread(0, 2048)
        (1.0, -1024.0)
        >>> spread(-2048, 2047, white_is_low=True)[0] < 0
        True
    """
    scale = 2048.0 / (high - low)
    if white_is_low:
        return -scale, 1024.0 + low * scale
    return scale, -1024.0 - low * scale
