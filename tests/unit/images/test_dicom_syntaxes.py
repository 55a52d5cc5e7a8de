"""DICOM: every transfer syntax, with and without preamble and meta information."""

from __future__ import annotations

import importlib.util
import io
import zlib

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from support import image_files as build
from torchxrayvision.errors import ImageReadError, UnsupportedImageError
from torchxrayvision.images import Limits, read_image, read_info, read_raster

SHAPE = (70, 64)
GREY8 = (np.indices(SHAPE).sum(0) * 1.9).astype("uint8")
GREY12 = (np.indices(SHAPE).sum(0) * 30).astype("uint16")


def needs(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {missing}, of the extra dicom")


def compressed(pixels, syntax, stored, **options):
    """The dataset compressed by pydicom's own encoder."""
    found = build.dataset(pixels, stored=stored)
    found.compress(syntax, generate_instance_uid=False, **options)
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "syntax", [build.IMPLICIT, build.EXPLICIT, build.DEFLATED, build.BIG_ENDIAN]
)
@pytest.mark.parametrize(("pixels", "stored"), [(GREY8, 8), (GREY12, 12)])
def test_uncompressed_syntaxes_give_the_same_picture(syntax, pixels, stored):
    data = build.dicom(pixels, syntax, stored=stored)
    assert np.array_equal(read_raster(data).pixels, pixels)
    assert read_info(data).transfer_syntax == syntax


@pytest.mark.parametrize("syntax", [build.IMPLICIT, build.EXPLICIT, build.BIG_ENDIAN])
@pytest.mark.parametrize("pixels", [GREY8, GREY12])
def test_bare_dataset_is_read_by_guessing_its_syntax(syntax, pixels):
    data = build.dicom(pixels, syntax, meta=False)
    assert np.array_equal(read_raster(data).pixels, pixels)
    assert read_info(data).transfer_syntax == syntax


@pytest.mark.parametrize(
    "syntax", [build.IMPLICIT, build.EXPLICIT, build.DEFLATED, build.BIG_ENDIAN]
)
def test_meta_information_without_preamble(syntax):
    data = build.dicom(GREY12, syntax, preamble=False)
    assert data[:4] == b"\x02\x00\x00\x00"
    assert np.array_equal(read_raster(data).pixels, GREY12)


def test_eight_bits_in_swapped_words():
    found = build.dataset(GREY8)
    found["PixelData"].VR = "OW"
    found.PixelData = GREY8.view("<u2").astype(">u2").tobytes()
    found.file_meta.TransferSyntaxUID = build.BIG_ENDIAN
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    assert np.array_equal(read_raster(file.getvalue()).pixels, GREY8)


def test_rle():
    for pixels, stored in ((GREY8, 8), (GREY12, 12)):
        data = compressed(pixels, build.RLE, stored)
        assert np.array_equal(read_raster(data).pixels, pixels)


@needs("jpeg_ls")
@pytest.mark.parametrize(("pixels", "stored"), [(GREY8, 8), (GREY12, 12)])
def test_jpeg_ls(pixels, stored):
    data = compressed(pixels, build.JPEG_LS, stored)
    assert np.array_equal(read_raster(data).pixels, pixels)
    near = compressed(pixels, build.JPEG_LS_NEAR, stored, jls_error=2)
    assert abs(read_raster(near).pixels.astype(int) - pixels).max() <= 2


@needs("openjpeg")
@pytest.mark.parametrize(("pixels", "stored"), [(GREY8, 8), (GREY12, 12)])
def test_jpeg_2000(pixels, stored):
    data = compressed(pixels, build.JPEG_2000_LOSSLESS, stored)
    assert np.array_equal(read_raster(data).pixels, pixels)
    lossy = compressed(pixels, build.JPEG_2000, stored, j2k_psnr=[60])
    assert abs(read_raster(lossy).pixels.astype(int) - pixels).mean() < 0.01 * 2**stored


@needs("gdcm")
@pytest.mark.parametrize("syntax", [build.LOSSLESS, build.LOSSLESS_SV1])
@pytest.mark.parametrize(("pixels", "stored"), [(GREY8, 8), (GREY12, 12)])
def test_jpeg_lossless(pixels, stored, syntax):
    stream = build.jpeg_lossless(pixels, stored)
    data = build.encapsulated([stream], pixels, syntax, stored=stored)
    assert np.array_equal(read_raster(data).pixels, pixels)


