"""Damaged and hostile files: a typed error or a valid picture, at once and in little memory."""

from __future__ import annotations

import importlib.util
import itertools
import random
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import features

from support import image_files as build
from support.jpeg2000_files import code, colour, jp2
from torchxrayvision.errors import ImageReadError, ImageTooLargeError
from torchxrayvision.images import Limits, read_info, read_raster

SECONDS = 2.0
MEGABYTES = 64
SHAPE = (24, 30)
SMOOTH = (64, 64)
GREY = build.ramp(*SHAPE, 255)
DEEP = build.ramp(*SHAPE, 65535)
COLOUR = build.ramp(*SHAPE, 255, 3)


def streams(stream, syntax):
    return build.encapsulated([stream], GREY.astype("uint8"), syntax)


def rle():
    found = build.dataset(DEEP.astype("uint16"))
    found.compress(build.RLE, generate_instance_uid=False)
    return build.write(found, build.RLE)


def lossless():
    stream = build.jpeg_lossless(DEEP // 16, 12)
    return build.encapsulated([stream], DEEP.astype("uint16"), build.LOSSLESS_SV1, stored=12)


def compressed(syntax):
    """A smooth picture, as the encoders ask for a larger one than the others."""
    pixels = (np.indices((64, 64)).sum(0) * 500).astype("uint16")
    found = build.dataset(pixels)
    found.compress(syntax, generate_instance_uid=False)
    return build.write(found, syntax)


def installed(*packages):
    return all(importlib.util.find_spec(name) for name in packages)


FILES = {
    "png-grey": build.png(GREY, 8, 0),
    "png-16": build.png(DEEP, 16, 0, interlace=1),
    "png-palette": build.png(GREY, 8, 3, palette=build.ramp(256, 3, 255)),
    "jpeg-grey": build.jpeg(GREY, quality=90),
    "jpeg-colour": build.jpeg(COLOUR, quality=90),
    "jpeg-progressive": build.jpeg(GREY, quality=90, progressive=True),
    "tiff-plain": build.tiff(GREY, 8),
    "tiff-deflate": build.tiff(DEEP, 16, compression=8, order=">"),
    "tiff-pages": build.tiff([GREY, GREY], 8, compression=32773),
    "tiff-big": build.tiff(DEEP, 16, big=True),
    "dicom-explicit": build.dicom(
        DEEP.astype("uint16"), stored=12, WindowCenter="40", WindowWidth="80", PixelPaddingValue=0,
        RescaleSlope="1", RescaleIntercept="0", PixelSpacing=["0.1", "0.1"],
    ),
    "dicom-implicit-bare": build.dicom(DEEP.astype("uint16"), build.IMPLICIT, meta=False),
    "dicom-big-endian": build.dicom(DEEP.astype("uint16"), build.BIG_ENDIAN),
    "dicom-deflated": build.dicom(DEEP.astype("uint16"), build.DEFLATED),
    "dicom-lut": build.dicom(
        GREY.astype("uint8"), ModalityLUTSequence=build.lut(range(256), bits=8),
        VOILUTSequence=build.lut(range(256), bits=8),
    ),
    "dicom-jpeg": streams(build.jpeg(GREY), build.BASELINE),
    "dicom-rle": rle(),
    "dicom-frames": build.dicom(np.stack([GREY, GREY]).astype("uint8")),
}  # fmt: skip


if features.check("jpg_2000"):
    FILES["jpeg2000-bare"] = code(DEEP.astype("uint16"))
    FILES["jpeg2000-boxes"] = jp2(code(GREY.astype("uint8")), colour(17))
if installed("gdcm"):
    FILES["dicom-jpeg-lossless"] = lossless()
if installed("openjpeg"):
    FILES["dicom-jpeg-2000"] = compressed(build.JPEG_2000_LOSSLESS)
if installed("jpeg_ls"):
    FILES["dicom-jpeg-ls"] = compressed(build.JPEG_LS)


def read_anything(data, **options):
    """Read as a hostile caller would: every option on. The outcome must be one of two."""
    start = time.perf_counter()
    try:
        raster = read_raster(data, frame=0, voi=True, **options)
        image = raster.to_array()
    except ImageReadError as error:
        outcome = error
    else:
        assert image.dtype == np.float32
        assert image.shape == (1, raster.info.height, raster.info.width)
        assert np.isfinite(image).all()
        assert image.min() >= -1024.001
        assert image.max() <= 1024.001
        outcome = image
    if isinstance(outcome, ImageReadError):
        assert str(outcome).startswith("<bytes>: ")
    assert time.perf_counter() - start < SECONDS
    return outcome


def intact(name):
    image = read_anything(FILES[name])
    assert isinstance(image, np.ndarray), image
    return image


@pytest.mark.parametrize("name", FILES)
def test_files_are_whole_before_they_are_damaged(name):
    assert intact(name).shape[1:] in (SHAPE, SMOOTH)


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_never_half_a_picture(name):
    """At every offset of the header and 60 more: an error, or the picture as it was."""
    data, whole = FILES[name], intact(name)
    offsets = {*range(0, min(200, len(data)), 3), *range(1, len(data), max(1, len(data) // 60))}
    offsets |= {len(data) - less for less in range(1, 12)}
    refused = 0
    for offset in sorted(offsets):
        outcome = read_anything(data[:offset])
        if isinstance(outcome, ImageReadError):
            refused += 1
        else:
            assert np.array_equal(outcome, whole), f"{offset} of {len(data)} bytes"
    assert refused > 0.5 * len(offsets)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_give_an_error_or_a_valid_picture(name, seed):
    data, chance = FILES[name], random.Random(seed)
    for _ in range(25):
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 4, 30))):
            place = chance.randrange(min(len(data), 600) if chance.random() < 0.6 else len(data))
            damaged[place] = chance.randrange(256)
        read_anything(bytes(damaged))


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("png")])
def test_every_flipped_byte_of_a_png_is_noticed(name):
    data = FILES[name]
    for place in range(8, len(data) - 12, max(1, len(data) // 150)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        assert isinstance(read_anything(bytes(damaged)), ImageReadError), place


@pytest.mark.parametrize("pieces", [1, 2, 5, 70_000])
@pytest.mark.parametrize(("depth", "colour", "interlace"), [(8, 0, 0), (16, 2, 0), (8, 6, 1)])
def test_a_png_whose_stream_contradicts_its_adler_is_refused(depth, colour, interlace, pieces):
    """However the stream is cut into chunks: Pillow alone stops before the checksum if it may."""
    channels = build.PNG_CHANNELS[colour]
    size = 300 if pieces > 5 else 24  # more than one block that Pillow reads
    noise = np.random.default_rng(3).integers(0, 2**depth, (size, size, channels))
    whole = build.png(noise, depth, colour, interlace=interlace)
    (start,) = (at for at in range(len(whole)) if whole[at : at + 4] == b"IHDR")
    head = whole[: start + 4 + 13 + 4]
    stream, at = bytearray(), len(head)
    while (kind := whole[at + 4 : at + 8]) != b"IEND":
        length = int.from_bytes(whole[at : at + 4])
        stream += whole[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    end = build.png_chunk(b"IEND", b"")
    for place in (None, -1, -4):
        if place is not None:
            stream[place] ^= 1
        step = pieces if pieces > 5 else max(1, -(-len(stream) // pieces))
        cuts = sorted({*range(0, len(stream), step), len(stream) - 2, len(stream)})
        parts = [stream[a:b] for a, b in itertools.pairwise(cuts)]
        data = head + b"".join(build.png_chunk(b"IDAT", bytes(part)) for part in parts) + end
        if place is None:
            assert read_raster(data).pixels.shape == (size, size)
        else:
            with pytest.raises(ImageReadError, match="damaged"):
                read_raster(data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(2))
def test_cut_out_and_doubled_pieces_are_survived(name, seed):
    data, chance = FILES[name], random.Random(seed)
    for _ in range(10):
        first, last = sorted(chance.sample(range(len(data)), 2))
        read_anything(data[:first] + data[last:])
        read_anything(data[:last] + data[first:])


@pytest.mark.parametrize("name", FILES)
def test_info_of_damaged_headers_is_typed_too(name):
    data, chance = FILES[name], random.Random(7)
    for _ in range(40):
        damaged = bytearray(data)
        damaged[chance.randrange(min(len(data), 500))] = chance.randrange(256)
        try:
            info = read_info(bytes(damaged))
        except ImageReadError:
            continue
        assert info.height >= 0
        assert info.width >= 0


# Values that a tag is not made for ------------------------------------------------------------

ODD = {
    0x00280010: [0, 1, 65535], 0x00280011: [0, 1, 65535], 0x00280100: [0, 3, 7, 12, 24, 64, 65535],
    0x00280101: [0, 1, 17, 65535], 0x00280102: [0, 65535], 0x00280103: [2, 65535],
    0x00280002: [0, 2, 65535],
}  # fmt: skip
TEXT = {
    0x00280004: ["", "MONOCHROME", "monochrome2", "RGB", "MONOCHROME1\\MONOCHROME2", "\xff\xfe"],
    0x00280008: ["", "0", "-1", "x", "99999999", "1.5", "2147483648"],
    0x00281050: ["", "x", "1e400", "nan", "-inf", "0x10", "1\\x", "1" * 40],
    0x00281051: ["", "x", "0", "-1", "nan", "1e-400"],
    0x00281052: ["", "x", "1e400", "inf"],
    0x00281053: ["", "x", "0", "1e400", "-1e308", "nan"],
    0x00281056: ["", "LINEAR", "OTHER", "\xff"],
    0x00280030: ["", "0", "x\\y", "1\\2\\3", "-1\\-1", "nan\\nan"],
}
DAMAGED_TAGS = [(tag, value) for tag, values in ODD.items() for value in values]
DAMAGED_TEXT = [(tag, value) for tag, values in TEXT.items() for value in values]


def element(tag, vr, value):
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def bare(replaced, raw, *, pixels=None):
    """An explicit little endian dataset, one element of it replaced by raw bytes."""
    body = DEEP.astype("<u2").tobytes() if pixels is None else pixels
    whole = {
        0x00080016: element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.1\0"),
        0x00280002: element(0x00280002, b"US", struct.pack("<H", 1)),
        0x00280004: element(0x00280004, b"CS", b"MONOCHROME2"),
        0x00280010: element(0x00280010, b"US", struct.pack("<H", SHAPE[0])),
        0x00280011: element(0x00280011, b"US", struct.pack("<H", SHAPE[1])),
        0x00280100: element(0x00280100, b"US", struct.pack("<H", 16)),
        0x00280101: element(0x00280101, b"US", struct.pack("<H", 16)),
        0x00280102: element(0x00280102, b"US", struct.pack("<H", 15)),
        0x00280103: element(0x00280103, b"US", struct.pack("<H", 0)),
        0x00281050: element(0x00281050, b"DS", b"300"),
        0x00281051: element(0x00281051, b"DS", b"400"),
        0x7FE00010: struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, len(body)) + body,
    }
    whole[replaced] = raw
    return b"".join(whole[tag] for tag in sorted(whole))


def test_the_bare_dataset_is_whole_before_it_is_damaged():
    assert isinstance(read_anything(bare(0x00281050, element(0x00281050, b"DS", b"9"))), np.ndarray)


@pytest.mark.parametrize(("tag", "value"), DAMAGED_TAGS)
def test_odd_numbers_in_tags(tag, value):
    outcome = read_anything(bare(tag, element(tag, b"US", struct.pack("<H", value))))
    if value == 0 and tag not in (0x00280102, 0x00280103):
        assert isinstance(outcome, ImageReadError)


@pytest.mark.parametrize(("tag", "value"), DAMAGED_TEXT)
def test_odd_text_in_tags(tag, value):
    read_anything(
        bare(tag, element(tag, b"CS" if tag == 0x00280004 else b"DS", value.encode("latin-1")))
    )


@pytest.mark.parametrize("tag", [0x00280010, 0x00280100, 0x00281050, 0x00280004])
@pytest.mark.parametrize(
    "raw",
    [
        b"US\x00\x00",
        b"US\x01\x00\x05",
        b"US\xff\xff",
        b"SQ\x00\x00\xff\xff\xff\xff",
        b"ZZ\x02\x00ab",
        b"UN\x00\x00\xff\xff\xff\x7f",
    ],
)
def test_elements_of_wrong_length_or_type(tag, raw):
    read_anything(bare(tag, struct.pack("<HH", tag >> 16, tag & 0xFFFF) + raw))


def test_deeply_nested_sequences_end_in_an_error_or_are_skipped():
    start = struct.pack("<HH2sHI", 0x0028, 0x3000, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    read_anything(bare(0x00283000, (start + item) * 5000))


def test_a_sequence_of_a_million_empty_items_is_refused():
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    body = item * 1_000_000
    raw = struct.pack("<HH2sHI", 0x0028, 0x3000, b"SQ", 0, len(body)) + body
    with pytest.raises(ImageTooLargeError, match="more than 20,000 sequence items"):
        read_raster(bare(0x00283000, raw))


# Bombs: small files that declare much -------------------------------------------------------------


def png_bomb(width, height, colour=0, depth=8):
    chunks = [build.png_header(width, height, depth, colour)]
    chunks.append(build.png_chunk(b"IDAT", zlib.compress(bytes(2_000_000), 9)))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, build.png_chunk(b"IEND", b"")])


def jpeg_bomb(width, height):
    data = bytearray(build.jpeg(GREY))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_many_scans():
    data = build.jpeg(GREY, progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    return data[:start] + scan * 2000 + data[-2:]


def tiff_bomb(**tags):
    numbers = {"width": 256, "height": 257, "rows": 278}
    return build.tiff(GREY, 8, tags={numbers[name]: value for name, value in tags.items()})


def looped_tiff():
    data = bytearray(FILES["tiff-plain"])
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    return bytes(data)


def dicom_bomb(**tags):
    return build.dicom(GREY.astype("uint8"), **tags)


BOMBS = {
    "png 100000 x 100000": png_bomb(100_000, 100_000),
    "png 2**31 wide": png_bomb(2**31 - 1, 1),
    "png 2**32 wide": png_bomb(2**32 - 1, 2**32 - 1),
    "png of colour": png_bomb(30_000, 30_000, 2, 16),
    "png 0 wide": png_bomb(0, 10),
    "jpeg 65535 x 65535": jpeg_bomb(65535, 65535),
    "jpeg 0 high": jpeg_bomb(100, 0),
    "jpeg of many scans": jpeg_of_many_scans(),
    "tiff wide": tiff_bomb(width=2**31),
    "tiff high": tiff_bomb(height=2**31),
    "tiff in a loop": looped_tiff(),
    "dicom 65535 x 65535": dicom_bomb(Rows=65535, Columns=65535),
    "dicom of a million frames": dicom_bomb(NumberOfFrames="1000000"),
    "dicom jpeg 65535 x 65535": streams(jpeg_bomb(65535, 65535), build.BASELINE),
    "dicom jpeg of many scans": streams(jpeg_of_many_scans(), build.BASELINE),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_memory_is_spent(name):
    data = BOMBS[name]
    tracemalloc.start()
    try:
        outcome = read_anything(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, ImageReadError)
    assert peak < MEGABYTES * 2**20
    if " 0 " not in name and "loop" not in name and not name.startswith("dicom jpeg 6"):
        assert isinstance(outcome, ImageTooLargeError), outcome


def test_deflated_bomb_is_stopped_at_the_limit():
    body = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = body.compress(bytes(30_000_000)) + body.flush()
    head = build.dicom(GREY.astype("uint8"), build.DEFLATED)
    start = 144 + struct.unpack_from("<I", head, 140)[0]
    outcome = read_anything(head[:start] + packed, limits=Limits(file_bytes=1_000_000))
    assert isinstance(outcome, ImageTooLargeError)


# Files that say one thing and hold another --------------------------------------------------------


def chunks(*parts, width=4, height=4, depth=8, colour=0):
    head = [b"\x89PNG\r\n\x1a\n", build.png_header(width, height, depth, colour)]
    return b"".join([*head, *(build.png_chunk(kind, body) for kind, body in parts)])


ROWS = zlib.compress(bytes(4 * 5))
HOSTILE = {
    "png without pixels": chunks((b"IEND", b"")),
    "png of too few rows": chunks((b"IDAT", zlib.compress(bytes(10))), (b"IEND", b"")),
    "png of no last row": chunks(
        (b"IDAT", zlib.compress(bytes([0, 9, 9, 9, 9] * 3))), (b"IEND", b"")
    ),
    "png of a black palette, cut": chunks(
        (b"PLTE", bytes(3)), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b""), colour=3
    ),
    "png of a white palette, cut": chunks(
        (b"PLTE", b"\xff\xff\xff\0\0\0"),
        (b"IDAT", zlib.compress(bytes([0, 1, 0, 1, 0] * 2))),
        (b"IEND", b""),
        colour=3,
    ),
    "png of an empty stream": chunks((b"IDAT", b""), (b"IEND", b"")),
    "png of garbage": chunks((b"IDAT", b"garbage"), (b"IEND", b"")),
    "png with an unknown critical chunk": chunks((b"ABCD", b""), (b"IDAT", ROWS), (b"IEND", b"")),
    "png of filter 9": chunks((b"IDAT", zlib.compress(b"\x09" * 20)), (b"IEND", b"")),
    "png palette missing": chunks((b"IDAT", ROWS), (b"IEND", b""), colour=3),
    "png of depth 3": chunks((b"IDAT", ROWS), (b"IEND", b""), depth=3),
    "png of colour type 5": chunks((b"IDAT", ROWS), (b"IEND", b""), colour=5),
    "png of depth 4 in colour": chunks((b"IDAT", ROWS), (b"IEND", b""), depth=4, colour=2),
    "png without a header": b"\x89PNG\r\n\x1a\n" + build.png_chunk(b"IEND", b""),
    "png with a short header": b"\x89PNG\r\n\x1a\n" + build.png_chunk(b"IHDR", b"\0" * 5),
    "png chunk of 4 GB": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**32 - 1, b"IHDR"),
    "png two headers": FILES["png-grey"][:33] + FILES["png-grey"][8:],
    "jpeg of markers only": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 50 + b"\xff\xd9",
    "jpeg of fill bytes": b"\xff\xd8" + b"\xff" * 5000,
    "jpeg segment of length 0": b"\xff\xd8\xff\xe0\x00\x00" + bytes(100),
    "jpeg without tables": bytes.fromhex(
        "ffd8 ffc0000b08 00100010 01011100 ffda0008 010100003f00 ffd9"
    ),
    "tiff without directories": b"II*\0\0\0\0\0",
    "tiff directory far away": b"II*\0\xff\xff\xff\x7f",
    "tiff of 65535 entries": b"II*\0\x08\0\0\0\xff\xff" + bytes(100),
    "tiff of no entries": b"II*\0\x08\0\0\0\0\0\0\0\0\0",
    "tiff of 200 samples": build.tiff(GREY, 8, tags={277: 200}),
    "tiff of 0 bits": build.tiff(GREY, 8, tags={258: 0}),
    "tiff of 7 bits": build.tiff(GREY, 8, tags={258: 7}),
    "tiff of unknown compression": build.tiff(GREY, 8, tags={259: 9999}),
    "tiff of a strip past the end": build.tiff(GREY, 8, tags={257: 25, 279: 2**30}),
    "tiff deflate of too few rows": build.tiff(GREY, 8, compression=8, tags={257: 30, 278: 30}),
    "tiff packbits of too few rows": build.tiff(
        GREY, 8, compression=32773, tags={257: 90, 278: 90}
    ),
    "tiff of too few rows": build.tiff(GREY, 8, tags={257: 90, 278: 90}),
    "dicom rle of too few rows": streams(
        struct.pack("<16I", 1, 64, *[0] * 14) + b"\xf1\x07", build.RLE
    ),
    "tiff predictor 9": build.tiff(GREY, 8, compression=8, tags={317: 9}),
    "tiff deflate garbage": FILES["tiff-deflate"].replace(zlib.compress(b"")[:2], b"zz"),
    "dicom preamble only": bytes(128) + b"DICM",
    "dicom meta only": FILES["dicom-explicit"][:200],
    "dicom of zeros": bytes(128) + b"DICM" + bytes(2000),
    "dicom of ones": bytes(128) + b"DICM" + b"\xff" * 2000,
    "dicom of group 2 only": bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\xff\xff",
    "dicom of an endless meta": bytes(128) + b"DICM" + b"\x02\x00\x99\x00UI\x00\x00" * 1000,
    "bare dicom of one element": b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
    "dicom with an empty jpeg": streams(b"\xff\xd8\xff\xd9", build.BASELINE),
    "dicom of rle in jpeg": streams(b"\1\0\0\0" + bytes(100), build.BASELINE),
    "dicom of noise in jpeg 2000": streams(
        b"\xff\x4f\xff\x51" + bytes(80) + b"\xff\xd9", build.JPEG_2000
    ),
    "dicom of noise in jpeg-ls": streams(
        b"\xff\xd8\xff\xf7" + bytes(80) + b"\xff\xd9", build.JPEG_LS
    ),
    "dicom of noise in jpeg lossless": streams(
        b"\xff\xd8\xff\xc3" + bytes(80) + b"\xff\xd9", build.LOSSLESS
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name):
    assert isinstance(read_anything(HOSTILE[name]), ImageReadError)


def test_png_chunks_are_named_as_people_write_them():
    good = FILES["png-grey"]
    place = good.index(b"IDAT")
    damaged = bytearray(good)
    damaged[place + 6] ^= 1
    with pytest.raises(ImageReadError, match="PNG chunk IDAT is damaged"):
        read_raster(bytes(damaged))
    with pytest.raises(ImageReadError, match="truncated inside the PNG chunk IDAT"):
        read_raster(good[: place + 9])
    with pytest.raises(ImageReadError, match="unknown critical PNG chunk ABCD"):
        read_raster(chunks((b"ABCD", b"")))
    with pytest.raises(ImageReadError, match="unknown critical PNG chunk 0x41004344"):
        read_raster(chunks((b"A\0CD", b"")))
