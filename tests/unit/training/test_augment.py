"""Batched augmentation: right geometry, the same draws in any batch, labels mixed with images."""

from __future__ import annotations

import math

import pytest
import torch

from torchxrayvision.training import PUBLISHED, STRONG, Augmentation
from torchxrayvision.training.augment import augment, draw, mix

SIZE = 32


def film(row=8, column=20):
    image = torch.full((1, 1, SIZE, SIZE), -1024.0)
    image[0, 0, row : row + 3, column : column + 3] = 1024.0
    return image


@pytest.mark.parametrize("what", [Augmentation(), Augmentation(translation=0.02), PUBLISHED])
def test_shrinking_filters_whether_or_not_anything_moves(what):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((4, 1, 512, 512), generator=generator) * 400
    filtered = torch.nn.functional.interpolate(noise, (64, 64), mode="bilinear", antialias=True)
    shrunk = augment(noise, draw(range(4), seed=0, epoch=0), what, 64)[:, :, 20:44, 20:44]
    assert shrunk.std() < 1.4 * filtered.std()


def centre(image):
    weight = image[0, 0] + 1024
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return [((weight * axis).sum() / weight.sum()).item() for axis in (rows, columns)]


def drawn(**values):
    """Draws of 0.5, which change nothing, but for some."""
    draws = torch.full((1, 16), 0.5)
    for column, value in values.items():
        draws[0, int(column[1:])] = value
    return draws


def test_amounts_of_zero_change_nothing():
    image = film()
    assert augment(image, draw([0], seed=0, epoch=0), Augmentation(), SIZE) is image


def test_a_shift_moves_by_its_share_of_the_side():
    moved = augment(film(), drawn(c4=1.0), Augmentation(translation=0.25), SIZE)
    row, column = centre(moved)
    assert row == pytest.approx(9, abs=0.05)
    assert column == pytest.approx(21 - 0.25 * SIZE, abs=0.05)


def test_a_turn_keeps_distances():
    angle = 30
    turned = centre(augment(film(), drawn(c0=1.0), Augmentation(rotation=angle), SIZE))
    middle = (SIZE - 1) / 2
    before = [9 - middle, 21 - middle]
    after = [value - middle for value in turned]
    assert math.hypot(*after) == pytest.approx(math.hypot(*before), abs=0.1)
    cosine = sum(a * b for a, b in zip(before, after, strict=True)) / math.hypot(*before) ** 2
    assert math.degrees(math.acos(cosine)) == pytest.approx(angle, abs=1)


def test_scale_is_that_of_the_image():
    larger = augment(film(), drawn(c1=1.0), Augmentation(scale=0.5), SIZE)
    assert ((larger + 1024).sum() / (film() + 1024).sum()).item() == pytest.approx(2.25, rel=0.05)


def test_a_flip_mirrors():
    flipped = augment(film(), drawn(c3=0.0), Augmentation(flip=1.0), SIZE)
    torch.testing.assert_close(flipped, film().flip(3), atol=0.1, rtol=0)


@pytest.mark.parametrize("what", [PUBLISHED, STRONG])
def test_values_stay_in_range_and_air_comes_in(what):
    images = torch.rand(6, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2048 - 1024
    moved = augment(images, draw(range(6), seed=0, epoch=0), what, 24)
    assert moved.shape == (6, 1, 24, 24)
    assert moved.min() >= -1024.001
    assert moved.max() <= 1024.001
    assert not torch.equal(moved[0], moved[1])


def test_a_sample_is_changed_the_same_in_any_batch_but_not_in_another_epoch():
    images = torch.rand(4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2048 - 1024
    whole = augment(images, draw([7, 3, 9, 1], seed=5, epoch=2), STRONG, SIZE)
    alone = augment(images[2:3], draw([9], seed=5, epoch=2), STRONG, SIZE)
    torch.testing.assert_close(whole[2:3], alone, atol=1e-3, rtol=0)
    later = augment(images[2:3], draw([9], seed=5, epoch=3), STRONG, SIZE)
    assert (later - alone).abs().max() > 1


def test_no_global_generator_is_touched():
    before = torch.get_rng_state()
    augment(film(), draw([0], seed=0, epoch=0), STRONG, SIZE)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_erased_rectangle_has_the_mean():
    image = film()
    changed = augment(image, drawn(c10=0.0, c13=0.0, c14=0.0), Augmentation(erase=1.0), SIZE)
    differs = (changed != image)[0, 0]
    assert 0 < differs.sum() <= (0.3 * SIZE + 1) ** 2
    assert changed[0, 0][differs].unique().tolist() == pytest.approx([image.mean().item()])


def test_mixing_mixes_labels_in_the_same_share_and_keeps_the_unknown():
    images = torch.tensor([0.0, 100.0]).reshape(2, 1, 1, 1)
    labels = torch.tensor([[0.0, float("nan")], [1.0, 1.0]])
    mixed, shares = mix(images, labels, [4, 5], alpha=0.4, seed=0, epoch=0)
    torch.testing.assert_close(mixed.flatten() / 100, shares[:, 0])
    assert torch.isnan(shares[:, 1]).all()
