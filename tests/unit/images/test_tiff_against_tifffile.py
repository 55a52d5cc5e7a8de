"""Every kind of TIFF that is read gives the samples that tifffile gives."""

from __future__ import annotations

import io
import itertools
import struct

import numpy as np
import pytest

from torchxrayvision.errors import ImageReadError, UnsupportedImageError
from torchxrayvision.images import read_image, read_raster

tifffile = pytest.importorskip("tifffile")
imagecodecs = pytest.importorskip("imagecodecs")

HEIGHT, WIDTH = 37, 53
KINDS = ["u1", "u2", "u4", "i1", "i2", "i4"]
COMPRESSIONS = [None, "zlib", "lzw", "packbits", "zstd", "lzma"]
LAYOUTS = {
    "strips": {"rowsperstrip": 8},
    "one": {},
    "tiles": {"tile": (16, 32)},
}


def samples(kind, *channels):
    """Smooth with noise, over all of the range."""
    info = np.iinfo(kind)
    rows, columns = np.indices((HEIGHT, WIDTH)) / 11
    share = 0.5 + 0.5 * np.sin(rows + 0.3) * np.cos(columns)
    planes = [np.roll(share, 5 * n, axis=1) for n in range(*channels)] if channels else [share]
    found = np.stack(planes, axis=-1) * (info.max - info.min) + info.min
    found += np.random.default_rng(0).integers(-3, 4, found.shape)
    found = np.clip(found, info.min, info.max).astype(kind)
    return found if channels else found[..., 0]


def written(array, **how):
    file = io.BytesIO()
    tifffile.imwrite(file, array, metadata=None, **how)
    return file.getvalue()


def scaled(array, low, high):
    return (array.astype(float) - low) / (high - low) * 2048 - 1024


def assert_grey(data, **how):
    stored = tifffile.imread(io.BytesIO(data))
    info = np.iinfo(stored.dtype)
    expected = scaled(stored, info.min, info.max)
    if how.get("photometric") == "miniswhite":
        expected = -expected
    np.testing.assert_allclose(read_image(data)[0], expected, atol=3e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_grey(kind, compression, layout):
    array = samples(kind)
    for order, photometric, big, predictor in itertools.product(
        "<>", ("minisblack", "miniswhite"), (False, True), (False, True)
    ):
        if predictor and compression in (None, "packbits"):
            continue
        how = {"photometric": photometric, "compression": compression, **LAYOUTS[layout]}
        data = written(array, byteorder=order, bigtiff=big, predictor=predictor, **how)
        assert np.array_equal(tifffile.imread(io.BytesIO(data)), array)
        assert_grey(data, **how)
        raster = read_raster(data)
        assert np.array_equal(raster.pixels, array)
        assert raster.pixels.dtype.isnative


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [3, 4])
def test_colour(kind, compression, layout, channels):
    array = samples(kind, channels)
    for order, planar, predictor in itertools.product("<>", ("contig", "separate"), (False, True)):
        if predictor and compression in (None, "packbits"):
            continue
        given = array if planar == "contig" else np.moveaxis(array, -1, 0)
        data = written(
            given, photometric="rgb", planarconfig=planar, byteorder=order, predictor=predictor,
            compression=compression, extrasamples=["unassalpha"] * (channels - 3) or None,
            **LAYOUTS[layout],
        )  # fmt: skip
        top = np.iinfo(kind).max
        expected = scaled(array[..., :3].astype(float).mean(-1), 0, top)
        np.testing.assert_allclose(read_image(data)[0], expected, atol=3e-4)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits"])
