"""JPEG 2000 outside DICOM: pixels as an independent decoder gives them, meaning as boxes say."""

from __future__ import annotations

import io
import random
import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from support.image_files import JPEG_2000_LOSSLESS, encapsulated, ramp
from support.jpeg2000_files import (
    SIGNATURE,
    box,
    channels,
    code,
    colour,
    jp2,
    palette,
    profile,
    resolution,
)
from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images import Limits, read_image, read_info, read_raster
from torchxrayvision.images.jpeg2000 import _style_segments
from torchxrayvision.transforms import prepare

pytestmark = pytest.mark.skipif(
    not features.check("jpg_2000"), reason="needs a Pillow with JPEG 2000"
)

GREY = ramp(40, 50, 255).astype(np.uint8)
DEEP = ramp(40, 50, 65535).astype(np.uint16)
RGB = ramp(40, 50, 255, 3).astype(np.uint8)
SRGB, GREYS, SYCC = colour(16), colour(17), colour(18)


def scaled(values, low, peak):
    return (np.asarray(values, np.float64)[None] - low) / (peak - low) * 2048 - 1024


def assert_image(data, expected, low, peak):
    np.testing.assert_allclose(read_image(data), scaled(expected, low, peak), atol=1e-3)


# ---- Against an independent decoder.


@pytest.mark.parametrize("form", ["jp2", "j2k"])
@pytest.mark.parametrize(
    ("channel_count", "dtype", "bits"),
    [(1, "u1", 1), (1, "u1", 5), (1, "u1", 8), (1, "i1", 8), (1, "u2", 10), (1, "u2", 12),
     (1, "i2", 12), (1, "u2", 16), (1, "i2", 16), (3, "u1", 6), (3, "u1", 8), (3, "u2", 12),
     (3, "u2", 16), (3, "i2", 12), (4, "u1", 8), (4, "u2", 16), (2, "u1", 8), (2, "u2", 12)],
)  # fmt: skip
@pytest.mark.parametrize("lossy", [False, True], ids=["lossless", "lossy"])
def test_pixels_are_those_of_an_independent_decoder(form, channel_count, dtype, bits, lossy):
    imagecodecs = pytest.importorskip("imagecodecs")
    if bits > 8 and channel_count > 1:
        pytest.importorskip("openjpeg")
    signed = dtype[0] == "i"
    low = -(1 << (bits - 1)) if signed else 0
    peak = low + (1 << bits) - 1
    smooth = np.rint(np.add.outer(np.arange(70.0), 2 * np.arange(90)) / 247 * (peak - low)) + low
    smooth = np.clip(smooth, low, peak)
    given = np.stack([smooth, smooth[::-1], smooth[:, ::-1], smooth][:channel_count], 2)
    given = given.astype(dtype)[..., 0] if channel_count == 1 else given.astype(dtype)
    data = imagecodecs.jpeg2k_encode(
        given, codecformat=form, level=45 if lossy else 0, bitspersample=bits, reversible=not lossy
    )
    if form == "j2k" and channel_count in (2, 4):
        with pytest.raises(UnsupportedImageError, match="without a colour space"):
            read_image(data)
        return
    decoded = imagecodecs.jpeg2k_decode(data).astype(np.float64)
    assert lossy or np.array_equal(decoded, given)
    if channel_count > 1:
        decoded = decoded[..., :3].mean(2) if channel_count > 2 else decoded[..., 0]
    raster = read_raster(data)
    # Builds of OpenJPEG may round a colour of a lossy image the other way.
    least = 1e-3 + (2048 / 3 / (peak - low) if lossy and channel_count > 2 else 0)
    np.testing.assert_allclose(raster.to_array(), scaled(decoded, low, peak), atol=least)
    info = raster.info
    assert info == read_info(data)
    assert (info.format, info.height, info.width, info.bits) == ("jpeg2000", 70, 90, bits)
    assert (info.channels, info.signed, info.frames) == (channel_count, signed, 1)
    assert info.photometric == ("RGB" if channel_count > 2 else "MONOCHROME2")
    if channel_count == 1:
        assert raster.pixels.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": (16, 24)},
        {"offset": (5, 7), "tile_size": (32, 32)},
        {"offset": (33, 40), "tile_offset": (32, 32), "tile_size": (32, 32)},
        {"progression": "RPCL", "precinct_size": (64, 64)},
        {"plt": True},
        {"irreversible": True, "quality_layers": [8, 4]},
        {"num_resolutions": 1},
    ],
    ids=str,
)
def test_every_arrangement_of_the_code_is_decoded(options):
    imagecodecs = pytest.importorskip("imagecodecs")
    data = code(ramp(96, 80, 65535).astype(np.uint16), **options)
    assert np.array_equal(read_raster(data).pixels, imagecodecs.jpeg2k_decode(data))


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_high_throughput_code_is_decoded(dtype):
    imagecodecs = pytest.importorskip("imagecodecs")
    if not imagecodecs.HTJ2K.available:
        pytest.skip("imagecodecs without OpenJPH")
    pixels = GREY if dtype == "u1" else DEEP
    data = imagecodecs.htj2k_encode(pixels)
    assert np.array_equal(read_raster(data).pixels, pixels)
    assert np.array_equal(read_raster(jp2(data, GREYS, brand=b"jph ")).pixels, pixels)


