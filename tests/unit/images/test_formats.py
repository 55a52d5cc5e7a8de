"""PNG, JPEG and TIFF come out at their declared depth, whatever the kind."""

from __future__ import annotations

import importlib
import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from support import image_files as build
from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images import load_image, read_image, read_info, read_raster, read_xray_dcm
from torchxrayvision.images.jpeg import read_codestream
from torchxrayvision.images.pixels import pixels_of

HEIGHT, WIDTH = 13, 11
PNG_KINDS = [
    (colour, depth)
    for colour, depths in {
        0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16),
    }.items()
    for depth in depths
]  # fmt: skip


def scaled(fraction):
    return np.asarray(fraction) * 2048.0 - 1024.0


def assert_image(image, fraction):
    assert image.dtype == np.float32
    assert image.shape == (1, *np.shape(fraction))
    np.testing.assert_allclose(image[0], scaled(fraction), atol=2e-4)


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("colour", "depth"), PNG_KINDS)
def test_png_of_every_kind_spans_its_declared_depth(colour, depth, interlace):
    top = 2**depth - 1
    pixels = build.ramp(HEIGHT, WIDTH, top, build.PNG_CHANNELS[colour])
    palette = build.ramp(2**depth, 3, 255) if colour == 3 else None
    data = build.png(pixels, depth, colour, interlace=interlace, palette=palette)
    if colour == 3:
        expected = palette.mean(1)[pixels] / 255
    elif colour in (2, 6):
        expected = pixels[:, :, :3].mean(2) / top
    else:
        expected = pixels.reshape(HEIGHT, WIDTH, -1)[:, :, 0] / top
    assert_image(read_image(data), expected)
    info = read_info(data)
    assert (info.format, info.bits, info.height, info.width) == ("png", depth, HEIGHT, WIDTH)
    assert info.channels == build.PNG_CHANNELS[colour]


@pytest.mark.parametrize("depth", [8, 16])
def test_dark_png_stays_dark(depth):
    pixels = build.ramp(HEIGHT, WIDTH, 40)
    assert_image(read_image(build.png(pixels, depth, 0)), pixels / (2**depth - 1))


@pytest.mark.parametrize("colour", [2, 6])
@pytest.mark.parametrize("depth", [8, 16])
def test_equal_channels_keep_the_stored_values(colour, depth):
    grey = build.ramp(HEIGHT, WIDTH, 2**depth - 1)
    channels = [grey] * 3 + [grey[::-1]] * (colour == 6)
    raster = read_raster(build.png(np.dstack(channels), depth, colour))
    assert raster.pixels.dtype == f"uint{depth}"
    assert np.array_equal(raster.pixels, grey)


def test_grey_palette_keeps_eight_bits():
    grey = build.ramp(HEIGHT, WIDTH, 255)
    palette = np.arange(256)[::-1, None].repeat(3, 1)
    raster = read_raster(build.png(grey, 8, 3, palette=palette))
    assert raster.pixels.dtype == np.uint8
    assert np.array_equal(raster.pixels, 255 - grey)


def test_mean_of_colour_is_exact_in_integers():
    colour = build.ramp(HEIGHT, WIDTH, 255, 3)
    raster = read_raster(build.png(colour, 8, 2))
    assert np.array_equal(raster.pixels, colour.sum(2))
    assert raster.scale == pytest.approx(2048 / 765)


@pytest.mark.parametrize(
    "extra",
    [
        (b"tRNS", b"\0\5"),
        (b"sBIT", b"\5"),  # five significant bits: PNG spreads them over the declared eight
        (b"gAMA", b"\0\0\xb1\x8f"),
        (b"tEXt", b"Comment\0hello"),
        (b"iCCP", b"broken"),
        (b"eXIf", b"broken"),
    ],
)
def test_ancillary_chunks_do_not_change_the_values(extra):
    pixels = build.ramp(HEIGHT, WIDTH, 255)
    assert_image(read_image(build.png(pixels, 8, 0, extra=[extra])), pixels / 255)


