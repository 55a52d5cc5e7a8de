"""Outlines give back their masks: exactly, or within half a pixel."""

import numpy as np
import pytest

from torchxrayvision.masks import polygon_to_mask
from torchxrayvision.results import outlines


def filled(rings, shape):
    return sum(polygon_to_mask(ring[:-1], shape).astype(int) for ring in rings) % 2 == 1


@pytest.mark.parametrize("seed", range(20))
def test_unsimplified_outlines_are_the_mask(seed):
    mask = np.random.default_rng(seed).random((13, 17)) > 0.5
    rings = outlines(mask, 0)
    assert (filled(rings, mask.shape) == mask).all()
    assert all((ring[0] == ring[-1]).all() for ring in rings)


def test_a_simplified_outline_is_within_half_a_pixel():
    y, x = np.mgrid[:400, :300]
    mask = ((y - 210) / 160) ** 2 + ((x - 140) / 90) ** 2 < 1
    (exact,), (short,) = outlines(mask, 0), outlines(mask)
    assert len(short) < len(exact)
    starts, ends = short[:-1], short[1:]
    lines = ends - starts
    share = ((exact[:, None] - starts) * lines).sum(2) / (lines**2).sum(1)
    nearest = starts + np.clip(share, 0, 1)[..., None] * lines
    distance = np.sqrt(((exact[:, None] - nearest) ** 2).sum(2)).min(1)
    assert distance.max() <= 0.5 + 1e-9


def test_a_long_border_fits_one_element():
    mask = np.zeros((300, 300), bool)
    mask[::2] = True
    mask[:, 0] = True
    assert max(map(len, outlines(mask, 0))) <= 8000


def test_no_mask_has_no_outline():
    assert outlines(np.zeros((3, 3), bool)) == []