@pytest.mark.parametrize("syntax", [build.BASELINE, build.EXTENDED])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg_of_eight_bits(syntax, options):
    data = build.encapsulated([build.jpeg(GREY8, quality=98, **options)], GREY8, syntax)
    assert abs(read_raster(data).pixels.astype(int) - GREY8).max() <= 4


@needs("gdcm")
def test_jpeg_of_twelve_bits():
    """A file that pydicom ships; no other free decoder reads it."""
    path = get_testdata_file("JPGExtended.dcm", download=False)
    raster = read_raster(path)
    assert raster.info.transfer_syntax == build.EXTENDED
    assert raster.shape == (1024, 256)
    assert raster.info.bits == 12
    assert 0 < raster.pixels.max() < 4096
    rows = raster.pixels.astype(float)
    assert abs(np.diff(rows, axis=0)).mean() < 0.05 * rows.max(), "neighbours must be alike"


@pytest.mark.parametrize(
    "stream",
    [pytest.param(build.jpeg(GREY8), id="jpeg"), pytest.param(None, id="rle")],
)
def test_compressed_dataset_without_meta_is_read_by_its_code_stream(stream):
    if stream is None:
        data = compressed(GREY8, build.RLE, 8)
    else:
        data = build.encapsulated([stream], GREY8, build.BASELINE)
    start = data.index(b"\x08\x00\x16\x00", 132)
    bare = data[start:]
    assert np.array_equal(read_raster(bare).pixels, read_raster(data).pixels)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_frames_of_encapsulated_data(number):
    frames = np.stack([GREY8, GREY8[::-1], GREY8[:, ::-1]])
    streams = [build.jpeg(frame, quality=98) for frame in frames]
    data = build.encapsulated(streams, frames, build.BASELINE)
    pixels = read_raster(data, frame=number).pixels
    assert abs(pixels.astype(int) - frames[number]).max() <= 4


def test_padding_behind_the_end_marker_is_accepted():
    for padding in (b"\0", b"\0\0\0", b"\xff"):
        data = build.encapsulated([build.jpeg(GREY8) + padding], GREY8, build.BASELINE)
        assert read_image(data).shape == (1, *SHAPE)


def test_code_stream_cut_short_is_not_filled_with_grey():
    stream = build.jpeg(GREY8, quality=98)
    for keep in (len(stream) // 2, len(stream) - 2):
        data = build.encapsulated([stream[:keep]], GREY8, build.BASELINE)
        with pytest.raises(ImageReadError, match="end marker"):
            read_image(data)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (build.jpeg(GREY8[:8]), "64 x 8 pixels, the tags say 64 x 70"),
        (build.jpeg(np.dstack([GREY8] * 3)), "3 channels"),
        (b"\xff\xd8" + b"\xff" * 40, "damaged or truncated"),
    ],
)
def test_code_stream_that_contradicts_the_tags_is_refused(stream, words):
    with pytest.raises(ImageReadError, match=words):
        read_image(build.encapsulated([stream], GREY8, build.BASELINE))


@needs("jpeg_ls")
@pytest.mark.parametrize(("above", "bits"), [(20, 10), (200, 12)])
def test_lossy_overshoot_is_clipped_and_a_wrong_depth_is_that_of_the_stream(above, bits):
    """Values above Bits Stored: a few are ringing of the codec, many are a wrong tag."""
    pixels = np.minimum(GREY12, 1000)
    pixels.flat[:above] = 1100
    found = build.dataset(pixels, stored=12)
    found.compress(build.JPEG_LS_NEAR, generate_instance_uid=False, jls_error=0)
    found.BitsStored, found.HighBit = 10, 9
    raster = read_raster(build.write(found, build.JPEG_LS_NEAR))
    assert raster.info.bits == bits
    assert np.array_equal(raster.pixels, np.minimum(pixels, 2**bits - 1))
    assert raster.scale == 2048 / (2**bits - 1)
    note = "Bits Stored 10 is contradicted by pixels of 12 bits"
    assert raster.info.notes == ((note,) if bits == 12 else ())


@needs("jpeg_ls")
def test_lossless_pixels_lose_their_unused_high_bits():
    found = build.dataset(GREY12 | np.uint16(0x8000), stored=16)
    found.compress(build.JPEG_LS, generate_instance_uid=False)
    found.BitsStored, found.HighBit = 12, 11
    assert np.array_equal(read_raster(build.write(found, build.JPEG_LS)).pixels, GREY12)


