"""The pointing game, its chance rate and its interval; boxes around evidence."""

from __future__ import annotations

import numpy as np
import pytest

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.explain import evidence_box, pointing_game
from torchxrayvision.explain.pointing import _grown
from torchxrayvision.masks import boxes_to_mask


def disc(shape, y, x, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_maps_that_point_hit():
    mask = boxes_to_mask([[3, 4, 5, 2]], (20, 30))
    inside, outside = np.zeros((20, 30)), np.zeros((20, 30))
    inside[5, 6], outside[0, 0] = 1, 1
    result = pointing_game([inside, inside, outside], [mask] * 3)
    assert (result.hits, result.n) == (2, 3)
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.chance == pytest.approx(10 / 600)
    assert result.low < 2 / 3 < result.high


def test_random_maps_score_the_chance_rate():
    generator = np.random.default_rng(0)
    heats, masks = [], []
    for _ in range(600):
        heats.append(generator.random((32, 32)))
        masks.append(disc((32, 32), *generator.integers(4, 28, 2), generator.integers(4, 9)))
    result = pointing_game(heats, masks, level=0.999)
    assert 0.1 < result.chance < 0.2
    assert result.low < result.chance < result.high
    assert not result.beats_chance
    tolerant = pointing_game(heats, masks, tolerance=3, level=0.999)
    assert tolerant.chance > 1.3 * result.chance
    assert tolerant.low < tolerant.chance < tolerant.high


def test_constant_maps_score_exactly_the_chance_rate():
    mask = disc((16, 16), 8, 8, 3)
    result = pointing_game([np.ones((16, 16))], [mask])
    assert result.accuracy == result.chance == mask.mean()


def test_interval_is_wilsons():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    hit, miss = mask * 1.0, np.flip(mask) * 1.0
    result = pointing_game([hit] * 8 + [miss] * 2, [mask] * 10)
    # Wilson's interval for 8 of 10: 0.4902 to 0.9433 (Brown, Cai, DasGupta 2001).
    assert (result.low, result.high) == (
        pytest.approx(0.4902, abs=5e-5),
        pytest.approx(0.9433, abs=5e-5),
    )
    perfect = pointing_game([hit] * 10, [mask] * 10, level=0.9)
    assert perfect.high == pytest.approx(1.0)
    assert perfect.beats_chance


@pytest.mark.parametrize("radius", [0, 1, 1.5, 2, 5, 40])
def test_tolerance_is_a_distance(radius):
    mask = np.zeros((24, 31), bool)
    mask[3, 4] = mask[20, 30] = True
    expected = disc(mask.shape, 3, 4, radius) | disc(mask.shape, 20, 30, radius)
    np.testing.assert_array_equal(_grown(mask, radius), expected)


def test_nan_is_never_the_strongest():
    mask = np.zeros((4, 4), bool)
    mask[2, 2] = True
    heat = mask * 1.0
    heat[0] = np.nan
    assert pointing_game([heat], [mask]).accuracy == 1.0


@pytest.mark.parametrize(
    ("heats", "masks"),
    [
        ([], []),
        ([np.ones((4, 4))], [np.zeros((4, 4), bool)]),
        ([np.ones((4, 4))], [np.ones((4, 5), bool)]),
        ([np.ones((1, 4, 4))], [np.ones((1, 4, 4), bool)]),
    ],
)
def test_games_without_an_answer_are_refused(heats, masks):
    with pytest.raises(ImageShapeError, match="needs"):
        pointing_game(heats, masks)


def test_box_holds_the_region_of_the_maximum_only():
    heat = np.zeros((400, 600), np.float32)
    heat[100:200, 50:150] = 1.0
    heat[150:160, 150:250] = 0.7  # joined to it
    heat[300:350, 400:500] = 0.9  # apart
    heat[:10] = np.nan
    left, top, right, bottom = evidence_box(heat)
    assert abs(left - 50) <= 5
    assert abs(top - 100) <= 5
    assert abs(right - 250) <= 5
    assert abs(bottom - 200) <= 5
    assert evidence_box(np.zeros((5, 5))) is None
    assert evidence_box(-np.ones((5, 5))) is None
