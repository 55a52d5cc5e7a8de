"""What every format shares: limits, options, rasters, and guards around third-party decoders."""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import tempfile
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Below this many decoded bytes an extreme compression ratio does no harm: a blank image is small.
_HARMLESS_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a file may declare before it is refused; read from headers, never by decoding.

    The defaults let every radiograph through: the largest detectors have about 25 million pixels.

    Args:
        pixels: Most pixels (rows times columns) of one frame.
        file_bytes: Most bytes of the file; also of a deflated DICOM dataset once inflated.
        expansion: Most decoded bytes for each byte of the file, for images above 64 MiB decoded.
        frames: Most frames or pages.
        decoded_bytes: Most bytes that one frame takes while it is decoded, all channels together;
            reading takes about twice that. An uncompressed image may have as many as its file.

    Raises:
        ValueError: If a limit is not a positive whole number.

    Example:
        >>> Limits(pixels=4096 * 4096).pixels
        16777216
    """

    pixels: int = 100_000_000
    file_bytes: int = 2**30
    expansion: int = 2_000
    frames: int = 10_000
    decoded_bytes: int = 2**28

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                msg = f"{field.name} must be a positive whole number, got {value!r}"
                raise ValueError(msg)

    def check_bytes(self, path: str, size: int) -> None:
        """Refuse a file of ``size`` bytes that is empty or above the limit."""
        if size == 0:
            raise ImageReadError(path, "the file is empty")
        if size > self.file_bytes:
            reason = f"{size:,} bytes, above the limit of {self.file_bytes:,}"
            raise ImageTooLargeError(path, reason, _advice("file_bytes"))

    def check_picture(
        self, path: str, height: int, width: int, *, bits: int, stored: int, frames: int = 1
    ) -> None:
        """Refuse a declared image that is empty or above a limit.

        Args:
            path: For the error.
            height: Declared rows.
            width: Declared columns.
            bits: Bits per pixel while it is decoded, all channels together.
            stored: Bytes of the file.
            frames: Declared frames or pages.
        """
        size = f"{width:,} x {height:,} pixels"
        if height < 1 or width < 1:
            raise ImageReadError(path, f"declares an empty picture of {size}")
        if height * width > self.pixels:
            reason = f"declares {size}, above the limit of {self.pixels:,}"
            raise ImageTooLargeError(path, reason, _advice("pixels", " (--max-pixels)"))
        if frames > self.frames:
            reason = f"declares {frames:,} frames, above the limit of {self.frames:,}"
            raise ImageTooLargeError(path, reason, _advice("frames"))
        decoded = math.ceil(height * width * bits / 8)
        if decoded > max(self.decoded_bytes, stored):
            reason = f"declares {size}, {decoded:,} bytes decoded, above {self.decoded_bytes:,}"
            raise ImageTooLargeError(path, reason, _advice("decoded_bytes"))
        if decoded > _HARMLESS_BYTES and decoded > self.expansion * stored:
            reason = f"declares {size} in {stored:,} bytes, {decoded // stored:,} decoded for each"
            raise ImageTooLargeError(path, reason, "the file is truncated or hostile")


def _advice(limit: str, option: str = "") -> str:
    return f"pass limits=Limits({limit}=...){option} if the file is trusted"


DEFAULT_LIMITS = Limits()
"""What an image may ask for where nobody says otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """The keyword arguments of `read_raster`, which documents them."""

    frame: int | None = None
    voi: bool = False
    fix_monochrome: bool = True
    limits: Limits = DEFAULT_LIMITS
    least_side: int | None = None

    def check_frame(self, path: str, frames: int) -> int:
        """The frame to decode, counted from 0.

        Raises:
            UnsupportedImageError: If there are several and none is named.
            ImageReadError: If the one that is named does not exist.
        """
        if self.frame is None:
            if frames > 1:
                reason = f"holds {frames} frames"
                raise UnsupportedImageError(
                    path, reason, "name one: frame=0 (--frame 0) is the first"
                )
            return 0
        if not 0 <= self.frame < frames:
            reason = f"frame {self.frame} was asked for; it has {frames}, counted from 0"
            raise ImageReadError(path, reason)
        return self.frame