def exif(orientation):
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_orientation_is_applied_once(kind, orientation):
    pixels = build.ramp(8, 16, 255)
    if kind == "png":
        block = exif(orientation).removeprefix(b"Exif\0\0")
        plain, turned = (build.png(pixels, 8, 0, extra=e) for e in ([], [(b"eXIf", block)]))
    elif kind == "jpeg":
        plain, turned = build.jpeg(pixels), build.jpeg(pixels, exif=exif(orientation))
    else:
        plain, turned = build.tiff(pixels, 8), build.tiff(pixels, 8, tags={274: orientation})
    image = read_image(turned)
    assert np.array_equal(image[0], UPRIGHT[orientation](read_image(plain)[0]))
    info = read_info(turned)
    assert (info.height, info.width) == image.shape[1:]
    assert info.orientation == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_undefined_orientation_is_upright(orientation):
    pixels = build.ramp(8, 16, 255)
    assert read_info(build.tiff(pixels, 8, tags={274: orientation})).orientation == 1
    assert read_image(build.jpeg(pixels, exif=exif(orientation))).shape == (1, 8, 16)


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""
APP13 = b"\xff\xed" + struct.pack(">H", 60002) + b"x" * 60000


@pytest.mark.parametrize(
    ("options", "before", "orientation"),
    [
        ({"exif": exif(6)}, b"", 6),
        ({"exif": exif(6)}, APP13 * 2, 6),  # far into the file, where viewers find it too
        ({"exif": exif(6), "icc_profile": bytes(200_000), "comment": b"c" * 60_000}, b"", 6),
        ({"xmp": XMP}, b"", 1),
        ({"exif": b"Exif\0\0broken"}, b"", 1),
    ],
)
def test_orientation_of_a_jpeg_is_that_of_exif_alone(options, before, orientation):
    data = build.jpeg(build.ramp(8, 16, 255), **options)
    data = data[:2] + before + data[2:]
    raster, info = read_raster(data), read_info(data)
    assert raster.info == info
    assert info.orientation == orientation
    assert raster.shape == (info.height, info.width) == ((16, 8) if orientation == 6 else (8, 16))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_jpeg_grey_equals_pillow(options):
    data = build.jpeg(build.ramp(24, 40, 255), quality=95, **options)
    raster = read_raster(data)
    assert raster.pixels.dtype == np.uint8
    assert np.array_equal(raster.pixels, np.asarray(Image.open(io.BytesIO(data))))


def test_jpeg_colour_is_the_mean_of_the_channels():
    data = build.jpeg(build.ramp(24, 40, 255, 3), quality=95)
    assert_image(read_image(data), np.asarray(Image.open(io.BytesIO(data))).mean(2) / 255)
    assert read_info(data).photometric == "RGB"


def test_jpeg_colour_of_a_grey_film_keeps_eight_bits():
    grey = build.ramp(24, 40, 255)
    raster = read_raster(build.jpeg(np.dstack([grey] * 3), quality=95, subsampling=0))
    assert raster.pixels.dtype == np.uint8


def cmyk():
    file = io.BytesIO()
    Image.new("CMYK", (16, 8)).save(file, "JPEG")
    return file.getvalue()


def test_jpeg_of_other_kinds_is_refused_with_the_kind():
    with pytest.raises(UnsupportedImageError, match="CMYK"):
        read_image(cmyk())
    with pytest.raises(UnsupportedImageError, match="lossless"):
        read_image(build.jpeg_lossless(build.ramp(8, 8, 4095), 12))
    twelve = build.jpeg(build.ramp(16, 16, 255)).replace(
        b"\xff\xc0\x00\x0b\x08", b"\xff\xc1\x00\x0b\x0c"
    )
    with pytest.raises(UnsupportedImageError, match="12 bits"):
        read_image(twelve)


