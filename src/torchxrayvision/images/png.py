"""PNG (ISO/IEC 15948): every colour type and depth, at its own depth, checked to the last byte."""

from __future__ import annotations

import contextlib
import importlib
import io
import struct
import threading
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import PngImagePlugin

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images.common import (
    ImageInfo,
    Raster,
    aspect_of,
    linear_scale,
    third_party_decoder,
)
from torchxrayvision.images.pixels import (
    add_channels,
    channels_are_equal,
    crop_rows,
    grey_of,
    mean_of_palette,
    one_bit,
    orientation_of,
    pixels_of,
    upright,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from torchxrayvision.images.common import ReadOptions


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# Of the extra fast-png; Pillow does both without them.
isal_zlib = _optional("isal.isal_zlib")
kornia_io = _optional("kornia_rs.io")

# Bytes of rows that are inflated before: fewer gain nothing, more would be in memory three times.
_LEAST_ROWS, _MOST_ROWS = 1 << 16, 1 << 27
_STORED_BLOCK = 0xFFFF  # RFC 1951 section 3.2.4
# The png crate keeps Python's lock, half of the time that a file takes: a third thread would wait.
_at_once = threading.BoundedSemaphore(2)

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}
_PIECE = 1 << 20
_MOST_CHUNKS = 100_000
# First row, first column, rows and columns between samples of each pass (clause 8.2).
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _RGB_ALPHA: (8, 16),
}


@dataclass(kw_only=True, slots=True)
class _Png:
    width: int
    height: int
    depth: int
    colour: int
    interlace: int
    palette: bytes = b""
    orientation: int = 1
    frames: int = 1
    aspect: float = 1.0
    pixels: list[memoryview] = field(default_factory=list)  # bodies of chunks, checked


def png_info(data: bytes, path: str, options: ReadOptions) -> ImageInfo:
    """What the header says."""
    return _info(_parse(data, path, options))


def read_png(data: bytes, path: str, options: ReadOptions) -> Raster:
    """The image, scaled by the declared bit depth; alpha and ``sBIT`` play no part.

    PNG samples fill their declared range whatever their significant bits (clause 12.4:
    encoders scale samples up), so ``sBIT`` does not change what white is.
    """
    png = _parse(data, path, options)
    options.check_frame(path, png.frames)
    if png.frames > 1:
        raise UnsupportedImageError(path, f"an animation of {png.frames} frames", "save one as PNG")
    pixels, peak = _decode(png, path)
    scale, offset = linear_scale(0, peak)
    info = _info(png)
    return Raster(pixels=upright(pixels, png.orientation), scale=scale, offset=offset, info=info)


def _info(png: _Png) -> ImageInfo:
    turned = png.orientation >= 5
    colour = {_PALETTE: "PALETTE COLOR", _RGB: "RGB", _RGB_ALPHA: "RGB"}
    return ImageInfo(
        format="png",
        height=png.width if turned else png.height,
        width=png.height if turned else png.width,
        bits=png.depth,
        photometric=colour.get(png.colour, "MONOCHROME2"),
        channels=_CHANNELS[png.colour],
        frames=png.frames,
        orientation=png.orientation,
        aspect=1 / png.aspect if turned else png.aspect,
    )


def _parse(data: bytes, path: str, options: ReadOptions) -> _Png:
    chunks = _chunks(data, path)
    kind, body = next(chunks, (b"", b""))
    png = _header(kind, body, path)
    bits = png.depth * (1 if png.colour in (_GREY, _PALETTE) else 4)  # as Pillow keeps them
    options.limits.check_picture(path, png.height, png.width, bits=bits, stored=len(data))
    for number, (kind, body) in enumerate(chunks):
        if kind == b"IEND":
            break
        if number > _MOST_CHUNKS:
            raise ImageTooLargeError(path, f"a PNG of more than {_MOST_CHUNKS:,} chunks")
        if kind == b"IDAT":
            png.pixels.append(memoryview(body))
        else:
            _apply_chunk(png, kind, bytes(body), path)
    else:
        raise ImageReadError(path, "truncated: the PNG ends without its IEND chunk")
    if not png.pixels:
        raise ImageReadError(path, "the PNG holds no pixel data")
    if png.colour == _PALETTE and not png.palette:
        raise ImageReadError(path, "the PNG declares a palette and holds none")
    return png