_LITTLE = 0.1  # share of the range of grey
_SQUARE = 1e-3  # sides of a pixel that differ by less are equal
_LONGEST = 10.0  # no detector or scanner has longer pixels
_BLOCK_PIXELS = 1 << 17  # 512 KiB of float32: the passes over a block stay in the second cache


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageInfo:
    """What the header of a file says.

    Args:
        format: ``"png"``, ``"jpeg"``, ``"jpeg2000"``, ``"tiff"``, ``"dicom"``, ``"bmp"`` or
            ``"webp"``.
        height: Rows of the image, upright; `Raster.reduction` tells where fewer are returned.
        width: Columns of the image, upright.
        bits: Bits of a sample (DICOM: Bits Stored), as declared unless a note says otherwise.
        photometric: ``"MONOCHROME1"`` (white is zero), ``"MONOCHROME2"`` (black is zero),
            ``"RGB"``, ``"PALETTE COLOR"`` or ``"CMYK"``; for DICOM the value in the file, or
            ``"unknown"`` where the standard has no such value.
        channels: Samples per pixel, alpha included.
        signed: Whether samples are two's complement.
        frames: Frames or pages.
        orientation: TIFF or Exif orientation, 1 to 8; already applied to the pixels.
        transfer_syntax: DICOM transfer syntax UID, guessed where the file lacks it; else None.
        pixel_spacing: Millimetres between rows and between columns, or None. DICOM: Pixel
            Spacing, else Imager Pixel Spacing (in the plane of the detector).
        aspect: Height of a pixel over its width: 1 where pixels are square. DICOM: from the
            spacing, else Pixel Aspect Ratio; others: from their resolution.
        notes: What the file says that was not followed, one clause each: elements that were
            ignored or defaulted, and headers that the pixels contradict.
    """

    format: str
    height: int
    width: int
    bits: int
    photometric: str
    channels: int = 1
    signed: bool = False
    frames: int = 1
    orientation: int = 1
    transfer_syntax: str | None = None
    pixel_spacing: tuple[float, float] | None = None
    aspect: float = 1.0
    notes: tuple[str, ...] = ()


# A reduced image keeps this many times the pixels that a network sees, on its shorter side.
_REDUCED_SIDE = 2
_MOST_HALVINGS = 3  # a JPEG can be decoded at an eighth at least


def halvings(height: int, width: int, least_side: int | None, aspect: float = 1.0) -> int:
    """How often a decoder may halve an image that becomes a square of `least_side` pixels.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        least_side: Side in pixels of the square; None for an image that is to stay whole.
        aspect: Height of a pixel over its width.

    Returns:
        0 to 3: the square in the middle keeps at least twice `least_side` pixels a side.

    Example:
        >>> halvings(3000, 2500, 224), halvings(3000, 2500, 512), halvings(800, 800, 512)
        (2, 1, 0)
    """
    if least_side is None:
        return 0
    shorter = min(height, width, height * aspect, width / aspect)
    times = 0
    while times < _MOST_HALVINGS and shorter / 2 ** (times + 1) >= _REDUCED_SIDE * least_side:
        times += 1
    return times


