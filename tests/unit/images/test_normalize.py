"""`normalize` gives 1.5.7's values, and names the mistakes that 1.5.7 passed over."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from torchxrayvision.errors import ImageRangeError, ImageRangeWarning, ImageShapeError
from torchxrayvision.images import normalize

GREY = np.array([[0, 128], [200, 255]])


@pytest.mark.parametrize("maxval", [255, 255.0, np.float64(255), np.int64(255), np.uint8(255)])
def test_result_is_float32_whatever_the_type_of_maxval(maxval):
    out = normalize(GREY.astype(np.uint8), maxval)
    assert out.dtype == np.float32
    assert out[0, 0] == -1024
    assert out[1, 1] == 1024


def test_input_is_left_alone():
    image = GREY.astype(np.float32)
    before = image.copy()
    normalize(image, 255)
    assert np.array_equal(image, before)


def test_lists_are_taken():
    assert normalize([[0, 255]], 255).tolist() == [[-1024.0, 1024.0]]


@pytest.mark.parametrize(
    ("image", "maxval", "words"),
    [
        (GREY + 1, 255, "256, above maxval=255"),
        (GREY - 1, 255, "-1"),
        (GREY - 1024, 255, "scaled to"),
        (np.array([[np.nan, 1.0]]), 255, "not a number"),
        (np.array([[np.inf, 1.0]]), 255, "infinite"),
        (np.array([[-np.inf, 1.0]]), 255, "infinite"),
        (GREY, 0, "maxval must be positive"),
        (GREY, -255, "maxval must be positive"),
        (GREY, np.nan, "maxval must be positive"),
        (GREY.astype(complex), 255, "real numbers"),
        (np.array([["a"]]), 255, "real numbers"),
    ],
)
def test_values_out_of_range_are_refused_with_the_value(image, maxval, words):
    with pytest.raises(ImageRangeError, match=words):
        normalize(image, maxval)


@pytest.mark.parametrize(
    ("image", "maxval", "advice"),
    [
        (GREY / 255, 255, "pass maxval=1"),
        ((GREY / 255).astype(np.float32), 65535, "pass maxval=1"),
        (GREY > 100, 255, "pass maxval=1"),
        (GREY.astype(np.float32), 65535, "pass maxval=255"),
        (GREY.astype(np.uint8), 65535, "pass maxval=255"),
        (GREY.astype(np.uint8), 4095, "pass maxval=255"),
    ],
)
def test_values_of_another_scale_are_named_in_a_warning(image, maxval, advice):
    with pytest.warns(ImageRangeWarning, match=advice) as caught:
        normalize(image, maxval)
    assert caught[0].filename == __file__, "the warning must point at the caller"


@pytest.mark.parametrize(
    ("image", "maxval"),
    [
        (GREY / 255, 1),
        (GREY > 100, 1),
        (GREY.astype(np.uint16), 65535),  # a dark 16-bit picture
        (np.zeros((2, 2)), 255),
        (np.zeros((2, 2), np.uint8), 255),
        (np.ones((2, 2), np.uint8), 255),
        (GREY.astype(np.float32), 255),
        (GREY * 257.0, 65535),
    ],
)
def test_plausible_values_pass_without_a_warning(image, maxval):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = normalize(image, maxval)
    assert out.min() >= -1024
    assert out.max() <= 1024


@pytest.mark.parametrize("shape", [(4,), (0, 3), (1, 40, 50), (2, 4, 5, 3), ()])
def test_reshape_refuses_what_is_not_a_picture(shape):
    with pytest.raises(ImageShapeError, match="shape"):
        normalize(np.zeros(shape, np.uint8), 255, reshape=True)


@pytest.mark.parametrize(("shape", "expected"), [((4, 5), (1, 4, 5)), ((4, 5, 3), (1, 4, 5))])
def test_reshape_gives_one_channel_first(shape, expected):
    image = np.zeros(shape, np.uint8)
    image[..., 1:] = image[..., 1:] + (7 if len(shape) == 3 else 0)
    out = normalize(image, 255, reshape=True)
    assert out.shape == expected
    assert (len(shape) == 2) or (out == -1024).all(), "of a colour picture the first channel"
