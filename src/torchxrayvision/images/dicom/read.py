"""DICOM files to rasters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.images.common import ImageInfo, Raster, halvings, linear_scale
from torchxrayvision.images.dicom.dataset import check_grey, open_dataset, read_header
from torchxrayvision.images.dicom.pixels import stored_values, syntax_of_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from torchxrayvision.images.common import Limits, ReadOptions
    from torchxrayvision.images.dicom.dataset import Header, Tags

_TABLE_BITS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lut:
    first: int
    bits: int
    entries: NDArray[np.uint16]

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Entries for values; those beyond either end map to the end (C.11.1.1, C.11.2.1.1)."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        found: NDArray[np.uint16] = self.entries[index.astype(np.intp)]
        return found

    @property
    def high(self) -> int:
        return (1 << self.bits) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Window:
    centre: float
    width: float
    function: str

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Fractions of the output range, in [0, 1] (C.11.2.1.2 and C.11.2.1.3)."""
        values = values.astype(np.float64)
        if self.function == "SIGMOID":
            exponent = np.clip(-4 * (values - self.centre) / self.width, -700, 700)
            return 1 / (1 + np.exp(exponent))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.centre) / self.width + 0.5, 0, 1)
        if self.width == 1:  # the ramp has no length: a threshold
            return (values > self.centre - 0.5).astype(np.float64)
        ramp = (values - (self.centre - 0.5)) / (self.width - 1) + 0.5
        return np.clip(ramp, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Transform:
    """What the dataset asks to do to stored values, and the range that comes out.

    A linear rescale alone is no step: it moves values and range alike, and only the sign of the
    slope is left of it.

    Args:
        header: The Image Pixel module.
        slope: Rescale Slope.
        intercept: Rescale Intercept.
        modality: Modality LUT, which takes the place of the rescale.
        voi: VOI LUT or window, where one was asked for.
    """

    header: Header
    slope: float = 1.0
    intercept: float = 0.0
    modality: _Lut | None = None
    voi: _Lut | _Window | None = None

    @property
    def plain(self) -> bool:
        """Whether stored values are grey values already, up to their direction."""
        return self.modality is None and self.voi is None

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest value that can come out."""
        if isinstance(self.voi, _Lut):
            return 0, self.voi.high
        if self.voi is not None:  # any range would do; this one is 1.5.7's, to the last bit
            return 0, (1 << self.header.stored) - 1
        if self.modality is not None:
            return 0, self.modality.high
        return self.header.low, self.header.high

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Grey values, uint16 or float32, through a table where the depth allows."""
        header = self.header
        if header.stored > _TABLE_BITS:
            return self._apply(pixels)
        table = self._apply(np.arange(header.low, header.high + 1))
        return table[pixels.astype(np.int32) - header.low]

    def _apply(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.modality is not None:
            values = self.modality(values)
        elif self.voi is not None:
            values = values * self.slope + self.intercept
        if self.voi is None:
            return values
        if isinstance(self.voi, _Lut):
            return self.voi(values)
        return (self.voi(values) * self.range[1]).astype(np.float32)


def read_transform(tags: Tags, header: Header, frame: int, *, voi: bool) -> Transform:
    """Read the modality and, where asked for, the VOI transformation of one frame."""
    modality = None
    for item in tags.items("ModalityLUTSequence")[:1]:
        modality = _read_lut(item, stored=header.stored, signed_input=header.signed)
    slope, intercept = 1.0, 0.0
    for place in () if modality else _places(tags, frame, "PixelValueTransformationSequence"):
        found = place.number("RescaleSlope")
        if found == 0:
            tags.note("Rescale Slope 0 is ignored")
        elif found is not None:
            slope, intercept = found, place.number("RescaleIntercept") or 0.0
            break
    signed = modality is None and (header.signed or intercept < 0)
    return Transform(
        header=header,
        slope=slope,
        intercept=intercept,
        modality=modality,
        voi=_read_voi(tags, frame, stored=header.stored, signed=signed) if voi else None,
    )


def padding_range(tags: Tags, header: Header) -> tuple[int, int] | None:
    """Stored values that are padding, both ends included (C.7.5.1.1.2), or None."""
    first = tags.number("PixelPaddingValue")
    if first is None:
        return None
    last = tags.number("PixelPaddingRangeLimit")
    ends = [_as_stored(int(end), header) for end in (first, first if last is None else last)]
    return min(ends), max(ends)


def _as_stored(value: int, header: Header) -> int:
    """A padding value that was written with the other signedness, put right."""
    if header.signed and value > header.high:
        return value - (1 << header.allocated)
    if not header.signed and value < 0:
        return value + (1 << header.allocated)
    return value


def _places(tags: Tags, frame: int, group: str) -> Iterator[Tags]:
    """Where an attribute may stand: per frame, shared, or at the top (C.7.6.16)."""
    frames = tags.items("PerFrameFunctionalGroupsSequence")
    for holder in [*frames[frame : frame + 1], *tags.items("SharedFunctionalGroupsSequence")[:1]]:
        yield from holder.items(group)[:1]
    yield tags


def _read_voi(tags: Tags, frame: int, *, stored: int, signed: bool) -> _Lut | _Window | None:
    for place in _places(tags, frame, "FrameVOILUTSequence"):
        for item in place.items("VOILUTSequence")[:1]:
            lut = _read_lut(item, stored=stored, signed_input=signed)
            if lut is not None:
                return lut
        centre, width = place.number("WindowCenter"), place.number("WindowWidth")
        if centre is not None and width is not None:
            return _window(place, centre, width)
    return None


def _window(place: Tags, centre: float, width: float) -> _Window | None:
    function = place.text("VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        place.note("a VOI LUT Function that is not defined is taken for LINEAR")
        function = "LINEAR"
    if width < 1 if function == "LINEAR" else width <= 0:
        place.note(f"Window Width {width:g} is not allowed, the window is ignored")
        return None
    return _Window(centre=centre, width=width, function=function)


def _read_lut(item: Tags, *, stored: int, signed_input: bool) -> _Lut | None:
    """One item of a LUT sequence: number of entries (0 is 65536), first value, bits (C.11.1.1).

    Writers put 16 into the descriptor whatever the entries are, so that a table of 10 bits would
    come out black. A 16 over entries that all fit into Bits Stored is therefore read as that. A
    table that cannot be read is ignored, as it only adjusts the image.
    """
    try:
        count, first, bits = (int(value) for value in item.get("LUTDescriptor") or ())
    except (TypeError, ValueError):
        item.note("a LUT without a valid LUT Descriptor is ignored")
        return None
    count = (count & 0xFFFF) or 65536
    if signed_input and first > 0x7FFF:  # a negative number that was written as unsigned
        first -= 0x10000
    entries = _entries(item, count)
    if not len(entries):
        item.note("a LUT without LUT Data is ignored")
        return None
    if len(entries) < count:  # values behind the end of a table map to its last entry
        item.note(f"a LUT has {len(entries)} entries, {count} are declared")
    needed = max(1, int(entries.max()).bit_length())
    if not needed <= bits <= _TABLE_BITS:
        item.note(f"LUT entries need {needed} bits, and the descriptor says {bits}")
        bits = needed
    if bits == _TABLE_BITS and needed <= stored:
        bits = min(bits, stored)
    return _Lut(first=first, bits=bits, entries=entries)


def _entries(item: Tags, count: int) -> NDArray[np.uint16]:
    """Those that are there, at most as many as declared."""
    data = item.get("LUTData")
    try:
        if isinstance(data, bytes):  # VR OW, or eight-bit entries packed two to a word
            word = "<u2" if item.little else ">u2"
            packed = len(data) < 2 * count and len(data) in (count, count + count % 2)
            width = "u1" if packed else word
            entries = np.frombuffer(data, width, min(count, len(data) // np.dtype(width).itemsize))
            return entries.astype(np.uint16)
        values = [] if data is None else np.atleast_1d(np.asarray(data)).tolist()
        return np.array([int(value) & 0xFFFF for value in values[:count]], np.uint16)
    except (TypeError, ValueError):
        return np.zeros(0, np.uint16)


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
    stored, header, syntax, reduction = stored_values(
        tags, declared, declares, frame, options.limits, _halvings(tags, declares, frame, options)
    )
    transform = read_transform(tags, header, frame, voi=options.voi)
    padding = padding_range(tags, header)

    pixels = stored if transform.plain else transform(stored)
    low, high = transform.range
    white_is_low = _white_is_low(transform, options)
    if padding is not None:
        pixels = _blacken_padding(pixels, stored, padding, high if white_is_low else low)
    scale, offset = linear_scale(low, high, white_is_low=white_is_low)
    return Raster(
        pixels=pixels, scale=scale, offset=offset, info=_info(header, syntax, tags),
        reduction=reduction,
    )  # fmt: skip


def _white_is_low(transform: Transform, options: ReadOptions) -> bool:
    """Whether the smallest value that comes out of the transform is shown white."""
    inverted = transform.header.photometric == "MONOCHROME1" and options.fix_monochrome
    falling = transform.plain and transform.slope < 0
    return inverted != falling


def _halvings(tags: Tags, header: Header, frame: int, options: ReadOptions) -> int:
    """How often the sides may be halved; padding may not be mixed with what lies beside it."""
    times = halvings(header.rows, header.columns, options.least_side, header.aspect)
    padding = padding_range(tags, header) if times else None
    if padding is None:
        return times
    transform = read_transform(tags, header, frame, voi=options.voi)
    black = transform.range[_white_is_low(transform, options)]
    return times if transform.plain and padding == (black, black) else 0


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
