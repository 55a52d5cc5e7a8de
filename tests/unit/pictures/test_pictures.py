"""Overlays, legends and colours."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from torchxrayvision import pictures
from torchxrayvision.errors import ImageShapeError


def lab(colours):
    """CIELAB of sRGB colours under D65, by the definitions of CIE 15 and IEC 61966-2-1."""
    encoded = colours / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array(
        [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    )
    ratio = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


def test_sequential_colours_get_lighter_in_even_steps():
    coordinates = lab(pictures.sequential())
    assert (np.diff(coordinates[::4, 0]) > 0).all()
    steps = np.linalg.norm(np.diff(coordinates[::8], axis=0), axis=1)
    assert steps.std() / steps.mean() < 0.3
    assert coordinates[-1, 0] - coordinates[0, 0] > 60


def test_diverging_colours_are_even_on_both_sides():
    lightness = lab(pictures.diverging())[:, 0]
    assert np.argmax(lightness) in (127, 128)
    np.testing.assert_allclose(lightness, lightness[::-1], atol=6)
    assert lightness.max() - lightness.min() > 35


def test_colours_cannot_be_changed_for_others():
    with pytest.raises(ValueError, match="read-only"):
        pictures.sequential()[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        pictures.diverging()[0] = 0


def test_without_evidence_the_radiograph_shows():
    image = np.linspace(-1024, 1024, 64, dtype=np.float32).reshape(1, 8, 8)
    grey = np.round((image[0] + 1024) / 2048 * 255).astype(np.uint8)
    for heat in (np.zeros((8, 8)), np.full((8, 8), np.nan), np.zeros((2, 2))):
        laid = pictures.overlay(image, heat)
        assert laid.dtype == np.uint8
        np.testing.assert_array_equal(laid, np.repeat(grey[..., None], 3, 2))


def test_full_evidence_has_the_strongest_colour():
    heat = np.zeros((10, 12))
    heat[3, 4], heat[5, 6] = 2.0, 1.0
    laid = pictures.overlay(np.zeros((10, 12), np.uint8), heat, opacity=1.0, limit=2.0)
    np.testing.assert_array_equal(laid[3, 4], pictures.sequential()[255])
    half = pictures.sequential()[128] * 0.5
    np.testing.assert_allclose(laid[5, 6], half, atol=1)
    assert not laid[0].any()


def test_evidence_against_has_the_other_colour():
    heat = np.array([[1.0, 0.0, -1.0]])
    laid = pictures.overlay(np.full((1, 3), 128, np.uint8), heat, opacity=1.0)
    np.testing.assert_array_equal(laid[0, 0], pictures.diverging()[-1])
    np.testing.assert_array_equal(laid[0, 1], [128] * 3)
    np.testing.assert_array_equal(laid[0, 2], pictures.diverging()[0])


def test_coarse_maps_are_laid_over_at_full_resolution():
    heat = np.zeros((4, 4))
    heat[0, 3] = 1.0
    laid = pictures.overlay(np.zeros((400, 800), np.uint8), heat).astype(int).sum(2)
    assert laid.shape == (400, 800)
    assert laid[:50, 750:].min() > 0
    assert laid[200:].max() == 0


def test_one_outlier_does_not_hide_the_rest():
    heat = np.full((100, 100), 1.0)
    heat[50, 50] = 1e6
    laid = pictures.overlay(np.zeros((100, 100), np.uint8), heat)
    np.testing.assert_array_equal(laid[0, 0], laid[50, 50])
    assert laid[0, 0].any()


def test_legend_is_under_the_picture_and_boxes_are_in_it():
    picture = np.full((90, 200, 3), 40, np.uint8)
    plain = pictures.annotate(picture, "Effusion: probability 0.93 (gradcam)")
    np.testing.assert_array_equal(plain[:90], picture)
    assert plain[90:].any()
    scaled = pictures.annotate(picture, "Effusion", low=0.0, high=3.0, boxes=[(10, 20, 60, 50)])
    assert scaled.shape[0] > plain.shape[0]
    changed = (scaled[:90] != picture).any(2)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (20, 49, 10, 59)
    colours = scaled[90:].reshape(-1, 3)
    assert (colours == pictures.sequential()[128]).all(1).any()
    signed = pictures.annotate(picture, "Effusion", low=-3.0, high=3.0)[90:].reshape(-1, 3)
    assert (signed == pictures.diverging()[0]).all(1).any()


def test_long_titles_get_small_letters_and_large_pictures_large_ones():
    small = pictures.annotate(np.zeros((50, 120, 3), np.uint8), "x" * 15)
    large = pictures.annotate(np.zeros((50, 1200, 3), np.uint8), "x" * 15)
    assert large.shape[0] - 50 > 2 * (small.shape[0] - 50)
    assert not small[50:, 118:].any()


@pytest.mark.parametrize(
    ("image", "heat"),
    [(np.zeros((3, 4, 4)), np.zeros((4, 4))), (np.zeros((4, 4)), np.zeros((1, 4, 4)))],
)
def test_wrong_shapes_are_refused(image, heat):
    with pytest.raises(ImageShapeError, match="got"):
        pictures.overlay(image, heat)


def test_importing_needs_neither_captum_nor_matplotlib_nor_torch_for_pictures():
    code = (
        "import sys, numpy as np; from torchxrayvision import explain, pictures\n"
        "assert 'torch' not in sys.modules\n"
        "pictures.overlay(np.zeros((4, 4)), np.ones((4, 4)))\n"
        "assert 'torch' not in sys.modules, 'overlay'\n"
        "import importlib\n"
        "for name in explain.__all__: getattr(explain, name)\n"
        "assert not {'captum', 'matplotlib', 'cv2'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
