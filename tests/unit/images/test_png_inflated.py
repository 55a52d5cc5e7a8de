"""PNG rows inflated by ISA-L: the same pixels, and the same words about damage, as without."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from support import image_files as build
from torchxrayvision.errors import ImageReadError
from torchxrayvision.images import png as _png
from torchxrayvision.images import read_raster

isal_zlib = pytest.importorskip("isal.isal_zlib", reason="needs isal, of the extra fast-png")

KINDS = [(8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (4, 3), (8, 4), (16, 4), (8, 6), (1, 0)]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(_png, "_LEAST_STORED", 1)


def sample(depth, colour, **options):
    channels = build.PNG_CHANNELS[colour]
    pixels = build.ramp(61, 53, (1 << depth) - 1, channels)
    palette = np.arange(3 * 2**depth).reshape(-1, 3) % 256 if colour == 3 else None
    return build.png(pixels, depth, colour, palette=palette, **options)


def outcomes(data, monkeypatch):
    """Pixels, or the error, without and with ISA-L."""
    found = []
    for package in (None, isal_zlib):
        monkeypatch.setattr(_png, "isal_zlib", package)
        try:
            found.append(read_raster(data).pixels.tolist())
        except ImageReadError as error:
            found.append((type(error), error.reason))
    return found


@pytest.mark.parametrize(("depth", "colour"), KINDS)
@pytest.mark.parametrize("interlace", [0, 1])
def test_pixels_are_the_same(depth, colour, interlace, monkeypatch):
    data = sample(depth, colour, interlace=interlace)
    without, with_ = outcomes(data, monkeypatch)
    assert isinstance(without, list)
    assert with_ == without


@pytest.mark.parametrize("block", [1, 53, 54, 0xFFFF])
def test_it_is_used(monkeypatch, block):
    monkeypatch.setattr(_png, "_STORED_BLOCK", block)
    data = sample(8, 0)
    stored = []
    real = _png._stored
    monkeypatch.setattr(_png, "_stored", lambda png: stored.append(real(png)) or stored[-1])
    read_raster(data)
    assert zlib.decompress(b"".join(stored[0])) == rows_of(data)
    monkeypatch.setattr(_png, "_LEAST_STORED", len(rows_of(data)) + 1)
    read_raster(data)
    assert stored[1] is None


def parts(data):
    """What is before the pixel data, the zlib stream, and what is after."""
    first = data.index(b"IDAT") - 4
    position, stream = first, b""
    while data[position + 4 : position + 8] == b"IDAT":
        (length,) = struct.unpack_from(">I", data, position)
        stream += data[position + 8 : position + 8 + length]
        position += 12 + length
    return data[:first], stream, data[position:]


def rows_of(data):
    return zlib.decompress(parts(data)[1])


def with_stream(data, stream):
    before, _, after = parts(data)
    return before + build.png_chunk(b"IDAT", stream) + after


def damages():
    data = sample(8, 0)
    stream, rows = parts(data)[1], rows_of(data)
    black = rows[:-54] + bytes(54)
    yield "cut", stream[:-200]
    yield "without its checksum", stream[:-4]
    yield "with another checksum", stream[:-1] + bytes([stream[-1] ^ 1])
    yield "bytes behind it", stream + b"more"
    yield "a row too many", zlib.compress(rows + rows[:54])
    yield "a row too few", zlib.compress(rows[:-54])
    yield "half a row too few", zlib.compress(rows[:-20])
    yield "black last row", zlib.compress(black)
    yield "black last row missing", zlib.compress(black[:-54])
    yield "no rows", zlib.compress(b"")
    yield "no stream", b"\0" * 100
    yield "a filter that does not exist", zlib.compress(b"\x09" + rows[1:])
    yield "two streams", stream + stream
    yield "raw deflate", stream[2:-4]
    yield "stored", zlib.compress(rows, 0)
    yield "a bomb", zlib.compress(bytes(2**22))


@pytest.mark.parametrize(
    ("name", "stream"), list(damages()), ids=lambda v: v if isinstance(v, str) else ""
)
def test_damage_is_told_in_the_same_words(name, stream, monkeypatch):
    without, with_ = outcomes(with_stream(sample(8, 0), stream), monkeypatch)
    assert with_ == without
    accepted = (
        "without its checksum",
        "stored",
        "black last row",
        "bytes behind it",
        "two streams",
        "a row too many",
        "a bomb",
    )
    if name not in accepted:
        assert isinstance(without, tuple)


def test_damaged_streams_with_right_chunks_are_told_in_the_same_words(monkeypatch):
    rng = np.random.default_rng(3)
    data = sample(8, 0)
    stream = parts(data)[1]
    for _ in range(150):
        damaged = bytearray(stream)
        for place in rng.integers(0, len(stream), rng.integers(1, 4)):
            damaged[place] ^= 1 << int(rng.integers(8))
        without, with_ = outcomes(with_stream(data, bytes(damaged)), monkeypatch)
        assert with_ == without


def test_nothing_depends_on_what_the_other_inflater_says(monkeypatch):
    """Rows that are not those of the file do not pass its Adler-32, which Pillow compares."""

    class Wrong:
        def __init__(self):
            self._inner = zlib.decompressobj()
            self.unconsumed_tail = b""

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def decompress(self, body, most):
            rows = bytearray(self._inner.decompress(body, most))
            self.unconsumed_tail = self._inner.unconsumed_tail
            rows[700:701] = bytes([rows[700] ^ 1]) if len(rows) > 700 else b""
            return bytes(rows)

    class Package:
        error = zlib.error
        decompressobj = Wrong

    monkeypatch.setattr(_png, "isal_zlib", Package)
    with pytest.raises(ImageReadError, match="damaged"):
        read_raster(sample(8, 0))
