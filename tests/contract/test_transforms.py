"""What every transform promises. A new public transform without an entry here fails the suite."""

# ruff: noqa: NPY002 - NumPy's global generator is what must stay as it is
from __future__ import annotations

import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

import torchxrayvision.transforms as transforms
from torchxrayvision.transforms import apply_transforms

PER_ARRAY = {
    "XRayCenterCrop": [transforms.XRayCenterCrop()],
    "XRayResizer": [
        transforms.XRayResizer(16, engine=engine) for engine in ("skimage", "cv2", "torch")
    ],
    "ToPILImage": [transforms.ToPILImage()],
}
JOINT = {
    "CenterCropSquare": [transforms.CenterCropSquare()],
    "ResizeSquare": [transforms.ResizeSquare(16), transforms.ResizeSquare(100)],
    "RandomAffineXRay": [transforms.RandomAffineXRay()],
}
# The joint class of each per-array one, for the same image.
SAME = [
    (transforms.XRayCenterCrop(), transforms.CenterCropSquare()),
    (transforms.XRayResizer(16), transforms.ResizeSquare(16)),
    (transforms.XRayResizer(100), transforms.ResizeSquare(100)),
]
EVERY = [each for many in (PER_ARRAY | JOINT).values() for each in many]
EVERY_JOINT = [each for many in JOINT.values() for each in many]


@pytest.fixture(autouse=True)
def _opencv_where_needed(request):
    params = getattr(getattr(request.node, "callspec", None), "params", {})
    if getattr(params.get("transform"), "engine", None) == "cv2":
        pytest.importorskip("cv2")


def every(members):
    return pytest.mark.parametrize("transform", members, ids=repr)


def sample_of(height=60, width=48):
    """White on air exactly where the masks are 1 and the box stands."""
    mask = np.zeros((1, height, width), np.float32)
    mask[:, 20:36, 12:34] = 1
    return {
        "idx": 0,
        "lab": np.array([1, 0, np.nan], np.float32),
        "img": mask * 2048 - 1024,
        "pathology_masks": {0: mask.copy()},
        "semantic_masks": {"Lungs": mask.copy()},
        "bbox": [[12.0, 20.0, 22.0, 16.0]],
    }


def states():
    _, keys, *rest = np.random.get_state()
    return random.getstate(), keys.tolist(), rest, torch.get_rng_state().tolist()


def test_every_public_transform_is_under_contract():
    public = {
        name
        for name in transforms.__all__
        if isinstance(getattr(transforms, name), type) and name != "SeedSource"
    }
    assert public == set(PER_ARRAY) | set(JOINT)


def test_public_names_exist_and_are_listed():
    assert dir(transforms) == sorted(transforms.__all__)
    for name in transforms.__all__:
        assert getattr(transforms, name).__doc__
    with pytest.raises(AttributeError, match="it has CenterCropSquare"):
        transforms.NoSuchTransform  # noqa: B018


def test_joint_classes_are_those_that_datasets_treat_as_joint():
    assert all(isinstance(transform, v2.Transform) for transform in EVERY_JOINT)
    per_array = [each for many in PER_ARRAY.values() for each in many]
    assert not any(isinstance(transform, v2.Transform) for transform in per_array)


@every(EVERY)
def test_sample_goes_through_with_labels_untouched(transform):
    sample = sample_of()
    result = apply_transforms(sample, transform, seed=1)
    assert result is sample
    assert np.array_equal(result["lab"], [1, 0, np.nan], equal_nan=True)
    assert list(result["pathology_masks"]) == [0]
    assert np.asarray(result["img"]).dtype == np.float32
    shape = np.asarray(result["img"]).shape
    assert np.asarray(result["pathology_masks"][0]).shape == shape
    assert np.asarray(result["semantic_masks"]["Lungs"]).shape == shape


@every(EVERY)
def test_values_stay_in_range(transform):
    image = np.random.default_rng(0).uniform(-1024, 1024, (1, 60, 48)).astype(np.float32)
    result = np.asarray(apply_transforms({"img": image}, transform, seed=1)["img"])
    assert result.min() >= -1024.01
    assert result.max() <= 1024.01


@every(EVERY_JOINT)
def test_masks_stay_binary_and_stand_where_the_image_shows_them(transform):
    for seed in range(5):
        result = apply_transforms(sample_of(), transform, seed=seed)
        mask = result["pathology_masks"][0]
        assert set(np.unique(mask)) == {0, 1}
        assert np.array_equal(mask, result["semantic_masks"]["Lungs"])
        assert ((result["img"] > 0) == mask.astype(bool)).mean() > 0.95


@every(EVERY_JOINT)
def test_boxes_enclose_the_moved_mask(transform):
    for seed in range(5):
        result = apply_transforms(sample_of(), transform, seed=seed)
        ((x, y, width, height),) = result["bbox"]
        _, rows, columns = result["pathology_masks"][0].nonzero()
        assert x - 1.5 <= columns.min()
        assert columns.max() + 1 <= x + width + 1.5
        assert y - 1.5 <= rows.min()
        assert rows.max() + 1 <= y + height + 1.5


@every(EVERY_JOINT)
def test_parts_move_the_same_whatever_else_is_in_the_sample(transform):
    together, alone = apply_transforms(sample_of(), transform, seed=3), sample_of()
    image = apply_transforms({"img": alone["img"]}, transform, seed=3)["img"]
    assert np.array_equal(image, together["img"])
    pair = {"img": alone["img"], "pathology_masks": alone["pathology_masks"]}
    mask = apply_transforms(pair, transform, seed=3)["pathology_masks"][0]
    assert np.array_equal(mask, together["semantic_masks"]["Lungs"])


@pytest.mark.parametrize(("single", "joint"), SAME, ids=lambda transform: repr(transform))
def test_joint_and_per_array_classes_agree_on_the_image(single, joint):
    image = np.random.default_rng(0).normal(0, 300, (1, 60, 48)).astype(np.float32)
    expected = single(image)
    assert np.array_equal(apply_transforms({"img": image}, joint)["img"], expected)


@every(EVERY)
def test_nothing_global_changes_and_nothing_is_printed(transform, capfd):
    before = states()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply_transforms(sample_of(), transform)
    assert states() == before
    assert capfd.readouterr() == ("", "")


@every(EVERY)
def test_pickled_copy_does_the_same(transform):
    copy = pickle.loads(pickle.dumps(transform))
    assert repr(copy) == repr(transform)
    one, other = (apply_transforms(sample_of(), t, seed=1) for t in (transform, copy))
    assert np.array_equal(np.asarray(one["img"]), np.asarray(other["img"]))


@every(EVERY)
def test_input_arrays_are_not_written_to(transform):
    sample = sample_of()
    image, mask = sample["img"], sample["pathology_masks"][0]
    apply_transforms(sample, transform, seed=1)
    assert np.array_equal(image, sample_of()["img"])
    assert np.array_equal(mask, sample_of()["pathology_masks"][0])


@every(EVERY)
def test_smallest_image_goes_through(transform):
    result = apply_transforms({"img": np.full((1, 1, 1), 5, np.float32)}, transform, seed=1)
    assert np.asarray(result["img"]).size >= 1
