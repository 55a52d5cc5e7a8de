"""Promises of the containers: merge, subset, filter, covariate shift, splits, relabelling."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from torchxrayvision.errors import DatasetError, DataWarning, EmptyDatasetError, UnknownNameError


class Numbers(xd.Dataset):
    """Rows whose image tells which row they are."""

    def __init__(self, n=12, pathologies=("A", "B"), first=0, patients=None, masks=False):
        self.pathologies = list(pathologies)
        rng = np.random.default_rng(first)
        self.labels = rng.integers(0, 2, (n, len(self.pathologies))).astype(np.float32)
        self.labels[0, 0] = np.nan
        self.csv = pd.DataFrame({"row": np.arange(n) + first})
        if patients is not None:
            self.csv["patientid"] = [str(patient) for patient in patients]
        self.csv["view"] = np.where(np.arange(n) % 3 == 0, "AP", "PA")
        self.views = ["*"]
        self.first = first
        self.masks = masks

    def __getitem__(self, idx):
        position = self._position(idx)
        image = np.full((1, 2, 2), position + self.first, dtype=np.float32)
        sample = {"idx": position, "lab": self.labels[position].copy(), "img": image}
        if self.masks:
            sample["pathology_masks"] = {
                j: np.full((1, 2, 2), j, dtype=np.float32) for j in range(len(self.pathologies))
            }
        return sample


def shown(dataset):
    return [int(dataset[i]["img"][0, 0, 0]) for i in range(len(dataset))]


def aligned(dataset):
    """Whether rows of labels, csv and samples belong together."""
    assert dataset.labels.shape == (len(dataset), len(dataset.pathologies))
    assert dataset.labels.dtype == np.float32
    assert list(dataset.csv.index) == list(range(len(dataset)))
    assert shown(dataset) == dataset.csv["row"].tolist()
    for i in range(len(dataset)):
        np.testing.assert_array_equal(dataset[i]["lab"], dataset.labels[i])
    return True


CONTAINERS = {
    "merge": lambda: xd.MergeDataset([Numbers(5), Numbers(4, first=100), Numbers(1, first=200)]),
    "merge of one": lambda: xd.MergeDataset([Numbers(5)]),
    "subset": lambda: xd.SubsetDataset(Numbers(12), [5, 2, -1, 5]),
    "whole subset": lambda: xd.SubsetDataset(Numbers(12)),
    "filter": lambda: xd.FilterDataset(Numbers(12), ["A", "B"]),
    "subset of merge": lambda: xd.SubsetDataset(CONTAINERS["merge"](), [0, 9, 5]),
    "merge of subsets": lambda: xd.MergeDataset(
        [xd.SubsetDataset(Numbers(6), [1, 3]), xd.FilterDataset(Numbers(6, first=50), "B")]
    ),
}


@pytest.fixture(params=CONTAINERS)
def container(request):
    return CONTAINERS[request.param]()


def test_rows_labels_and_samples_belong_together(container):
    assert aligned(container)


def test_containers_index_as_lists(container):
    n = len(container)
    assert shown(container)[-1] == int(container[-1]["img"][0, 0, 0])
    assert int(container[-n]["img"][0, 0, 0]) == shown(container)[0]
    for outside in (n, -n - 1):
        with pytest.raises(IndexError):
            container[outside]
    assert len(container.__getitems__([0, n - 1])) == 2


def test_relabelling_a_container_leaves_the_datasets_inside(container):
    before = container.labels.copy()
    inner = container._inner()[0]
    inner_labels, inner_names = inner.labels.copy(), list(inner.pathologies)
    wanted = ["B", "", "Z"]
    xd.relabel_dataset(wanted, container, silent=True)
    assert aligned(container)
    assert container.pathologies == wanted
    assert container.pathologies is not wanted
    np.testing.assert_array_equal(container.labels[:, 0], before[:, 1])
    assert np.isnan(container.labels[:, 1:]).all()
    np.testing.assert_array_equal(inner.labels, inner_labels)
    assert inner.pathologies == inner_names


def test_containers_pickle(container):
    again = pickle.loads(pickle.dumps(container))
    assert aligned(again)
    np.testing.assert_array_equal(again.labels, container.labels)
    assert again.csv.equals(container.csv)


def test_a_relabelled_container_pickles(container):
    xd.relabel_dataset(["B"], container, silent=True)
    again = pickle.loads(pickle.dumps(container))
    assert again.pathologies == ["B"]
    np.testing.assert_array_equal(again.labels, container.labels)


def test_containers_say_what_they_hold(container):
    lines = container.string().splitlines()
    assert lines[0] == f"{type(container).__name__} num_samples={len(container)}"
    assert len(lines) > 1
    assert "Numbers num_samples" in lines[-1]
    assert container.totals()
    assert "<table>" in container._repr_html_()


def test_settings_belong_to_the_datasets_inside(container):
    for name in ("transform", "data_aug", "labels", "pathologies", "targets"):
        with pytest.raises(NotImplementedError, match=name):
            setattr(container, name, None)


def test_collate_takes_samples_of_containers(container):
    batch = xd.collate([container[i] for i in range(len(container))])
    assert batch["img"].shape == (len(container), 1, 2, 2)
    np.testing.assert_array_equal(batch["lab"].numpy(), container.labels)


def test_a_dataset_relabelled_later_shows_in_its_containers(container):
    if isinstance(container, xd.MergeDataset):
        return  # its parts would then differ, see below
    leaf = container.dataset
    xd.relabel_dataset(["B"], leaf, silent=True)
    assert container.pathologies == ["B"]
    assert aligned(container)


def test_merge_says_the_source_and_the_row_in_it():
    merged = CONTAINERS["merge"]()
    assert [merged[i]["source"] for i in range(10)] == [0] * 5 + [1] * 4 + [2]
    assert [merged[i]["idx"] for i in range(10)] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]
    assert merged.which_dataset.tolist() == [0] * 5 + [1] * 4 + [2]
    assert merged.offset.tolist() == [0] * 5 + [5] * 4 + [9]


def test_merge_refuses_other_findings_and_says_how_to_go_on():
    with pytest.raises(DatasetError, match="relabel_dataset"):
        xd.MergeDataset([Numbers(), Numbers(pathologies=("B", "A"))])
    merged = xd.MergeDataset([Numbers(), Numbers()])
    xd.relabel_dataset(["B"], merged.datasets[0], silent=True)
    with pytest.raises(DatasetError, match="relabel_dataset"):
        _ = merged.labels


def test_merge_of_nothing_is_an_error():
    with pytest.raises(EmptyDatasetError):
        xd.MergeDataset([])


def test_label_concat_keeps_the_findings_of_each_dataset_apart():
    first, second = Numbers(5, masks=True), Numbers(4, ("B", "C", "D"), first=100, masks=True)
    merged = xd.MergeDataset([first, second], label_concat=True)
    assert merged.pathologies == ["A [0]", "B [0]", "B [1]", "C [1]", "D [1]"]
    assert aligned(merged)
    np.testing.assert_array_equal(merged.labels[:5, :2], first.labels)
    np.testing.assert_array_equal(merged.labels[5:, 2:], second.labels)
    assert np.isnan(merged.labels[:5, 2:]).all()
    assert np.isnan(merged.labels[5:, :2]).all()
    # Mask values tell the finding's index in its own dataset.
    found = {key: int(mask.max()) for key, mask in merged[6]["pathology_masks"].items()}
    assert found == {2: 0, 3: 1, 4: 2}


def test_mask_keys_follow_the_findings_of_the_container():
    subset = xd.SubsetDataset(Numbers(5, masks=True), [3])
    xd.relabel_dataset(["Z", "B"], subset, silent=True)
    found = {key: int(mask.max()) for key, mask in subset[0]["pathology_masks"].items()}
    assert found == {1: 1}


def test_subset_takes_masks_and_refuses_what_is_outside():
    mask = np.arange(12) % 5 == 0
    assert shown(xd.SubsetDataset(Numbers(12), mask)) == [0, 5, 10]
    assert shown(xd.SubsetDataset(Numbers(12), range(3))) == [0, 1, 2]
    assert len(xd.SubsetDataset(Numbers(12), [])) == 0
    for outside in ([12], [-13], mask[:5]):
        with pytest.raises(IndexError):
            xd.SubsetDataset(Numbers(12), outside)


def test_limiting_views_of_a_subset():
    subset = xd.SubsetDataset(Numbers(12), range(6))
    subset.limit_to_selected_views("AP")
    assert shown(subset) == [0, 3]
    assert aligned(subset)


def test_filter_gives_each_row_once_and_in_order():
    dataset = Numbers(12)
    wanted = np.flatnonzero((dataset.labels == 1).any(axis=1)).tolist()
    assert shown(xd.FilterDataset(dataset, ["A", "B"])) == wanted
    assert (
        shown(xd.FilterDataset(dataset, "A")) == np.flatnonzero(dataset.labels[:, 0] == 1).tolist()
    )
    assert len(xd.FilterDataset(dataset)) == 12


def test_filter_names_what_is_unknown_or_empty():
    with pytest.raises(UnknownNameError, match="Mass"):
        xd.FilterDataset(Numbers(), ["Mass"])
    dataset = Numbers()
    dataset.labels[:] = 0
    with pytest.raises(EmptyDatasetError):
        xd.FilterDataset(dataset, ["A"])


def test_aliases_of_1_5_7():
    assert xd.Merge_Dataset is xd.MergeDataset
    assert xd.Subset_Dataset is xd.SubsetDataset
    assert xd.Filter_Dataset is xd.FilterDataset


def test_relabel_refuses_one_text():
    with pytest.raises(DatasetError, match="list"):
        xd.relabel_dataset("Mass", Numbers())


def test_relabel_works_on_foreign_objects():
    class Foreign:
        pathologies = np.array(["A", "B"])
        labels = np.array([[1, 0]], dtype=np.int64)

    foreign = Foreign()
    xd.relabel_dataset(["B", "C"], foreign, silent=True)
    assert foreign.pathologies == ["B", "C"]
    np.testing.assert_array_equal(foreign.labels, np.array([[0, np.nan]], dtype=np.float32))


def test_relabel_tells_what_it_did_unless_silent(caplog):
    caplog.set_level("INFO", logger="torchxrayvision")
    xd.relabel_dataset(["Z"], Numbers(), silent=True)
    assert not caplog.records
    with pytest.warns(DataWarning, match="'Z'"):  # in no vocabulary
        xd.relabel_dataset(["Z"], Numbers())
    assert "'Z'" in caplog.text


# Covariate shift


def covariate(ratio=0.5, mode="train", n=200, **kwargs):
    d1 = Numbers(n, patients=np.arange(n) // 2)
    d2 = Numbers(n, first=1000, patients=np.arange(n) // 2)
    return xd.CovariateDataset(
        d1, d1.labels[:, 0], d2, d2.labels[:, 0], ratio=ratio, mode=mode, **kwargs
    )


@pytest.mark.parametrize("mode", ["train", "valid", "test"])
@pytest.mark.parametrize("splits", [(0.5, 0.25, 0.25), (0.7, 0.2, 0.1), (0.8, 0.1, 0.1)])
def test_covariate_sizes_do_not_depend_on_the_ratio(mode, splits):
    sizes = {len(covariate(ratio, mode, splits=splits)) for ratio in (0, 0.1, 0.5, 0.9, 1)}
    assert len(sizes) == 1


@pytest.mark.parametrize(("mode", "share"), [("train", 0.75), ("valid", 0.25), ("test", 0.25)])
def test_covariate_mixes_as_documented(mode, share):
    dataset = covariate(0.75, mode, n=400, nsamples=40)
    label = dataset.labels[:, 0]
    assert label.mean() == 0.5
    assert dataset.site[label == 1].mean() == share  # of the positives, from the second
    assert 1 - dataset.site[label == 0].mean() == share  # of the negatives, from the first


def test_covariate_samples_carry_site_label_and_old_label():
    dataset = covariate(0.7)
    assert dataset.pathologies == ["Custom"]
    assert dataset.labels.dtype == np.float32
    assert dataset.labels.shape == (len(dataset), 1)
    for i in range(len(dataset)):
        sample = dataset[i]
        assert sample["site"] == dataset.site[i] == (sample["img"][0, 0, 0] >= 1000)
        assert sample["lab"].tolist() == dataset.labels[i].tolist() == [sample["lab-old"][0]]
        assert dataset.csv["row"][i] == sample["img"][0, 0, 0]
        assert (dataset.csv["site"][i], dataset.csv["label"][i]) == (
            sample["site"],
            sample["lab"][0],
        )
    assert "CovariateDataset" in repr(xd.SubsetDataset(dataset, [0]))


def test_covariate_parts_share_no_image_and_leave_unknown_targets_out():
    parts = [covariate(0.5, mode) for mode in ("train", "valid", "test")]
    seen = [row for part in parts for row in part.csv["row"]]
    assert len(seen) == len(set(seen))
    assert not {0, 1000} & set(seen)  # their target is NaN


def test_covariate_by_patient_shares_no_patient():
    parts = [covariate(0.5, mode, by_patient=True) for mode in ("train", "valid", "test")]
    owners = [set(zip(part.csv["site"], part.csv["patientid"], strict=True)) for part in parts]
    assert all(owners)
    assert len(set.union(*owners)) == sum(map(len, owners))


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"mode": "holdout"}, "mode"),
        ({"ratio": 1.2}, "ratio"),
        ({"splits": (0.5, 0.6, 0.2)}, "splits"),
        ({"nsamples": 10_000}, "nsamples"),
    ],
)
def test_covariate_refuses_what_cannot_be(kwargs, match):
    with pytest.raises(DatasetError, match=match):
        covariate(**kwargs)


def test_covariate_refuses_targets_that_do_not_fit():
    with pytest.raises(DatasetError, match="d1_target"):
        xd.CovariateDataset(Numbers(5), [1, 0], Numbers(5), [0] * 5)


def test_covariate_repeats_by_seed_and_leaves_the_global_generator():
    state = np.random.get_state()[1].tolist()  # noqa: NPY002 - the state a user may rely on
    first, second, other = covariate(seed=1), covariate(seed=1), covariate(seed=2)
    assert first.imageids.tolist() == second.imageids.tolist() != other.imageids.tolist()
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


# Splits


def test_parts_by_patient_share_no_patient_and_cover_all_rows():
    dataset = Numbers(60, patients=np.arange(60) // 3)
    parts = xd.split_by_patient(dataset, (0.5, 0.3, 0.2), seed=3)
    owners = [set(part.csv["patientid"]) for part in parts]
    assert [len(owner) for owner in owners] == [10, 6, 4]
    assert len(set.union(*owners)) == 20
    assert sorted(row for part in parts for row in shown(part)) == list(range(60))
    again = xd.split_by_patient(dataset, (0.5, 0.3, 0.2), seed=3)
    assert [shown(part) for part in again] == [shown(part) for part in parts]
    assert shown(xd.split_by_patient(dataset, (0.5, 0.5), seed=4)[0]) != shown(
        xd.split_by_patient(dataset, (0.5, 0.5), seed=5)[0]
    )


def test_patients_of_merged_sources_are_never_the_same():
    merged = xd.MergeDataset([Numbers(10, patients=range(10)) for _ in range(2)])
    parts = xd.split_by_patient(merged, (0.5, 0.5))
    assert sum(map(len, parts)) == 20
    assert [len(part) for part in parts] == [10, 10]


@pytest.mark.parametrize("fractions", [(), (0.5, 0.6), (1.2,), (-0.1, 0.5)])
def test_fractions_that_do_not_fit_are_refused(fractions):
    with pytest.raises(DatasetError, match="fractions"):
        xd.split_by_patient(Numbers(4, patients=range(4)), fractions)


def test_splitting_needs_patients():
    with pytest.raises(DatasetError, match="patientid"):
        xd.split_by_patient(Numbers())


# Batches


def test_collate_batches_masks_that_only_some_samples_have():
    image = np.zeros((1, 3, 3), np.float32)
    samples = [
        {"idx": 0, "lab": np.zeros(2, np.float32), "img": image},
        {
            "idx": 1,
            "lab": np.ones(2, np.float32),
            "img": image,
            "pathology_masks": {1: image + 1},
            "bbox": [[0, 0, 1, 1], [1, 1, 2, 2]],
        },
    ]
    batch = xd.collate(samples)
    assert batch["pathology_masks"][1].shape == (2, 1, 3, 3)
    assert batch["pathology_masks"][1].sum(dim=(1, 2, 3)).tolist() == [0, 9]
    assert batch["pathology_masks_given"][1].tolist() == [False, True]
    assert [tuple(boxes.shape) for boxes in batch["bbox"]] == [(0, 4), (2, 4)]
    assert batch["idx"].tolist() == [0, 1]


def test_collate_says_what_to_do_with_images_of_several_sizes():
    samples = [
        {"idx": i, "lab": np.zeros(1, np.float32), "img": np.zeros((1, i + 1, 2), np.float32)}
        for i in range(2)
    ]
    with pytest.raises(ValueError, match="XRayResizer"):
        xd.collate(samples)