@dataclass(frozen=True, kw_only=True, slots=True)
class Reduction:
    """Where the pixels of a reduced image lie in the image of the file.

    Its pixel in row `i` stands for the rows from ``top + i * factor`` to ``top + (i + 1) *
    factor`` of the file, and so in columns; they may reach over the border.

    Args:
        height: Rows of the image in the file, upright.
        width: Columns of the image in the file, upright.
        factor: Rows, and columns, of the file for one of the reduced image; a power of two.
        top: Upper edge of the first reduced row, in rows of the file.
        left: Left edge of the first reduced column, in columns of the file.
        blur: Variance of the decoder's low-pass filter along an axis, in squared pixels of the
            file; negative for one that makes edges steeper.
    """

    height: int
    width: int
    factor: int
    top: float
    left: float
    blur: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Raster:
    """Pixels as stored, with the line that takes them to [-1024, 1024].

    ``value = pixels * scale + offset``; `scale` is negative where the file stores white as its
    smallest value. A colour file whose channels differ holds their sum, so that the mean is exact.

    Args:
        pixels: Shape (H, W), the dtype of the file where possible; read-only or not.
        scale: Grey units a stored unit.
        offset: Grey value of a stored zero.
        info: What the header says.
        reduction: How a smaller image than that of the file was decoded; None for all of it.

    Example:
        >>> info = ImageInfo(format="png", height=1, width=3, bits=8, photometric="MONOCHROME2")
        >>> pixels = np.array([[0, 51, 255]], dtype=np.uint8)
        >>> Raster(pixels=pixels, scale=2048 / 255, offset=-1024.0, info=info).to_array()
        array([[[-1024. ,  -614.4,  1024. ]]], dtype=float32)
    """

    pixels: NDArray[Any]
    scale: float
    offset: float
    info: ImageInfo
    reduction: Reduction | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.pixels.shape
        return height, width

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of `info`, and one more where the image uses little of its range.

        Such an image comes out almost black, white or grey; its declared depth is mostly wrong.
        """
        used = float(self.pixels.max()) - float(self.pixels.min())
        share = used * abs(self.scale) / 2048
        if 0 < share < _LITTLE:
            return (*self.info.notes, f"uses only {share:.1%} of its declared range of grey")
        return self.info.notes

    def to_array(self) -> NDArray[np.float32]:
        """The image for a model.

        The arithmetic is that of `normalize`, step by step in float32, so that the values equal
        to the last bit those of TorchXRayVision 1.5.7 for pixels of up to 16 bits.

        Returns:
            float32, shape (1, H, W), values in [-1024, 1024].
        """
        exact = self.pixels.dtype.itemsize <= 2 or self.pixels.dtype == np.float32
        work = np.float32 if exact else np.float64
        span = work(2048.0 / abs(self.scale))
        black = work((-1024.0 - self.offset) / self.scale)
        out = np.empty((1, *self.pixels.shape), np.float32)
        rows = max(1, _BLOCK_PIXELS // max(1, self.pixels.shape[1]))
        for start in range(0, self.pixels.shape[0], rows):
            source = self.pixels[start : start + rows]
            block = out[0, start : start + rows] if work is np.float32 else np.empty(source.shape)
            if self.scale < 0:
                np.subtract(black, source, out=block)
            elif black:
                np.subtract(source, black, out=block)
            else:
                block[...] = source
            block /= span
            block *= 2
            block -= 1
            block *= 1024
            if work is np.float64:
                out[0, start : start + rows] = block
        return out


def aspect_of(vertical: float, horizontal: float) -> float:
    """Height of a pixel over its width, 1 where a header cannot mean what it says.

    Args:
        vertical: Distance between rows, in any unit.
        horizontal: Distance between columns, in the same unit.

    Example:
        >>> aspect_of(0.3, 0.15), aspect_of(0.1, 0.0), aspect_of(0.14, 0.14001)
        (2.0, 1.0, 1.0)
    """
    if not (vertical > 0 and horizontal > 0):
        return 1.0
    aspect = vertical / horizontal
    square = abs(aspect - 1) < _SQUARE
    return 1.0 if square or not 1 / _LONGEST <= aspect <= _LONGEST else aspect


def linear_scale(low: float, high: float, *, white_is_low: bool = False) -> tuple[float, float]:
    """Scale and offset that take [low, high] to [-1024, 1024], or to [1024, -1024].

    Example:
        >>> linear_scale(0, 2048)
        (1.0, -1024.0)
        >>> linear_scale(-2048, 2047, white_is_low=True)[0] < 0
        True
    """
    scale = 2048.0 / (high - low)
    if white_is_low:
        return -scale, 1024.0 + low * scale
    return scale, -1024.0 - low * scale


_NOISY = (
    r"(PIL|pydicom|highdicom|openjpeg|pylibjpeg|jpeg_ls|gdcm|"
    r"torchxrayvision\.(images|results))(\.|$)"
)
_lock = threading.Lock()
_depth = 0
_filtered: list[Any] = []  # the list of filters that was in force when ours was added


def _enter() -> None:
    global _depth, _filtered
    with _lock:
        if _depth == 0:
            warnings.filterwarnings("ignore", module=_NOISY)
            _filtered = cast("list[Any]", warnings.filters)
        _depth += 1


def _leave() -> None:
    global _depth, _filtered
    with _lock:
        _depth -= 1
        if _depth == 0:
            # Ours alone goes: what others added meanwhile stays, such as the filter that
            # requests, which pydicom imports, puts before its own imports. Where another thread
            # is inside catch_warnings, its copy and the list that it will restore both hold ours.
            for filters in (_filtered, cast("list[Any]", warnings.filters)):
                filters[:] = [one for one in filters if not _is_ours(one)]
            _filtered = []


def _is_ours(one: Any) -> bool:
    return getattr(one[3], "pattern", None) == _NOISY


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Drop the warnings that image libraries give about a file; ours and everyone else's stay.

    ``warnings.catch_warnings`` is not safe in threads: two that overlap may leave the filter
    behind, and leaving it undoes what other threads filter. So the first reader to enter adds one
    filter, and the last one to leave removes that one.
    """
    if getattr(sys.flags, "context_aware_warnings", False):  # Python 3.14: local to the thread
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=_NOISY)
            yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


