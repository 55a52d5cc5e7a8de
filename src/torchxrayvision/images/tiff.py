"""TIFF 6.0 and BigTIFF: grey, palette and RGB of whole-number samples, one page at a time.

Directories, strips and tiles are read here, and every strip or tile has to be all there. Where
bytes are compressed in a way that Python cannot undo, libtiff undoes it through Pillow, and is told
of nothing else: what samples, byte order and photometric interpretation mean is decided here alone.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import TiffImagePlugin

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images.common import (
    ImageInfo,
    Raster,
    aspect_of,
    catch_prints,
    linear_scale,
    third_party_decoder,
)
from torchxrayvision.images.jpeg import decode_jpeg, read_codestream
from torchxrayvision.images.pixels import (
    mean_of_channels,
    mean_of_palette,
    one_bit,
    pixels_of,
    upright,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from torchxrayvision.images.common import Limits, ReadOptions

_MOST_ENTRIES = 4096
_MOST_SEGMENTS = 200_000
# NumPy's type of each TIFF type; rational numbers are two.
_TYPES = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4",
    11: "f4", 12: "f8", 13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
_RATIONAL = (5, 10)


class Tag:
    """Numbers of the tags that are read here."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR = 284
    T4_OPTIONS = 292
    PREDICTOR = 317
    COLOR_MAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory:
    """One image of a file.

    Args:
        order: ``"<"`` or ``">"``.
        values: Tag to its numbers.
    """

    order: str
    values: dict[int, NDArray[Any]]

    def first(self, tag: int, default: int) -> int:
        """The first number of a tag; -1 where it is negative or no whole number."""
        if tag not in self.values:
            return default
        value = float(self.values[tag][0])
        return int(value) if value >= 0 and value.is_integer() else -1

    def ratio(self, tag: int) -> float:
        """The rational number of a tag, or 0."""
        numbers = self.values.get(tag, np.zeros(0)).tolist()
        return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else 0.0


def read_directories(data: bytes, path: str, most: int) -> list[Directory]:
    """Every directory in the chain, reduced-size copies (thumbnails) left out.

    Raises:
        ImageReadError: If one lies outside the file, the chain is a loop or longer than `most`.
    """
    order = "<" if data[:2] == b"II" else ">"
    try:
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        seen: set[int] = set()
        found: list[Directory] = []
        while offset:
            if offset in seen or len(seen) > most:
                raise ImageReadError(path, "the chain of TIFF directories is a loop or too long")
            seen.add(offset)
            directory, offset = _read(data, offset, order, big)
            found.append(directory)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, ImageReadError):
            raise
        raise ImageReadError(path, "truncated: a TIFF directory lies outside the file") from error
    full = [page for page in found if not max(0, page.first(Tag.SUBFILE, 0)) & 1]
    if not full:
        raise ImageReadError(path, "the TIFF holds no picture")
    return full


def _read(data: bytes, offset: int, order: str, big: bool) -> tuple[Directory, int]:
    head, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
    (count,) = struct.unpack_from(order + head, data, offset)
    if count > _MOST_ENTRIES:
        msg = f"{count} entries"
        raise ValueError(msg)
    position = offset + struct.calcsize("<" + head)
    values = {}
    for start in range(position, position + count * entry, entry):
        tag, kind, number = struct.unpack_from(order + "HH" + pointer, data, start)
        place = start + 4 + struct.calcsize("<" + pointer)
        if kind not in _TYPES:
            if tag in vars(Tag).values():
                msg = f"tag {tag} is of type {kind}"
                raise ValueError(msg)
            continue
        dtype = np.dtype(order + _TYPES[kind])
        number *= 1 + (kind in _RATIONAL)
        if number * dtype.itemsize > struct.calcsize("<" + pointer):
            (place,) = struct.unpack_from(order + pointer, data, place)
        if place + number * dtype.itemsize > len(data):
            msg = f"tag {tag} ends past the file"
            raise ValueError(msg)
        if number:
            values[tag] = np.frombuffer(data, dtype, number, place)
    (following,) = struct.unpack_from(order + pointer, data, position + count * entry)
    return Directory(order=order, values=values), following


