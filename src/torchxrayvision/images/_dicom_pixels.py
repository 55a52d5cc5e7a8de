"""Stored pixel values of one frame of a DICOM dataset (PS3.5 section 8 and annex A)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images._codestream import CodeStream, read_codestream
from torchxrayvision.images._dicom_file import pixel_element
from torchxrayvision.images._dicom_gdcm import check_cell, decode_twelve_bits, stored_for_gdcm
from torchxrayvision.images._guard import foreign
from torchxrayvision.images._jpeg_decode import decode_jpeg, lasts
from torchxrayvision.images._jpeg_markers import check_markers
from torchxrayvision.images._jpeg_scans import MOST_SCANS
from torchxrayvision.images._pillow import pixels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from torchxrayvision.images._dicom_header import Header

__all__ = ["stored_values"]

_NATIVE = {
    "1.2.840.10008.1.2": "<",
    "1.2.840.10008.1.2.1": "<",
    "1.2.840.10008.1.2.1.99": "<",
    "1.2.840.10008.1.2.2": ">",
}
_EXTENDED = "1.2.840.10008.1.2.4.51"
_LOSSY = {"1.2.840.10008.1.2.4." + tail for tail in ("50", "51", "81", "91", "203")}
# The package that each family needs, and pydicom's plugins for it, the sturdiest on damage first.
_JPEG = ("pillow", ("pillow", "gdcm", "pylibjpeg"))
_LOSSLESS = ("python-gdcm", ("gdcm", "pylibjpeg"))
_JPEG_LS = ("pyjpegls", ("pyjpegls", "gdcm"))
_JPEG_2000 = ("pylibjpeg-openjpeg", ("pylibjpeg", "gdcm", "pillow"))
_RLE = ("pydicom", ("pydicom",))
_CODECS = {
    "1.2.840.10008.1.2.5": _RLE,
    **{f"1.2.840.10008.1.2.4.{tail}": _JPEG for tail in (50, 51)},
    **{f"1.2.840.10008.1.2.4.{tail}": _LOSSLESS for tail in (57, 70)},
    **{f"1.2.840.10008.1.2.4.{tail}": _JPEG_LS for tail in (80, 81)},
    **{f"1.2.840.10008.1.2.4.{tail}": _JPEG_2000 for tail in (90, 91, 201, 202, 203)},
}
# A lossy codec overshoots at edges; more than this share of pixels means a wrong Bits Stored.
_OVERSHOOT = 0.01
_END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000


def stored_values(
    dataset: Dataset, syntax: str, header: Header, frame: int, path: str
) -> NDArray[Any]:
    """Decode one frame.

    Returns:
        Shape (rows, columns), native byte order, values within those of Bits Stored.

    Raises:
        ImageReadError: If pixel data is missing, truncated, damaged or not what the tags say.
        UnsupportedImageError: If no installed decoder reads the transfer syntax.
    """
    value, vr, encapsulated = pixel_element(dataset, path)
    if not value:
        raise ImageReadError(path, "truncated: the DICOM pixel data is missing or incomplete")
    if syntax in _NATIVE and not encapsulated:
        pixels = _native(value, vr, _NATIVE[syntax], header, frame, path)
        return _clean(pixels, header, lossless=True, path=path)
    if syntax not in _CODECS:
        _refuse(syntax, path)
    if not encapsulated:
        raise ImageReadError(path, "the DICOM transfer syntax is compressed, its pixel data is not")
    pixels = _encapsulated(dataset, value, syntax, header, frame, path)
    return _clean(pixels, header, lossless=syntax not in _LOSSY, path=path)


def _refuse(syntax: str, path: str) -> None:
    with foreign(path, "the DICOM transfer syntax is damaged"):
        name = UID(syntax).name
    if syntax in _NATIVE:
        raise ImageReadError(path, f"encapsulated pixel data under the transfer syntax {name}")
    raise UnsupportedImageError(path, f"no decoder for the DICOM transfer syntax {name!r}")


def _native(
    value: bytes, vr: str, order: str, header: Header, frame: int, path: str
) -> NDArray[Any]:
    count = header.rows * header.columns
    size = header.allocated // 8
    start = frame * count * size
    if len(value) < start + count * size:
        reason = f"truncated: {len(value):,} bytes of pixel data, {start + count * size:,} declared"
        raise ImageReadError(path, reason)
    kind = "i" if header.signed else "u"
    if size == 1 and order == ">" and vr == "OW":  # bytes swapped in pairs, PS3.5 section A.3
        swapped = np.frombuffer(value[: len(value) // 2 * 2], ">u2").astype("<u2").view(np.uint8)
        value = swapped.tobytes()
    pixels = np.frombuffer(value, f"{order}{kind}{size}", count, start)
    native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return native.reshape(header.rows, header.columns)


def _encapsulated(
    dataset: Dataset, value: bytes, syntax: str, header: Header, frame: int, path: str
) -> NDArray[Any]:
    one = _one_frame(dataset, value, header, frame, path)
    stream = _code_stream(one, syntax, header, path)
    codec = _CODECS[syntax]
    if codec is _LOSSLESS and stream is not None:
        check_cell(header, path)
        with foreign(path, "the lossless JPEG pixel data is damaged or truncated"):
            check_markers(one, lossless=True)
        pixels = _by_pydicom(one, syntax, header, path)
        _check_last_row(pixels, one, stream, path)
    elif stream is None or stream.kind != "jpeg" or codec is not _JPEG:
        pixels = _by_pydicom(one, syntax, header, path)
    elif stream.precision > 8 and syntax == _EXTENDED:
        pixels = decode_twelve_bits(one, header, path)
        _check_last_row(pixels, one, stream, path)
    else:
        pixels = _eight_bits(one, stream, header, path)
    if pixels.shape != (header.rows, header.columns):
        raise ImageReadError(path, f"the pixel data decodes to shape {pixels.shape}")
    return pixels


def _eight_bits(one: bytes, stream: CodeStream, header: Header, path: str) -> NDArray[Any]:
    if stream.precision != 8 or header.allocated != 8:
        reason = f"a JPEG of {stream.precision} bits a sample in cells of {header.allocated} bits"
        raise ImageReadError(path, f"{reason}, under a transfer syntax of 8")
    with foreign(path, "the JPEG pixel data is damaged or truncated"):
        pixels = pixels_of(decode_jpeg(one, stream))
    return pixels.view(np.int8) if header.signed else pixels


def _by_pydicom(one: bytes, syntax: str, header: Header, path: str) -> NDArray[Any]:
    decoder: Any = get_decoder(syntax)  # every member of _CODECS has one
    name = decoder.UID.name
    package, plugins = _CODECS[syntax]
    plugin = next((known for known in plugins if known in decoder.available_plugins), None)
    if plugin is None:
        reason = f"{name} pixels need the package {package}"
        raise UnsupportedImageError(path, reason, 'pip install "torchxrayvision[dicom]"')
    with foreign(path, f"the {name} pixel data is damaged or truncated"):
        pixels, _ = decoder.as_array(
            encapsulate([one], has_bot=False),
            raw=True,
            index=0,
            decoding_plugin=plugin,
            rows=header.rows,
            columns=header.columns,
            samples_per_pixel=1,
            photometric_interpretation=header.photometric,
            bits_allocated=header.allocated,
            bits_stored=stored_for_gdcm(header) if plugin == "gdcm" else header.stored,
            pixel_representation=int(header.signed),
            number_of_frames=1,
            pixel_keyword="PixelData",
            correct_unused_bits=False,
        )
    return np.asarray(pixels)


def _check_last_row(pixels: NDArray[Any], one: bytes, stream: CodeStream, path: str) -> None:
    """Refuse a scan that ends early, which GDCM fills up without a word.

    The filling is recognised by a last row that tells nothing new; films with a black margin have
    one too, and only then is the scan walked through a second time.
    """
    if _tells_nothing(pixels[-2:]) and not lasts(one, stream):
        raise ImageReadError(path, "truncated: the JPEG scan ends before the last row")


def _tells_nothing(rows: NDArray[Any]) -> bool:
    """Whether the last row is what any predictor of T.81 table H.1 expects, or of one value."""
    above, row = rows[0].astype(np.int64), rows[-1].astype(np.int64)
    a, b, c = row[:-1], above[1:], above[:-1]
    guesses = (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)
    modulus = 1 << 8 * rows.dtype.itemsize
    return any(not ((guess - row[1:]) % modulus).any() for guess in guesses)


def _one_frame(dataset: Dataset, value: bytes, header: Header, frame: int, path: str) -> bytes:
    with foreign(path, "the DICOM pixel data is damaged or truncated"):
        offsets = None
        if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
            offsets = (dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths)
        return get_frame(value, frame, extended_offsets=offsets, number_of_frames=header.frames)


def _code_stream(one: bytes, syntax: str, header: Header, path: str) -> CodeStream | None:
    """The header of the code stream, compared with the tags; None for RLE, which has none."""
    stream = read_codestream(one)
    if stream is None:
        if _CODECS[syntax] is _RLE:
            return None
        reason = "the DICOM pixel data is damaged or truncated: it holds no frame header"
        raise ImageReadError(path, f"{reason} of {UID(syntax).name}")
    if (stream.height, stream.width) != (header.rows, header.columns):
        reason = f"the code stream is {stream.width} x {stream.height} pixels"
        raise ImageReadError(path, f"{reason}, the tags say {header.columns} x {header.rows}")
    if stream.components != 1:
        raise ImageReadError(path, f"the code stream has {stream.components} channels, not one")
    if stream.precision > header.allocated:
        reason = f"the code stream has {stream.precision} bits a sample"
        raise ImageReadError(path, f"{reason}, the tags allocate {header.allocated}")
    if stream.scans > MOST_SCANS:
        raise ImageTooLargeError(path, f"a JPEG of more than {MOST_SCANS} scans")
    if not one.rstrip(b"\0\xff").endswith(_END):  # decoders would fill the rest with grey
        raise ImageReadError(path, "truncated: the code stream lacks its end marker")
    if stream.fault:
        raise ImageReadError(path, f"truncated: the code stream {stream.fault}")
    return stream


def _clean(pixels: NDArray[Any], header: Header, *, lossless: bool, path: str) -> NDArray[Any]:
    """Values of the stored bits alone.

    PS3.5 section 8.1.1: bits above the high bit belong to something else, such as the overlays
    of old files. A lossy codec has no such bits; there a value outside is an overshoot.
    """
    if header.stored == header.allocated:
        return pixels
    inside = int(pixels.max()) <= header.high
    if header.signed:
        inside = inside and header.low <= int(pixels.min())
    if inside and header.high_bit == header.stored - 1:
        return pixels
    if lossless:
        return _stored_bits(pixels, header)
    outside = np.count_nonzero((pixels < header.low) | (pixels > header.high)) / pixels.size
    if outside > _OVERSHOOT:
        reason = f"{outside:.0%} of the pixels lie outside the {header.stored} bits declared"
        raise ImageReadError(path, reason)
    clipped: NDArray[Any] = np.clip(pixels, header.low, header.high)
    return clipped


def _stored_bits(pixels: NDArray[Any], header: Header) -> NDArray[Any]:
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    mask = unsigned.type((1 << header.stored) - 1)
    bits: NDArray[Any] = (
        pixels.view(unsigned) >> unsigned.type(header.high_bit + 1 - header.stored) & mask
    )
    if not header.signed:
        return bits
    sign = unsigned.type(1 << (header.stored - 1))
    extended: NDArray[Any] = ((bits ^ sign) - sign).view(f"i{pixels.dtype.itemsize}")
    return extended
