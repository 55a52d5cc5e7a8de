"""apply_transforms: alignment of image and masks, and what it leaves as it found it."""

# ruff: noqa: NPY002 - transforms that draw from NumPy's global generator are the subject
from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import torchvision
from torchvision.transforms import v2

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.transforms import (
    CenterCropSquare,
    RandomAffineXRay,
    ResizeSquare,
    SeedSource,
    ToPILImage,
    XRayCenterCrop,
    XRayResizer,
    apply_transforms,
)


def numpy_shift(image):
    return np.roll(image, np.random.randint(1, 40), axis=-1)


def python_shift(image):
    return np.roll(image, random.randrange(1, 40), axis=-2)


def torch_shift(image):
    return np.roll(image, int(torch.randint(1, 40, ())), axis=-1)


def mixed(image):
    return numpy_shift(torch_shift(python_shift(numpy_shift(image))))


version_1_augmentation = torchvision.transforms.Compose(
    [
        ToPILImage(),
        torchvision.transforms.RandomAffine(45, (0.15, 0.15), (0.85, 1.15)),
        torchvision.transforms.ToTensor(),
    ]
)

PER_ARRAY = {
    "numpy": numpy_shift,
    "random": python_shift,
    "torch": torch_shift,
    "mixed": mixed,
    "torchvision": version_1_augmentation,
}


def marked_sample():
    """An image that is its own mask, so that any difference in movement shows."""
    mark = np.zeros((1, 64, 64), np.float32)
    mark[:, 20:31, 10:33] = 1
    mark[:, 40:44, 40:60] = 1
    return {
        "idx": 3,
        "lab": np.array([1, np.nan], np.float32),
        "img": mark.copy(),
        "pathology_masks": {0: mark.copy(), 5: mark.copy()},
        "semantic_masks": {"Lungs": mark.copy()},
    }


def masks_of(sample):
    return [*sample["pathology_masks"].values(), *sample["semantic_masks"].values()]


def states():
    return pickle.dumps(
        (random.getstate(), np.random.get_state(), torch.get_rng_state().numpy().tobytes())
    )


@pytest.mark.parametrize("transform", PER_ARRAY.values(), ids=PER_ARRAY)
def test_image_and_masks_move_together(transform):
    moved = 0
    for _ in range(20):
        sample = apply_transforms(marked_sample(), transform)
        image = np.asarray(sample["img"])
        for mask in masks_of(sample):
            assert (np.asarray(mask) == image).all()
        moved += not np.array_equal(image, marked_sample()["img"])
    assert moved >= 15


@pytest.mark.parametrize("transform", PER_ARRAY.values(), ids=PER_ARRAY)
def test_seed_repeats_and_another_seed_differs(transform):
    one, again, other = (
        np.asarray(apply_transforms(marked_sample(), transform, seed=seed)["img"])
        for seed in (7, 7, 8)
    )
    assert (one == again).all()
    assert (one != other).any()


JOINT = {
    "affine": RandomAffineXRay(),
    "compose": v2.Compose([RandomAffineXRay(), ResizeSquare(32)]),
}


@pytest.mark.parametrize("transform", JOINT.values(), ids=JOINT)
def test_joint_seed_repeats_and_no_seed_varies(transform):
    one, again = (apply_transforms(marked_sample(), transform, seed=7)["img"] for _ in range(2))
    assert (one == again).all()
    results = {apply_transforms(marked_sample(), transform)["img"].tobytes() for _ in range(6)}
    assert len(results) >= 5


ALL = {**PER_ARRAY, **JOINT, "resizer": XRayResizer(8)}


@pytest.mark.parametrize("transform", ALL.values(), ids=ALL)
@pytest.mark.parametrize("seed", [None, 1])
def test_random_states_of_the_caller_are_untouched(transform, seed):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = states()
    apply_transforms(marked_sample(), transform, seed)
    assert states() == before


class Fails(v2.Transform):
    def transform(self, inpt, params):
        torch.rand(1)
        raise ZeroDivisionError


def fails(image):
    random.random()
    np.random.rand()
    torch.rand(1)
    raise ZeroDivisionError


@pytest.mark.parametrize("transform", [fails, Fails()])
def test_failure_leaves_random_states_and_sample_as_they_were(transform):
    before, sample = states(), marked_sample()
    with pytest.raises(ZeroDivisionError):
        apply_transforms(sample, transform, seed=1)
    assert states() == before
    assert (sample["img"] == marked_sample()["img"]).all()


