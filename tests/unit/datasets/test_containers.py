"""Containers whose labels or table somebody changed, and subclasses that somebody wrote."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

import torchxrayvision.datasets as xd
from support.tiny import Tiny, rows, write_pictures
from torchxrayvision.errors import DatasetError

NAN = np.nan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("images"))


KINDS = {
    "merge": lambda d: xd.MergeDataset([d, Tiny(d.imgpath)]),
    "subset": lambda d: xd.SubsetDataset(d, [3, 0, 2]),
    "filter": lambda d: xd.FilterDataset(d, "Mass"),
    "subset of a merge": lambda d: xd.SubsetDataset(KINDS["merge"](d), [5, 1, 7]),
    "merge of subsets": lambda d: xd.MergeDataset([KINDS["subset"](d), KINDS["filter"](d)]),
    "merge apart": lambda d: xd.MergeDataset([d, Tiny(d.imgpath)], label_concat=True),
}


@pytest.fixture(params=KINDS)
def container(request, folder):
    return KINDS[request.param](Tiny(folder))


def served(dataset):
    return np.array([dataset[i]["lab"] for i in range(len(dataset))])


# Labels


def test_items_serve_the_labels_that_somebody_changed(container):
    inside = [inner.labels.copy() for inner in container._inner()]
    container.labels[:] = NAN
    container.labels[0, 0] = 0.25
    assert served(container)[0, 0] == 0.25
    np.testing.assert_array_equal(served(container), container.labels)
    container[0]["lab"][:] = 7
    assert container.labels[0, 0] == 0.25
    for inner, before in zip(container._inner(), inside, strict=True):
        np.testing.assert_array_equal(inner.labels, before)


@pytest.mark.parametrize("value", [0.0, 0.25])  # packed to bytes, and not
def test_changed_labels_are_pickled(container, value):
    container.labels[:, 0] = value
    again = pickle.loads(pickle.dumps(container))
    np.testing.assert_array_equal(served(again), container.labels)
    np.testing.assert_array_equal(again.labels, container.labels)
    twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(container))))
    np.testing.assert_array_equal(served(twice), container.labels)


def test_labels_that_nobody_read_are_neither_gathered_nor_pickled(container):
    before = len(pickle.dumps(container))
    served(container)
    assert container._gathered is None
    assert len(pickle.dumps(container)) == before
    assert pickle.loads(pickle.dumps(container))._gathered is None


def test_a_worker_does_not_unpack_labels_to_serve_changed_ones(folder):
    merged = KINDS["merge"](Tiny(folder))
    merged.labels[:, 0] = 1
    again = pickle.loads(pickle.dumps(merged))
    assert again[5]["lab"][0] == 1
    stored = [again._gathered[1], *(inner._labels for inner in again.datasets)]
    assert [array.dtype for array in stored] == [np.int8] * 3


@pytest.mark.parametrize("copied", [False, True])
def test_relabelling_what_is_inside_gathers_anew(folder, copied):
    subset = xd.SubsetDataset(Tiny(folder), [3, 0])
    subset.labels[:] = 0
    if copied:
        subset = pickle.loads(pickle.dumps(subset))
    xd.relabel_dataset(["Mass"], subset.dataset, silent=True)
    assert subset.labels.tolist() == served(subset).tolist() == [[1.0], [1.0]]


def test_replacing_labels_or_a_dataset_inside_gathers_anew(folder):
    merged = KINDS["merge"](Tiny(folder))
    assert not (merged.labels == 5).any()
    merged.datasets[1].labels = np.full((4, 2), 5, np.float32)
    assert (merged.labels[4:] == 5).all()
    merged.datasets[1] = Tiny(folder)
    assert not (merged.labels == 5).any()
    np.testing.assert_array_equal(served(merged), merged.labels)


def test_relabelling_a_container_keeps_changes_and_what_was_left_out(folder):
    merged = KINDS["merge"](Tiny(folder))
    edema = merged.labels[:, 1].copy()
    merged.labels[:, 0] = 0.25
    xd.relabel_dataset(["Mass"], merged, silent=True)
    assert (served(merged) == 0.25).all()
    xd.relabel_dataset(["Hernia", "Edema", "Mass"], merged, silent=True)
    assert np.isnan(merged.labels[:, 0]).all()
    np.testing.assert_array_equal(merged.labels[:, 1], edema)
    assert (served(merged)[:, 2] == 0.25).all()


def test_views_of_a_subset_take_its_changes_along(folder):
    subset = xd.SubsetDataset(Tiny(folder))
    subset.csv = subset.csv.assign(fold=[0, 1, 2, 3])
    subset.labels[:, 0] = [0.1, 0.2, 0.3, 0.4]
    subset.limit_to_selected_views("PA")
    np.testing.assert_allclose(subset.labels[:, 0], [0.1, 0.3, 0.4])
    np.testing.assert_array_equal(served(subset), subset.labels)
    assert subset.csv["fold"].tolist() == [0, 2, 3]


def test_labels_of_foreign_datasets_that_make_them_anew_are_gathered_once():
    class Foreign:
        pathologies = ("A",)
        made = 0

        @property
        def labels(self):
            self.made += 1
            return np.zeros((2, 1), np.float32)

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return {"idx": i, "lab": np.zeros(1, np.float32), "img": None}

    foreign = Foreign()
    merged = xd.MergeDataset([foreign])
    merged.labels[:] = 1
    assert served(merged).tolist() == merged.labels.tolist() == [[1], [1]]
    assert foreign.made == 1


# Tables


def test_a_table_may_be_assigned_and_is_pickled(container):
    folds = np.arange(len(container)) % 2
    container.csv = container.csv.assign(fold=folds)
    assert container.csv["fold"].tolist() == folds.tolist()
    again = pickle.loads(pickle.dumps(container))
    assert again.csv.equals(container.csv)
    part = xd.SubsetDataset(container, np.flatnonzero(folds))
    assert (part.csv["fold"] == 1).all()


@pytest.mark.parametrize("wrong", [rows().head(3), None, "table.csv", np.zeros((8, 2))])
def test_a_table_of_another_length_is_refused(folder, wrong):
    merged = KINDS["merge"](Tiny(folder))
    with pytest.raises(DatasetError, match="8 rows"):
        merged.csv = wrong
    assert len(merged.csv) == 8


def test_a_table_that_nobody_assigned_is_not_pickled(container):
    assert len(container.csv) == len(container)
    assert not {"_cache", "_csv"} & set(container.__getstate__())


def unknown_sex(folder):
    return Tiny(folder, csvpath=rows().assign(sex=["M", None, None, "F"]))


def sexless(folder):
    dataset = Tiny(folder)
    dataset.csv = dataset.csv.drop(columns=["sex_male", "sex_female"])
    return dataset


def test_images_of_a_source_without_a_sex_are_neither_male_nor_female(folder):
    merged = xd.MergeDataset([unknown_sex(folder), sexless(folder)])
    assert xd.describe(merged)["sex"] == {"male": 1, "female": 1, "unknown": 6}
    assert merged.csv["sex_male"].tolist() == [True, *[False] * 7]
    assert merged.csv["sex_female"].dtype == bool
    assert merged.describe(by="sex").columns.tolist() == ["female", "male", "unknown"]


@pytest.mark.parametrize("kind", ["object", "boolean"])
def test_a_sex_that_is_blank_in_a_callers_table_is_unknown(folder, kind):
    dataset = Tiny(folder)
    said = pd.Series([True, None, False, None], dtype=kind)
    dataset.csv = dataset.csv.assign(sex_male=said, sex_female=False)
    assert xd.describe(dataset)["sex"] == {"male": 1, "unknown": 3}


# Which rows


def test_a_part_of_a_merge_says_which_dataset_its_rows_are_of(folder):
    merged = KINDS["merge"](Tiny(folder))
    part = xd.SubsetDataset(merged, [6, 1, 4])
    assert part.which_dataset.tolist() == merged.which_dataset[[6, 1, 4]].tolist() == [1, 0, 1]
    assert xd.SubsetDataset(part, [2, 1]).which_dataset.tolist() == [1, 0]
    assert len(xd.FilterDataset(merged, "Mass").which_dataset) == 4
    assert [part[i]["source"] for i in range(3)] == part.which_dataset.tolist()
    assert not hasattr(xd.SubsetDataset(Tiny(folder)), "which_dataset")


def test_views_of_a_covariate_dataset_cut_site_and_row_too(folder):
    table = pd.concat([rows()] * 10, ignore_index=True)
    d1, d2 = Tiny(folder, csvpath=table), Tiny(folder, csvpath=table)
    targets = [np.arange(40) // 4 % 2 for _ in (d1, d2)]
    dataset = xd.CovariateDataset(d1, targets[0], d2, targets[1], splits=(0.8, 0.1, 0.1))
    dataset.limit_to_selected_views("AP")
    assert len(dataset) == len(dataset.site) == len(dataset.imageids) == len(dataset.csv) > 0
    assert (dataset.csv["name"] == "b").all()
    for i in range(len(dataset)):
        sample, site = dataset[i], dataset.site[i]
        assert sample["site"] == site == dataset.csv["site"][i]
        assert sample["lab"][0] == targets[site][dataset.imageids[i]] == dataset.labels[i, 0]
        assert sample["idx"] % 4 == 1


def test_a_merge_that_is_asked_for_views_refuses_before_it_changes(folder):
    merged = KINDS["merge"](Tiny(folder))
    with pytest.raises(DatasetError, match=r"MergeDataset.*SubsetDataset"):
        merged.limit_to_selected_views("AP")
    assert not hasattr(merged, "views")
    assert len(merged) == len(merged.labels) == len(merged.csv) == 8
    dataset = Tiny(folder, views=["PA", "AP"])
    with pytest.raises(DatasetError):
        dataset.limit_to_selected_views("L")
    assert (dataset.views, len(dataset)) == (["PA", "AP"], 4)


# Subclasses


def test_users_may_write_items_lengths_and_texts_of_their_own(folder):
    class Mine(Tiny):
        def __getitem__(self, idx):
            return {**super().__getitem__(idx), "mine": True}

        def __len__(self):
            return 2

        def string(self):
            return "mine"

    dataset = Mine(folder)
    assert dataset[1]["mine"]
    assert (len(dataset), repr(dataset)) == (2, "mine")
    with pytest.raises(IndexError):
        dataset[2]
    assert len([*xd.MergeDataset([dataset, dataset])._inner()]) == 2

    class Other(xd.NIH_Dataset):
        def __getitem__(self, idx):
            return self.csv["Image Index"][idx]

    assert Other()[0] == "00000001_000.png"


def test_the_packages_own_datasets_may_not():
    own = {"__module__": "torchxrayvision.datasets.mine", "__getitem__": None}
    with pytest.raises(TypeError, match="the pipeline does"):
        type("Mine", (Tiny,), own)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -2), [3, 1]),
        ([3, 0, -1], [3, 0, 3]),
        ((2,), [2]),
        (range(2), [0, 1]),
        (np.array([False, True, False, True]), [1, 3]),
        (np.array([2, 2]), [2, 2]),
        ([], []),
    ],
)
def test_a_slice_or_a_list_is_a_part_that_reads_nothing(given, wanted):
    whole = Tiny()  # there is no folder of images
    for dataset in (whole, xd.MergeDataset([whole]), xd.SubsetDataset(whole)):
        part = dataset[given]
        assert type(part) is xd.SubsetDataset
        assert part.idxs.tolist() == wanted
        np.testing.assert_array_equal(part.labels, whole.labels[wanted])
        assert len(part[0:1]) == min(len(wanted), 1)
    for outside in ([4], [-5], np.array([True])):
        with pytest.raises(IndexError):
            whole[outside]


def test_a_class_of_a_callers_own_says_that_it_takes_one_position():
    class Own(xd.Dataset):
        labels = np.zeros((2, 1), np.float32)

    with pytest.raises(TypeError, match="Own takes one position, got slice"):
        Own()[0:1]


def test_parts_concatenate_as_those_of_torch():
    dataset = Tiny()
    both = dataset[:1] + dataset[2:]
    assert isinstance(both, torch.utils.data.ConcatDataset)
    assert len(both) == 3
    assert len(torch.utils.data.ConcatDataset([dataset, dataset[1:]])) == 7