def test_encapsulated_pixels_under_an_uncompressed_syntax_are_read_with_a_note():
    data = build.encapsulated([build.jpeg(GREY8)], GREY8, build.BASELINE)
    native = build.EXPLICIT.encode().ljust(len(build.BASELINE), b"\0")
    raster = read_raster(data.replace(build.BASELINE.encode(), native))
    assert np.array_equal(raster.pixels, read_raster(data).pixels)
    assert raster.info.transfer_syntax == build.BASELINE
    assert raster.info.notes == (
        "declared as Explicit VR Little Endian, its pixels are JPEG Baseline (Process 1)",
    )


def test_extended_offset_table_finds_the_frames():
    from pydicom.encaps import encapsulate_extended

    frames = np.stack([GREY8, GREY8[::-1]])
    streams = [build.jpeg(frame, quality=98) for frame in frames]
    found = build.dataset(frames)
    found.PixelData, offsets, lengths = encapsulate_extended(streams)
    found.ExtendedOffsetTable, found.ExtendedOffsetTableLengths = offsets, lengths
    found["PixelData"].VR = "OB"
    found["PixelData"].is_undefined_length = True
    pixels = read_raster(build.write(found, build.BASELINE), frame=1).pixels
    assert abs(pixels.astype(int) - frames[1]).max() <= 4


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2"),
        ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2"),
        ("1.2.840.10008.1.2.4.99", r"1\.2\.840\.10008\.1\.2\.4\.99"),
    ],
)
def test_syntax_without_a_decoder_is_named(syntax, words):
    data = build.encapsulated([b"\0" * 64], GREY8, "1.2.840.10008.1.2.4.100")
    data = data.replace(b"1.2.840.10008.1.2.4.100\0", syntax.encode().ljust(24, b"\0"))
    with pytest.raises(UnsupportedImageError, match=words):
        read_image(data)


def test_missing_decoder_says_what_to_install(monkeypatch):
    from torchxrayvision.images.dicom import pixels as _dicom_pixels

    monkeypatch.setattr(_dicom_pixels, "get_decoder", _WithoutPlugins)
    data = build.encapsulated([build.jpeg_lossless(GREY8, 8)], GREY8, build.LOSSLESS)
    with pytest.raises(UnsupportedImageError, match=r'pip install .*"python-gdcm'):
        read_image(data)


class _WithoutPlugins:
    available_plugins = ()

    def __init__(self, syntax):
        from pydicom.uid import UID

        self.UID = UID(syntax)


def test_compressed_syntax_with_native_pixels_is_read_with_a_note():
    data = build.dicom(GREY8)
    place = data.index(b"UI\x14\x00" + build.EXPLICIT.encode())
    syntax = build.BASELINE.encode()
    data = data[:place] + b"UI\x16\x00" + syntax + data[place + 24 :]
    raster = read_raster(data)
    assert np.array_equal(raster.pixels, GREY8)
    assert raster.info.notes == (
        "declared as JPEG Baseline (Process 1), its pixels are not compressed",
    )


def test_deflated_dataset_that_grows_too_large_is_refused():
    data = build.dicom(np.zeros((600, 600), "uint16"), build.DEFLATED)
    assert len(data) < 5000
    with pytest.raises(ImageReadError, match="grows beyond"):
        read_image(data, limits=Limits(file_bytes=100_000))


def test_deflated_dataset_cut_short_is_refused():
    data = build.dicom(GREY12, build.DEFLATED)
    for cut in (3, 10, 100):
        with pytest.raises(ImageReadError, match="deflated"):
            read_image(data[:-cut])


def test_deflated_garbage_is_refused():
    data = build.dicom(GREY12, build.DEFLATED)
    start = data.index(build.DEFLATED.encode()) + len(build.DEFLATED)
    with pytest.raises(ImageReadError):
        read_image(data[: start + 200] + zlib.compress(b"not a raw stream"))


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_expb.dcm",
        "MR_small_padded.dcm",
        "ExplVR_BigEnd.dcm",
        "image_dfl.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "JPEGLSNearLossless_16.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
def test_files_that_pydicom_ships(name):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom does not ship {name}")
    try:
        image = read_image(path)
    except UnsupportedImageError as error:
        assert "pip install" in str(error) or "colour" in str(error)  # noqa: PT017
    else:
        assert image.min() >= -1024
        assert image.max() <= 1024


def test_variants_of_one_picture_agree():
    names = ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm")
    rasters = [read_raster(get_testdata_file(name, download=False)) for name in names]
    for raster in rasters[1:]:
        assert np.array_equal(raster.pixels, rasters[0].pixels)
