"""DICOM: limits hold for headers, boxed code streams and files without meta information too."""

from __future__ import annotations

import importlib.util
import io
import struct
import time

import numpy as np
import pytest
from PIL import Image, features
from pydicom.encaps import encapsulate

from support import image_files as build
from torchxrayvision.errors import ImageReadError, ImageTooLargeError
from torchxrayvision.images import Limits, read_info, read_raster
from torchxrayvision.images.jpeg import read_codestream

PIXELS = (np.indices((64, 72)).sum(0) * 1.8).astype("uint8")
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
needs_jpeg_2000 = pytest.mark.skipif(
    not (importlib.util.find_spec("openjpeg") and features.check("jpg_2000")),
    reason="needs a decoder and an encoder of JPEG 2000",
)


def boxed(side=None):
    file = io.BytesIO()
    picture = Image.fromarray(PIXELS) if side is None else Image.new("L", (side, side))
    picture.save(file, "JPEG2000", no_jp2=False)
    return file.getvalue()


def bare(data):
    """The file without its preamble and meta information."""
    return data[144 + struct.unpack_from("<I", data, 140)[0] :]


# Code streams in boxes ----------------------------------------------------------------------------


@needs_jpeg_2000
def test_boxed_code_stream_is_read():
    data = build.encapsulated([boxed()], PIXELS, build.JPEG_2000_LOSSLESS)
    assert np.array_equal(read_raster(data).pixels, PIXELS)
    assert read_info(bare(data)).transfer_syntax == build.JPEG_2000


@needs_jpeg_2000
def test_boxed_code_stream_of_another_size_is_refused_before_it_is_decoded():
    data = build.encapsulated([boxed(4000)], PIXELS, build.JPEG_2000)
    with pytest.raises(ImageReadError, match="4000 x 4000 pixels, the tags say 72 x 64"):
        read_raster(data)


@needs_jpeg_2000
def test_boxes_of_every_form_of_length_are_walked():
    data = boxed()
    place = data.index(b"jp2c") - 4
    stream = data[place + 8 :]
    long_box = struct.pack(">I4sQ", 1, b"jp2c", 16 + len(stream)) + stream
    open_box = struct.pack(">I4s", 0, b"jp2c") + stream
    for tail in (long_box, open_box):
        assert read_codestream(data[:place] + tail).width == PIXELS.shape[1]
    for tail in (b"", struct.pack(">I4s", 3, b"free") + stream, struct.pack(">I4s", 0, b"free")):
        assert read_codestream(data[:place] + tail) is None


@pytest.mark.parametrize(
    "syntax",
    [build.BASELINE, build.EXTENDED, build.LOSSLESS, build.JPEG_LS, build.JPEG_2000],
)
@pytest.mark.parametrize("stream", [bytes(200), b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200)])
def test_code_stream_without_a_header_is_refused(syntax, stream):
    with pytest.raises(ImageReadError, match="no frame header"):
        read_raster(build.encapsulated([stream + b"\xff\xd9"], PIXELS, syntax))


# Limits of read_info ------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [read_info, read_raster])
@pytest.mark.parametrize(
    ("tags", "limits", "error"),
    [
        ({}, Limits(pixels=4607), ImageTooLargeError),
        ({"Rows": 65535, "Columns": 65535}, Limits(), ImageTooLargeError),
        ({"Rows": 9000, "Columns": 9000}, Limits(), ImageTooLargeError),
        ({"NumberOfFrames": "5"}, Limits(frames=4), ImageTooLargeError),
        ({"Rows": 0}, Limits(), ImageReadError),
    ],
)
def test_info_keeps_the_limits_of_reading(read, tags, limits, error):
    with pytest.raises(error):
        read(build.dicom(PIXELS, **tags), limits=limits)


# Files without meta information -------------------------------------------------------------------


@pytest.mark.parametrize("fragments", [1, 3])
def test_bare_file_of_fragments_is_one_frame(fragments):
    found = build.dataset(PIXELS)
    stream = build.jpeg(PIXELS, quality=95)
    found.PixelData = encapsulate([stream], fragments_per_frame=fragments, has_bot=False)
    found["PixelData"].VR = "OB"
    found["PixelData"].is_undefined_length = True
    data = build.write(found, build.BASELINE)
    raster = read_raster(bare(data))
    assert np.array_equal(raster.pixels, read_raster(data).pixels)
    assert raster.info == read_info(bare(data)) == read_raster(data).info


def with_sequence(count, *, tag=0x00091010, fake=b"", defined=False):
    """A sequence of empty items, before the Image Pixel module or behind the pixels."""
    data = build.dicom(PIXELS)
    place = data.index(b"\x28\x00\x02\x00US") if tag < 0x7FE00010 else len(data)
    size = len(ITEM) * count if defined else 0xFFFFFFFF
    start = struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, size)
    end = b"" if defined else struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return data[:place] + fake + start + ITEM * count + end + data[place:]


# An element that holds the bytes of the pixel data's tag.
FAKE = struct.pack("<HH2sH", 0x0009, 0x0010, b"LO", 4) + b"\xe0\x7f\x10\x00"


@pytest.mark.parametrize("fake", [b"", FAKE])
@pytest.mark.parametrize("read", [read_info, read_raster])
def test_sequence_items_are_limited_wherever_they_lie(read, fake):
    assert read(with_sequence(100, fake=fake)) is not None
    with pytest.raises(ImageTooLargeError, match="more than 20,000 sequence items"):
        read(with_sequence(300_000, fake=fake))
    assert read(with_sequence(300_000, fake=fake, defined=True)) is not None, "it is skipped"


def test_items_of_sequences_that_are_read_are_limited():
    data = with_sequence(300_000, tag=0x00283000, defined=True)  # Modality LUT Sequence
    with pytest.raises(ImageTooLargeError, match="more than 20,000 sequence items"):
        read_raster(data)


def test_what_follows_the_pixels_is_not_parsed():
    data = with_sequence(300_000, tag=0x7FE11010)
    start = time.perf_counter()
    assert np.array_equal(read_raster(data).pixels, PIXELS)
    assert time.perf_counter() - start < 2
