"""JPEG 2000 files: code streams that Pillow writes, in boxes that are written here."""

from __future__ import annotations

import io
import struct

from PIL import Image

SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"


def code(pixels, **options):
    """A bare code stream of pixels (H, W) of 8 or 16 bits, or (H, W, C) of 8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", no_jp2=True, **options)
    return file.getvalue()


def box(kind, *parts, extended=False):
    body = b"".join(parts)
    if extended:
        return struct.pack(">I4sQ", 1, kind, len(body) + 16) + body
    return struct.pack(">I4s", len(body) + 8, kind) + body


def colour(number):
    return box(b"colr", bytes([1, 0, 0]), struct.pack(">I", number))


def profile(space):
    return box(b"colr", bytes([2, 0, 0]), bytes(16), space, bytes(108))


def palette(entries, columns=3, depth=7, mapping=None):
    """Entries are bytes; by default every column is a channel."""
    count = len(entries) // columns
    table = box(b"pclr", struct.pack(">HB", count, columns), bytes([depth] * columns), entries)
    usual = b"".join(struct.pack(">HBB", 0, 1, column) for column in range(columns))
    return table + box(b"cmap", usual if mapping is None else mapping)


def channels(*entries):
    """Of each channel its number, type (0: colour, 1: alpha) and association."""
    count = struct.pack(">H", len(entries))
    return box(b"cdef", count, *(struct.pack(">HHH", *entry) for entry in entries))


def resolution(down, across, kind=b"resc"):
    """Points per metre; an exponent of 3 is taken out of them."""
    return box(kind, struct.pack(">HHHHbb", down, 1, across, 1, 3, 3))


def jp2(stream, *headers, size=None, brand=b"jp2 ", compression=7, after=(), before=()):
    """A file of a code stream; sizes and bits are those of its header."""
    x1, y1, x0, y0 = struct.unpack_from(">4I", stream, 8)
    (count,) = struct.unpack_from(">H", stream, 40)
    height, width, count = size or (y1 - y0, x1 - x0, count)
    head = struct.pack(">IIHBBBB", height, width, count, stream[42], compression, 0, 0)
    return b"".join(
        [SIGNATURE, box(b"ftyp", brand, bytes(4), brand), *before,
         box(b"jp2h", box(b"ihdr", head), *headers), box(b"jp2c", stream), *after]
    )  # fmt: skip
