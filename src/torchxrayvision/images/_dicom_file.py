"""The dataset of a DICOM file, also where its preamble or meta information is missing."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from pydicom import dcmread
from pydicom.encaps import get_frame

from torchxrayvision.errors import ImageReadError, ImageTooLargeError
from torchxrayvision.images._codestream import read_codestream
from torchxrayvision.images._guard import foreign

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from torchxrayvision.images._limits import Limits

__all__ = ["open_dataset", "pixel_element"]

_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_JPEG_PROCESS = {0: "1.2.840.10008.1.2.4.50", 1: "1.2.840.10008.1.2.4.51"}
_JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
_JPEG_LS = "1.2.840.10008.1.2.4.81"
_JPEG_2000 = "1.2.840.10008.1.2.4.91"
_RLE = "1.2.840.10008.1.2.5"
_PREAMBLE = 132
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_PIXEL_TAGS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # little and big endian
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
_MOST_ITEMS = 20_000

# Everything that is read here; other elements are skipped, so that they can do no harm.
_KEYWORDS = [
    "SOPClassUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
]


def open_dataset(
    data: bytes, path: str, limits: Limits, *, pixels: bool = True
) -> tuple[Dataset, str]:
    """Parse a DICOM file or a bare dataset.

    Args:
        data: All bytes.
        path: For errors.
        limits: Bounds what a deflated dataset may grow to.
        pixels: Whether to read the pixel data as well.

    Returns:
        The dataset, and its transfer syntax UID: as declared, or guessed where the file has no
        meta information (PS3.10 section 7.1).
    """
    declared, start = _file_meta(data)
    if declared == _DEFLATED:
        data = _inflate(data, start, path, limits)
        start = _file_meta(data)[1]
    _check_items(data, start, path)
    with foreign(path, "the DICOM dataset is damaged or truncated"):
        dataset = dcmread(
            io.BytesIO(data),
            force=True,
            stop_before_pixels=not pixels,
            specific_tags=list(_KEYWORDS),
        )
        syntax = declared or _guess_syntax(dataset, path)
    if "Rows" not in dataset and "PixelData" not in dataset:
        _explain_no_picture(dataset, data, path)
    return dataset, syntax


def pixel_element(dataset: Dataset, path: str) -> tuple[bytes, str, bool]:
    """The pixel data as stored, its value representation, and whether it is encapsulated."""
    if _PIXEL_DATA not in dataset:
        return b"", "OW", False
    with foreign(path, "the DICOM pixel data element is damaged"):
        element: Any = dataset.get_item(_PIXEL_DATA)
        undefined = getattr(element, "length", 0) == _UNDEFINED
        encapsulated = undefined or bool(getattr(element, "is_undefined_length", False))
        return bytes(element.value or b""), str(element.VR or "OW"), encapsulated


def _file_meta(data: bytes) -> tuple[str, int]:
    """Transfer syntax UID, or an empty string, and where the dataset starts.

    Group 0002 is always explicit little endian (PS3.10 section 7.1).
    """
    position = _PREAMBLE if data[128:132] == b"DICM" else 0
    syntax = ""
    while data[position : position + 2] == b"\x02\x00" and position + 12 <= len(data):
        element, vr, length = struct.unpack_from("<2xH2sH", data, position)
        position += 8
        if vr in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
            (length,) = struct.unpack_from("<I", data, position)
            position += 4
        if element == 0x0010:
            syntax = data[position : position + length].decode("ascii", "replace").strip("\0 ")
        position += length
    return syntax, position


def _inflate(data: bytes, start: int, path: str, limits: Limits) -> bytes:
    """The file as explicit little endian (PS3.5 section A.5: the dataset is one raw deflate)."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = engine.decompress(data[start:], limits.file_bytes)
    except zlib.error as error:
        raise ImageReadError(path, f"the deflated DICOM dataset is damaged ({error})") from error
    if engine.unconsumed_tail:
        reason = f"the deflated DICOM dataset grows beyond {limits.file_bytes:,} bytes"
        raise ImageTooLargeError(path, reason)
    if not engine.eof:
        raise ImageReadError(path, "truncated inside the deflated DICOM dataset")
    uid = _EXPLICIT_LITTLE.encode() + b"\0"
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    size = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    return b"\0" * 128 + b"DICM" + size + meta + body


def _check_items(data: bytes, start: int, path: str) -> None:
    """Refuse masses of sequence items, of which pydicom parses about 20,000 a second.

    They are counted up to the pixel data, where their tag would be chance.
    """
    big = data[start : start + 1] == b"\0"  # the group of the first element, never above 00FF
    end = data.find(_PIXEL_TAGS[big])
    items = data.count(_ITEM_TAGS[big], 0, end if end >= 0 else len(data))
    if items > _MOST_ITEMS:
        raise ImageTooLargeError(path, f"a DICOM file of {items:,} sequence items")


def _guess_syntax(dataset: Dataset, path: str) -> str:
    """The transfer syntax of a dataset without meta information."""
    value, _, encapsulated = pixel_element(dataset, path)
    if encapsulated:
        return _guess_codec(value)
    implicit, little = dataset.original_encoding
    if implicit:
        return _IMPLICIT_LITTLE
    return _EXPLICIT_LITTLE if little else _EXPLICIT_BIG


def _guess_codec(value: bytes) -> str:
    stream = read_codestream(get_frame(value, 0))
    if stream is None:
        return _RLE
    if stream.kind == "jpeg":
        return _JPEG_PROCESS.get(stream.process, _JPEG_LOSSLESS)
    return _JPEG_LS if stream.kind == "jpeg-ls" else _JPEG_2000


def _explain_no_picture(dataset: Dataset, data: bytes, path: str) -> None:
    if "SOPClassUID" in dataset:
        with foreign(path, "the DICOM SOP Class is damaged"):
            name = str(getattr(dataset.SOPClassUID, "name", dataset.SOPClassUID))
        raise ImageReadError(path, f"a DICOM file without a picture ({name})")
    what = "a truncated or damaged DICOM file" if data[128:132] == b"DICM" else "not a DICOM file"
    raise ImageReadError(path, f"{what}: it holds no picture")
