"""PNG by ISA-L and the png crate: the same pixels, and the same words about damage, as without."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from support import image_files as build
from torchxrayvision.errors import ImageReadError
from torchxrayvision.images import png, read_raster

isal_zlib = pytest.importorskip("isal.isal_zlib", reason="needs isal, of the extra fast-png")
kornia_io = pytest.importorskip("kornia_rs.io", reason="needs kornia-rs, of fast-png")

KINDS = [(8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (4, 3), (8, 4), (16, 4), (8, 6), (1, 0)]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(png, "_LEAST_ROWS", 1)


def sample(depth, colour, **options):
    channels = build.PNG_CHANNELS[colour]
    pixels = build.ramp(61, 53, (1 << depth) - 1, channels)
    palette = np.arange(3 * 2**depth).reshape(-1, 3) % 256 if colour == 3 else None
    return build.png(pixels, depth, colour, palette=palette, **options)


def outcomes(data, monkeypatch):
    """Pixels, or the error: with Pillow alone, with ISA-L, and with the png crate as well."""
    found = []
    for packages in ((None, None), (isal_zlib, None), (isal_zlib, kornia_io)):
        monkeypatch.setattr(png, "isal_zlib", packages[0])
        monkeypatch.setattr(png, "kornia_io", packages[1])
        try:
            found.append(read_raster(data).pixels.tolist())
        except ImageReadError as error:
            found.append((type(error), error.reason))
    return found


@pytest.mark.parametrize(("depth", "colour"), KINDS)
@pytest.mark.parametrize("interlace", [0, 1])
def test_pixels_are_the_same(depth, colour, interlace, monkeypatch):
    data = sample(depth, colour, interlace=interlace)
    without, *others = outcomes(data, monkeypatch)
    assert isinstance(without, list)
    assert others == [without, without]


@pytest.mark.parametrize("block", [1, 53, 54, 0xFFFF])
def test_the_stream_of_stored_blocks_holds_the_rows(monkeypatch, block):
    monkeypatch.setattr(png, "_STORED_BLOCK", block)
    data = sample(8, 0)
    bodies = [memoryview(parts(data)[1])]
    rows = rows_of(data)
    assert zlib.decompress(b"".join(png._inflate(bodies, len(rows)).stream())) == rows
    monkeypatch.setattr(png, "_LEAST_ROWS", len(rows) + 1)
    assert png._inflate(bodies, len(rows)) is None


class Counted:
    """kornia_rs.io, with a count of its calls."""

    def __init__(self):
        self.calls = 0

    def __getattr__(self, name):
        self.calls += 1
        return getattr(kornia_io, name)


@pytest.mark.parametrize(("depth", "colour"), KINDS)
@pytest.mark.parametrize("interlace", [0, 1])
def test_the_crate_is_used_for_grey_of_whole_bytes(depth, colour, interlace, monkeypatch):
    monkeypatch.setattr(png, "kornia_io", counted := Counted())
    read_raster(sample(depth, colour, interlace=interlace))
    assert counted.calls == (colour == 0 and depth >= 8 and not interlace)


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("depth", [8, 16])
def test_every_filter_is_undone(kind, depth, monkeypatch):
    rng = np.random.default_rng(kind)
    lines = rng.integers(0, 256, (23, 1 + 31 * depth // 8), np.uint8)
    lines[:, 0] = kind
    header = struct.pack(">IIBBBBB", 31, 23, depth, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(build.png_chunk(*one) for one in chunks)
    without, *others = outcomes(data, monkeypatch)
    assert isinstance(without, list)
    assert others == [without, without]


def test_a_third_thread_leaves_it_to_pillow(monkeypatch):
    """The crate keeps Python's lock, so that more than two threads would wait for each other."""
    monkeypatch.setattr(png, "kornia_io", counted := Counted())
    data = sample(8, 0)
    with png._at_once, png._at_once:
        third = read_raster(data).pixels
    assert counted.calls == 0
    assert np.array_equal(third, read_raster(data).pixels)
    assert counted.calls == 1


@pytest.mark.parametrize("error", [Exception, BaseException, ValueError])
def test_what_the_crate_raises_is_left_to_pillow(error, monkeypatch):
    class Broken:
        def decode_image_png_u8(self, *_):
            raise error("panicked")

    data = sample(8, 0)
    expected = read_raster(data).pixels
    monkeypatch.setattr(png, "kornia_io", Broken())
    assert np.array_equal(read_raster(data).pixels, expected)
    assert np.array_equal(read_raster(data).pixels, expected)  # the lock was given back


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
    without, *others = outcomes(with_stream(sample(8, 0), stream), monkeypatch)
    assert others == [without, without]
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
        without, *others = outcomes(with_stream(data, bytes(damaged)), monkeypatch)
        assert others == [without, without]


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
        adler32 = staticmethod(zlib.adler32)

    monkeypatch.setattr(png, "isal_zlib", Package)
    for crate in (None, kornia_io):
        monkeypatch.setattr(png, "kornia_io", crate)
        with pytest.raises(ImageReadError, match="damaged"):
            read_raster(sample(8, 0))
