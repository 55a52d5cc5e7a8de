"""JPEG 2000 (ITU-T T.800) at a fraction of its resolution, for networks that see no more of it.

Each level of the wavelet transform holds the image at half the resolution of the one before, so
that a reduced image takes a fraction of the code and of the time. pydicom's decoders have no such
option; Pillow's has. Whatever it cannot do is left to them. Files outside DICOM are in `jp2`.
"""

from __future__ import annotations

import io
import logging
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, features

from torchxrayvision.errors import ImageTooLargeError
from torchxrayvision.images.common import Reduction, silence_decoders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from torchxrayvision.images.jpeg import CodeStream

_THREADS: Final = "OPJ_NUM_THREADS"  # what OpenJPEG itself reads, each time it begins an image
MOST_BITS: Final = 16
"""Of a sample, that Pillow keeps."""
_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
_SOC: Final = b"\xff\x4f"
# Variance of the low-pass filters of annex F, in squared samples: the 5-3 filter (-1, 2, 6, 2, -1)
# / 8 and the 9-7 filter of table F.4.
_BLUR_REVERSIBLE: Final = -0.5
_BLUR_IRREVERSIBLE: Final = 0.46035

# Precincts and code blocks, of which OpenJPEG makes objects of 400 bytes before it reads any code.
# An image of 25 million pixels has 8,000 in blocks of 64 x 64, and 130,000 in blocks of 16 x 16.
_MOST_PIECES: Final = 500_000
_HARMLESS_PACKETS: Final = 100_000
_MOST_LEVELS: Final = 32
_CLIPPED: Final = 5e-4  # share of the samples, from which on an image is decoded whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coding:
    """What the main header says of the transform.

    Args:
        levels: Resolutions below that of the image, each half of the one before.
        reversible: Whether the wavelet is the 5-3 of lossless code, else the 9-7.
        signed: Whether samples are two's complement.
    """

    levels: int
    reversible: bool
    signed: bool


def read_coding(data: bytes) -> Coding | None:
    """The transform of a code stream of one component (ITU-T T.800 sections A.5 and A.6).

    Returns:
        None where the image does not begin at the origin of the reference grid, is subsampled, or
        has a coding style of its own for a component: those are decoded whole.

    Raises:
        struct.error: If it ends inside its main header.
        IndexError: If it ends inside its main header.
    """
    signed = False
    if not data.startswith(_SOC):
        return None
    position, found = 2, None
    while True:
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _SIZ:
            origin = struct.unpack_from(">2I", data, position + 14)
            depth, across, down = data[position + 40 : position + 43]
            signed = bool(depth & 0x80)
            if any(origin) or (across, down) != (1, 1):
                return None
        elif marker == _COD:
            found = data[position + 9], data[position + 13] == 1
        elif marker == _COC or length < 2:
            return None
        elif marker == _SOT:
            break
        position += 2 + length
    return found and Coding(levels=found[0], reversible=found[1], signed=signed)


def check_pieces(data: bytes, path: str) -> None:
    """Refuse a code stream that cuts its image into so many pieces that they only keep us busy.

    The header says how many there are: 159 bytes can ask for 2 GB. Each precinct has a packet in
    each layer, which takes at least a byte (ITU-T T.800 sections B.6 to B.10).

    Args:
        data: The code stream.
        path: For the error.

    Raises:
        ImageTooLargeError: If there are too many.
    """
    try:
        pieces, packets = _count_pieces(data)
    except (struct.error, IndexError, ZeroDivisionError):  # the decoder says what is wrong
        return
    if pieces > _MOST_PIECES:
        reason = f"declares a JPEG 2000 image in {pieces:,} pieces, above {_MOST_PIECES:,}"
        raise ImageTooLargeError(path, reason, "write it with larger precincts or code blocks")
    if packets > max(_HARMLESS_PACKETS, len(data)):
        reason = f"declares {packets:,} packets of JPEG 2000 in {len(data):,} bytes"
        raise ImageTooLargeError(path, reason, "the file is truncated or hostile")


