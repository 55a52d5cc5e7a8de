"""Random numbers of augmentation: different everywhere, the same again under the same seeds."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import torchxrayvision.datasets as xd
from fakes._fake import random_constant
from support.tiny import Tiny, tiny, write_pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("images"))


def epochs(dataset, workers, seed=0, n=2, method="fork", **kwargs):
    """The random number of each sample, a list an epoch."""
    torch.manual_seed(seed)
    loader = DataLoader(
        dataset,
        batch_size=1,
        num_workers=workers,
        collate_fn=xd.collate,
        multiprocessing_context=method if workers else None,
        **kwargs,
    )
    return [[float(batch["img"].flatten()[0]) for batch in loader] for _ in range(n)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_no_number_comes_twice_in_two_epochs(folder, workers):
    first, second = epochs(Tiny(folder, data_aug=random_constant), workers)
    assert len(set(first + second)) == 8


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_run_repeats_under_the_same_seeds(folder, workers):
    runs = [epochs(Tiny(folder, data_aug=random_constant, seed=3), workers) for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_another_seed_of_the_dataset_gives_another_run(folder, workers):
    runs = [epochs(Tiny(folder, data_aug=random_constant, seed=seed), workers) for seed in (0, 1)]
    assert not set(chain(*runs[0])) & set(chain(*runs[1]))


@pytest.mark.parametrize("workers", [1, 2])
def test_another_seed_of_torch_gives_another_run_in_workers(folder, workers):
    dataset = Tiny(folder, data_aug=random_constant)
    runs = [epochs(dataset, workers, seed=seed) for seed in (0, 1)]
    assert not set(chain(*runs[0])) & set(chain(*runs[1]))


def test_persistent_workers_go_on_in_the_second_epoch(folder):
    dataset = Tiny(folder, data_aug=random_constant)
    first, second = epochs(dataset, 2, persistent_workers=True)
    assert len(set(first + second)) == 8


def test_spawned_workers_draw_what_forked_ones_draw(folder):
    """The one test that spawns: each worker starts Python and imports torch."""
    dataset = Tiny(folder, data_aug=random_constant)
    forked, spawned = (epochs(dataset, 2, n=1, method=method) for method in ("fork", "spawn"))
    assert spawned == forked


def test_draws_in_this_process_do_not_change_those_of_workers(folder):
    used, fresh = (Tiny(folder, data_aug=random_constant) for _ in range(2))
    for _ in range(3):
        used[0]
    assert epochs(used, 2, n=1) == epochs(fresh, 2, n=1)


def test_containers_leave_the_numbers_to_the_datasets_inside(folder):
    def merged():
        parts = [Tiny(folder, data_aug=random_constant, seed=seed) for seed in (0, 1)]
        return xd.MergeDataset([xd.SubsetDataset(part, [0, 1]) for part in parts])

    first, second = epochs(merged(), 2)
    assert len(set(first + second)) == 8
    assert epochs(merged(), 2) == [first, second]


def test_transform_and_data_aug_draw_their_own_numbers(folder):
    def keep_and_add(image):
        return np.concatenate([image * 0 + random.random(), image[:1, :1, :1].repeat(10, axis=2)],
                              axis=1)  # fmt: skip

    dataset = tiny(folder, kwargs={"transform": random_constant, "data_aug": keep_and_add})
    image = dataset[0]["img"]
    assert image[0, 0, 0] != image[0, -1, 0]


def test_image_and_mask_of_a_sample_draw_the_same_number(folder):
    import pandas as pd

    from torchxrayvision.datasets.annotations import BoxTable

    marks = pd.DataFrame({"name": ["a"], "x": [1], "y": [1], "w": [2], "h": [2]})
    source = BoxTable(table="marks", image="name", finding=("Mass",), box=tuple("xywh"))
    kwargs = {"marks": marks, "pathology_masks": True, "data_aug": random_constant}
    dataset = tiny(folder, masks=source, kwargs=kwargs)
    for _ in range(5):
        sample = dataset[0]
        assert sample["img"].flat[0] == pytest.approx(sample["pathology_masks"][0].flat[0])


def test_the_callers_generators_are_left_alone_in_workers_and_here(folder):
    dataset = Tiny(folder, data_aug=random_constant)
    random.seed(1)
    legacy = np.random.RandomState  # the class alone; the state below is the global one
    np.random.seed(1)  # noqa: NPY002 - what a caller may do
    torch.manual_seed(1)
    expected = random.random(), float(legacy(1).rand()), float(torch.rand(1))
    random.seed(1)
    torch.manual_seed(1)
    dataset[0]
    drawn = random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002
    assert drawn == expected


def test_a_dataset_without_seed_differs_from_run_to_run(folder):
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from support.tiny import Tiny\n"
        "from fakes._fake import random_constant\n"
        "print(Tiny(sys.argv[1], data_aug=random_constant, seed=None)[0]['img'].flat[0])\n"
    )
    from pathlib import Path

    tests = Path(__file__).parents[2]
    run = [sys.executable, "-c", code, str(folder), str(tests)]
    drawn = {subprocess.run(run, capture_output=True, check=True).stdout for _ in range(2)}
    assert len(drawn) == 2
