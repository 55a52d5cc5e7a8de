"""DICOM files to rasters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.images.common import ImageInfo, Raster, spread
from torchxrayvision.images.dicom.dataset import Header, Tags, check_grey, open_dataset, read_header
from torchxrayvision.images.dicom.grey import padding_range, read_transform
from torchxrayvision.images.dicom.pixels import stored_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images.common import Limits, Options

__all__ = ["dicom_info", "read_dicom"]


def dicom_info(data: bytes, path: str, options: Options) -> ImageInfo:
    """What the header says; also of colour and multi-frame files."""
    dataset, syntax = open_dataset(data, path, options.limits, pixels=False)
    header = read_header(Tags(dataset, path))
    _check_size(header, path, len(data), options.limits)
    return _info(header, syntax)


def read_dicom(data: bytes, path: str, options: Options) -> Raster:
    """One frame: stored values, Modality LUT, VOI where asked for, padding to air, direction."""
    dataset, syntax = open_dataset(data, path, options.limits)
    tags = Tags(dataset, path, little=dataset.original_encoding[1] is not False)
    header = read_header(tags)
    check_grey(header, tags)
    _check_size(header, path, len(data), options.limits)
    frame = options.check_frame(path, header.frames)
    transform = read_transform(tags, header, frame, voi=options.voi)
    padding = padding_range(tags, header)
    stored = stored_values(dataset, syntax, header, frame, path)

    pixels = stored if transform.plain else transform(stored)
    inverted = header.photometric == "MONOCHROME1" and options.fix_monochrome
    falling = transform.plain and transform.slope < 0
    low, high = transform.range
    white_is_low = inverted != falling
    if padding is not None:
        pixels = _air(pixels, stored, padding, high if white_is_low else low)
    scale, offset = spread(low, high, white_is_low=white_is_low)
    return Raster(pixels=pixels, scale=scale, offset=offset, info=_info(header, syntax))


def _check_size(header: Header, path: str, stored: int, limits: Limits) -> None:
    limits.check_picture(
        path,
        header.rows,
        header.columns,
        bits=header.allocated * header.samples,
        stored=stored,
        frames=header.frames,
    )


def _air(
    pixels: NDArray[Any], stored: NDArray[Any], padding: tuple[int, int], black: int
) -> NDArray[Any]:
    """Set padding to the value that comes out as -1024.

    PS3.3 section C.7.5.1.1.2: no pixel of the native image has a value in the padding range, so
    nothing of the patient is lost.
    """
    first, last = padding
    outside = (stored >= first) & (stored <= last)
    return np.where(outside, pixels.dtype.type(black), pixels) if outside.any() else pixels


def _info(header: Header, syntax: str) -> ImageInfo:
    return ImageInfo(
        format="dicom",
        height=header.rows,
        width=header.columns,
        bits=header.stored,
        photometric=header.photometric,
        channels=header.samples,
        signed=header.signed,
        frames=header.frames,
        transfer_syntax=syntax,
        pixel_spacing=header.spacing,
    )
