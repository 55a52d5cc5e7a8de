"""The dataset of a DICOM file, also where its preamble or meta information is missing."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from torchxrayvision.errors import (
    ImageReadError,
    ImageTooLargeError,
    UnsupportedImageError,
    counted,
)
from torchxrayvision.images.common import aspect_of, silence_decoders, third_party_decoder

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from torchxrayvision.images.common import Limits

_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = (
    "PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422",
    "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "XYB",
)  # fmt: skip
_PLAUSIBLE_SPACING = (1e-3, 1e2)  # millimetres; some writers fill in zeros


@dataclass(eq=False)
class Tags:
    """Values of a dataset or sequence item.

    Elements that an image needs are named in the error where they are damaged; those that only
    adjust it are left out with a note, which items of sequences share. No message holds a value of
    text: damage moves the names of patients about.
    """

    dataset: Dataset
    path: str
    little: bool = field(default=True, kw_only=True)  # words, which pydicom leaves to its caller
    notes: list[str] = field(default_factory=list, kw_only=True)

    def note(self, text: str) -> None:
        """Remember what was not followed, once."""
        if text not in self.notes:
            self.notes.append(text)

    def get(self, keyword: str) -> Any:
        """The value, or None where it is absent, empty or damaged."""
        try:
            with silence_decoders():
                value = self.dataset.get(keyword)
        except Exception:  # noqa: BLE001 - pydicom raises anything
            self.note(f"the damaged DICOM element {keyword} is ignored")
            return None
        return None if hasattr(value, "__len__") and len(value) == 0 else value

    def items(self, keyword: str) -> list[Tags]:
        """The items of a sequence."""
        try:
            items = list(self.get(keyword) or ())
        except TypeError:
            self.note(f"the damaged DICOM element {keyword} is ignored")
            return []
        return [Tags(item, self.path, little=self.little, notes=self.notes) for item in items]

    def number(self, keyword: str) -> float | None:
        """The first value as a number, or None where it is absent or none."""
        value = self.get(keyword)
        if value is None:
            return None
        first = value if isinstance(value, str | bytes | int | float) else _first(value)
        try:  # some writers put a decimal comma
            number = float(first.replace(",", ".") if isinstance(first, str) else first)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        self.note(f"the DICOM element {keyword} is not a number and is ignored")
        return None

    def integer(self, keyword: str, default: int | None = None) -> int:
        """The first value as a whole number; required where there is no default."""
        number = self.number(keyword)
        if number is not None:
            return int(number)
        if default is None:
            what = "damaged" if keyword in self.dataset and self.notes else "missing"
            raise ImageReadError(self.path, f"the DICOM element {keyword} is {what}")
        return default

    def text(self, keyword: str) -> str:
        """The first value as upper-case text, empty where it is absent or damaged."""
        value = self.get(keyword)
        if value is None:
            return ""
        return str(value if isinstance(value, str) else _first(value)).strip(" \0").upper()


def _first(value: Any) -> Any:
    try:
        return value[0]
    except TypeError:  # one value is not a list
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the Image Pixel module says (PS3.3 section C.7.6.3)."""

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
    aspect: float

    @property
    def low(self) -> int:
        """Smallest value that the stored bits can hold."""
        return -(1 << (self.stored - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest value that the stored bits can hold."""
        return (1 << (self.stored - self.signed)) - 1


def read_header(tags: Tags) -> Header:
    """Read the module; what other readers take as given is defaulted with a note.

    Raises:
        ImageReadError: If a required element is missing or impossible.
    """
    allocated = tags.integer("BitsAllocated")
    stored, high_bit = _depth(tags, allocated)
    samples = tags.integer("SamplesPerPixel", 1)
    spacing = _spacing(tags)
    aspect = aspect_of(*spacing) if spacing else _pixel_aspect(tags)
    if aspect != 1:
        tags.note(f"its pixels are not square but {aspect:.3g} times as high as wide")
    return Header(
        rows=tags.integer("Rows"),
        columns=tags.integer("Columns"),
        allocated=allocated,
        stored=stored,
        high_bit=high_bit,
        signed=_defaulted(tags, "PixelRepresentation", 0) == 1,
        photometric=_photometric(tags, samples),
        samples=samples,
        frames=max(1, tags.integer("NumberOfFrames", 1)),
        spacing=spacing,
        aspect=aspect,
    )


def _depth(tags: Tags, allocated: int) -> tuple[int, int]:
    """Bits Stored and High Bit."""
    high_bit = tags.integer("HighBit", -1)
    stored = _defaulted(tags, "BitsStored", high_bit + 1 if high_bit > 0 else allocated)
    if not 1 <= stored <= allocated:
        reason = f"declares {stored} bits stored in {allocated} bits allocated"
        raise ImageReadError(tags.path, reason)
    if high_bit >= 0 and not stored - 1 <= high_bit < allocated:
        tags.note(f"High Bit {high_bit} is ignored: {stored} of {allocated} bits are stored")
        high_bit = -1
    return stored, high_bit if high_bit >= 0 else stored - 1


def _defaulted(tags: Tags, keyword: str, default: int) -> int:
    number = tags.number(keyword)
    if number is None:
        tags.note(f"the DICOM element {keyword} is missing, {default} is assumed")
    return default if number is None else int(number)


def _photometric(tags: Tags, samples: int) -> str:
    text = tags.text("PhotometricInterpretation")
    if not text and samples == 1:
        keyword, default = "PhotometricInterpretation", "MONOCHROME2"
        tags.note(f"the DICOM element {keyword} is missing, {default} is assumed")
        return default
    return text if text in _MONOCHROME + _COLOUR else "unknown"


def check_grey(header: Header, tags: Tags) -> None:
    """Refuse what is valid but not one grey image of whole numbers."""
    if "FloatPixelData" in tags.dataset or "DoubleFloatPixelData" in tags.dataset:
        raise UnsupportedImageError(tags.path, "a DICOM file of floating point pixels")
    if header.samples != 1 or header.photometric not in _MONOCHROME:
        samples = counted(header.samples, "sample")
        reason = f"a colour DICOM file ({header.photometric}, {samples} per pixel)"
        raise UnsupportedImageError(tags.path, reason, "a radiograph is MONOCHROME1 or MONOCHROME2")
    if header.allocated == 1:
        raise UnsupportedImageError(tags.path, "a DICOM file of one bit per pixel, a segmentation")
    if header.allocated not in (8, 16, 32):
        reason = f"a DICOM file of {header.allocated} bits allocated"
        raise UnsupportedImageError(tags.path, reason, "8, 16 and 32 are read")


def _spacing(tags: Tags) -> tuple[float, float] | None:
    """Pixel Spacing, else Imager Pixel Spacing; a damaged one does not spoil the image."""
    least, most = _PLAUSIBLE_SPACING
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        values = _pair(tags, keyword)
        if values and all(least <= value <= most for value in values):
            return values
    return None


def _pixel_aspect(tags: Tags) -> float:
    """Pixel Aspect Ratio (C.7.6.3.1.7), vertical over horizontal; 1 where there is none."""
    return aspect_of(*(_pair(tags, "PixelAspectRatio") or (1.0, 1.0)))


def _pair(tags: Tags, keyword: str) -> tuple[float, float] | None:
    try:
        first, second = (float(value) for value in tags.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return first, second


_DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_PREAMBLE = 132
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_PIXELS = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)  # float, double float and whole numbers
_DELIMITER = b"\xfe\xff\xdd\xe0\0\0\0\0"
_UID = re.compile(r"[0-9.]{1,64}")
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
    "PixelAspectRatio",
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
) -> tuple[Tags, str]:
    """Parse a DICOM file or a bare dataset.

    The pixel data is read in any case where there is no meta information, for then it tells the
    transfer syntax.

    Returns:
        The dataset, and its transfer syntax UID as declared; where the file has no meta
        information (PS3.10 section 7.1) that of its elements, or none for encapsulated pixels.
    """
    declared, start = _file_meta(data)
    if declared == _DEFLATED:
        data = _inflate(data, start, path, limits)
    notes: list[str] = []
    pixels = pixels or not declared
    dataset = _parse(data, path, pixels=pixels)
    if pixels and "PixelData" not in dataset and _lacks_delimiter(data):
        ended = _parse(data + _DELIMITER, path, pixels=True)
        if "PixelData" in ended:
            dataset = ended
            notes.append("the end of the DICOM pixel data is not marked")
    implicit, little = dataset.original_encoding
    tags = Tags(dataset, path, little=little is not False, notes=notes)
    if "Rows" not in dataset and "PixelData" not in dataset:
        _explain_no_picture(tags, data)
    if not declared and not pixel_element(tags)[2]:
        declared = _IMPLICIT_LITTLE if implicit else _EXPLICIT_LITTLE if little else _EXPLICIT_BIG
    return tags, declared


def _parse(data: bytes, path: str, *, pixels: bool) -> Dataset:
    """The elements that are read here, up to the pixel data; what follows is of no use.

    The pixel data is told by its tag alone: some files have elements of higher groups before it.
    """
    passed = False

    def is_behind(tag: int, *_: object) -> bool:
        nonlocal passed
        if passed:
            return True
        passed = tag in _PIXELS
        return passed and not pixels

    stream = _Counted(data)
    try:
        with third_party_decoder(path, "the DICOM dataset is damaged or truncated"):
            dataset = read_partial(stream, stop_when=is_behind, force=True, specific_tags=_TAGS)
            _count_unparsed(dataset, stream)
    finally:  # pydicom calls the end of the bytes by other names
        stream.check(path)
    return dataset


def _lacks_delimiter(data: bytes) -> bool:
    """Whether the file ends within items, as those of encapsulated pixel data."""
    return _ITEM_TAGS[0] in data and not data.rstrip(b"\0").endswith(_DELIMITER.rstrip(b"\0"))


def pixel_element(tags: Tags) -> tuple[bytes, str, bool]:
    """The pixel data as stored, its value representation, and whether it is encapsulated."""
    if _PIXEL_DATA not in tags.dataset:
        return b"", "OW", False
    with third_party_decoder(tags.path, "the DICOM pixel data element is damaged"):
        element: Any = tags.dataset.get_item(_PIXEL_DATA)
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
            text = data[position : position + length].decode("ascii", "replace").strip("\0 ")
            syntax = text if _UID.fullmatch(text) else ""
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


def _explain_no_picture(tags: Tags, data: bytes) -> None:
    sop = str(tags.get("SOPClassUID") or "")
    if sop:
        name = UID(sop).name  # itself where it is unknown
        name = "of an unknown class" if name == sop else name
        raise ImageReadError(tags.path, f"a DICOM file without a picture ({name})")
    what = "a truncated or damaged DICOM file" if data[128:132] == b"DICM" else "not a DICOM file"
    raise ImageReadError(tags.path, f"{what}: it holds no picture")
