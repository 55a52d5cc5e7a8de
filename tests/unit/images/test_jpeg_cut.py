"""A JPEG that ends early, with an end marker put behind the cut, is never filled with grey."""

from __future__ import annotations

import importlib.util
import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageFile
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from support import image_files as build
from torchxrayvision.errors import ImageReadError, ImageTooLargeError
from torchxrayvision.images import read_raster

HEIGHT, WIDTH = 120, 88
NOISE = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH))
FILM = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) + NOISE
FILM[-40:] = 0  # a collimated film: its black margin is no damage
COLOUR = np.dstack([FILM, FILM[::-1], FILM[:, ::-1]])
END = b"\xff\xd9"
needs_gdcm = pytest.mark.skipif(not importlib.util.find_spec("gdcm"), reason="needs python-gdcm")

KINDS = {
    "baseline": {},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "subsampled": {"subsampling": 2},
}
SEQUENTIAL = {
    f"{name}-{tint}": build.jpeg(pixels, quality=90, **options)
    for name, options in KINDS.items()
    for tint, pixels in (("grey", FILM), ("colour", COLOUR))
}
PROGRESSIVE = {
    "grey": build.jpeg(FILM, quality=90, progressive=True),
    "colour": build.jpeg(COLOUR, quality=90, progressive=True),
}


def cuts(data, parts=9):
    """The file up to a point in its scan, ended as a whole one is."""
    start = data.index(b"\xff\xda") + 20
    for place in np.linspace(start, len(data) - 40, parts).astype(int):
        yield data[:place] + END


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_whole_files_come_out_as_pillow_decodes_them(name):
    data = SEQUENTIAL[name]
    expected = np.asarray(Image.open(io.BytesIO(data)))
    expected = expected if expected.ndim == 2 else expected.astype(int).sum(2)
    behind = (b"", b"\0" * 40, b"text", data, data[:300], END)
    before = data[:-2] + b"\xff\xff" + END  # fill bytes
    for file in [*(data + tail for tail in behind), before]:
        assert np.array_equal(read_raster(file).pixels, expected)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_cut_scan_is_refused(name):
    for cut in cuts(SEQUENTIAL[name]):
        with pytest.raises(ImageReadError, match=r"truncated|ends before"):
            read_raster(cut)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_cut_scan_is_refused_where_pillow_was_told_to_accept_it(name, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for cut in cuts(SEQUENTIAL[name], 4):
        with pytest.raises(ImageReadError):
            read_raster(cut)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_piece_of_a_file_with_another_picture_behind_is_refused(name):
    data = SEQUENTIAL[name]
    with pytest.raises(ImageReadError, match="end marker"):
        read_raster(data[: len(data) * 2 // 3] + data)


def test_restart_markers_out_of_turn_are_refused():
    data = SEQUENTIAL["restarts-grey"]
    first, second = (data.index(bytes([0xFF, marker])) for marker in (0xD2, 0xD3))
    with pytest.raises(ImageReadError, match="restart markers do not follow"):
        read_raster(data[:first] + data[second:])


def test_restart_markers_without_an_interval_are_refused():
    data = SEQUENTIAL["restarts-grey"]
    place = data.index(b"\xff\xdd")
    (length,) = struct.unpack_from(">H", data, place + 2)
    with pytest.raises(ImageReadError, match="ends before the last row"):
        read_raster(data[:place] + data[place + 2 + length :])


@pytest.mark.parametrize("name", PROGRESSIVE)
def test_progressive_file_without_its_last_scans_is_refused(name):
    data = PROGRESSIVE[name]
    assert read_raster(data).shape == (HEIGHT, WIDTH)
    last = data.rindex(b"\xff\xda")
    for cut in cuts(data[:last]):
        with pytest.raises(ImageReadError, match="truncated"):
            read_raster(cut)


def test_progressive_file_that_ends_behind_a_scan_lacks_the_rest():
    data = PROGRESSIVE["grey"]
    place = data.rindex(b"\xff\xc4")  # each scan but the first has tables of its own
    with pytest.raises(ImageReadError, match="lacks some of its scans"):
        read_raster(data[:place] + END)


def test_progressive_file_cut_in_its_last_scan_is_the_same_picture_but_coarser():
    data = PROGRESSIVE["grey"]
    last = data.rindex(b"\xff\xda")
    cut = read_raster(data[: last + 30] + END).pixels.astype(int)
    assert abs(cut - read_raster(data).pixels).mean() < 6


def test_marker_bytes_in_a_segment_between_scans_end_nothing():
    data = PROGRESSIVE["grey"]
    last = data.rindex(b"\xff\xda")
    comment = b"\xff\xfe\x00\x08" + END + b"\xff\xda\xff\xd8"
    with_comment = data[:last] + comment + data[last:]
    assert np.array_equal(read_raster(with_comment).pixels, read_raster(data).pixels)


def test_scans_beyond_the_limit_are_not_even_counted():
    data = PROGRESSIVE["grey"]
    start = data.rindex(b"\xff\xda")
    with pytest.raises(ImageTooLargeError, match="more than 100 scans"):
        read_raster(data[:start] + data[start:-2] * 200 + END)


@pytest.mark.parametrize("syntax", [build.BASELINE, build.EXTENDED])
def test_cut_scan_inside_dicom_is_refused(syntax):
    pixels = FILM.astype("uint8")
    data = SEQUENTIAL["baseline-grey"]
    whole = read_raster(build.encapsulated([data], pixels, syntax)).pixels
    assert np.array_equal(whole, read_raster(data).pixels)
    for cut in cuts(data):
        with pytest.raises(ImageReadError, match="ends before the last row"):
            read_raster(build.encapsulated([cut], pixels, syntax))


def test_signed_cells_are_taken_as_they_lie():
    data = SEQUENTIAL["baseline-grey"]
    file = build.encapsulated([data], FILM.astype("int8"), build.BASELINE, signed=True)
    assert np.array_equal(read_raster(file).pixels, read_raster(data).pixels.view("int8"))


@needs_gdcm
@pytest.mark.parametrize("precision", [8, 12, 16])
def test_cut_lossless_scan_is_refused_and_a_black_margin_is_not(precision):
    pixels = (FILM << (precision - 8)).astype("uint8" if precision == 8 else "uint16")
    data = build.jpeg_lossless(pixels, precision)

    def file(stream):
        return build.encapsulated([stream], pixels, build.LOSSLESS_SV1, stored=precision)

    assert np.array_equal(read_raster(file(data)).pixels, pixels)
    short = data[: -2 - WIDTH * 40 * 5 // 8]  # the margin takes five bits a pixel
    for cut in [*cuts(short), short + END, data[:-200] + END]:
        with pytest.raises(ImageReadError, match="ends before the last row"):
            read_raster(file(cut))


@needs_gdcm
def test_cut_extended_scan_of_twelve_bits_is_refused():
    found = dcmread(get_testdata_file("JPGExtended.dcm", download=False))
    stream = get_frame(found.PixelData, 0, number_of_frames=1)
    pixels = np.zeros((found.Rows, found.Columns), "uint16")
    for cut in cuts(stream.rstrip(b"\0"), 5):
        with pytest.raises(ImageReadError, match="truncated"):
            read_raster(build.encapsulated([cut], pixels, build.EXTENDED, stored=12))