@pytest.mark.parametrize("order", "<>")
def test_palette(compression, order):
    array = samples("u1")
    table = np.random.default_rng(1).integers(0, 256, (3, 256)).astype("u2") * 257
    data = written(
        array, photometric="palette", colormap=table, byteorder=order, compression=compression
    )
    expected = scaled((table // 257).mean(0)[array], 0, 255)
    np.testing.assert_allclose(read_image(data)[0], expected, atol=3e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_jpeg(layout, photometric):
    array = samples("u1") if photometric == "minisblack" else samples("u1", 3)
    data = written(array, photometric=photometric, compression="jpeg", **LAYOUTS[layout])
    stored = tifffile.imread(io.BytesIO(data)).astype(float)
    grey = stored if stored.ndim == 2 else stored.mean(-1)
    assert abs(read_image(data)[0] - scaled(grey, 0, 255)).max() < 20  # another inverse transform
    with pytest.raises(ImageReadError):
        read_image(data.replace(b"\xff\xd9", b"\0\0"))


def test_bilevel():
    array = samples("u1") > 120
    for order, compression, photometric in itertools.product(
        "<>", (None, "packbits", "zlib", "lzw"), ("minisblack", "miniswhite")
    ):
        data = written(array, photometric=photometric, compression=compression, byteorder=order)
        expected = array if photometric == "minisblack" else ~array
        assert np.array_equal(read_image(data)[0], scaled(expected, 0, 1))


def packed(values, bits):
    """Rows of samples of so many bits, from the highest bit on."""
    digits = (values[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(digits.reshape(len(values), -1).astype("u1"), axis=1).tobytes()


def tiff(body, bits, *, order="<", signed=False, compression=1, photometric=1, fill=1):
    """One strip of samples of any width."""
    tags = [
        (256, WIDTH), (257, HEIGHT), (258, bits), (259, compression), (262, photometric),
        (266, fill), (273, 8), (277, 1), (278, HEIGHT), (279, len(body)), (339, 1 + signed),
    ]  # fmt: skip
    body += b"\0" * (len(body) % 2)
    table = struct.pack(order + "H", len(tags))
    for tag, value in tags:
        table += struct.pack(order + "HHII", tag, 4, 1, value)
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, 8 + len(body))
    return head + body + table + bytes(4)


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packing", ["plain", "zlib", "lzw"])
def test_depths_between_whole_bytes(bits, order, packing):
    values = (samples("u4") >> (32 - bits)).astype("u4")
    body = packed(values, bits)
    compression = {"plain": 1, "zlib": 8, "lzw": 5}[packing]
    if packing != "plain":
        body = getattr(imagecodecs, f"{packing}_encode")(body)
    data = tiff(body, bits, order=order, compression=compression)
    assert np.array_equal(tifffile.imread(io.BytesIO(data)), values)
    raster = read_raster(data)
    assert np.array_equal(raster.pixels, values)
    assert raster.scale == 2048 / (2**bits - 1)
    centred = values.astype("i8") - 2 ** (bits - 1)
    if bits > 1:
        data = tiff(packed(centred % 2**bits, bits), bits, order=order, signed=True)
        assert np.array_equal(read_raster(data).pixels, centred)


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("compression", [1, 8, 5])
def test_reversed_bits(kind, compression):
    array = samples(kind)
    body = array.astype("<" + kind).tobytes()
    if compression != 1:
        body = (imagecodecs.zlib_encode if compression == 8 else imagecodecs.lzw_encode)(body)
    body = np.packbits(np.unpackbits(np.frombuffer(body, "u1"), bitorder="little")).tobytes()
    data = tiff(body, array.dtype.itemsize * 8, compression=compression, fill=2)
    assert np.array_equal(read_raster(data).pixels, array)


@pytest.mark.parametrize("bits", [3, 6, 7, 9, 11, 13, 15, 20, 24, 31, 48, 64])
def test_other_depths_are_named(bits):
    with pytest.raises(UnsupportedImageError, match=f"{bits} bits a sample"):
        read_raster(tiff(bytes(HEIGHT * WIDTH * 8), bits))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_floats_are_named(kind):
    with pytest.raises(UnsupportedImageError, match="floating point"):
        read_raster(written(samples("u1").astype(kind)))


# Damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
def test_missing_strips_are_never_black(compression, layout):
    data = bytearray(written(samples("u2"), compression=compression, **LAYOUTS[layout]))
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages[0]
    offsets, counts = (
        page.tags["StripOffsets" if layout == "strips" else "TileOffsets"],
        page.tags["StripByteCounts" if layout == "strips" else "TileByteCounts"],
    )
    assert offsets.count > 3
    for tag, missing in itertools.product((offsets, counts), (1, 2)):
        damaged = bytearray(data)
        struct.pack_into("<I", damaged, tag.offset + 4, tag.count - missing)
        with pytest.raises(ImageReadError, match="lacks some of its strips or tiles"):
            read_raster(bytes(damaged))
    for tag in (offsets, counts):
        damaged = bytearray(data)
        size = {3: "<H", 4: "<I"}[tag.dtype]
        struct.pack_into(size, damaged, tag.valueoffset, 0)
        with pytest.raises(ImageReadError, match="outside the file"):
            read_raster(bytes(damaged))


@pytest.mark.parametrize("kind", [6, 8, 9, 11, 12])
def test_bits_per_sample_of_odd_types_are_numbers_all_the_same(kind):
    array = samples("u2")
    data = bytearray(tiff(array.astype("<u2").tobytes(), 16))
    place = data.index(struct.pack("<HHI", 258, 4, 1))
    value = {6: struct.pack("<bxxx", 16), 8: struct.pack("<hxx", 16), 9: struct.pack("<i", 16),
             11: struct.pack("<f", 16)}.get(kind)  # fmt: skip
    if value is None:
        struct.pack_into("<H", data, place + 2, 99)
        with pytest.raises(ImageReadError):
            read_raster(bytes(data))
        return
    data[place + 2 : place + 12] = struct.pack("<HI", kind, 1) + value
    assert np.array_equal(read_raster(bytes(data)).pixels, array)