def test_failure_on_a_mask_leaves_the_image_untransformed():
    calls = []

    def second_fails(image):
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError
        return image + 1

    sample = marked_sample()
    with pytest.raises(ZeroDivisionError):
        apply_transforms(sample, second_fails)
    assert (sample["img"] == marked_sample()["img"]).all()


def test_none_returns_the_sample_as_it_is():
    sample = marked_sample()
    image = sample["img"]
    assert apply_transforms(sample, None) is sample
    assert sample["img"] is image


def test_sample_is_changed_in_place_and_other_fields_stay():
    sample = {**marked_sample(), "bbox": [[1.0, 2.0, 3.0, 4.0]], "source": 2}
    label = sample["lab"]
    assert apply_transforms(sample, XRayResizer(16)) is sample
    assert sample["lab"] is label
    assert (sample["idx"], sample["source"], sample["bbox"]) == (3, 2, [[1.0, 2.0, 3.0, 4.0]])
    assert sample["img"].shape == (1, 16, 16)
    assert list(sample["pathology_masks"]) == [0, 5]


def test_per_array_masks_get_the_soft_edges_of_version_1():
    sample = apply_transforms(marked_sample(), XRayResizer(17))
    assert (sample["pathology_masks"][0] == XRayResizer(17)(marked_sample()["img"])).all()
    assert len(np.unique(sample["pathology_masks"][0])) > 10


@pytest.mark.parametrize("transform", [XRayResizer(16), ResizeSquare(16), numpy_shift])
def test_mask_of_another_shape_is_refused_before_anything_runs(transform):
    sample = marked_sample()
    sample["pathology_masks"][5] = np.zeros((1, 64, 60))
    with pytest.raises(ImageShapeError, match=r"pathology_masks\[5\].*\(1, 64, 60\)"):
        apply_transforms(sample, transform)
    assert sample["img"].shape == (1, 64, 64)


def test_transform_that_tears_image_and_mask_apart_is_named():
    generator = np.random.default_rng(0)

    def own_generator(image):
        return image[:, : generator.integers(5, 60)]

    with pytest.raises(ImageShapeError, match="after <function"):
        apply_transforms(marked_sample(), own_generator)


def test_transform_may_end_in_a_pil_image():
    sample = apply_transforms(marked_sample(), ToPILImage())
    assert sample["img"].size == (64, 64)


def test_generators_stay_free_under_transforms_that_draw_nothing(monkeypatch):
    monkeypatch.setattr(random, "seed", None)  # any use of it would fail
    compose = torchvision.transforms.Compose([XRayCenterCrop(), XRayResizer(16)])
    assert apply_transforms(marked_sample(), compose)["img"].shape == (1, 16, 16)
    with pytest.raises(TypeError):
        apply_transforms(marked_sample(), numpy_shift)


def test_threads_keep_their_samples_aligned():
    torn = []

    def work():
        for _ in range(20):
            sample = apply_transforms(marked_sample(), mixed)
            torn.extend(1 for mask in masks_of(sample) if (mask != sample["img"]).any())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn


def test_nested_use_works():
    def nested(image):
        return apply_transforms({"img": image}, numpy_shift, seed=1)["img"]

    sample = apply_transforms(marked_sample(), nested)
    assert (sample["pathology_masks"][0] == sample["img"]).all()


LATE_TORCH = """
import sys, numpy as np
from torchxrayvision.transforms import apply_transforms

def shift(image):
    import torch
    return np.roll(image, int(torch.randint(0, 10**6, ())), axis=-1)

image = np.arange(10**6, dtype=np.int32).reshape(1, 1, -1)
print("torch" in sys.modules)
sample = apply_transforms({"img": image, "pathology_masks": {0: image}}, shift, seed=5)
print((sample["img"] == sample["pathology_masks"][0]).all(), sample["img"][0, 0, 0])
"""


def test_torch_imported_by_the_transform_itself_is_treated_alike():
    """The same numbers, whether or not torch was there before."""
    said = []
    for before in ("", "import torch"):
        script = [sys.executable, "-c", f"{before}\n{LATE_TORCH}"]
        done = subprocess.run(script, capture_output=True, text=True)
        assert done.stderr == ""
        said.append(done.stdout.split())
    (absent, same, first), (present, *others) = said
    assert (absent, present, same) == ("False", "True", "True")
    assert [same, first] == others


