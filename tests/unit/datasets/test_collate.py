"""Batches: images, labels, masks that some samples lack, boxes, other fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import torchxrayvision.datasets as xd
from support.tiny import Tiny, write_pictures
from torchxrayvision.errors import ImageShapeError


def sample(i=0, shape=(1, 3, 4), **more):
    image = np.full(shape, i, dtype=np.float32)
    return {"idx": i, "lab": np.array([i, np.nan], np.float32), "img": image, **more}


def ones(shape=(1, 3, 4)):
    return np.ones(shape, np.float32)


def test_images_labels_and_positions_are_stacked():
    batch = xd.collate([sample(0), sample(1), sample(2)])
    assert batch["img"].shape == (3, 1, 3, 4)
    assert batch["img"].dtype == batch["lab"].dtype == torch.float32
    assert batch["img"][:, 0, 0, 0].tolist() == batch["lab"][:, 0].tolist() == [0, 1, 2]
    assert torch.isnan(batch["lab"][:, 1]).all()
    assert (batch["idx"].dtype, batch["idx"].tolist()) == (torch.int64, [0, 1, 2])


@pytest.mark.parametrize("kind", ["pathology_masks", "semantic_masks"])
@pytest.mark.parametrize(
    "given",
    [
        [{}, {1: 1}, {0: 1, 1: 1}],  # ragged
        [{1: 1}, {}, {}],  # torch's own collation takes the keys of the first
        [{}, {}, {1: 1}],  # and drops all here
        [None, {0: 1}, None],  # no such field at all
    ],
)
def test_ragged_masks_are_zero_where_a_sample_lacks_them(kind, given):
    samples = [
        sample(i, **({} if keys is None else {kind: {key: ones() for key in keys}}))
        for i, keys in enumerate(given)
    ]
    batch = xd.collate(samples)
    keys = {key for one in given for key in one or {}}
    assert set(batch[kind]) == set(batch[f"{kind}_given"]) == keys
    for key in keys:
        has = [key in (one or {}) for one in given]
        assert batch[kind][key].shape == (3, 1, 3, 4)
        assert batch[kind][key].amax(dim=(1, 2, 3)).tolist() == [float(one) for one in has]
        assert batch[f"{kind}_given"][key].tolist() == has
        assert batch[f"{kind}_given"][key].dtype == torch.bool


def test_an_empty_mask_is_told_from_a_missing_one():
    batch = xd.collate([sample(0, pathology_masks={0: ones() * 0}), sample(1, pathology_masks={})])
    assert batch["pathology_masks"][0].sum() == 0
    assert batch["pathology_masks_given"][0].tolist() == [True, False]


def test_batches_without_any_mask_have_none():
    batch = xd.collate([sample(0, pathology_masks={}), sample(1, pathology_masks={})])
    assert batch["pathology_masks"] == batch["pathology_masks_given"] == {}


def test_masks_of_several_types_keep_that_of_the_first():
    masks = (ones().astype(np.uint8), torch.ones(1, 3, 4, dtype=torch.uint8))
    batch = xd.collate([sample(i, pathology_masks={0: mask}) for i, mask in enumerate(masks)])
    assert batch["pathology_masks"][0].dtype == torch.uint8
    assert batch["pathology_masks"][0].sum() == 24


@pytest.mark.parametrize("empty", [None, [], np.zeros((0, 4), np.float32)])
def test_boxes_are_a_list_a_sample(empty):
    boxes = np.array([[0, 0, 1, 1], [1, 2, 3, 4]], np.float32)
    first = sample(0) if empty is None else sample(0, bbox=empty)
    batch = xd.collate([first, sample(1, bbox=boxes), sample(2, bbox=boxes[:1].tolist())])
    assert [tuple(one.shape) for one in batch["bbox"]] == [(0, 4), (2, 4), (1, 4)]
    assert {one.dtype for one in batch["bbox"]} == {torch.float32}
    np.testing.assert_array_equal(batch["bbox"][1], boxes)


def test_fields_of_containers_and_of_ones_own_are_kept():
    batch = xd.collate([sample(i, source=i, site=1, note=f"n{i}") for i in range(2)])
    assert batch["source"].tolist() == [0, 1]
    assert batch["site"].tolist() == [1, 1]
    assert batch["note"] == ["n0", "n1"]


def test_a_field_that_some_samples_lack_is_a_list():
    assert xd.collate([sample(0), sample(1, source=3)])["source"] == [None, 3]


@pytest.mark.parametrize(
    ("samples", "advice"),
    [
        ([sample(0), sample(1, (1, 3, 5))], "XRayResizer"),
        ([sample(0), {**sample(1), "lab": np.zeros(3, np.float32)}], "relabel_dataset"),
        (
            [
                sample(0, pathology_masks={0: ones()}),
                sample(1, pathology_masks={0: ones((1, 2, 2))}),
            ],
            "masks",
        ),
    ],
)
def test_what_cannot_be_stacked_says_what_to_do(samples, advice):
    with pytest.raises(ImageShapeError, match=advice):
        xd.collate(samples)


def test_a_loader_takes_it(tmp_path):
    dataset = Tiny(write_pictures(tmp_path))
    batches = list(DataLoader(dataset, batch_size=3, collate_fn=xd.collate))
    assert [len(batch["idx"]) for batch in batches] == [3, 1]
    found = torch.cat([batch["lab"] for batch in batches]).numpy()
    np.testing.assert_array_equal(found, dataset.labels)