@pytest.mark.parametrize("compression", [1, 8, 32946, 32773])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_grey_of_every_kind(bits, order, compression, photometric):
    pixels = build.ramp(6, 10, 2**bits - 1)
    data = build.tiff(pixels, bits, order=order, photometric=photometric, compression=compression)
    fraction = pixels / (2**bits - 1)
    assert_image(read_image(data), fraction if photometric else 1 - fraction)
    assert_image(read_image(data, fix_monochrome=False), fraction)
    info = read_info(data)
    assert info.bits == bits
    assert info.photometric == ("MONOCHROME2" if photometric else "MONOCHROME1")


@pytest.mark.parametrize("bits", [12, 32])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_of_odd_depths(bits, big):
    pixels = build.ramp(6, 10, 2**bits - 1)
    assert_image(read_image(build.tiff(pixels, bits, big=big)), pixels / (2**bits - 1))


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_signed_uses_the_signed_range(bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    pixels = np.array([[low, -1, 0], [5, high - 1, high]])
    image = read_image(build.tiff(pixels, bits, signed=True))
    assert_image(image, (pixels - low) / (high - low))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_colour_keeps_its_depth(bits, order, compression, channels):
    pixels = build.ramp(6, 10, 2**bits - 1, channels)
    tags = {338: 2} if channels == 4 else {}
    data = build.tiff(pixels, bits, order=order, compression=compression, photometric=2, tags=tags)
    assert_image(read_image(data), pixels[:, :, :3].mean(2) / (2**bits - 1))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", None])
@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_tiff_that_pillow_wrote(mode, compression):
    top = 255 if mode == "L" else 65535
    pixels = build.ramp(33, 20, top).astype("uint8" if mode == "L" else "uint16")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", compression=compression)
    assert_image(read_image(file.getvalue()), pixels / top)


def test_tiff_palette_is_looked_up():
    pixels = build.ramp(6, 10, 255)
    palette = build.ramp(3, 256, 255)
    colormap = [int(value) * 257 for value in palette.flat]
    data = build.tiff(pixels, 8, photometric=3, tags={320: colormap})
    assert_image(read_image(data), palette.mean(0)[pixels] / 255)


def test_tiff_alpha_is_dropped():
    pixels = build.ramp(6, 10, 255, 2)
    assert_image(read_image(build.tiff(pixels, 8, tags={338: 2})), pixels[:, :, 0] / 255)
    assert_image(read_image(build.tiff(pixels, 16, tags={338: 2})), pixels[:, :, 0] / 65535)


def test_tiff_tiles_are_put_together_and_limited():
    data = tiled(np.arange(32 * 48).reshape(32, 48) % 256)
    assert_image(read_image(data), np.arange(32 * 48).reshape(32, 48) % 256 / 255)
    assert read_info(data).width == 48
    place = data.index(struct.pack("<HHI", 322, 3, 1)) + 8
    huge = data[:place] + struct.pack("<H", 60000) + data[place + 2 :]
    place = data.index(struct.pack("<HHI", 323, 3, 1)) + 8
    huge = huge[:place] + struct.pack("<H", 60000) + huge[place + 2 :]
    with pytest.raises(ImageTooLargeError, match="tiles"):
        read_image(huge)


def tiled(pixels):
    """A TIFF of 16 x 16 tiles, the tag values and tiles in one run behind the header."""
    tiles = [pixels[r : r + 16, c : c + 16] for r in (0, 16) for c in (0, 16, 32)]
    tags = [
        (256, 3, [48]),
        (257, 3, [32]),
        (258, 3, [8]),
        (259, 3, [1]),
        (262, 3, [1]),
        (277, 3, [1]),
        (322, 3, [16]),
        (323, 3, [16]),
        (324, 4, None),
        (325, 4, [256] * 6),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    body, entries = b"", b""
    for tag, kind, values in tags:
        numbers = values or [start + 48 + 256 * number for number in range(6)]
        packed = struct.pack(f"<{len(numbers)}{'I' if kind == 4 else 'H'}", *numbers)
        if len(packed) > 4:
            packed, body = struct.pack("<I", start + len(body)), body + packed
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + body + b"".join(tile.astype(np.uint8).tobytes() for tile in tiles)


def test_tiff_pages_need_a_number():
    pages = [build.ramp(6, 10, 255), build.ramp(5, 7, 200)]
    data = build.tiff(pages, 8)
    assert read_info(data).frames == 2
    with pytest.raises(UnsupportedImageError, match="2 frames"):
        read_image(data)
    for number, page in enumerate(pages):
        assert_image(read_image(data, frame=number), page / 255)
        assert read_info(data, frame=number).height == page.shape[0]
    for number in (2, -1):
        with pytest.raises(ImageReadError, match="frame"):
            read_image(data, frame=number)


def test_tiff_thumbnail_is_not_a_page():
    data = build.tiff([build.ramp(6, 10, 255), build.ramp(3, 5, 255)], 8)
    second = build.tiff([build.ramp(6, 10, 255)], 8, tags={254: 1})
    assert read_info(data).frames == 2
    with pytest.raises(ImageReadError, match="no picture"):
        read_image(second)


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (build.ramp(6, 10, 255, 4), {"photometric": 5}, "interpretation 5"),
        (build.ramp(6, 10, 255), {"photometric": 9}, "interpretation 9"),
        (build.ramp(6, 10, 255), {"tags": {339: 3}}, "floating point"),
        (build.ramp(6, 10, 255), {"tags": {258: 7}}, "7 bits a sample"),
        (build.ramp(6, 10, 255), {"tags": {317: 3}}, "predictor 3"),
        (build.ramp(6, 10, 255), {"tags": {259: 34892}}, "compression 34892"),
    ],
)
def test_tiff_of_other_kinds_is_refused_with_the_kind(pixels, options, words):
    with pytest.raises(UnsupportedImageError, match=words):
        read_image(build.tiff(pixels, 8, **options))


