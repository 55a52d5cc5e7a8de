"""The values of 1.5.7 on input that it handles rightly (tools/record_golden_images.py)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from support import image_cases, image_files
from torchxrayvision.images import load_image, normalize, read_raster, read_xray_dcm

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "images.json").read_text())
NORMALIZE = image_cases.normalize_cases()
PICTURES = image_cases.picture_cases()
DICOM = image_cases.dicom_cases()
# Files whose grey values 1.5.7 gets right; the others it cannot open or ignores a LUT of.
LOSSLESS = ["RG3_J2KR", "RG3_JLSL", "RG3_JPLL", "RG3_RLE"]


def assert_same(array, entry, *, exact=True):
    assert array.dtype == np.float32
    assert list(array.shape) == entry["shape"]
    points = array.ravel()[:: max(1, array.size // 5)]
    np.testing.assert_allclose(points, entry["points"], atol=2e-4)
    if exact:
        found = hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()
        assert found == entry["sha256"], "equal at some points, not to the last bit everywhere"


def test_every_recorded_case_is_tested():
    assert GOLDEN["version"] == "1.5.7"
    assert set(GOLDEN["normalize"]) == set(NORMALIZE)
    assert set(GOLDEN["load_image"]) == set(PICTURES)
    assert set(GOLDEN["read_xray_dcm"]) == set(DICOM)


@pytest.mark.parametrize("name", NORMALIZE)
def test_normalize_equals_1_5_7_to_the_last_bit(name):
    assert_same(normalize(*NORMALIZE[name]), GOLDEN["normalize"][name])


@pytest.mark.parametrize("name", PICTURES)
def test_load_image_equals_1_5_7_to_the_last_bit(name):
    assert_same(load_image(PICTURES[name]), GOLDEN["load_image"][name])


@pytest.mark.filterwarnings("ignore:.*MONOCHROME1 is inverted")
@pytest.mark.parametrize("name", DICOM)
def test_read_xray_dcm_equals_1_5_7(name):
    data, options = DICOM[name]
    # An inverted window is rounded to float32 before it is inverted, there after.
    exact = not ("MONOCHROME1" in name and name.endswith("-window"))
    assert_same(read_xray_dcm(data, **options), GOLDEN["read_xray_dcm"][name], exact=exact)


def test_raster_arithmetic_equals_normalize_for_every_16_bit_value():
    pixels = np.arange(65536, dtype="uint16").reshape(256, 256)
    image = read_raster(image_files.png(pixels, 16, 0)).to_array()
    assert np.array_equal(image[0], normalize(pixels, 65535))


def sample(folder, name):
    path = folder / "samples" / name
    return path if path.exists() else folder / "samples" / "dicom" / name


@pytest.mark.shared
@pytest.mark.parametrize("name", GOLDEN["samples"]["load_image"])
def test_real_pictures_equal_1_5_7(shared, name):
    assert_same(load_image(sample(shared, name)), GOLDEN["samples"]["load_image"][name])


@pytest.mark.filterwarnings("ignore:.*MONOCHROME1 is inverted")
@pytest.mark.shared
@pytest.mark.parametrize("name", GOLDEN["samples"]["read_xray_dcm"])
def test_real_dicom_files_equal_1_5_7(shared, name):
    file, _, voi = name.partition("|")
    if "J2K" in file:
        pytest.importorskip("openjpeg")
    image = read_xray_dcm(sample(shared, file), voi_lut=voi == "True")
    assert_same(image, GOLDEN["samples"]["read_xray_dcm"][name], exact=voi == "False")


@pytest.mark.filterwarnings("ignore:.*MONOCHROME1 is inverted")
@pytest.mark.shared
def test_published_values_of_the_dicom_reader(shared):
    """Values that 1.5.7's own tests publish, at row 60 and column 2."""
    siim = "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm"
    assert read_xray_dcm(sample(shared, siim))[60][2] == pytest.approx(-959.749, abs=1e-3)
    fake = sample(shared, "Fake_MONOHR1.dcm")
    assert read_xray_dcm(fake)[60][2] == pytest.approx(959.75, abs=1e-2)
    assert read_xray_dcm(fake, fix_monochrome=False)[60][2] == pytest.approx(-959.75, abs=1e-2)


@pytest.mark.shared
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_encodings_of_one_film_agree(shared, name):
    for package in ("gdcm", "openjpeg", "jpeg_ls"):
        pytest.importorskip(package)
    first = read_raster(sample(shared, LOSSLESS[-1])).pixels
    assert np.array_equal(read_raster(sample(shared, name)).pixels, first)


@pytest.mark.shared
def test_lossy_encodings_are_close_to_the_lossless_one(shared):
    for package in ("gdcm", "openjpeg", "jpeg_ls"):
        pytest.importorskip(package)
    film = read_raster(sample(shared, "RG3_RLE")).pixels.astype(int)
    lossy = read_raster(sample(shared, "RG3_JPLY")).pixels.astype(int)
    assert abs(lossy - film).mean() < 0.01 * 1023
    first, second = (
        read_raster(sample(shared, name)).pixels.astype(int) for name in ("RG1_J2KI", "RG1_JLSN")
    )
    assert abs(first - second).mean() < 0.01 * 32767


@pytest.mark.shared
@pytest.mark.parametrize("voi", [False, True])
def test_every_real_dicom_file_reads_with_air_darker_than_bone(shared, voi):
    for package in ("gdcm", "openjpeg", "jpeg_ls"):
        pytest.importorskip(package)
    for path in sorted((shared / "samples" / "dicom").iterdir()):
        if path.suffix == ".zst":  # an archive, refused by name
            continue
        raster = read_raster(path, voi=voi)
        image = raster.to_array()
        assert image.min() >= -1024
        assert image.max() <= 1024
        assert image.max() - image.min() > 800, path
        assert raster.info.photometric == "MONOCHROME1"
        assert raster.scale < 0