# ---- What the boxes say.


@pytest.mark.parametrize(
    ("pixels", "headers", "expected", "peak"),
    [
        (GREY, [GREYS], GREY, 255),
        (GREY, [profile(b"GRAY")], GREY, 255),
        (GREY, [box(b"colr", bytes([4, 0, 0]), b"vendor"), GREYS], GREY, 255),
        (GREY, [colour(20), GREYS], GREY, 255),
        (DEEP, [GREYS], DEEP, 65535),
        (RGB, [SRGB], RGB.sum(2, dtype=int), 765),
        (RGB, [profile(b"RGB ")], RGB.sum(2, dtype=int), 765),
        (np.dstack([GREY] * 3), [SRGB], GREY, 255),
        (np.dstack([RGB, GREY]), [SRGB], RGB.sum(2, dtype=int), 765),
        (np.dstack([RGB, GREY]), [SRGB, channels((0, 0, 1), (1, 0, 2), (2, 0, 3), (3, 1, 0))],
         RGB.sum(2, dtype=int), 765),
        (RGB, [SRGB, channels((0, 0, 3), (1, 0, 2), (2, 0, 1))], RGB.sum(2, dtype=int), 765),
        (np.dstack([GREY, GREY[::-1]]), [GREYS, channels((0, 0, 1), (1, 1, 0))], GREY, 255),
    ],
    ids=["grey", "grey profile", "after a vendor's", "the first known", "deep", "rgb",
         "rgb profile", "equal channels", "alpha", "declared alpha", "bgr", "grey and alpha"],
)  # fmt: skip
def test_colour_becomes_the_mean_and_alpha_is_dropped(pixels, headers, expected, peak):
    assert_image(jp2(code(pixels), *headers), expected, 0, peak)


def test_sycc_is_converted_as_pillow_converts_it():
    image = Image.fromarray(RGB)
    stored = code(np.asarray(image.convert("YCbCr")))
    data = jp2(stored, SYCC)
    back = np.asarray(image.convert("YCbCr").convert("RGB")).sum(2, dtype=int)
    assert_image(data, back, 0, 765)
    assert read_info(data).photometric == "RGB"
    assert read_raster(data, least_side=4).reduction is None


@pytest.mark.parametrize("columns", [1, 3])
def test_a_palette_gives_its_colours(columns):
    entries = np.array(random.Random(1).choices(range(256), k=columns * 100), np.uint8)
    indices = ramp(40, 50, 99).astype(np.uint8)
    data = jp2(code(indices), SRGB if columns == 3 else GREYS, palette(entries.tobytes(), columns))
    colours = entries.reshape(-1, columns).astype(int).mean(1)[indices]
    assert_image(data, colours, 0, 255)
    assert read_info(data).photometric == "PALETTE COLOR"
    assert read_raster(data, least_side=4).reduction is None  # indices have no mean


@pytest.mark.parametrize(
    ("boxes", "aspect"),
    [
        ([resolution(10, 10)], 1.0),
        ([resolution(10, 20)], 2.0),
        ([resolution(20, 10, b"resd")], 0.5),
        ([resolution(10, 30, b"resd"), resolution(10, 20)], 2.0),
        ([resolution(10, 20), resolution(10, 30, b"resd")], 2.0),
        ([resolution(10, 10), resolution(10, 30, b"resd")], 1.0),
        ([box(b"resc", struct.pack(">HHHHbb", 1, 0, 1, 1, 0, 0))], 1.0),
        ([resolution(1, 0)], 1.0),
        ([resolution(1, 60000)], 1.0),
        ([box(b"resc", struct.pack(">HHHHbb", 5, 1, 500, 1, 2, 0))], 1.0),
    ],
)
def test_the_resolution_gives_the_form_of_a_pixel(boxes, aspect):
    data = jp2(code(GREY), GREYS, box(b"res ", *boxes))
    assert read_info(data).aspect == pytest.approx(aspect)
    assert read_raster(data).info.aspect == pytest.approx(aspect)


