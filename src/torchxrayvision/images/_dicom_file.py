"""The dataset of a DICOM file, also where its preamble or meta information is missing."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from pydicom.encaps import get_frame
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

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
_FLOAT_PIXELS = 0x7FE00008
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # little and big endian
_ITEM_HEADER = 8
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
_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in _KEYWORDS]
_SEQUENCES = [Tag(keyword) for keyword in _KEYWORDS if keyword.endswith("Sequence")]


def open_dataset(
    data: bytes, path: str, limits: Limits, *, pixels: bool = True
) -> tuple[Dataset, str]:
    """Parse a DICOM file or a bare dataset.

    Args:
        data: All bytes.
        path: For errors.
        limits: Bounds what a deflated dataset may grow to.
        pixels: Whether to read the pixel data as well; it is in any case where there is no meta
            information, for then it tells the transfer syntax.

    Returns:
        The dataset, and its transfer syntax UID: as declared, or guessed where the file has no
        meta information (PS3.10 section 7.1).
    """
    declared, start = _file_meta(data)
    if declared == _DEFLATED:
        data = _inflate(data, start, path, limits)
    # What follows the pixel data is of no use here, and is not parsed either.
    behind = _PIXEL_DATA + 1 if pixels or not declared else _FLOAT_PIXELS
    stream = _Counted(data)
    try:
        with foreign(path, "the DICOM dataset is damaged or truncated"):
            dataset = read_partial(
                stream,
                stop_when=lambda tag, *_: tag >= behind,
                force=True,
                specific_tags=_TAGS,
            )
            _count_unparsed(dataset, stream)
            syntax = declared or _guess_syntax(dataset, path)
    finally:  # pydicom calls the end of the bytes by other names
        stream.check(path)
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


class _Counted(io.BytesIO):
    """Bytes that end where pydicom has met too many sequence items in them.

    It parses about 20,000 a second, of sequences of undefined length even where nobody asked for
    them. They are counted as they are met: where they lie cannot be told from the bytes alone.
    """

    items = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if size == _ITEM_HEADER and found.startswith(_ITEM_TAGS):
            self.items += 1
        return found if self.items <= _MOST_ITEMS else b""

    def check(self, path: str) -> None:
        if self.items > _MOST_ITEMS:
            reason = f"a DICOM file of more than {_MOST_ITEMS:,} sequence items"
            raise ImageTooLargeError(path, reason)


def _count_unparsed(dataset: Dataset, stream: _Counted) -> None:
    """Count the items of sequences of defined length, which pydicom parses when asked for."""
    for tag in _SEQUENCES:
        value = dataset.get_item(tag).value if tag in dataset else None
        if isinstance(value, bytes):
            stream.items += sum(value.count(item) for item in _ITEM_TAGS)


def _guess_syntax(dataset: Dataset, path: str) -> str:
    """The transfer syntax of a dataset without meta information."""
    value, _, encapsulated = pixel_element(dataset, path)
    if encapsulated:
        return _guess_codec(value, int(dataset.get("NumberOfFrames") or 1))
    implicit, little = dataset.original_encoding
    if implicit:
        return _IMPLICIT_LITTLE
    return _EXPLICIT_LITTLE if little else _EXPLICIT_BIG


def _guess_codec(value: bytes, frames: int) -> str:
    stream = read_codestream(get_frame(value, 0, number_of_frames=max(1, frames)))
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
