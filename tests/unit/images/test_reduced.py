"""Images decoded no further than a network needs: where they lie, how near, and what is refused."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from support import image_files as build
from torchxrayvision.errors import ImageReadError, ImageTooLargeError
from torchxrayvision.images import Limits, read_raster
from torchxrayvision.images.common import halvings
from torchxrayvision.images.dicom import pixels as pixels_of_dicom
from torchxrayvision.images.jpeg import read_codestream
from torchxrayvision.images.jpeg2000 import decode_reduced, read_coding
from torchxrayvision.transforms import prepare

SIDE = 32
SHAPES = [(256, 256), (531, 389), (389, 531), (263, 277), (1031, 601)]

needs_openjpeg = pytest.mark.skipif(
    importlib.util.find_spec("openjpeg") is None or not features.check("jpg_2000"),
    reason="needs openjpeg, of the extra dicom, and a Pillow with JPEG 2000",
)


def film(height, width, top):
    """Smooth with sharp edges, a plate and a dark border, within [0, top] and not at its ends."""
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    picture = 0.6 + 0.3 * np.sin(9 * x + 4 * y) * np.cos(7 * y - 3 * x)
    picture[: height // 9, : width // 7] = 0.92
    picture[:, -width // 12 :] = 0.1
    return np.rint(picture * top).astype(int)


def j2k_dicom(pixels, stored, *, lossy=False, **changes):
    found = build.dataset(pixels, stored=stored, signed=pixels.dtype.kind == "i", **changes)
    options = {"j2k_psnr": [60]} if lossy else {}
    syntax = build.JPEG_2000 if lossy else build.JPEG_2000_LOSSLESS
    found.compress(syntax, generate_instance_uid=False, **options)
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    return file.getvalue()


def j2k_by_pillow(pixels, **options):
    """A file whose code stream Pillow wrote: with tiles, or with few resolutions."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG2000", no_jp2=True, **options)
    syntax = build.JPEG_2000 if options.get("irreversible") else build.JPEG_2000_LOSSLESS
    stored = 8 * pixels.dtype.itemsize
    return build.encapsulated([file.getvalue()], pixels, syntax, stored=stored)


def signed(pixels, bits):
    return (pixels - 2 ** (bits - 1)).astype("int16")


CODINGS = {
    "jpeg": lambda h, w: build.jpeg(film(h, w, 255), quality=92),
    "jpeg, colour": lambda h, w: build.jpeg(
        np.stack([film(h, w, 255), film(h, w, 200), film(h, w, 90)], 2), quality=92
    ),
    "jpeg, progressive": lambda h, w: build.jpeg(film(h, w, 255), quality=92, progressive=True),
    "dicom, baseline jpeg": lambda h, w: build.encapsulated(
        [build.jpeg(film(h, w, 255), quality=92)], film(h, w, 255).astype("uint8"), build.BASELINE
    ),
    "j2k, 8 bits": lambda h, w: j2k_dicom(film(h, w, 255).astype("uint8"), 8),
    "j2k, 12 bits": lambda h, w: j2k_dicom(film(h, w, 4095).astype("uint16"), 12),
    "j2k, 16 bits": lambda h, w: j2k_dicom(film(h, w, 65535).astype("uint16"), 16),
    "j2k, 12 bits, signed": lambda h, w: j2k_dicom(signed(film(h, w, 4095), 12), 12),
    "j2k, 16 bits, signed": lambda h, w: j2k_dicom(signed(film(h, w, 65535), 16), 16),
    "j2k, 12 bits, lossy": lambda h, w: j2k_dicom(
        film(h, w, 4095).astype("uint16"), 12, lossy=True
    ),
    "j2k, tiles": lambda h, w: j2k_by_pillow(film(h, w, 255).astype("uint8"), tile_size=(96, 80)),
    "j2k, 9-7": lambda h, w: j2k_by_pillow(
        film(h, w, 65535).astype("uint16"), irreversible=True, quality_layers=[4]
    ),
}
CASES = [
    pytest.param(make, id=name, marks=needs_openjpeg if "j2k" in name else ())
    for name, make in CODINGS.items()
]