def exif(orientation):
    block = Image.Exif()
    block[274] = orientation
    return box(b"uuid", b"JpgTiffExif->JP2", block.tobytes()[6:])


def film(height, width):
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    picture = 0.6 + 0.3 * np.sin(9 * x + 4 * y) * np.cos(7 * y - 3 * x)
    picture[: height // 9, : width // 7] = 0.92
    picture[:, -width // 12 :] = 0.1
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_also_to_reduced_images(orientation):
    pixels = np.rint(film(531, 389) * 65535).astype(np.uint16)
    place = {"before": [exif(orientation)]} if orientation % 2 else {"after": [exif(orientation)]}
    data = jp2(code(pixels), GREYS, resolution_box := box(b"res ", resolution(10, 12)), **place)
    assert resolution_box in data
    whole, reduced = (read_raster(data, least_side=side) for side in (None, 32))
    turned = orientation >= 5
    assert whole.info.aspect == pytest.approx(1 / 1.2 if turned else 1.2)
    file = io.BytesIO()
    block = Image.Exif()
    block[274] = orientation
    Image.fromarray(pixels).save(file, "PNG", exif=block)
    assert np.array_equal(whole.pixels, read_raster(file.getvalue()).pixels)
    assert reduced.reduction.factor == 4
    assert (reduced.reduction.height, reduced.reduction.width) == whole.shape
    exact, fast = (
        prepare(r.pixels, r.scale, r.offset, 32, 1.0, r.reduction)[0] for r in (whole, reduced)
    )
    inner = slice(3, -3), slice(3, -3)
    down, right = (slope[inner].ravel() for slope in np.gradient(exact))
    moved = np.linalg.lstsq(np.stack([down, right], 1), (fast - exact)[inner].ravel(), rcond=None)
    assert np.abs(moved[0]).max() < 0.02
    assert np.abs(fast - exact).mean() < 7


@pytest.mark.parametrize("mode", ["grey", "grey and alpha", "colour", "signed", "12 bits"])
@pytest.mark.parametrize("shape", [(531, 389), (263, 277)], ids=str)
def test_a_network_gets_nearly_what_the_whole_image_gives(mode, shape):
    imagecodecs = pytest.importorskip("imagecodecs")
    picture = film(*shape)
    grey = np.rint(picture * 255).astype(np.uint8)
    deep = np.rint(picture * 4095)
    data = {
        "grey": lambda: code(grey),
        "grey and alpha": lambda: jp2(code(np.dstack([grey, 255 - grey])), GREYS),
        "colour": lambda: code(np.dstack([grey, grey // 2 + 9, 255 - grey])),
        "signed": lambda: imagecodecs.jpeg2k_encode(
            (deep - 2048).astype("i2"), bitspersample=12, level=0
        ),
        "12 bits": lambda: imagecodecs.jpeg2k_encode(
            deep.astype("u2"), bitspersample=12, level=0, codecformat="jp2"
        ),
    }[mode]()
    whole, reduced = (read_raster(data, least_side=side) for side in (None, 32))
    assert reduced.reduction.factor == 4
    assert whole.reduction is None
    assert reduced.shape == tuple(-(-n // reduced.reduction.factor) for n in shape)
    assert (reduced.scale, reduced.info) == (whole.scale, whole.info)
    exact, fast = (
        prepare(r.pixels, r.scale, r.offset, 32, 1.0, r.reduction)[0] for r in (whole, reduced)
    )
    assert np.abs(fast - exact).mean() < 7
    assert np.abs(fast - exact).max() < 110


def test_edges_at_the_ends_of_the_range_are_decoded_whole():
    grey = np.rint(film(531, 389) * 255).astype(np.uint8)
    assert read_raster(code(grey), least_side=32).reduction is not None
    grey[100:130, 40:180] = 255
    assert read_raster(code(grey), least_side=32).reduction is None
    colours = np.dstack([np.rint(film(531, 389) * 255).astype(np.uint8)] * 2 + [grey])
    assert read_raster(code(colours), least_side=32).reduction is None


# ---- What is refused.


def siz(stream, place, value):
    """A byte of the header of a code stream changed."""
    changed = bytearray(stream)
    changed[place] = value
    return bytes(changed)


RGBA = code(np.dstack([RGB, GREY]))
REFUSED = {
    "CMYK": (jp2(RGBA, colour(12)), "CMYK is for print"),
    "CMYK by profile": (jp2(RGBA, profile(b"CMYK")), "CMYK is for print"),
    "Lab": (jp2(code(RGB), colour(14)), "of colour space 14; convert it to grey"),
    "a Lab profile": (jp2(code(RGB), profile(b"Lab ")), "neither grey nor RGB"),
    "bi-level": (jp2(code(GREY), colour(0)), "colour space 0"),
    "a vendor's colours": (jp2(code(GREY)), "a colour space of its maker"),
    "four bare channels": (RGBA, "4 channels without a colour space"),
    "two bare channels": (code(np.dstack([GREY, GREY])), "2 channels without a colour space"),
    "too few channels": (jp2(code(GREY), SRGB), "1 channels in an unusual order"),
    "too many channels": (jp2(RGBA, GREYS), "4 channels in an unusual order"),
    "alpha first": (
        jp2(RGBA, SRGB, channels((0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3))), "unusual order",
    ),
    "17 bits": (siz(code(GREY), 42, 16), "of 17 bits"),
    "subsampled": (siz(code(RGB), 46, 2), "subsampled"),
    "subsampled grey": (siz(code(GREY), 43, 2), "subsampled"),
    "channels of other bits": (siz(code(RGB), 45, 9), "differ in bits"),
    "a signed channel": (siz(code(RGB), 45, 0x87), "differ in bits"),
    "a deep palette": (jp2(code(GREY), SRGB, palette(bytes(600), 3, depth=11)), "a palette of"),
    "a palette of 4 channels": (jp2(code(GREY), SRGB, palette(bytes(400), 4)), "4 channels"),
    "a palette of 300 colours": (jp2(code(GREY), SRGB, palette(bytes(900))), "300 colours"),
    "a palette without map": (jp2(code(GREY), SRGB, palette(bytes(300), mapping=b"")), "some of"),
    "a palette for 16 bits": (jp2(code(DEEP), SRGB, palette(bytes(300))), "16 bits with a palette"),
    "another code": (jp2(code(GREY), GREYS, compression=6), "without JPEG 2000 code"),
    "two code streams": (
        jp2(code(GREY), GREYS, brand=b"jpx ", after=[box(b"jp2c", code(GREY))]), "holds 2 frames",
    ),
    "a video": (jp2(code(GREY), GREYS, brand=b"mjp2"), "Motion JPEG 2000 video"),
    "a document": (jp2(code(GREY), GREYS, brand=b"jpm "), r"several layers \(JPM\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_by_name(name):
    data, words = REFUSED[name]
    with pytest.raises(UnsupportedImageError, match=words):
        read_image(data)


def test_a_frame_of_several_code_streams_is_not_guessed():
    data = jp2(code(GREY), GREYS, brand=b"jpx ", after=[box(b"jp2c", code(GREY))])
    assert read_info(data).frames == 2
    with pytest.raises(UnsupportedImageError, match="2 code streams; save the one"):
        read_image(data, frame=1)
    with pytest.raises(ImageReadError, match="frame 2 was asked for"):
        read_image(data, frame=2)
    assert np.array_equal(read_image(jp2(code(GREY), GREYS), frame=0), read_image(code(GREY)))


def test_info_names_what_is_not_read():
    assert read_info(REFUSED["CMYK"][0]).photometric == "CMYK"
    assert read_info(REFUSED["Lab"][0]).photometric == "unknown"
    assert read_info(REFUSED["17 bits"][0]).bits == 17


DAMAGED = {
    "no code stream": (SIGNATURE + box(b"jp2h", box(b"free")), "holds no code stream"),
    "a header cut": (SIGNATURE + box(b"jp2h", box(b"ihdr", bytes(3))), "inside a header box"),
    "no header box": (SIGNATURE + box(b"jp2c", code(GREY)), "missing or doubled"),
    "two header boxes": (jp2(code(GREY), before=[box(b"jp2h")]), "missing or doubled"),
    "an empty header box": (SIGNATURE + box(b"jp2h") + box(b"jp2c", code(GREY)), "missing"),
    "a box of length 3": (SIGNATURE + struct.pack(">I4s", 3, b"jp2h"), "damaged: 3 bytes"),
    "a box past the end": (SIGNATURE + struct.pack(">I4s", 99, b"jp2h"), "truncated inside the"),
    "a long box cut": (SIGNATURE + struct.pack(">I4s", 1, b"jp2h"), "inside a header box"),
    "a box of 2**63 bytes": (SIGNATURE + struct.pack(">I4sQ", 1, b"jp2c", 2**63), "truncated"),
    "two sizes": (jp2(code(GREY), GREYS, size=(41, 50, 1)), "two different sizes"),
    "two numbers of channels": (jp2(code(GREY), GREYS, size=(40, 50, 3)), "two different sizes"),
    "no end marker": (code(GREY)[:-2], "truncated: the JPEG 2000 code stream ends without"),
    "an end marker behind a cut": (code(GREY)[:-200] + b"\xff\xd9", "truncated"),
    "a code stream of zeros": (b"\xff\x4f\xff\x51" + bytes(200), "no header"),
    "a header of another length": (siz(code(GREY), 5, 44), "header of the JPEG 2000 code stream"),
    "a cut palette": (jp2(code(GREY), SRGB, palette(bytes(300))[:40]), "truncated inside the"),
    "a palette of too few colours": (
        jp2(code(GREY), SRGB, box(b"pclr", b"\0\x64\3\7\7\7", bytes(299)), box(
            b"cmap", b"\0\0\1\0\0\0\1\1\0\0\1\2")), "inside a header box",
    ),
    "a channel definition cut": (jp2(code(GREY), GREYS, box(b"cdef", b"\0\x09")), "header box"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_a_typed_error(name):
    data, words = DAMAGED[name]
    with pytest.raises(ImageReadError, match=words):
        read_image(data)


def test_damage_is_refused_also_where_pillow_goes_on(monkeypatch):
    data = bytearray(code(np.rint(film(300, 280) * 255).astype(np.uint8), tile_size=(96, 80)))
    place = data.rfind(bytes.fromhex("ff90000a"))
    data[place + 4 : place + 6] = b"\x00\xc8"  # a tile that the image has not
    for allowed in (False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)
        for side in (None, 32):
            with pytest.raises(ImageReadError, match="pixel data is damaged"):
                read_raster(bytes(data), least_side=side)


def test_what_follows_the_code_stream_does_not_matter():
    whole = jp2(code(GREY), GREYS)
    for rest in (b"\0", bytes(100), b"\xff" * 100, box(b"xml ", b"<a/>"), b"\0\0\0\x05free"):
        assert np.array_equal(read_raster(whole + rest).pixels, GREY)
    last = jp2(code(GREY), GREYS)
    place = last.index(b"jp2c") - 4
    endless = last[:place] + bytes(4) + last[place + 4 :]  # up to the end of the file
    assert np.array_equal(read_raster(endless).pixels, GREY)
    extended = last[:place] + box(b"jp2c", code(GREY), extended=True)
    assert np.array_equal(read_raster(extended).pixels, GREY)


def test_limits_hold_before_anything_is_decoded():
    huge = bytearray(code(GREY))
    struct.pack_into(">2I", huge, 8, 9000, 9000)
    for read in (read_image, read_info):
        with pytest.raises(ImageTooLargeError, match="9,000 x 9,000 pixels"):
            read(bytes(huge))
        with pytest.raises(ImageTooLargeError, match="50 x 40 pixels, above the limit of 1,999"):
            read(code(GREY), limits=Limits(pixels=1999))
        with pytest.raises(ImageTooLargeError, match="8,000 bytes decoded"):
            read(code(GREY), limits=Limits(decoded_bytes=7999))
        with pytest.raises(ImageTooLargeError, match=r"more than 10,000 boxes"):
            read(SIGNATURE + box(b"free") * 10_001)
    assert read_image(code(GREY), limits=Limits(decoded_bytes=8000)).shape == (1, 40, 50)


def finely_cut(side, precinct, block=4, layers=1, where="main", marker=0xFF52):
    """A blank image whose header asks for small precincts (2 to the power) in one of three places.

    The code that follows is for larger ones, which nobody gets to see.
    """
    stream = code(np.zeros((side, side), np.uint8))
    place = stream.index(b"\xff\x52")
    (length,) = struct.unpack_from(">H", stream, place + 2)
    body = bytearray(stream[place + 4 : place + 2 + length])
    style = bytes(body[5:])[:1] + bytes([block - 2] * 2) + bytes(body[8:10])
    style += bytes([precinct * 17] * (body[5] + 1))
    if marker == 0xFF53:  # of component 0
        content = b"\0\1" + style
    else:
        content = bytes([body[0] | 1, body[1]]) + struct.pack(">H", layers) + body[4:5] + style
    segment = struct.pack(">HH", marker, len(content) + 2) + content
    if where == "main":
        rest = stream[place + 2 + length :] if marker == 0xFF52 else stream[place:]
        return stream[:place] + segment + rest
    part = stream.index(b"\xff\x90")
    (size,) = struct.unpack_from(">I", stream, part + 6)
    head = stream[part : part + 6] + struct.pack(">I", size + len(segment)) + stream[part + 10 :]
    return stream[:part] + head[:12] + segment + head[12:]


@pytest.mark.parametrize(
    "options",
    [{}, {"where": "tile"}, {"marker": 0xFF53}, {"marker": 0xFF53, "where": "tile"}],
    ids=["main header", "tile-part", "of a component", "of a component, tile-part"],
)
@pytest.mark.parametrize("form", ["bare", "boxes", "dicom"])
def test_an_image_in_countless_pieces_is_refused_at_once(options, form):
    """200 bytes would take 600 MB and seconds."""
    stream = finely_cut(1024, 1, **options)
    assert len(stream) < 250
    if form == "dicom":
        blank = np.zeros((1024, 1024), np.uint8)
        data = encapsulated([stream], blank, JPEG_2000_LOSSLESS)
    else:
        data = jp2(stream, GREYS) if form == "boxes" else stream
    for read in (read_raster,) if form == "dicom" else (read_raster, read_info):
        with pytest.raises(ImageTooLargeError, match=r"in 1,397,2\d\d pieces, above 500,000"):
            read(data)


@pytest.mark.parametrize("length", [1, 12, 13, 14, 20])
def test_a_tile_part_that_ends_within_its_header_is_no_endless_loop(length):
    stream = bytearray(finely_cut(64, 15, where="tile"))
    part = stream.index(b"\xff\x90")
    struct.pack_into(">I", stream, part + 6, length)
    with pytest.raises(ImageReadError):
        read_image(bytes(stream))
    assert len(list(_style_segments(bytes(stream)))) == 2
    stream[part + 12 :] = b"\xff\x64\0\0" * 9
    assert len(list(_style_segments(bytes(stream)))) == 1


def test_more_packets_than_bytes_are_refused():
    with pytest.raises(ImageTooLargeError, match=r"packets of JPEG 2000 in .* hostile"):
        read_image(finely_cut(1024, 7, layers=2000))


@pytest.mark.parametrize(("precinct", "block"), [(15, 6), (8, 6), (6, 4), (5, 4), (15, 2)])
def test_usual_pieces_pass(precinct, block):
    pixels = ramp(300, 280, 255).astype(np.uint8)
    sizes = {} if precinct == 15 else {"precinct_size": (1 << precinct,) * 2}
    data = code(pixels, codeblock_size=(1 << block,) * 2, **sizes)
    assert np.array_equal(read_raster(data).pixels, pixels)


def test_a_pillow_without_openjpeg_is_named(monkeypatch):
    monkeypatch.setattr(features, "check_codec", lambda name: name != "jpg_2000")
    with pytest.raises(UnsupportedImageError, match="Pillow that was built with OpenJPEG"):
        read_image(code(GREY))
    assert read_info(code(GREY)).bits == 8


def test_deep_colour_names_the_package_that_it_needs(monkeypatch):
    imagecodecs = pytest.importorskip("imagecodecs")
    data = imagecodecs.jpeg2k_encode(np.dstack([DEEP] * 3), codecformat="jp2", level=0)
    monkeypatch.setitem(sys.modules, "openjpeg", None)
    with pytest.raises(
        UnsupportedImageError, match=r"3 channels of 16 bits .*torchxrayvision\[dicom"
    ):
        read_image(data)