# How lines of libjpeg (in GDCM), libtiff and OpenJPEG begin.
_PRINTED = re.compile(
    r"(Corrupt JPEG|Premature end|Unsupported|Unexpected|Unknown|Invalid|Inconsistent|Bogus|Bad"
    r"|A marker|Sot|Warning"
    r"|Error|Fail|Marker|Stream|Tile|Psot|Cannot|Not enough|Integer|Size|Wrong|[Rr]equired|read: "
    r"|tempfile\.tif|\w*(?:TIFF|Decode|Setup|Fax|Strip)\w*:)[^\n]*"
)
_log = logging.getLogger(__name__)
_printed: list[int] = []  # the real standard error, and the file that takes its place
_printing = 0


@contextmanager
def catch_prints(path: str) -> Iterator[list[str]]:
    """Keep what C libraries print from standard error; it goes to the log, with its file.

    Lines of others, who may write meanwhile from other threads, are passed on.

    Yields:
        A list that holds the lines at the end.
    """
    global _printing
    lines: list[str] = []
    with _lock:
        if _printing == 0:
            try:
                with tempfile.TemporaryFile() as file:
                    _printed[:] = [os.dup(2), os.dup(file.fileno())]
            except OSError:  # standard error is closed: nothing can be printed
                _printed[:] = []
            else:
                os.dup2(_printed[1], 2)
        _printing += 1
        start = os.lseek(_printed[1], 0, os.SEEK_END) if _printed else 0
    try:
        yield lines
    finally:
        with _lock:
            _printing -= 1
            if _printed:
                lines += _end_of_prints(start)
        for line in lines:
            _log.debug("%s: %s", path, line)


def _end_of_prints(start: int) -> list[str]:
    """The lines of decoders from a place on; the last one to ask gives standard error back."""
    original, file = _printed
    size = os.lseek(file, 0, os.SEEK_END)
    os.lseek(file, start, os.SEEK_SET)
    found = os.read(file, size - start).decode("utf-8", "replace").splitlines()
    if _printing == 0:
        os.dup2(original, 2)
        os.lseek(file, 0, os.SEEK_SET)
        whole = os.read(file, size).decode("utf-8", "replace")
        others = _PRINTED.sub("", whole).strip("\n")
        if others:
            os.write(2, others.encode() + b"\n")
        os.close(original)
        os.close(file)
    return [line for line in found if _PRINTED.match(line)]


@contextmanager
def third_party_decoder(path: str, reason: str, *, quote: bool = False) -> Iterator[None]:
    """Turn whatever a third-party reader raises on a bad file into an `ImageReadError`.

    Args:
        path: The file, for the error.
        reason: What failed, one clause.
        quote: Whether the library's own words follow it. Only where they cannot repeat what the
            header of the file holds: a name of a patient that damage moved must not go on.

    Nothing may be imported inside: filters that a module installs for itself would be lost.
    """
    with silence_decoders():
        try:
            yield
        except ImageReadError:
            raise
        except MemoryError as error:
            raise ImageReadError(path, "not enough memory to decode it") from error
        except Exception as error:  # the readers raise anything from struct.error to SyntaxError
            if not quote:
                raise ImageReadError(path, reason) from None
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise ImageReadError(path, f"{reason} ({words})") from error