def both(data, side=SIDE, **options):
    """What a network gets of the whole image, and of the reduced one, with the two rasters."""
    rasters = [read_raster(data, least_side=each, **options) for each in (None, side)]
    inputs = [
        prepare(r.pixels, r.scale, r.offset, side, r.info.aspect, r.reduction)[0] for r in rasters
    ]
    return *inputs, *rasters


def assert_near(fast, exact, make=None):
    """Of 2048; the steps of the 5-3 filter, which is sharper, are seen at the edge of the plate."""
    wavelet = any(make is CODINGS[name] for name in CODINGS if "j2k" in name)
    difference = np.abs(fast - exact)
    assert difference.mean() < (7 if wavelet else 2)
    assert difference.max() < (110 if wavelet else 32)


@pytest.mark.parametrize("make", CASES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_network_gets_nearly_what_the_whole_image_gives(make, shape):
    exact, fast, whole, reduced = both(make(*shape))
    assert whole.reduction is None
    assert whole.shape == shape
    factor = 1 << halvings(*shape, SIDE)
    assert factor > 1
    assert reduced.reduction.factor == factor
    assert reduced.shape == tuple(-(-n // factor) for n in shape)
    assert (reduced.reduction.height, reduced.reduction.width) == shape
    assert replace(reduced.info, notes=()) == replace(whole.info, notes=())
    assert reduced.scale == whole.scale
    assert reduced.offset == whole.offset
    assert_near(fast, exact, make)


@pytest.mark.parametrize("make", CASES)
def test_the_image_does_not_move(make):
    """By cross-correlation with the derivatives of the exact image: below 0.02 pixels."""
    for shape in ((531, 389), (263, 277)):
        exact, fast, *_ = both(make(*shape))
        inner = slice(3, -3), slice(3, -3)
        down, right = (slope[inner].ravel() for slope in np.gradient(exact))
        moves = np.linalg.lstsq(
            np.stack([down, right], 1), (fast - exact)[inner].ravel(), rcond=None
        )[0]
        assert np.abs(moves).max() < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_jpeg_is_upright(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    data = build.jpeg(film(531, 389, 255), quality=92, exif=exif.tobytes())
    exact, fast, _, reduced = both(data)
    assert reduced.reduction.factor == 4
    assert (reduced.reduction.height, reduced.reduction.width) == (
        (389, 531) if orientation >= 5 else (531, 389)
    )
    assert_near(fast, exact)


WAVELETS = [name for name in CODINGS if "j2k" in name]


@needs_openjpeg
@pytest.mark.parametrize("name", WAVELETS)
@pytest.mark.parametrize("shape", [(263, 277), (531, 389)], ids=str)
def test_several_threads_give_the_same_pixels_as_one(name, shape, monkeypatch):
    data = CODINGS[name](*shape)
    monkeypatch.setenv("OPJ_NUM_THREADS", "1")
    one = read_raster(data)
    monkeypatch.setattr(pixels_of_dicom, "_by_pydicom", None)  # which has one thread
    for threads in ("2", "ALL_CPUS"):
        monkeypatch.setenv("OPJ_NUM_THREADS", threads)
        several = read_raster(data)
        assert several.pixels.dtype == one.pixels.dtype
        assert np.array_equal(several.pixels, one.pixels)
        assert several.info == one.info
        assert (several.scale, several.offset) == (one.scale, one.offset)


@needs_openjpeg
@pytest.mark.parametrize("threads", [None, "0", "1", "", "-1", "two"])
def test_one_thread_asks_the_decoder_that_has_one(threads, monkeypatch):
    if threads is None:
        monkeypatch.delenv("OPJ_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OPJ_NUM_THREADS", threads)
    data = j2k_by_pillow(film(263, 277, 255).astype("uint8"))
    monkeypatch.setattr(Image, "_getdecoder", None)
    assert read_raster(data).shape == (263, 277)


@needs_openjpeg
def test_damage_is_refused_by_several_threads_too(monkeypatch):
    """What Pillow cannot decode the other decoder is asked for, which says what is wrong."""
    data = bytearray(j2k_by_pillow(film(263, 277, 255).astype("uint8"), tile_size=(96, 80)))
    place = data.rfind(bytes.fromhex("ff90000a"))
    data[place + 4 : place + 6] = b"\x00\xc8"  # a tile that the image has not
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OPJ_NUM_THREADS", threads)
        for allowed in (False, True):  # to go on without the rest, which Pillow may be told
            monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)
            found += [outcome(bytes(data), side) for side in (None, SIDE)]
    assert {kind for kind, _ in found} == {ImageReadError}
    assert len({reason.partition(";")[0] for _, reason in found}) == 1


@needs_openjpeg
@pytest.mark.parametrize("aspect", [2.0, 0.5])
def test_pixels_that_are_not_square_keep_their_geometry(aspect):
    pixels = film(700, 640, 4095).astype("uint16")
    data = j2k_dicom(pixels, 12, PixelAspectRatio=[int(2 * aspect), 2])
    exact, fast, whole, reduced = both(data)
    assert whole.info.aspect == aspect
    assert reduced.reduction.factor == 1 << halvings(700, 640, SIDE, aspect)
    assert np.abs(fast - exact).mean() < 3


def test_what_holds_little_more_than_the_network_sees_is_decoded_whole():
    data = build.jpeg(film(127, 127, 255))
    assert read_raster(data, least_side=SIDE).reduction is None
    assert halvings(128, 127, SIDE) == 0
    assert halvings(128, 128, SIDE) == 1
    assert halvings(128, 128, None) == 0
    assert halvings(10**6, 10**6, SIDE) == 3


@pytest.mark.parametrize("make", CASES)
def test_without_a_side_nothing_is_reduced(make):
    raster = read_raster(make(531, 389))
    assert raster.shape == (531, 389)
    assert raster.reduction is None


@needs_openjpeg
def test_values_of_signed_and_unsigned_streams_are_those_stored():
    """A constant image comes through any filter as it is."""
    for bits, dtype, value in (
        (8, "uint8", 201), (12, "uint16", 3001), (16, "uint16", 60001), (12, "int16", -2047),
        (12, "int16", 1999), (16, "int16", -32768), (16, "int16", 32767), (10, "uint16", 1023),
        (7, "uint8", 99),
    ):  # fmt: skip
        data = j2k_dicom(np.full((300, 280), value, dtype), bits)
        raster = read_raster(data, least_side=SIDE)
        assert raster.reduction.factor == 4
        assert (raster.pixels == value).all(), (bits, dtype)
        assert raster.pixels.dtype.kind == np.dtype(dtype).kind


@needs_openjpeg
def test_a_stream_with_few_resolutions_is_reduced_as_far_as_it_has_them():
    pixels = film(531, 389, 255).astype("uint8")
    assert read_raster(j2k_by_pillow(pixels, num_resolutions=1), least_side=SIDE).reduction is None
    two = read_raster(j2k_by_pillow(pixels, num_resolutions=2), least_side=SIDE)
    assert two.reduction.factor == 2
    assert two.shape == (266, 195)


@needs_openjpeg
@pytest.mark.parametrize(
    ("place", "value"),
    [(19, 4), (23, 4), (43, 2), (44, 2)],
    ids=["columns of the origin", "rows of the origin", "columns", "rows"],
)
def test_a_stream_off_the_grid_of_pixels_is_left_to_the_other_decoder(place, value):
    """Bytes of XOsiz, YOsiz, XRsiz and YRsiz, the last of each (ITU-T T.800 section A.5.1)."""
    file = io.BytesIO()
    Image.fromarray(film(531, 389, 255).astype("uint8")).save(file, "JPEG2000", no_jp2=True)
    data = bytearray(file.getvalue())
    assert read_coding(bytes(data)).levels >= 2
    data[place] = value
    assert read_coding(bytes(data)) is None
    assert decode_reduced(bytes(data), read_codestream(bytes(data)), 2, signed=False) is None


@needs_openjpeg
def test_a_sign_that_the_tags_contradict_is_decoded_whole():
    found = build.dataset(film(300, 280, 4095).astype("uint16"), stored=12)
    found.compress(build.JPEG_2000_LOSSLESS, generate_instance_uid=False)
    found.PixelRepresentation = 1
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    whole, fast = (read_raster(file.getvalue(), least_side=side) for side in (None, SIDE))
    assert fast.reduction is None
    assert np.array_equal(whole.pixels, fast.pixels)


@needs_openjpeg
def test_bits_stored_that_the_stream_contradicts_are_judged_by_the_whole_image():
    found = build.dataset(film(300, 280, 4095).astype("uint16"), stored=12)
    found.compress(build.JPEG_2000_LOSSLESS, generate_instance_uid=False)
    found.BitsStored, found.HighBit = 10, 9
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    whole, fast = (read_raster(file.getvalue(), least_side=side) for side in (None, SIDE))
    assert fast.reduction is None
    assert fast.info == whole.info
    assert fast.info.bits == 12


@needs_openjpeg
@pytest.mark.parametrize("end", [0, 4095])
def test_edges_at_the_ends_of_the_range_are_decoded_whole(end):
    """What the filter gives beside them does not fit the range, and would be cut off."""
    pixels = film(531, 389, 4095).astype("uint16")
    pixels[100:130, 40:180] = end
    exact, fast, _, raster = both(j2k_dicom(pixels, 12))
    assert raster.reduction is None
    assert np.array_equal(exact, fast)
    pixels[100:130, 40:180] = 800 + end // 2  # the same away from the ends
    assert both(j2k_dicom(pixels, 12))[3].reduction is not None
    smooth = np.clip(np.add.outer(np.arange(300.0) - 100, np.arange(280.0) - 100) * 40, 0, 4095)
    assert both(j2k_dicom(smooth.astype("uint16"), 12))[3].reduction is not None


@needs_openjpeg
@pytest.mark.parametrize(
    ("padding", "photometric", "reduced"),
    [(0, "MONOCHROME2", True), (4095, "MONOCHROME1", True), (4095, "MONOCHROME2", False),
     (0, "MONOCHROME1", False), (7, "MONOCHROME2", False)],
)  # fmt: skip
def test_padding_is_not_mixed_with_the_image(padding, photometric, reduced):
    pixels = film(300, 280, 4000).astype("uint16")
    if not reduced:
        pixels[:, :40] = padding
    data = j2k_dicom(pixels, 12, PixelPaddingValue=padding, PhotometricInterpretation=photometric)
    exact, fast, _, raster = both(data)
    assert (raster.reduction is not None) == reduced
    assert np.abs(fast - exact).max() < (110 if reduced else 1e-9)


@needs_openjpeg
def test_tables_and_windows_are_applied_after_decoding():
    pixels = film(531, 389, 4095).astype("uint16")
    data = j2k_dicom(
        pixels, 12, PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=-10,
        WindowCenter=3000, WindowWidth=6000,
    )  # fmt: skip
    for options in ({}, {"voi": True}, {"fix_monochrome": False}):
        exact, fast, _, raster = both(data, **options)
        assert raster.reduction.factor == 4
        assert np.abs(fast - exact).mean() < 3


@pytest.mark.parametrize("make", CASES)
def test_limits_are_those_of_the_whole_image(make):
    data = make(531, 389)
    with pytest.raises(ImageTooLargeError, match="389 x 531"):
        read_raster(data, limits=Limits(pixels=531 * 389 - 1), least_side=SIDE)
    # Twice, for the scans of a progressive image.
    read_raster(data, limits=Limits(pixels=2 * 531 * 389), least_side=SIDE)


def outcome(data, side):
    try:
        return read_raster(data, least_side=side)
    except ImageReadError as error:
        return type(error), error.reason


@pytest.mark.parametrize("make", CASES)
def test_what_is_cut_off_is_refused_as_of_the_whole_image(make):
    data = make(531, 389)
    for share in (0.2, 0.5, 0.8, 0.95):
        cut = data[: int(len(data) * share)]
        whole, reduced = outcome(cut, None), outcome(cut, SIDE)
        assert isinstance(whole, tuple)
        assert reduced == whole


@pytest.mark.parametrize("make", CASES)
def test_damage_gives_no_other_error(make):
    """Where the whole image is refused in its header the reduced one is, in the same words."""
    rng = np.random.default_rng(0)
    data = make(263, 277)
    for _ in range(25):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        whole, reduced = outcome(bytes(damaged), None), outcome(bytes(damaged), SIDE)
        if isinstance(reduced, tuple):
            assert reduced == whole