def _count_pieces(data: bytes) -> tuple[int, int]:
    """Precincts and code blocks in all, and packets; those of the finest style that is declared."""
    x1, y1, x0, y0, width, height, left, top = struct.unpack_from(">8I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    tiles = -(-(x1 - left) // width) * -(-(y1 - top) // height)
    sides = min(width, x1 - x0), min(height, y1 - y0)
    pieces, packets, layers = 0, 0, 1
    for marker, body in _style_segments(data):
        if marker == _COD:
            layers, style, own = int.from_bytes(body[2:4]), body[0], body[5:]
        else:
            at = 1 if components < 257 else 2
            style, own = body[at], body[at + 1 :]
        precincts, blocks = _pieces_of_tile(*sides, own, own_precincts=bool(style & 1))
        pieces = max(pieces, (precincts + blocks) * tiles * components)
        packets = max(packets, precincts * tiles * components * layers)
    return pieces, packets


def _style_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """COD and COC segments of the main header and of those of tile-parts."""
    position, end = 2, 0
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _SOT:
            end = position + int.from_bytes(data[position + 6 : position + 10])
        elif marker == _SOD:
            if end <= position:  # the last one, or a length that cannot be
                return
            position = end
            continue
        elif marker in (_COD, _COC):
            yield marker, data[position + 4 : position + 2 + length]
        if length < 2:
            return
        position += 2 + length


def _pieces_of_tile(
    width: int, height: int, style: bytes, *, own_precincts: bool
) -> tuple[int, int]:
    """Precincts and code blocks of one component, by SPcod or SPcoc (section A.6.1)."""
    levels, across, down = min(style[0], _MOST_LEVELS), style[1] + 2, style[2] + 2
    precincts, blocks = 0, 0
    for resolution in range(levels + 1):
        size = style[5 + resolution] if own_precincts else 0xFF
        wide, high = size & 15, size >> 4
        columns, rows = (-(-side >> (levels - resolution)) for side in (width, height))
        precincts += -(-columns >> wide) * -(-rows >> high)
        bands, shift = (3, 1) if resolution else (1, 0)
        block = min(across, max(0, wide - shift)), min(down, max(0, high - shift))
        blocks += bands * -(-columns >> (block[0] + shift)) * -(-rows >> (block[1] + shift))
    return precincts, blocks


def decode_reduced(
    data: bytes, stream: CodeStream, times: int, *, signed: bool
) -> tuple[NDArray[Any], Reduction] | None:
    """Decode an image of one component at half its resolution, or half of that, and so on.

    Args:
        data: The code stream.
        stream: Its header.
        times: How often the resolution is halved, 1 or more; less often where it has fewer levels.
        signed: Whether samples are to be two's complement.

    Returns:
        Pixels (H, W) as stored, uint8, int8, uint16 or int16, and where they lie; None where Pillow
        cannot do it or fails, or what the filter gives does not fit the range of the samples, so
        that a decoder of the whole image is to be asked.
    """
    try:
        with silence_decoders():
            return _decode(data, stream, times, signed)
    except Exception as error:  # noqa: BLE001 - damage, which the decoder of the whole image names
        _log.debug("a reduced JPEG 2000 image is decoded whole: %s", error)
        return None


def decode_in_parallel(data: bytes, stream: CodeStream, *, signed: bool) -> NDArray[Any] | None:
    """Decode an image of one component whole, its code blocks on several processors.

    As many as the environment variable ``OPJ_NUM_THREADS`` says. Of the libraries that bring
    OpenJPEG, Pillow's is built with threads and pylibjpeg's is not.

    Args:
        data: The code stream.
        stream: Its header.
        signed: Whether samples are to be two's complement.

    Returns:
        Pixels (H, W) as stored, the same to the bit as those of one thread; None where OpenJPEG may
        use one thread only, and where Pillow cannot do it or fails, so that the decoder for one
        thread is to be asked.
    """
    if not _has_threads():
        return None
    try:
        with silence_decoders():
            coding = read_coding(data)
            if coding is None or coding.signed != signed or stream.precision > MOST_BITS:
                return None
            values = samples(decode_image(data, stream), stream.precision)
            return with_sign(values, stream.precision, signed=signed)
    except Exception as error:  # noqa: BLE001 - damage, which the other decoder names
        _log.debug("a JPEG 2000 image is decoded by one thread: %s", error)
        return None


def _has_threads() -> bool:
    wanted = os.environ.get(_THREADS, "")
    return wanted == "ALL_CPUS" or (wanted.isdecimal() and int(wanted) > 1)


def _decode(
    data: bytes, stream: CodeStream, times: int, signed: bool
) -> tuple[NDArray[Any], Reduction] | None:
    coding = read_coding(data)
    if coding is None or coding.signed != signed or stream.precision > MOST_BITS:
        return None
    times = min(times, coding.levels)
    if times < 1:
        return None
    values = samples(decode_image(data, stream, times), stream.precision)
    if is_clipped(values, stream.precision):
        return None
    where = reduction_of_jpeg2000(stream.height, stream.width, times, coding)
    return with_sign(values, stream.precision, signed=signed), where


def reduction_of_jpeg2000(
    height: int, width: int, times: int, coding: Coding, orientation: int = 1
) -> Reduction:
    """Where the samples lie that `decode_image` gives of an image that it has halved.

    A sample lies on the first of the pixels that it takes the place of.

    Args:
        height: Rows of the image, upright.
        width: Columns of the image, upright.
        times: How often it was halved, 1 or more.
        coding: Its transform.
        orientation: By which the samples were turned.
    """
    factor = 1 << times
    first = (1 - factor) / 2
    top, left = (n - -(-n // factor) * factor - first for n in (height, width))  # where mirrored
    blur = _BLUR_REVERSIBLE if coding.reversible else _BLUR_IRREVERSIBLE
    return Reduction(
        height=height,
        width=width,
        factor=factor,
        top=top if orientation in (3, 4, 7, 8) else first,
        left=left if orientation in (2, 3, 6, 7) else first,
        blur=blur * (factor**2 - 1) / 3,
    )


def can_decode() -> bool:
    """Whether Pillow was built with OpenJPEG, as its wheels are."""
    return bool(features.check_codec("jpg_2000"))


def decode_image(data: bytes, stream: CodeStream, times: int = 0) -> Image.Image:
    """Decode a code stream of up to four components with Pillow.

    Args:
        data: The code stream.
        stream: Its header; samples of more than 8 bits keep them only where there is one component.
        times: How often the sides are halved; no more than `Coding.levels`.

    Returns:
        An image of mode L, I;16, LA, RGB or RGBA. Samples are unsigned, and fill their 8 or 16 bits
        from the top.

    Raises:
        Exception: Of any type, for damage. Also where Pillow was told to go on without the rest
            (`ImageFile.LOAD_TRUNCATED_IMAGES`), as its function for loading is not asked.
    """
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[stream.components]
    if mode == "L" and stream.precision > 8:
        mode = "I;16"
    image = Image.new(mode, (-(-stream.width >> times), -(-stream.height >> times)))
    file = io.BytesIO(data)
    args = ("j2k", times, 0, -1, len(data))  # all layers; no file of the operating system
    decoder: Any = Image._getdecoder(mode, "jpeg2k", args)
    try:
        decoder.setimage(image.im, (0, 0, *image.size))
        decoder.setfd(file)
        _, status = decoder.decode(b"")
    finally:
        decoder.cleanup()
    if status < 0:
        msg = f"OpenJPEG gives up, status {status}"
        raise OSError(msg)
    return image


def samples(image: Image.Image, precision: int) -> NDArray[Any]:
    """The samples (H, W) of an image of one channel from `decode_image`, from 0 on."""
    pixels = np.asarray(image)
    values: NDArray[Any] = pixels.view(f"u{pixels.itemsize}")
    return values >> (8 * pixels.itemsize - precision)


def with_sign(values: NDArray[Any], precision: int, *, signed: bool) -> NDArray[Any]:
    """Samples as stored, of those that begin at 0."""
    if not signed:
        return values
    half = values.dtype.type(1 << (precision - 1))
    found: NDArray[Any] = (values - half).view(f"i{values.itemsize}")
    return found


def is_clipped(values: NDArray[Any], precision: int) -> bool:
    """Whether a part of the image was lost at the ends of the range of its samples.

    The low-pass filters overshoot at a sharp edge by an eighth of it. Beside white letters or
    black shutters that are at the end of the range the decoder cuts that off, which moves the mean
    over the edge: by so much that a network may see it where there are many such edges.
    """
    top = (1 << precision) - 1
    ends = (values == 0) | (values == top)
    least = _CLIPPED * values.size
    if np.count_nonzero(ends) <= least:
        return False
    beside = np.zeros(values.shape, bool)
    for axis in range(2):
        first, second = np.moveaxis(values, axis, 0)[:-1], np.moveaxis(values, axis, 0)[1:]
        steep = np.maximum(first, second) - np.minimum(first, second) > top // 8
        marked = np.moveaxis(beside, axis, 0)
        marked[:-1] |= steep
        marked[1:] |= steep
    return bool(np.count_nonzero(ends & beside) > least)