def test_joint_transform_keeps_types_and_binary_masks():
    sample = marked_sample()
    sample["pathology_masks"] = {
        0: sample["pathology_masks"][0].astype(np.uint8),
        5: sample["pathology_masks"][5].astype(bool),
    }
    sample["semantic_masks"]["Lungs"] = sample["semantic_masks"]["Lungs"].astype(np.float64)
    transform = v2.Compose([CenterCropSquare(), RandomAffineXRay(), ResizeSquare(32)])
    apply_transforms(sample, transform, seed=4)
    assert (type(sample["img"]), sample["img"].dtype) == (np.ndarray, np.float32)
    masks = masks_of(sample)
    assert [mask.dtype for mask in masks] == [np.uint8, bool, np.float64]
    for mask in masks:
        assert mask.shape == sample["img"].shape == (1, 32, 32)
        assert set(np.unique(mask)) == {0, 1}
        assert (mask == masks[0]).all()


@pytest.mark.parametrize("kind", [list, np.array])
def test_joint_transform_moves_boxes_and_keeps_their_type(kind):
    boxes = kind([[28.0, 4.0, 10.0, 6.0]])
    sample = {"img": np.zeros((1, 40, 80), np.float32), "bbox": boxes}
    apply_transforms(sample, v2.Compose([CenterCropSquare(), ResizeSquare(20)]))
    assert type(sample["bbox"]) is type(boxes)
    assert np.allclose(sample["bbox"], [[4, 2, 5, 3]])
    if isinstance(boxes, np.ndarray):
        assert sample["bbox"].dtype == np.float32


@pytest.mark.parametrize("transform", [ResizeSquare(8), RandomAffineXRay(), CenterCropSquare()])
def test_joint_transform_takes_a_sample_without_boxes_or_masks(transform):
    sample = {"img": np.zeros((1, 10, 12), np.float32), "bbox": [], "pathology_masks": {}}
    apply_transforms(sample, transform)
    assert (sample["bbox"], sample["pathology_masks"]) == ([], {})
    assert "semantic_masks" not in sample


def test_joint_transform_does_not_write_into_the_arrays_it_was_given():
    class Blacken(v2.Transform):
        def transform(self, inpt, params):
            return inpt.mul_(0)

    image = np.ones((1, 4, 4), np.float32)
    mask = np.ones((1, 4, 4), np.uint8)
    sample = apply_transforms({"img": image, "pathology_masks": {0: mask}}, Blacken())
    assert sample["img"].max() == sample["pathology_masks"][0].max() == 0
    assert image.min() == mask.min() == 1


def test_seed_source_repeats_under_a_seed_and_varies_without():
    assert [SeedSource(3).next() for _ in range(2)] == [SeedSource(3).next()] * 2
    source = SeedSource(3)
    assert len({source.next() for _ in range(100)}) == 100
    assert SeedSource().next() != SeedSource().next()


def test_seed_source_leaves_the_global_generators_alone():
    before = states()
    SeedSource().next()
    assert states() == before


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_seed_source_refuses_what_is_no_seed(seed):
    with pytest.raises((ValueError, TypeError)):
        SeedSource(seed)


def test_seed_source_in_another_process_does_not_repeat_its_parent():
    source = SeedSource(3)
    elsewhere = pickle.loads(pickle.dumps(source))
    assert elsewhere.next() == SeedSource(3).next()
    elsewhere = pickle.loads(pickle.dumps(source))
    elsewhere._home = os.getpid() + 1  # as if unpickled there
    assert elsewhere.next() != SeedSource(3).next()


class Seeds(torch.utils.data.Dataset):
    def __init__(self):
        self.seeds = SeedSource(0)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.seeds.next()


def seeds_of_two_epochs(torch_seed):
    torch.manual_seed(torch_seed)
    loader = torch.utils.data.DataLoader(Seeds(), batch_size=None, num_workers=2)
    return [int(seed) for _ in range(2) for seed in loader]


def test_seed_source_differs_between_workers_and_epochs_and_repeats_under_manual_seed():
    with torch.random.fork_rng(devices=[]):
        first = seeds_of_two_epochs(1)
        assert len(set(first)) == 16
        assert seeds_of_two_epochs(1) == first
        assert not set(seeds_of_two_epochs(2)) & set(first)
