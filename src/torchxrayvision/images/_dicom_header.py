"""The Image Pixel module of a dataset (PS3.3 section C.7.6.3), checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import ImageReadError, UnsupportedImageError
from torchxrayvision.images._guard import foreign

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Header", "Tags", "check_grey", "read_header"]

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
