"""One film is found again whatever was done to it, and two films of one patient are two."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from torchxrayvision.audit import fingerprints, nearest, overlay
from torchxrayvision.audit.duplicates import CONFIRMED, STILL, Pair, by_hash, exposures, search
from torchxrayvision.audit.movement import moved_tiles
from torchxrayvision.audit.nearest import candidates
from torchxrayvision.datasets import Phantom_Dataset
from torchxrayvision.phantom import png_bytes, simulate

COUNT = 24


@pytest.fixture(scope="module")
def films():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = (png_bytes(simulate(i, seed=5, size=192).image) for i in range(COUNT))
    yield [np.asarray(Image.open(io.BytesIO(data))) for data in made]
    torch.set_num_threads(threads)


def encoded(grey):
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


def windowed(grey):
    low, high = np.percentile(grey, [5, 93])
    return (np.clip((grey - low) / (high - low), 0, 1) ** 0.85 * 255).astype(np.uint8)


CHANGES = {
    "encoded": encoded,
    "resized": lambda g: np.asarray(Image.fromarray(g).resize((110, 110))),
    "cropped": lambda g: g[15:188, 4:177],
    "windowed": windowed,
    "inverted": lambda g: 255 - g,
    "mirrored": lambda g: g[:, ::-1],
    "rotated": lambda g: np.asarray(Image.fromarray(g).rotate(4, Image.Resampling.BILINEAR)),
}


def pictures(images, side=fingerprints.SIDE):
    return np.stack([fingerprints.thumbnail(image, side) for image in images])


def test_changed_films_are_found_and_their_changes_told(films):
    images = [*films, *(change(films[i]) for i, change in enumerate(CHANGES.values()))]
    large = pictures(images, overlay.FINE_SIDE)
    pairs = search(pictures(images), lambda rows: large[rows])
    assert [(p.first, p.second) for p in pairs] == [(i, COUNT + i) for i in range(len(CHANGES))]
    told = dict(zip(CHANGES, pairs, strict=True))
    assert "cropped" in told["cropped"].how
    assert told["inverted"].how == "inverted"
    assert told["mirrored"].how == "mirrored"
    assert "rotated by 4 degrees" in told["rotated"].how
    assert told["encoded"].how == "encoded again, resized or windowed"


def test_films_of_others_are_not_one(films):
    large = pictures(films, overlay.FINE_SIDE)
    assert search(pictures(films), lambda rows: large[rows]) == []


def grey_of(image):
    return np.asarray(Image.open(io.BytesIO(png_bytes(image))))


def test_two_exposures_in_nearly_one_position_are_not_one(films):
    """Half of their cells agree as those of copies do, and the rest moved with the breath."""
    patient = Phantom_Dataset(18, seed=5000, size=256, site="A")
    two = [grey_of(patient[i]["img"]) for i in (15, 17)]
    images = [*two, *films, encoded(two[0]), CHANGES["rotated"](two[1])]
    large = pictures(images, overlay.FINE_SIDE)
    still = np.eye(2, 3, dtype=np.float32)[None], np.zeros(1, bool)
    whole = overlay.compare(pictures(two[:1]), pictures(two[1:]), *still)
    alike = overlay.confirm(large[:1], large[1:2], whole)
    assert alike.correlation[0] > CONFIRMED  # one figure for the whole does not tell
    assert moved_tiles(large[:1], large[1:2], alike)[0] > 1.5 * STILL
    pairs = search(pictures(images), lambda rows: large[rows])
    assert [(p.first, p.second) for p in pairs] == [(0, 2 + COUNT), (1, 3 + COUNT)]


def test_a_part_that_moved_is_seen_and_what_is_done_to_copies_is_not(films):
    large = pictures(films[:3], overlay.FINE_SIDE)
    lies = np.tile(np.eye(2, 3, dtype=np.float32), (3, 1, 1))

    def share(others):
        made = overlay.Overlay(
            np.ones(3, np.float32), np.ones(3, np.float32), lies, np.zeros(3, bool)
        )
        return moved_tiles(large, others, made)

    assert (share(large) == 0).all()
    assert (share(255 - large) == 0).all()
    assert (share(np.stack([encoded(one) for one in large])) <= STILL).all()
    lower = large.copy()
    lower[:, 128:] = np.roll(large, 2, axis=1)[:, 128:]
    assert (share(lower) > STILL).all()
    everywhere = np.roll(large, 1, axis=1)  # a map that is off is no movement
    assert (share(everywhere) <= STILL).all()
    assert (share(np.zeros_like(large)) == 0).all()  # nothing is seen, so nothing is said


def test_pairs_among_the_reference_are_not_looked_for(films):
    images = [films[0], films[1], films[0], films[2], films[2]]
    pairs = candidates(pictures(images), others=2).pairs().tolist()
    assert [0, 2] in pairs
    assert [3, 4] not in pairs


def test_the_embedding_adds_pairs_that_the_fingerprint_does_not_see(films, monkeypatch):
    monkeypatch.setattr(nearest, "_FEW", 0)
    noise = np.random.default_rng(0).integers(0, 255, (192, 192)).astype(np.uint8)
    images = [*films, noise]
    features = np.random.default_rng(1).normal(size=(COUNT + 1, 16)).astype(np.float32)
    features[COUNT] = features[3] * 1.01
    assert [3, COUNT] not in candidates(pictures(images)).pairs().tolist()
    assert [3, COUNT] in candidates(pictures(images), features).pairs().tolist()


def test_the_descriptor_of_a_mirror_image_is_a_permutation(films):
    grey = pictures(films[:4]).astype(np.uint8)
    straight = fingerprints.describe_whole(grey)
    turned = fingerprints.describe_whole(np.ascontiguousarray(grey[:, :, ::-1]))
    np.testing.assert_allclose(fingerprints.mirrored(straight), turned, atol=1e-4)


def test_blocks_do_not_change_what_is_found(films, monkeypatch):
    grey = pictures([*films, films[2][:, ::-1]])
    whole = candidates(grey)
    monkeypatch.setattr(nearest, "_BLOCK", 5)
    monkeypatch.setattr(nearest, "_TILE", 7)
    parts = candidates(grey)
    assert parts.pairs().tolist() == whole.pairs().tolist()
    assert parts.views.tolist() == whole.views.tolist()


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_alike_in_too_few_images(count, films):
    assert search(pictures(films)[:count]) == []


def test_blank_images_are_no_pair():
    grey = np.zeros((4, fingerprints.SIDE, fingerprints.SIDE), np.uint8)
    assert search(grey) == []


def test_groups_and_hashes():
    pairs = by_hash(["a", "", "a", "b", "a"], "same bytes")
    assert [(p.first, p.second) for p in pairs] == [(0, 2), (0, 4)]
    assert exposures(5, [*pairs, Pair(3, 4, 0.9, "mirrored")]).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("view", range(2 * fingerprints.VIEWS))
def test_the_map_of_a_view_lays_the_image_over_it(view, films):
    """A view that was stored as an image is found by that view, and agrees without a step."""
    grey = pictures(films[:1])
    places = torch.from_numpy(fingerprints.view_maps()[view : view + 1])
    source = torch.from_numpy(grey).float()[:, None]
    source = source.flip(3) if view >= fingerprints.VIEWS else source
    grid = torch.nn.functional.affine_grid(places, [1, 1, 96, 96], align_corners=False)
    seen = torch.nn.functional.grid_sample(source, grid, align_corners=False)
    stored = seen[:, 0].round().to(torch.uint8).numpy()
    described = fingerprints.describe(grey)
    views = np.concatenate([described, fingerprints.mirrored(described)], axis=1)[0]
    away = np.linalg.norm(views - fingerprints.describe_whole(stored), axis=1)
    assert int(away.argmin()) == view
    mirror = np.array([view >= fingerprints.VIEWS])
    found = overlay.compare(stored, grey, places.numpy(), mirror)
    assert abs(found.correlation[0]) > 0.95
    np.testing.assert_allclose(found.maps[0], places[0].numpy(), atol=0.02)


def test_more_images_than_few_are_ranked_again_and_found(films, monkeypatch):
    monkeypatch.setattr(nearest, "_FEW", 0)
    images = [*films, *(change(films[i]) for i, change in enumerate(CHANGES.values()))]
    found = candidates(pictures(images))
    pairs = found.pairs().tolist()
    assert all([i, COUNT + i] in pairs for i in range(len(CHANGES)))
    assert found.similar.min() >= 0.6
    assert np.bincount(found.asked).max() <= 2
