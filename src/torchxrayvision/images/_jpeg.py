"""JPEG (ITU-T T.81): grey and colour of 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images._codestream import CodeStream, read_codestream
from torchxrayvision.images._exif import orientation_of
from torchxrayvision.images._grey import channels_are_equal, mean_of_channels, upright
from torchxrayvision.images._guard import foreign
from torchxrayvision.images._jpeg_decode import decode_jpeg
from torchxrayvision.images._jpeg_scans import MOST_SCANS, segments
from torchxrayvision.images._pillow import pixels_of
from torchxrayvision.images._raster import ImageInfo, Raster, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images._options import Options

__all__ = ["jpeg_info", "read_jpeg"]

_APP1, _EXIF = 0xE1, b"Exif\0\0"
_KINDS = {1: "MONOCHROME2", 3: "RGB", 4: "CMYK"}
_PROCESSES = {0: "baseline", 1: "extended", 2: "progressive"}


def jpeg_info(data: bytes, path: str, options: Options) -> ImageInfo:
    """What the header says."""
    return _info(_header(data, path, options), _orientation(data))


def read_jpeg(data: bytes, path: str, options: Options) -> Raster:
    """The picture, upright as its Exif orientation says."""
    header = _header(data, path, options)
    options.check_frame(path, 1)
    _check_kind(header, path)
    pixels, peak = _decode(data, path, header), 255
    orientation = _orientation(data)
    if pixels.ndim == 3:
        pixels, peak = mean_of_channels(pixels, peak)
    scale, offset = spread(0, peak)
    pixels = upright(pixels, orientation)
    return Raster(pixels=pixels, scale=scale, offset=offset, info=_info(header, orientation))


def _header(data: bytes, path: str, options: Options) -> CodeStream:
    header = read_codestream(data)
    if header is None:
        raise ImageReadError(path, "truncated: the JPEG holds no frame header")
    bits = header.precision * header.components
    options.limits.check_picture(path, header.height, header.width, bits=bits, stored=len(data))
    return header


def _info(header: CodeStream, orientation: int) -> ImageInfo:
    turned = orientation >= 5
    return ImageInfo(
        format="jpeg",
        height=header.width if turned else header.height,
        width=header.height if turned else header.width,
        bits=header.precision,
        photometric=_KINDS.get(header.components, "unknown"),
        channels=header.components,
        orientation=orientation,
    )


def _check_kind(header: CodeStream, path: str) -> None:
    if header.kind != "jpeg" or header.process not in _PROCESSES:
        reason = "a lossless or arithmetic-coded JPEG, which is read only inside DICOM"
        raise UnsupportedImageError(path, reason, "convert it to PNG")
    if header.precision != 8:
        reason = f"a JPEG of {header.precision} bits, which is read only inside DICOM"
        raise UnsupportedImageError(path, reason, "convert it to a 16-bit PNG")
    if header.components not in (1, 3):
        reason = f"a JPEG of {header.components} channels (CMYK is for print)"
        raise UnsupportedImageError(path, reason, "convert it to grey")
    if header.scans > MOST_SCANS:
        raise ImageTooLargeError(path, f"a JPEG of more than {MOST_SCANS} scans")
    if header.fault:
        raise ImageReadError(path, f"truncated: the JPEG {header.fault}")


def _orientation(data: bytes) -> int:
    """From the Exif block alone, which comes before the first scan (Exif 3.0 section 4.7)."""
    exif = b"".join(
        data[start + len(_EXIF) : end]
        for marker, start, end in segments(data)
        if marker == _APP1 and data[start : start + len(_EXIF)] == _EXIF
    )
    return orientation_of(exif) if exif else 1


def _decode(data: bytes, path: str, header: CodeStream) -> NDArray[Any]:
    with foreign(path, "the JPEG is damaged or truncated"):
        image = decode_jpeg(data, header)
        if image.size != (header.width, header.height):
            raise ImageReadError(path, "the JPEG declares two different sizes")
        # Most colour films have three equal channels; one of them is then a third of the copying.
        grey = image.getchannel(0) if channels_are_equal(image) else image
        return pixels_of(grey)
