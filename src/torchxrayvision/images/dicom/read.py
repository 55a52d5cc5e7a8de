"""DICOM files to rasters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.images.common import ImageInfo, Raster, linear_scale
from torchxrayvision.images.dicom.dataset import check_grey, open_dataset, read_header
from torchxrayvision.images.dicom.grey import padding_range, read_transform
from torchxrayvision.images.dicom.pixels import stored_values, syntax_of_pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images.common import Limits, ReadOptions
    from torchxrayvision.images.dicom.dataset import Header, Tags

__all__ = ["dicom_info", "read_dicom"]


def dicom_info(data: bytes, path: str, options: ReadOptions) -> ImageInfo:
    """What the header says; also of colour and multi-frame files."""
    tags, syntax = open_dataset(data, path, options.limits, pixels=False)
    header = read_header(tags)
    _check_size(header, path, len(data), options.limits)
    return _info(header, syntax or syntax_of_pixels(tags, header), tags)


def read_dicom(data: bytes, path: str, options: ReadOptions) -> Raster:
    """One frame: stored values, Modality LUT, VOI where asked for, padding to air, direction."""
    tags, declared = open_dataset(data, path, options.limits)
    declares = read_header(tags)
    check_grey(declares, tags)
    _check_size(declares, path, len(data), options.limits)
    frame = options.check_frame(path, declares.frames)
    stored, header, syntax = stored_values(tags, declared, declares, frame, options.limits)
    transform = read_transform(tags, header, frame, voi=options.voi)
    padding = padding_range(tags, header)

    pixels = stored if transform.plain else transform(stored)
    inverted = header.photometric == "MONOCHROME1" and options.fix_monochrome
    falling = transform.plain and transform.slope < 0
    low, high = transform.range
    white_is_low = inverted != falling
    if padding is not None:
        pixels = _blacken_padding(pixels, stored, padding, high if white_is_low else low)
    scale, offset = linear_scale(low, high, white_is_low=white_is_low)
    return Raster(pixels=pixels, scale=scale, offset=offset, info=_info(header, syntax, tags))


def _check_size(header: Header, path: str, stored: int, limits: Limits) -> None:
    limits.check_picture(
        path,
        header.rows,
        header.columns,
        bits=header.allocated * header.samples,
        stored=stored,
        frames=header.frames,
    )


def _blacken_padding(
    pixels: NDArray[Any], stored: NDArray[Any], padding: tuple[int, int], black: int
) -> NDArray[Any]:
    """Set padding to the value that comes out as -1024.

    PS3.3 section C.7.5.1.1.2: no pixel of the native image has a value in the padding range, so
    nothing of the patient is lost.
    """
    first, last = padding
    outside = (stored >= first) & (stored <= last)
    return np.where(outside, pixels.dtype.type(black), pixels) if outside.any() else pixels


def _info(header: Header, syntax: str, tags: Tags) -> ImageInfo:
    return ImageInfo(
        format="dicom",
        height=header.rows,
        width=header.columns,
        bits=header.stored,
        photometric=header.photometric,
        channels=header.samples,
        signed=header.signed,
        frames=header.frames,
        transfer_syntax=syntax or None,
        pixel_spacing=header.spacing,
        aspect=header.aspect,
        notes=tuple(tags.notes),
    )