def _header(kind: bytes, body: bytes | memoryview, path: str) -> _Png:
    if kind != b"IHDR" or len(body) != 13:
        raise ImageReadError(path, "the PNG header chunk is missing or malformed")
    width, height, depth, colour, method, filters, interlace = struct.unpack(">IIBBBBB", body)
    if depth not in _DEPTHS.get(colour, ()) or method or filters or interlace > 1:
        reason = f"a PNG of colour type {colour}, depth {depth}, interlace {interlace}"
        raise ImageReadError(path, f"{reason}: no such kind")
    return _Png(width=width, height=height, depth=depth, colour=colour, interlace=interlace)


def _apply_chunk(png: _Png, kind: bytes, body: bytes, path: str) -> None:
    match kind:
        case b"PLTE":
            png.palette = body
        case b"eXIf":
            png.orientation = orientation_of(body)
        case b"pHYs" if len(body) == 9:
            across, down, _ = struct.unpack(">IIB", body)  # pixels per unit of length
            png.aspect = aspect_of(across, down)
        case b"acTL" if len(body) == 8:
            png.frames = max(1, struct.unpack(">II", body)[0])
        case _ if not kind[0] & 0x20:  # upper case: critical, so the image depends on it
            raise ImageReadError(path, f"unknown critical PNG chunk {_shown(kind)}")