def test_animated_png_is_refused():
    control = (b"acTL", b"\0\0\0\2\0\0\0\0")
    with pytest.raises(UnsupportedImageError, match="2 frames"):
        read_image(build.png(build.ramp(4, 4, 255), 8, 0, extra=[control]))


def test_name_of_the_file_plays_no_part(tmp_path):
    pixels = build.ramp(HEIGHT, WIDTH, 255)
    for name in ("film.jpg", "film.dcm", "film", "film.txt"):
        path = tmp_path / name
        path.write_bytes(build.png(pixels, 8, 0))
        assert_image(load_image(str(path)), pixels / 255)


def test_read_xray_dcm_refuses_a_picture_by_name():
    with pytest.raises(ImageReadError, match=r"PNG.*load_image"):
        read_xray_dcm(build.png(build.ramp(4, 4, 255), 8, 0))


@pytest.mark.parametrize(
    "value", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xda\0\2", b"x" * 50]
)
def test_codestream_without_a_frame_header_is_none(value):
    assert read_codestream(value) is None


@pytest.mark.parametrize("with_arrow", [True, False])
@pytest.mark.parametrize(("mode", "side"), [("L", 9), ("I;16", 9), ("RGB", 9), ("L", 4200)])
def test_pixels_of_a_picture_are_the_same_with_and_without_arrow(
    mode, side, with_arrow, monkeypatch
):
    importlib.import_module("pyarrow")
    if not with_arrow:
        monkeypatch.delitem(sys.modules, "pyarrow")
    shape = (side, side + 1, 3) if mode == "RGB" else (side, side + 1)
    top = 65535 if mode == "I;16" else 255
    values = np.random.default_rng(0).integers(0, top, shape, endpoint=True)
    array = values.astype(np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(array)
    found = pixels_of(image)
    image.close()
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
