"""Measures on masks whose answers are known by construction."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from torchxrayvision import measures
from torchxrayvision.errors import ImageShapeError, UnknownNameError
from torchxrayvision.phantom import simulate


def _ellipse(shape, x, y, rx, ry):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((columns + 0.5 - x) / rx) ** 2 + ((rows + 0.5 - y) / ry) ** 2 <= 1


def chest(shape=(400, 500), heart=(270, 80)):
    """A thorax from x = 60 to 440, spine at 250; heart centred at heart[0], half as wide as [1]."""
    masks = {
        "Right Lung": _ellipse(shape, 140, 200, 80, 150),
        "Left Lung": _ellipse(shape, 360, 200, 80, 150),
        "Heart": _ellipse(shape, heart[0], 260, heart[1], 60),
        "Spine": np.zeros(shape, bool),
    }
    masks["Spine"][:, 240:260] = True
    return masks


@pytest.mark.parametrize("width", [60, 80, 110])
def test_cardiothoracic_ratio_of_ellipses(width):
    masks = chest(heart=(270, width))
    assert measures.cardiothoracic_ratio(masks) == pytest.approx(2 * width / 380, abs=0.01)


@pytest.mark.parametrize("view", ["PA", "AP"])
def test_the_ratio_of_simulated_films_is_that_of_their_geometry(view):
    for index in range(2):
        film = simulate(index, seed=7, size=256, views=(view,))
        found = measures.cardiothoracic_ratio(film.anatomy)
        assert found == pytest.approx(film.cardiothoracic_ratio, abs=0.01)


def test_the_ratio_holds_without_a_spine_and_in_other_names():
    masks = chest()
    renamed = {"heart": masks["Heart"], "lung": masks["Left Lung"] | masks["Right Lung"]}
    expected = measures.cardiothoracic_ratio(masks)
    assert measures.cardiothoracic_ratio(renamed) == pytest.approx(expected)


def test_a_heart_on_one_side_is_measured_from_the_midline():
    found = measures.cardiothoracic(chest(heart=(330, 50)))
    assert found.midline == 250
    assert found.heart_width == pytest.approx(380 - 250, abs=1.5)


def test_a_lung_that_is_nearly_white_does_not_make_the_other_one_the_thorax():
    masks = {name: np.zeros((100, 100), bool) for name in ("Left Lung", "Right Lung", "Heart")}
    masks["Right Lung"][20:80, 10:40] = True
    masks["Heart"][60:75, 40:65] = True
    assert measures.cardiothoracic(masks) is None
    masks["Left Lung"][20:32, 70:84] = True
    found = measures.cardiothoracic(masks)
    assert (found.thorax_right[0], found.thorax_left[0]) == (10, 84)
    assert found.ratio == pytest.approx(25 / 74)
    masks["Left Lung"] = np.roll(masks["Left Lung"], 62, axis=0)  # no row with both
    assert measures.cardiothoracic(masks) is None


def test_specks_do_not_widen_the_heart_or_the_thorax():
    masks = chest()
    expected = measures.cardiothoracic_ratio(masks)
    masks["Heart"][10:14, 480:490] = True
    masks["Left Lung"][300:305, 470:480] = True
    assert measures.cardiothoracic_ratio(masks) == expected


@pytest.mark.parametrize("name", ["Heart", "Left Lung"])
def test_nothing_to_measure_is_nan(name):
    masks = chest()
    masks[name] = np.zeros_like(masks[name])
    assert math.isnan(measures.cardiothoracic_ratio(masks))
    if name == "Heart":
        assert math.isnan(measures.spine_heart_distance(masks))
    else:
        assert measures.lung_area_ratio(masks) == 0
        assert math.isnan(measures.lung_area_ratio(masks | {"Right Lung": masks["Left Lung"]}))


def test_areas_and_distances_take_the_spacing_of_their_direction():
    masks = chest()
    assert measures.area(masks["Spine"]) == 8000
    assert measures.area(masks["Spine"], (0.5, 0.2)) == pytest.approx(800)
    assert measures.spine_heart_distance(masks) == pytest.approx(20, abs=0.1)
    assert measures.spine_heart_distance(masks, (0.5, 0.2)) == pytest.approx(4, abs=0.02)
    mirrored = {name: mask[:, ::-1] for name, mask in masks.items()}
    assert measures.spine_heart_distance(mirrored) == pytest.approx(-20, abs=0.1)


def test_the_spine_counts_beside_the_heart_only():
    masks = chest()
    masks["Spine"][:100] = np.roll(masks["Spine"][:100], 60, axis=1)
    assert measures.spine_heart_distance(masks) == pytest.approx(20, abs=0.1)
    masks["Spine"][200:] = False
    assert math.isnan(measures.spine_heart_distance(masks))


def test_lung_area_ratio_is_left_over_right():
    masks = chest()
    masks["Left Lung"][200:] = False
    assert measures.lung_area_ratio(masks) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Lungs", ("Left Lung", "Right Lung")),
        ("left lung", ("Left Lung",)),
        ("Lung_Left", ("Left Lung",)),
        ("clavicles", ("clavicle left", "clavicle right")),
        ("heart", ("Heart",)),
    ],
)
def test_names_as_people_say_them(name, parts):
    names = ["Heart", "Left Lung", "Right Lung", "clavicle right", "clavicle left"]
    assert measures.parts_of(name, names) == parts


@pytest.mark.parametrize("name", ["left heart", "scapulae", "left clavicula"])
def test_unknown_structures_say_what_there_is(name):
    with pytest.raises(UnknownNameError, match=r"unknown structure .* Known: Heart, Left Lung"):
        measures.structure({"Heart": np.ones((2, 2)), "Left Lung": np.ones((2, 2))}, name)


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ImageShapeError, match="one shape"):
        measures.structure({"Left Lung": np.ones((2, 2)), "Right Lung": np.ones((2, 3))}, "Lungs")


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
@settings(max_examples=100, deadline=None)
def test_main_parts_keeps_whole_parts_and_the_largest(mask):
    kept = measures.main_parts(mask)
    parts = list(_flood(mask))
    largest = max((len(part) for part in parts), default=0)
    for part in parts:
        expected = len(part) >= 0.1 * largest
        assert {bool(kept[pixel]) for pixel in part} == {expected}
    assert not kept[~mask].any()


def _flood(mask):
    left = set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True))
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
        yield part


def _chest(heart=slice(8, 14), left=slice(12, 18)):
    masks = {name: np.zeros((12, 20), bool) for name in ("Left Lung", "Right Lung", "Heart")}
    masks["Right Lung"][2:8, 2:8] = masks["Left Lung"][2:8, left] = True
    masks["Heart"][5:8, heart] = True
    return masks


def test_plausible_masks_leave_no_doubt():
    assert measures.doubts(_chest()) == []
    assert measures.doubts({"Heart": np.zeros((4, 4), bool)}) == []


def test_each_reason_for_doubt_is_named():
    assert measures.doubts(_chest(heart=slice(0, 14))) == ["the heart reaches beyond the lungs"]
    small = measures.doubts(_chest(left=slice(16, 18)))
    assert small == ["the left lung has 0.33 times the area of the right one"]
    torn = _chest()
    torn["Left Lung"][4] = False
    assert measures.doubts(torn) == ["Left Lung is in 2 parts"]
    torn["Left Lung"][4] = True
    torn["Left Lung"][11, 0] = True  # a speck is none
    assert measures.doubts(torn) == []
