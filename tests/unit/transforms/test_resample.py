"""The resampler against recorded scikit-image results, and the promises of its docstring."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.transforms import resampling as _resample
from torchxrayvision.transforms.resampling import nearest, resize

GOLDEN = Path(__file__).parents[2] / "golden" / "resize.npz"
TOLERANCE = 0.01  # of a range of 2048


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def pattern(height, width):
    """The image of tools/record_golden_transforms.py."""
    row, column = np.indices((height, width))
    return ((row * 7919 + column * 104729 + row * column * 31) % 256).astype(np.uint8)


# Factor and offset that turn the pattern into each recorded kind.
SCALES = {
    "signed": (2048 / 255, -1024.0),
    "bright": (1024 / 255, 188.0),
    "dark": (1024 / 255, -1212.0),
}


def recorded(golden, kind):
    for name, expected in golden.items():
        prefix, *sizes = name.split("_")
        if prefix == kind and len(sizes) == 2:
            before, after = (tuple(map(int, size.split("x"))) for size in sizes)
            yield name, before, after, expected


@pytest.mark.parametrize("kind", SCALES)
def test_equals_recorded_scikit_image_from_float_and_from_integer_pixels(golden, kind):
    scale, offset = SCALES[kind]
    names = 0
    for name, before, after, expected in recorded(golden, kind):
        pixels = pattern(*before)
        values = (pixels * scale + offset).astype(np.float32)
        for result in (resize(values, after), resize(pixels, after, scale=scale, offset=offset)):
            assert result.dtype == np.float32
            assert result.shape == after
            assert np.abs(result - expected).max() <= TOLERANCE, name
        names += 1
    assert names >= 40


def test_boolean_images_take_the_nearest_pixel_as_recorded(golden):
    names = 0
    for name, before, after, expected in recorded(golden, "mask"):
        result = resize(pattern(*before) > 127, after)
        assert result.dtype == np.float32
        assert (result == expected).all(), name
        names += 1
    assert names >= 40


@pytest.mark.parametrize("shapes", [((1024, 1024), (224, 224)), ((625, 512), (512, 512))])
def test_equals_scikit_image_of_this_machine_at_the_sizes_of_radiographs(shapes):
    transform = pytest.importorskip("skimage.transform")
    before, after = shapes
    pixels = np.random.default_rng(0).integers(0, 65536, before).astype(np.uint16)
    scale = 2048 / 65535
    values = (pixels * scale - 1024).astype(np.float32)
    expected = transform.resize(values[None], (1, *after), mode="constant", preserve_range=True)[0]
    result = resize(pixels, after, scale=scale, offset=-1024)
    assert np.abs(result - expected).max() <= TOLERANCE
    assert np.abs(resize(values, after) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("size", [(3, 3), (16, 9), (40, 64), (1, 1)])
@pytest.mark.parametrize("value", [0, 1, 255])
def test_constant_image_stays_constant_up_to_its_border(value, size):
    image = np.full((31, 20), value, np.uint8)
    assert np.allclose(resize(image, size), value, atol=1e-4)


def test_border_is_drawn_towards_value_zero_where_the_range_holds_zero():
    image = np.full((8, 8), -500, np.float32)
    image[4, 4] = 300  # the range holds 0, so that nothing is cut
    result = resize(image, (16, 16))
    assert result[0, 0] == pytest.approx(-500 * 0.75**2)
    assert result[0, 2] == pytest.approx(-500 * 0.75)
    assert result[2, 2] == pytest.approx(-500)


def test_offset_counts_as_value_and_not_as_pixel_at_the_border():
    pixels = np.zeros((8, 8), np.uint8)  # value -1024 everywhere but in one place
    pixels[4, 4] = 255
    result = resize(pixels, (16, 16), scale=2048 / 255, offset=-1024)
    assert result[0, 0] == pytest.approx(-1024 * 0.75**2, abs=1e-3)


def test_axes_are_independent():
    image = np.random.default_rng(10).normal(0, 300, (39, 24)).astype(np.float32)
    one_at_a_time = resize(resize(image, (39, 30)), (7, 30))
    assert np.abs(resize(image, (7, 30)) - one_at_a_time).max() < 1e-2


def test_either_order_of_axes_gives_the_same_result(monkeypatch):
    image = np.random.default_rng(1).normal(0, 300, (90, 300)).astype(np.float32)
    monkeypatch.setattr(_resample, "STRIDED_READ_PENALTY", 0.0)
    rows_first = [resize(image, (40, 20)), resize((image * 8).astype(np.int16), (40, 20))]
    monkeypatch.setattr(_resample, "STRIDED_READ_PENALTY", np.inf)
    columns_first = [resize(image, (40, 20)), resize((image * 8).astype(np.int16), (40, 20))]
    for one, other in zip(rows_first, columns_first, strict=True):
        assert np.abs(one - other).max() < 1e-2


def test_transposed_image_gives_the_transposed_result():
    image = np.random.default_rng(2).integers(0, 256, (80, 61)).astype(np.uint8)
    assert np.allclose(resize(image.T, (20, 33)), resize(image, (33, 20)).T, atol=1e-4)


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]
)
def test_type_of_the_pixels_does_not_matter(dtype):
    pixels = np.random.default_rng(3).integers(0, 100, (40, 33)).astype(dtype)
    expected = resize(pixels.astype(np.float64) * 10 - 500, (9, 14))
    assert np.abs(resize(pixels, (9, 14), scale=10, offset=-500) - expected).max() < 1e-3


def test_pedestal_of_large_integers_loses_no_precision():
    pixels = np.random.default_rng(4).integers(0, 4096, (64, 64)).astype(np.int32)
    expected = resize(pixels, (10, 10), scale=0.5, offset=-1024)
    raised = resize(pixels + 10_000_000, (10, 10), scale=0.5, offset=-1024 - 5_000_000)
    assert np.abs(raised - expected).max() < 1e-3


def test_negative_scale_inverts():
    pixels = np.random.default_rng(5).integers(0, 200, (30, 30)).astype(np.uint8)
    inverted = resize(pixels, (8, 8), scale=-5.0, offset=1200)  # values 205 to 1200: all bright
    assert np.allclose(inverted, resize(pixels * -5.0 + 1200, (8, 8)), atol=1e-3)
    assert inverted.min() >= 205 - 1e-3


def test_equal_size_returns_the_values_in_an_array_of_its_own():
    image = np.random.default_rng(6).normal(size=(5, 7)).astype(np.float32)
    result = resize(image, (5, 7))
    assert (result == image).all()
    assert not np.shares_memory(result, image)


def test_image_is_left_as_it_is():
    image = np.random.default_rng(7).normal(size=(50, 50)).astype(np.float32)
    copy = image.copy()
    image.setflags(write=False)
    resize(image, (9, 60))
    assert (image == copy).all()


def test_leading_axes_are_images_of_their_own():
    images = np.random.default_rng(8).integers(0, 256, (2, 3, 20, 30)).astype(np.uint8)
    together = resize(images, (9, 8))
    assert together.shape == (2, 3, 9, 8)
    for index in np.ndindex(2, 3):
        assert (together[index] == resize(images[index], (9, 8))).all()


def test_no_image_gives_no_image():
    assert resize(np.zeros((0, 8, 8), np.float32), (4, 4)).shape == (0, 4, 4)


def test_not_a_number_stays_near_its_pixel_and_does_not_take_the_rest():
    image = np.full((400, 400), 7, np.float32)
    image[3, 3] = np.nan
    result = resize(image, (40, 40))
    assert np.isnan(result[0, 0])
    assert np.isfinite(result[20, 20])


def test_operators_are_shared_and_read_only():
    one = _resample._operator(300, 20)
    assert one is _resample._operator(300, 20)
    for array in (one.sums, *(block.matrix for block in one.blocks)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert _resample._operator.cache_info().maxsize == _resample.OPERATORS_KEPT


def test_threads_get_the_same_result():
    image = np.random.default_rng(9).integers(0, 256, (200, 150)).astype(np.uint8)
    expected = resize(image, (64, 64))
    _resample._operator.cache_clear()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(resize(image, (64, 64)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all((result == expected).all() for result in results)


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (5, 0), (1, 0, 0)])
def test_image_without_pixels_or_axes_is_refused(shape):
    with pytest.raises(ImageShapeError, match="at least one"):
        resize(np.zeros(shape), (4, 4))


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), (1, 2, 3)])
def test_size_that_is_none_is_refused(size):
    with pytest.raises(ImageShapeError, match="height and a width"):
        resize(np.zeros((4, 4)), size)


@pytest.mark.parametrize("dtype", ["c8", "O", "U3"])
def test_pixels_that_are_no_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match="integers or floats"):
        resize(np.zeros((4, 4)).astype(dtype), (4, 4))


def test_nearest_keeps_type_and_copies():
    labels = np.arange(6, dtype=np.int16).reshape(2, 3)
    result = nearest(labels, (2, 3))
    assert result.dtype == np.int16
    assert (result == labels).all()
    assert not np.shares_memory(result, labels)


@pytest.mark.parametrize("scale", [1.0, 2048 / 255])
@pytest.mark.parametrize("side", [299, 500, 640, 1024])
def test_rounding_never_leaves_the_range_of_the_values(side, scale):
    """As scikit-image's result never does: areas of one extreme value are where it would."""
    offset = -1024.0 if scale != 1.0 else 0.0
    pixels = np.full((side, side), 255, np.uint8)
    pixels[::7, : side // 3] = 0
    values = pixels if offset else pixels.astype(np.float32) * np.float32(2048 / 255) - 1024
    result = resize(values, (224, 224), scale=scale, offset=offset)
    assert result.min() >= -1024
    assert result.max() <= 1024
