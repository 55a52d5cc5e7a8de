"""The dataset of a DICOM file, also where its preamble or meta information is missing."""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.encaps import get_frame
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images.common import foreign
from torchxrayvision.images.jpeg import read_codestream

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from torchxrayvision.images.common import Limits

__all__ = ["Header", "Tags", "check_grey", "open_dataset", "pixel_element", "read_header"]


# ---- The Image Pixel module of a dataset (PS3.3 section C.7.6.3), checked.

_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_PLAUSIBLE_SPACING = (1e-3, 1e2)  # millimetres; some writers fill in zeros


class Tags:
    """Values of a dataset or sequence item, each damaged one named in the error.

    Args:
        dataset: A pydicom dataset.
        path: The file, for errors.
        little: Whether words are little endian, which pydicom leaves to the reader of bytes.
    """

    def __init__(self, dataset: Dataset, path: str, *, little: bool = True) -> None:
        self.dataset = dataset
        self.path = path
        self.little = little

    def get(self, keyword: str) -> Any:
        """The value, or None where it is absent or empty."""
        with foreign(self.path, f"the DICOM element {keyword} is damaged"):
            value = self.dataset.get(keyword)
            if value is None or (hasattr(value, "__len__") and len(value) == 0):
                return None
            return value

    def items(self, keyword: str) -> list[Tags]:
        """The items of a sequence."""
        value = self.get(keyword)
        if value is None:
            return []
        with foreign(self.path, f"the DICOM sequence {keyword} is damaged"):
            return [Tags(item, self.path, little=self.little) for item in value]

    def number(self, keyword: str) -> float | None:
        """The first value as a number, or None where it is absent."""
        value = self.get(keyword)
        if value is None:
            return None
        with foreign(self.path, f"the DICOM element {keyword} is not a number"):
            first = value if isinstance(value, str | bytes | int | float) else _first(value)
            number = float(first)
            if not math.isfinite(number):
                raise ImageReadError(self.path, f"the DICOM element {keyword} is {number}")
            return number

    def integer(self, keyword: str, default: int | None = None) -> int:
        """The first value as a whole number; required where there is no default."""
        number = self.number(keyword)
        if number is None:
            if default is None:
                raise ImageReadError(self.path, f"the DICOM element {keyword} is missing")
            return default
        return int(number)

    def text(self, keyword: str) -> str:
        """The first value as upper-case text, empty where it is absent."""
        value = self.get(keyword)
        if value is None:
            return ""
        with foreign(self.path, f"the DICOM element {keyword} is damaged"):
            return str(value if isinstance(value, str) else _first(value)).strip(" \0").upper()


def _first(value: Any) -> Any:
    try:
        return value[0]
    except TypeError:  # one value is not a list
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the Image Pixel module says."""

    rows: int
    columns: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    photometric: str
    samples: int
    frames: int
    spacing: tuple[float, float] | None

    @property
    def low(self) -> int:
        """Smallest value that the stored bits can hold."""
        return -(1 << (self.stored - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest value that the stored bits can hold."""
        return (1 << (self.stored - self.signed)) - 1


def read_header(tags: Tags) -> Header:
    """Read the module.

    Raises:
        ImageReadError: If a required element is missing or impossible.
    """
    header = Header(
        rows=tags.integer("Rows"),
        columns=tags.integer("Columns"),
        allocated=tags.integer("BitsAllocated"),
        stored=tags.integer("BitsStored"),
        high_bit=tags.integer("HighBit", tags.integer("BitsStored") - 1),
        signed=tags.integer("PixelRepresentation") == 1,
        photometric=tags.text("PhotometricInterpretation"),
        samples=tags.integer("SamplesPerPixel", 1),
        frames=max(1, tags.integer("NumberOfFrames", 1)),
        spacing=_spacing(tags),
    )
    if not header.photometric:
        raise ImageReadError(tags.path, "the DICOM element PhotometricInterpretation is missing")
    if not 1 <= header.stored <= header.allocated:
        reason = f"declares {header.stored} bits stored in {header.allocated} bits allocated"
        raise ImageReadError(tags.path, reason)
    if not header.stored - 1 <= header.high_bit < header.allocated:
        reason = f"declares high bit {header.high_bit} for {header.stored} bits stored"
        raise ImageReadError(tags.path, f"{reason} in {header.allocated} allocated")
    return header


def check_grey(header: Header, tags: Tags) -> None:
    """Refuse what is valid but not one grey picture of whole numbers."""
    if "FloatPixelData" in tags.dataset or "DoubleFloatPixelData" in tags.dataset:
        raise UnsupportedImageError(tags.path, "a DICOM file of floating point pixels")
    if header.samples != 1 or header.photometric not in _MONOCHROME:
        reason = f"a colour DICOM file ({header.photometric}, {header.samples} samples a pixel)"
        raise UnsupportedImageError(tags.path, reason, "a radiograph is MONOCHROME1 or MONOCHROME2")
    if header.allocated == 1:
        raise UnsupportedImageError(tags.path, "a DICOM file of one bit a pixel, a segmentation")
    if header.allocated not in (8, 16, 32):
        reason = f"a DICOM file of {header.allocated} bits allocated"
        raise UnsupportedImageError(tags.path, reason, "8, 16 and 32 are read")


def _spacing(tags: Tags) -> tuple[float, float] | None:
    """Pixel Spacing, else Imager Pixel Spacing; a damaged one does not spoil the picture."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            values = [float(value) for value in tags.get(keyword) or ()]
        except (TypeError, ValueError):  # ImageReadError is a ValueError
            continue
        least, most = _PLAUSIBLE_SPACING
        if len(values) == 2 and all(least <= value <= most for value in values):
            return values[0], values[1]
    return None


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