def _chunks(data: bytes, path: str) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and body of each chunk, its checksum verified (clause 5.3)."""
    view = memoryview(data)
    position = len(_SIGNATURE)
    while position < len(view):
        if position + 12 > len(view):
            raise ImageReadError(path, "truncated inside a PNG chunk header")
        length, kind = struct.unpack_from(">I4s", view, position)
        end = position + 8 + length
        if end + 4 > len(view):
            raise ImageReadError(path, f"truncated inside the PNG chunk {_shown(kind)}")
        (expected,) = struct.unpack_from(">I", view, end)
        if zlib.crc32(view[position + 4 : end]) != expected:
            raise ImageReadError(path, f"the PNG chunk {_shown(kind)} is damaged: wrong checksum")
        yield kind, view[position + 8 : end]
        position = end + 4


def _shown(kind: bytes) -> str:
    """A chunk type for a message; damage leaves other bytes than letters in it."""
    return kind.decode("ascii") if kind.isalpha() else f"0x{kind.hex()}"


def _decode(png: _Png, path: str) -> tuple[NDArray[Any], int]:
    """Pixels of shape (H, W), and the value of white in them."""
    if png.depth == 16 and png.colour in (_RGB, _RGB_ALPHA):
        return _deep_colour(png, path)
    with _png_crate() as crate:
        lines = _scanlines(png)
        if crate is not None and lines is not None and png.colour == _GREY and png.depth >= 8:
            found = _unfilter(crate, lines, png)
            if found is not None:
                return found, (1 << png.depth) - 1
    image = _pillow(png, path, lines)
    if png.colour == _PALETTE:
        palette = np.frombuffer(png.palette, np.uint8)[: 3 * 256].reshape(-1, 3)
        return mean_of_palette(pixels_of(image), palette)
    if png.depth == 8:
        return grey_of(image if png.colour != _GREY_ALPHA else image.getchannel(0))
    if png.colour == _GREY_ALPHA:  # decoded as RGBA: high, low, alpha, alpha
        high, low = (pixels_of(image.getchannel(channel)) for channel in range(2))
        return _joined(high, low), 65535
    pixels = pixels_of(image)
    if png.depth == 1:
        return one_bit(pixels), 1
    return pixels, 65535 if png.depth == 16 else 255  # Pillow spreads 2 and 4 bits over 8


def _deep_colour(png: _Png, path: str) -> tuple[NDArray[Any], int]:
    """Grey of 16-bit colour: of the first channel where all are equal, else their sum."""
    total = np.zeros((png.height, png.width), np.uint32)
    equal, halves = True, []
    for half, factor in (("B", 256), ("L", 1)):
        image = _pillow(png, path, half=half)
        equal = equal and channels_are_equal(image)
        if equal:
            halves.append(pixels_of(image.getchannel(0)))
        add_channels(image, total, factor)
    return (_joined(*halves), 65535) if equal else (total, 3 * 65535)


def _joined(high: NDArray[Any], low: NDArray[Any]) -> NDArray[np.uint16]:
    pixels: NDArray[np.uint16] = high.astype(np.uint16)
    pixels <<= 8
    pixels |= low
    return pixels


def _pillow(
    png: _Png, path: str, lines: _Scanlines | None = None, *, half: str = ""
) -> Image.Image:
    """Decode with Pillow, which is handed the needed chunks and nothing else.

    Pillow keeps only eight bits of 16-bit colour and of 16-bit grey with alpha. So colour is
    decoded once for the high and once for the low bytes, and grey with alpha is declared as
    RGBA of 8 bits, which has the same bytes per pixel and therefore the same filters.

    The compressed stream goes into one chunk that Pillow reads in one piece. It then meets the
    Adler-32 at the end while it fills the last row, and refuses a stream that contradicts it; were
    the stream in pieces, it would stop after the last row. The chunks were checked before, so the
    new one has no CRC that is worth its time: Pillow skips that of pixel data.
    """
    depth, colour = png.depth, png.colour
    if (depth, colour) == (16, _GREY_ALPHA):
        depth, colour = 8, _RGB_ALPHA
    header = struct.pack(">IIBBBBB", png.width, png.height, depth, colour, 0, 0, png.interlace)
    pieces: Sequence[bytes | memoryview] = png.pixels if lines is None else lines.stream()
    length = sum(len(body) for body in pieces)
    before = [_SIGNATURE, *_chunk(b"IHDR", header)]
    if colour == _PALETTE:
        before += _chunk(b"PLTE", png.palette)
    before.append(struct.pack(">I4s", length, b"IDAT"))
    stream = io.BytesIO(b"".join([*before, *pieces, bytes(4), *_chunk(b"IEND")]))
    with third_party_decoder(path, "the PNG pixel data is damaged or truncated", quote=True):
        image = PngImagePlugin.PngImageFile(stream)
        image.decodermaxblock = length
        if half:
            image.tile = [image.tile[0]._replace(args=f"{image.mode};16{half}")]
        image.load()
        last = crop_rows(image, image.height - 1, image.height)
    suspect = png.interlace or not np.asarray(last).any()
    if suspect and lines is None and half != "L":  # halves share their rows
        _check_rows(png, path)
    return image


def _scanlines(png: _Png) -> _Scanlines | None:
    return None if png.interlace else _inflate(png.pixels, _row_bytes(png))


def _check_rows(png: _Png, path: str) -> None:
    """Refuse a compressed stream that ends before the last row.

    Pillow leaves the missing rows zero and says nothing, so this is asked where the last row is
    zero (for a palette: its index, whatever its colour), or where rows are interlaced.
    """
    expected = _row_bytes(png)
    engine, found = zlib.decompressobj(), 0
    with third_party_decoder(path, "the PNG pixel data is damaged or truncated", quote=True):
        body: bytes | memoryview
        for body in png.pixels:
            while body and found < expected:
                found += len(engine.decompress(body, _PIECE))
                body = engine.unconsumed_tail
    if found < expected:
        reason = f"truncated: the PNG holds {found:,} bytes of rows, {expected:,} declared"
        raise ImageReadError(path, reason)


def _row_bytes(png: _Png) -> int:
    """Bytes of all rows, each with the one that names its filter (clauses 7.2 and 8)."""
    passes = _ADAM7 if png.interlace else ((0, 0, 1, 1),)
    total = 0
    for row, column, down, right in passes:
        rows, columns = -(-(png.height - row) // down), -(-(png.width - column) // right)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * png.depth * _CHANNELS[png.colour] // 8))
    return total


@dataclass(frozen=True, slots=True)
class _Scanlines:
    """All rows of an image as a zlib stream that needs no inflating.

    Nothing depends on ISA-L or the png crate being right about damage: the rows go on with the
    Adler-32 that the file gives for them. Pillow compares it itself; the crate does not, so that it
    is compared before.

    Attributes:
        rows: Their bytes, filter types included, in pieces of at most a stored block.
        checksum: The Adler-32 that the file gives for them, not compared yet.
    """

    rows: list[bytes]
    checksum: bytes

    def stream(self) -> list[bytes]:
        """The zlib stream in pieces."""
        pieces = [b"\x78\x01"]
        for rows in self.rows:
            pieces += [struct.pack("<BHH", 0, len(rows), len(rows) ^ 0xFFFF), rows]
        return [*pieces, b"\x01\x00\x00\xff\xff", self.checksum]


def _inflate(bodies: Sequence[memoryview], expected: int) -> _Scanlines | None:
    """Inflate the rows of an image at once, in a third of the time that Pillow takes for them.

    Args:
        bodies: The bodies of the IDAT chunks.
        expected: Bytes of all rows.

    Returns:
        The rows; None without the package, for sizes that gain nothing, and where the stream is not
        a whole one of exactly these rows, so that Pillow is given it as it is and says what is
        wrong.
    """
    if isal_zlib is None or not _LEAST_ROWS <= expected <= _MOST_ROWS:
        return None
    engine = isal_zlib.decompressobj()
    pieces: list[bytes] = []
    found = 0
    try:
        for rows in _inflated(engine, bodies):  # small pieces, whose memory is used again
            pieces.append(rows)
            found += len(rows)
            if found > expected:
                return None
    except (isal_zlib.error, ValueError, EOFError):
        return None
    if found != expected or not engine.eof or engine.unused_data:
        return None
    return _Scanlines(pieces, b"".join(body[-4:] for body in bodies)[-4:])


def _inflated(engine: Any, bodies: Sequence[memoryview]) -> Iterator[bytes]:
    """What a decompressor gives for chunks, at most a stored block at a time.

    Raises:
        EOFError: If chunks follow the end of the stream.
    """
    for body in bodies:
        rest: bytes | memoryview = body
        if len(rest) and engine.eof:
            raise EOFError
        while not engine.eof:
            rows = engine.decompress(rest, _STORED_BLOCK)
            rest = engine.unconsumed_tail
            if rows:
                yield rows
            if not rest and len(rows) < _STORED_BLOCK:
                break


@contextlib.contextmanager
def _png_crate() -> Iterator[Any]:
    """kornia_rs.io; None without the package, and where two threads decode with it already."""
    if kornia_io is None or not _at_once.acquire(blocking=False):
        yield None
        return
    try:
        yield kornia_io
    finally:
        _at_once.release()


def _unfilter(crate: Any, lines: _Scanlines, png: _Png) -> NDArray[Any] | None:
    """Undo the filters of a grey image of 8 or 16 bits, twice as fast as Pillow does.

    Returns:
        Pixels of shape (H, W), uint8 or uint16; None where rows or checksum are damaged, so that
        Pillow says it.
    """
    checksum = 1
    for rows in lines.rows:
        checksum = isal_zlib.adler32(rows, checksum)
    if struct.pack(">I", checksum) != lines.checksum:
        return None
    header = struct.pack(">IIBBBBB", png.width, png.height, png.depth, _GREY, 0, 0, 0)
    file = [
        _SIGNATURE,
        *_chunk(b"IHDR", header),
        *_chunk(b"IDAT", *lines.stream()),
        *_chunk(b"IEND"),
    ]
    read = crate.decode_image_png_u16 if png.depth == 16 else crate.decode_image_png_u8
    try:
        found: NDArray[Any] = read(b"".join(file), (png.height, png.width), "mono")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - a panic of Rust is no Exception, a refusal just that
        return None
    return found[:, :, 0]


def _chunk(kind: bytes, *bodies: bytes) -> list[bytes]:
    """A chunk of PNG around the pieces of its body (clause 5.3), in pieces."""
    checksum = zlib.crc32(kind)
    for body in bodies:
        checksum = zlib.crc32(body, checksum)
    head = struct.pack(">I4s", sum(map(len, bodies)), kind)
    return [head, *bodies, struct.pack(">I", checksum)]