_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRIC = {
    _WHITE_IS_ZERO: "MONOCHROME1",
    _BLACK_IS_ZERO: "MONOCHROME2",
    _RGB: "RGB",
    _PALETTE: "PALETTE COLOR",
    _CMYK: "CMYK",
    _YCBCR: "RGB",
}
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_NONE, _LZW, _JPEG, _DEFLATE = 1, 5, 7, (8, 32946)
# What libtiff undoes: to the bytes of rows, or only to an image.
_TO_BYTES = {_LZW: "LZW", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
_TO_PICTURE = {2: "CCITT RLE", 3: "CCITT Group 3", 4: "CCITT Group 4", 50001: "WebP"}
_KNOWN = {_NONE, _JPEG, *_DEFLATE, *_TO_BYTES, *_TO_PICTURE}
# 24 is left out: libtiff reads it in the byte order of the file, tifffile big-endian.
_BITS = (1, 2, 4, 8, 10, 12, 14, 16, 32)
_PREDICTED = (8, 16, 32)
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
_AT_ONCE = 1 << 24  # bytes that libtiff unpacks into one image
_UNPACKED = 1 << 20  # bits in the air while samples of odd widths are put together


def tiff_info(data: bytes, path: str, options: ReadOptions) -> ImageInfo:
    """What the directory of the first page, or of the one asked for, says."""
    pages = read_directories(data, path, options.limits.frames)
    number = 0 if options.frame is None else options.check_frame(path, len(pages))
    _check_size(pages[number], path, len(data), options.limits)
    return _info(pages[number], len(pages))


def read_tiff(data: bytes, path: str, options: ReadOptions) -> Raster:
    """One page, scaled by its declared bits a sample; white-is-zero comes out upright in grey."""
    pages = read_directories(data, path, options.limits.frames)
    page = pages[options.check_frame(path, len(pages))]
    _check_size(page, path, len(data), options.limits)
    _check_kind(page, path)
    info = _info(page, len(pages))
    samples = _decode(page, data, path, info)
    if info.photometric == "RGB":
        pixels, high = mean_of_channels(samples, (1 << info.bits) - 1)
        low = 0
    elif info.photometric == "PALETTE COLOR":
        pixels, high = mean_of_palette(samples[:, :, 0], _palette(page, info.bits))
        low = 0
    else:
        pixels = _signed(samples[:, :, 0], info.bits) if info.signed else samples[:, :, 0]
        low = -(1 << (info.bits - 1)) if info.signed else 0
        high = (1 << (info.bits - info.signed)) - 1
    inverted = info.photometric == "MONOCHROME1" and options.fix_monochrome
    scale, offset = linear_scale(low, high, white_is_low=inverted)
    return Raster(pixels=upright(pixels, info.orientation), scale=scale, offset=offset, info=info)


def _info(page: Directory, frames: int) -> ImageInfo:
    orientation = page.first(Tag.ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    height, width = page.first(Tag.HEIGHT, 0), page.first(Tag.WIDTH, 0)
    aspect = aspect_of(page.ratio(Tag.X_RESOLUTION), page.ratio(Tag.Y_RESOLUTION))
    turned = orientation >= 5
    return ImageInfo(
        format="tiff",
        height=width if turned else height,
        width=height if turned else width,
        bits=page.first(Tag.BITS, 1),
        photometric=_PHOTOMETRIC.get(page.first(Tag.PHOTOMETRIC, -1), "unknown"),
        channels=page.first(Tag.SAMPLES, 1),
        signed=page.first(Tag.SAMPLE_FORMAT, _UNSIGNED) == _SIGNED,
        frames=frames,
        orientation=orientation,
        aspect=1 / aspect if turned else aspect,
    )


def _check_size(page: Directory, path: str, stored: int, limits: Limits) -> None:
    if page.first(Tag.SAMPLES, 1) < 1:
        raise ImageReadError(path, "the TIFF declares no samples")
    bits = max(8, page.first(Tag.BITS, 1)) * page.first(Tag.SAMPLES, 1)
    height, width = page.first(Tag.HEIGHT, 0), page.first(Tag.WIDTH, 0)
    limits.check_picture(path, height, width, bits=bits, stored=stored)
    tile = page.first(Tag.TILE_HEIGHT, 1) * page.first(Tag.TILE_WIDTH, 1)
    if tile > limits.pixels:
        raise ImageTooLargeError(path, f"declares tiles of {tile:,} pixels")


def _check_kind(page: Directory, path: str) -> None:
    photometric, bits = page.first(Tag.PHOTOMETRIC, -1), page.first(Tag.BITS, 1)
    samples, form = page.first(Tag.SAMPLES, 1), page.first(Tag.SAMPLE_FORMAT, _UNSIGNED)
    compression, predictor = page.first(Tag.COMPRESSION, _NONE), page.first(Tag.PREDICTOR, 1)
    colour = photometric in (_RGB, _YCBCR)
    if photometric not in _PHOTOMETRIC or photometric == _CMYK:
        what, advice = f"photometric interpretation {photometric}", "convert it to grey"
    elif compression not in _KNOWN:
        what, advice = f"compression {compression}", "save it uncompressed"
    elif form not in (_UNSIGNED, _SIGNED, _VOID):
        floats = "floating point samples, which declare no full scale"
        what = floats if form == _FLOAT else f"sample format {form}"
        advice = "load its array and call normalize(img, maxval)"
    elif bits not in _BITS or bits > (16 if colour else 8 if photometric == _PALETTE else 32):
        what, advice = f"{bits} bits a sample", "convert it to 16 bits"
    elif len({*page.values.get(Tag.BITS, np.ones(1)).tolist()}) > 1:
        what, advice = "channels of different depths", "convert it to grey"
    elif photometric == _YCBCR and compression != _JPEG:
        what, advice = "YCbCr samples outside JPEG", "convert it to grey"
    elif colour and (samples < 3 or form == _SIGNED):
        what, advice = f"{samples} samples of colour, or signed ones", "convert it to grey"
    elif predictor not in (1, 2) or (predictor == 2 and bits not in _PREDICTED):
        what, advice = f"predictor {predictor} for {bits} bits", "save it without a predictor"
    elif compression in (_JPEG, *_TO_PICTURE) and bits != (1 if compression < _LZW else 8):
        what, advice = f"compression {compression} of {bits} bits", "save it uncompressed"
    else:
        return
    raise UnsupportedImageError(path, f"a TIFF of {what}", advice)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Segment:
    """A strip or tile: where it lies in the image, and its bytes."""

    top: int
    left: int
    rows: int
    columns: int
    data: bytes


def _segments(page: Directory, data: bytes, path: str, plane: int, planes: int) -> list[_Segment]:
    """The strips or tiles of one plane, none of them missing."""
    height, width = page.first(Tag.HEIGHT, 0), page.first(Tag.WIDTH, 0)
    tiled = Tag.TILE_OFFSETS in page.values
    if tiled:
        rows, columns = page.first(Tag.TILE_HEIGHT, 0), page.first(Tag.TILE_WIDTH, 0)
    else:
        rows, columns = page.first(Tag.ROWS_PER_STRIP, height), width
    if rows < 1 or columns < 1:
        raise ImageReadError(path, "the TIFF declares empty strips or tiles")
    rows = rows if tiled else min(rows, height)
    corners = [(y, x) for y in range(0, height, rows) for x in range(0, width, columns)]
    if len(corners) * planes > _MOST_SEGMENTS:
        raise ImageTooLargeError(path, f"a TIFF of {len(corners) * planes:,} strips or tiles")
    offsets = page.values.get(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS, np.zeros(0))
    sizes = page.values.get(Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES)
    if sizes is None and len(offsets) == 1:  # TIFF 6.0 demands it, old writers left it out
        sizes = np.array([len(data) - int(offsets[0])])
    if sizes is None or min(len(offsets), len(sizes)) < len(corners) * planes:
        raise ImageReadError(path, "truncated: the TIFF lacks some of its strips or tiles")
    found = []
    for number, (top, left) in enumerate(corners, plane * len(corners)):
        start, size = int(offsets[number]), int(sizes[number])
        if start <= 0 or size <= 0 or start + size > len(data):
            raise ImageReadError(path, "truncated: TIFF pixel data lies outside the file")
        lines = rows if tiled else min(rows, height - top)
        body = data[start : start + size]
        found.append(_Segment(top=top, left=left, rows=lines, columns=columns, data=body))
    return found


def _decode(page: Directory, data: bytes, path: str, info: ImageInfo) -> NDArray[Any]:
    """Samples of shape (H, W, S), unsigned, native byte order, unturned."""
    planes = info.channels if page.first(Tag.PLANAR, 1) == 2 and info.channels > 1 else 1
    wanted = 3 if info.photometric == "RGB" else 1  # alpha and other extra samples are dropped
    height, width = page.first(Tag.HEIGHT, 0), page.first(Tag.WIDTH, 0)
    samples = 1 if planes > 1 else info.channels
    dtype = np.dtype(f"u{1 if info.bits <= 8 else 2 if info.bits <= 16 else 4}")
    found = np.empty((height, width, wanted), dtype)
    for plane in range(wanted if planes > 1 else 1):
        target = found[:, :, plane : plane + 1] if planes > 1 else found
        segments = _segments(page, data, path, plane, planes)
        for segment, pixels in _pixels(page, segments, samples, info.bits, path):
            rows = target[segment.top : segment.top + segment.rows]
            part = rows[:, segment.left : segment.left + segment.columns]
            part[...] = pixels[: part.shape[0], : part.shape[1], : target.shape[2]]
    return found


def _pixels(
    page: Directory, segments: list[_Segment], samples: int, bits: int, path: str
) -> Iterator[tuple[_Segment, NDArray[Any]]]:
    """Each strip or tile and its samples, shape (rows, columns, samples)."""
    compression = page.first(Tag.COMPRESSION, _NONE)
    if page.first(Tag.FILL_ORDER, 1) == 2 and compression not in (_JPEG, *_TO_PICTURE):
        segments = [
            replace(segment, data=segment.data.translate(_REVERSED)) for segment in segments
        ]
    if compression == _JPEG:
        for segment in segments:
            yield segment, _jpeg(page, segment, samples, path)
        return
    if compression in _TO_PICTURE:
        yield _by_libtiff(page, segments, samples, bits, path)
        return
    width = math.ceil(segments[0].columns * samples * bits / 8)
    if compression in _TO_BYTES:
        segments = _unpacked(page, segments, width, path)
    for segment in segments:
        body = segment.data
        if compression in _DEFLATE:
            body = _inflated(body, segment.rows * width, path)
        if len(body) < segment.rows * width:
            raise ImageReadError(path, "truncated: a strip or tile of the TIFF is too short")
        lines = np.frombuffer(body, np.uint8, segment.rows * width).reshape(segment.rows, width)
        pixels = _values(lines, segment.columns * samples, bits, page.order)
        pixels = pixels.reshape(segment.rows, segment.columns, samples)
        if page.first(Tag.PREDICTOR, 1) == 2:  # each sample was stored less its left neighbour
            pixels = np.cumsum(pixels, axis=1, dtype=pixels.dtype)
        yield segment, pixels


def _inflated(data: bytes, size: int, path: str) -> bytes:
    engine = zlib.decompressobj()
    try:
        found = engine.decompress(data, size)
        engine.decompress(engine.unconsumed_tail, 1)  # the checksum
    except zlib.error as error:
        raise ImageReadError(path, f"a strip or tile of the TIFF is damaged ({error})") from error
    return found


def _values(lines: NDArray[np.uint8], count: int, bits: int, order: str) -> NDArray[Any]:
    """Samples of rows of bytes, shape (rows, count); fewer than 8 bits are packed from the top."""
    rows = len(lines)
    if bits in (8, 16, 32):
        values = lines.reshape(-1).view(f"{order}u{bits // 8}").reshape(rows, count)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    found = np.zeros((rows, count), np.uint8 if bits < 8 else np.uint16)
    step = max(1, _UNPACKED // (8 * lines.shape[1]))
    for start in range(0, rows, step):
        digits = np.unpackbits(lines[start : start + step], axis=1)[:, : count * bits]
        part = found[start : start + step]
        for place in range(bits):
            part <<= 1
            part |= digits[:, place::bits]
    return found


def _signed(values: NDArray[Any], bits: int) -> NDArray[Any]:
    """Two's complement of so many bits."""
    values = np.ascontiguousarray(values)
    if bits < 8 * values.dtype.itemsize:
        sign = values.dtype.type(1 << (bits - 1))
        values = (values ^ sign) - sign
    return values.view(f"i{values.dtype.itemsize}")


def _palette(page: Directory, bits: int) -> NDArray[np.uint8]:
    colours = page.values.get(Tag.COLOR_MAP, np.zeros(0))[: 3 << bits]
    whole = len(colours) == 3 << bits
    table = colours.reshape(3, -1).T.astype(np.int64) // 256 if whole else np.zeros((0, 3))
    return table.astype(np.uint8)


def _jpeg(page: Directory, segment: _Segment, samples: int, path: str) -> NDArray[Any]:
    """A strip or tile that is a JPEG without its tables (TIFF Technical Note 2)."""
    tables = page.values[Tag.JPEG_TABLES].tobytes() if Tag.JPEG_TABLES in page.values else b""
    transform = int(page.first(Tag.PHOTOMETRIC, -1) == _YCBCR)
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    data = b"\xff\xd8" + adobe * (samples == 3) + tables[2:-2] + segment.data[2:]
    header = read_codestream(data)
    if header is None or header.fault or header.components != samples or samples not in (1, 3):
        fault = header.fault if header and header.fault else "is damaged or truncated"
        raise ImageReadError(path, f"a JPEG in the TIFF {fault}")
    with third_party_decoder(path, "a JPEG in the TIFF is damaged or truncated", quote=True):
        pixels = pixels_of(decode_jpeg(data, header))
    if pixels.shape[1] < segment.columns or pixels.shape[0] < segment.rows:
        raise ImageReadError(path, "truncated: a JPEG in the TIFF is too small")
    return pixels.reshape(*pixels.shape[:2], -1)


def _unpacked(page: Directory, segments: list[_Segment], width: int, path: str) -> list[_Segment]:
    """Strips or tiles decompressed by libtiff, which takes rows of bytes for grey pixels.

    Some rows of them at a time, as Pillow refuses too many pixels in one image.
    """
    across = sum(segment.top == 0 for segment in segments)
    rows = segments[0].rows
    step = across * max(1, _AT_ONCE // (across * rows * width))
    found = []
    for first in range(0, len(segments), step):
        group = segments[first : first + step]
        top, last = group[0].top, group[-1]
        shape = last.top + last.rows - top, across * width
        lines = _libtiff(page, group, shape, (rows, width), path)
        for segment in group:
            left = segment.left // segment.columns * width
            body = lines[segment.top - top :][: segment.rows, left : left + width]
            found.append(replace(segment, data=body.tobytes()))
    return found


def _by_libtiff(
    page: Directory, segments: list[_Segment], samples: int, bits: int, path: str
) -> tuple[_Segment, NDArray[Any]]:
    """All strips or tiles of a compression that knows of pixels."""
    height, width = page.first(Tag.HEIGHT, 0), page.first(Tag.WIDTH, 0)
    tile = segments[0].rows, segments[0].columns
    pixels = _libtiff(page, segments, (height, width), tile, path, bits=bits, samples=samples)
    if pixels.dtype == np.bool_:
        pixels = one_bit(pixels)
    whole = _Segment(top=0, left=0, rows=height, columns=width, data=b"")
    return whole, pixels.reshape(height, width, -1)


def _libtiff(
    page: Directory,
    segments: list[_Segment],
    shape: tuple[int, int],
    segment_shape: tuple[int, int],
    path: str,
    *,
    bits: int = 8,
    samples: int = 1,
) -> NDArray[Any]:
    """Decode strips or tiles as a little-endian, black-is-zero TIFF of nothing else."""
    tiled = Tag.TILE_OFFSETS in page.values
    bodies = [segment.data for segment in segments]
    starts = np.cumsum([8, *map(len, bodies[:-1])])
    compression = page.first(Tag.COMPRESSION, _NONE)
    entries: dict[int, tuple[str, Any]] = {
        Tag.WIDTH: ("I", [shape[1]]),
        Tag.HEIGHT: ("I", [shape[0]]),
        Tag.BITS: ("H", [bits] * samples),
        Tag.COMPRESSION: ("H", [compression]),
        Tag.PHOTOMETRIC: ("H", [_BLACK_IS_ZERO if samples < 3 else _RGB]),
        Tag.SAMPLES: ("H", [samples]),
        Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS: ("I", starts),
        Tag.TILE_BYTES if tiled else Tag.STRIP_BYTES: ("I", list(map(len, bodies))),
    }
    if compression in _TO_PICTURE and compression < _LZW:
        entries[Tag.FILL_ORDER] = ("H", [page.first(Tag.FILL_ORDER, 1)])
        entries[Tag.T4_OPTIONS] = ("I", [max(0, page.first(Tag.T4_OPTIONS, 0))])
    if tiled:
        entries[Tag.TILE_HEIGHT] = ("I", [segment_shape[0]])
        entries[Tag.TILE_WIDTH] = ("I", [segment_shape[1]])
    else:
        entries[Tag.ROWS_PER_STRIP] = ("I", [segment_shape[0]])
    file = _file(entries, b"".join(bodies))
    reason = "the TIFF is damaged, truncated or of a kind that Pillow cannot decode"
    with third_party_decoder(path, reason, quote=True), catch_prints(path):
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(file))
        image.load()
        return pixels_of(image)


def _file(entries: dict[int, tuple[str, Any]], pixels: bytes) -> bytes:
    """A TIFF of one directory behind its pixels."""
    pixels += bytes(len(pixels) % 2)
    start = 8 + len(pixels)
    table, beyond = struct.pack("<H", len(entries)), b""
    end = start + 2 + 12 * len(entries) + 4
    for tag, (kind, numbers) in sorted(entries.items()):
        body = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        place = body.ljust(4, b"\0")
        if len(body) > 4:
            place = struct.pack("<I", end + len(beyond))
            beyond += body + bytes(len(body) % 2)
        table += struct.pack("<HHI", tag, 3 if kind == "H" else 4, len(numbers)) + place
    return b"II*\0" + struct.pack("<I", start) + pixels + table + bytes(4) + beyond
