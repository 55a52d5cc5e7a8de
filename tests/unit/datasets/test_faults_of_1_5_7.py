"""What containers and their neighbours got wrong in 1.5.7; a test for each promise.

The numbers are those of docs/differences-from-1.5.7.
"""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import pytest
from torch.utils.data import DataLoader

import torchxrayvision as xrv
import torchxrayvision.datasets as xd
from fakes import BUILDERS
from support.tiny import Tiny, rows, tiny, write_pictures
from torchxrayvision.datasets.images import IndexedFiles, ZipFiles
from torchxrayvision.errors import ViewError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("images"))


@pytest.fixture
def pair(folder):
    return Tiny(folder), Tiny(folder)


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    built = {}

    def get(name, **kwargs):
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name))
        return getattr(xd, name)(**built[name].kwargs, **kwargs)

    return get


# Merge


def test_label_concat_gives_every_dataset_columns_of_its_own(pair):
    merged = xd.MergeDataset(pair, label_concat=True)
    assert merged.pathologies == ["Mass [0]", "Edema [0]", "Mass [1]", "Edema [1]"]
    assert merged.labels.shape == (8, 4)
    assert np.isnan(merged.labels[:4, 2:]).all()
    assert np.isnan(merged.labels[4:, :2]).all()
    np.testing.assert_array_equal(merged.labels[4:, 2:], pair[1].labels)
    for i in (0, 4, -1):
        np.testing.assert_array_equal(merged[i]["lab"], merged.labels[i])


@pytest.mark.parametrize("index", [-1, -4, -5, -8])
def test_a_negative_index_of_a_merge_counts_from_the_end(pair, index):
    merged = xd.MergeDataset(pair)
    sample = merged[index]
    assert sample["source"] == (index >= -4)
    assert sample["idx"] == index % 4
    np.testing.assert_array_equal(sample["lab"], merged.labels[index])


@pytest.mark.parametrize("index", [8, -9])
def test_a_merge_ends_where_it_ends(pair, index):
    with pytest.raises(IndexError):
        xd.MergeDataset(pair)[index]


def test_a_list_of_datasets_changed_later_does_not_change_the_merge(pair):
    members = list(pair)
    merged = xd.MergeDataset(members)
    members.clear()
    assert len(merged) == len(list(merged.datasets)) * 4 == 8


# Views and other arguments


@pytest.mark.parametrize("views", [("PA", "AP"), ["PA", "AP"], {"PA", "AP"}, iter(["PA", "AP"])])
def test_views_may_be_any_collection(views):
    assert len(Tiny(views=views)) == 4


@pytest.mark.parametrize("views", ["P", ["PA", "typo"], [], [None], "pa"])
def test_a_slip_in_views_is_an_error_and_not_an_empty_dataset(views):
    with pytest.raises(ViewError):
        Tiny(views=views)


def test_the_default_views_cannot_be_changed_from_outside():
    first = xd.NIH_Dataset()
    first.views.append("AP")
    assert len(xd.NIH_Dataset()) == len(first)
    assert xd.NIH_Dataset().views == ["PA"]


def test_the_callers_list_of_views_stays_the_callers():
    views = ["PA"]
    dataset = Tiny(views=views)
    dataset.views.append("AP")
    assert views == ["PA"]


# Relabelling


def test_relabelling_copies_the_list_and_keeps_the_type(folder):
    before = list(xd.default_pathologies)
    dataset = Tiny(folder)
    xd.relabel_dataset(xd.default_pathologies, dataset, silent=True)
    assert dataset.pathologies == before
    assert dataset.pathologies is not xd.default_pathologies
    dataset.pathologies.append("Mine")
    assert xd.default_pathologies == before == list(xrv.labels.DEFAULT_PATHOLOGIES)
    assert dataset.labels.dtype == np.float32


KINDS = {
    "a dataset": lambda d: d,
    "a subset": lambda d: xd.SubsetDataset(d, [0, 2, 3]),
    "a filter": lambda d: xd.FilterDataset(d, ["Mass"]),
    "a merge": lambda d: xd.MergeDataset([d, Tiny(d.imgpath)]),
    "a subset of a merge": lambda d: xd.SubsetDataset(
        xd.MergeDataset([d, Tiny(d.imgpath)]), [5, 1]
    ),
    "a merge of subsets": lambda d: xd.MergeDataset(
        [xd.SubsetDataset(d, [1]), xd.FilterDataset(Tiny(d.imgpath), "Mass")]
    ),
}


@pytest.fixture(params=KINDS)
def any_kind(request, folder):
    return KINDS[request.param](Tiny(folder))


def test_labels_and_items_agree_after_relabelling_any_container(any_kind):
    old = dict(zip(any_kind.pathologies, any_kind.labels.T.copy(), strict=True))
    wanted = ["Edema", "Hernia", "Mass"]
    xd.relabel_dataset(wanted, any_kind, silent=True)
    assert any_kind.pathologies == wanted
    np.testing.assert_array_equal(any_kind.labels[:, 0], old["Edema"])
    np.testing.assert_array_equal(any_kind.labels[:, 2], old["Mass"])
    assert np.isnan(any_kind.labels[:, 1]).all()
    assert list(any_kind.totals()) == wanted
    for i in (*range(len(any_kind)), -1):
        np.testing.assert_array_equal(any_kind[i]["lab"], any_kind.labels[i])


def test_a_container_made_before_relabelling_follows(folder):
    inner = Tiny(folder)
    subset = xd.SubsetDataset(inner, [3, 0])
    assert subset.labels.shape == (2, 2)
    xd.relabel_dataset(["Edema"], inner, silent=True)
    assert subset.labels.shape == (2, 1)
    assert subset.pathologies == ["Edema"]
    for i in range(2):
        np.testing.assert_array_equal(subset[i]["lab"], subset.labels[i])


def test_a_relabelled_container_pickles_with_its_labels(any_kind):
    xd.relabel_dataset(["Edema", "Hernia", "Mass"], any_kind, silent=True)
    again = pickle.loads(pickle.dumps(any_kind))
    np.testing.assert_array_equal(again.labels, any_kind.labels)
    np.testing.assert_array_equal(again[-1]["lab"], any_kind[-1]["lab"])
    assert again.csv.equals(any_kind.csv)


def test_masks_survive_relabelling_to_one_finding(releases):
    dataset = releases("RSNA_Pneumonia_Dataset", views="*", pathology_masks=True)
    marked = int(np.flatnonzero(dataset.csv["has_masks"])[0])
    name = dataset.csv["patientId"][marked]
    xd.relabel_dataset(["Pneumonia"], dataset, silent=True)
    assert set(dataset[marked]["pathology_masks"]) == {0}
    assert set(dataset.get_mask_dict(name, 64)) == {0}


# Subset and filter


def test_a_subset_without_positions_is_the_whole(folder):
    subset = xd.SubsetDataset(Tiny(folder))
    assert [subset[i]["idx"] for i in range(len(subset))] == [0, 1, 2, 3]


def test_a_filter_gives_each_image_once_with_an_index_from_zero(folder):
    dataset = xd.FilterDataset(Tiny(folder), ["Mass", "Edema"])
    assert [dataset[i]["idx"] for i in range(len(dataset))] == [0, 1, 2, 3]
    assert dataset.csv.index.tolist() == [0, 1, 2, 3]
    filtered = xd.FilterDataset(xd.NIH_Dataset(), ["Mass", "Nodule"])
    assert len(filtered) == len(set(filtered.csv["Image Index"])) == 2614


def test_positions_of_a_subset_are_the_containers_own():
    chosen = [1, 0]
    subset = xd.SubsetDataset(Tiny(), chosen)
    chosen[0] = 3
    assert subset.idxs.tolist() == [1, 0]


# Covariate shift


class Numbers(xd.Dataset):
    """Rows with patients, two images each."""

    def __init__(self, n):
        self.pathologies = ["A"]
        self.labels = (np.arange(n) % 2).astype(np.float32)[:, None]
        import pandas as pd

        self.csv = pd.DataFrame({"patientid": (np.arange(n) // 2).astype(str)})

    def __getitem__(self, idx):
        return {"idx": idx, "lab": self.labels[idx], "img": np.zeros((1, 2, 2), np.float32)}


def covariate(**kwargs):
    d1, d2 = Numbers(200), Numbers(200)
    return xd.CovariateDataset(d1, d1.labels[:, 0], d2, d2.labels[:, 0], **kwargs)


@pytest.mark.parametrize("splits", [[0.7, 0.2, 0.1], [0.8, 0.1, 0.1], (1 / 3, 1 / 3, 1 / 3)])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_shares_that_floats_cannot_sum_are_accepted_and_sizes_hold(splits, ratio):
    sizes = {mode: len(covariate(splits=splits, ratio=ratio, mode=mode)) for mode in
             ("train", "valid", "test")}  # fmt: skip
    whole = {mode: len(covariate(splits=splits, mode=mode)) for mode in sizes}
    assert sizes == whole
    assert sum(sizes.values()) == pytest.approx(200, abs=4)


def test_unknown_targets_are_left_out_and_not_cast():
    d1, d2 = Numbers(100), Numbers(100)
    target = d1.labels[:, 0].copy()
    target[:20] = np.nan
    dataset = xd.CovariateDataset(d1, target, d2, d2.labels[:, 0])
    assert (dataset.imageids[dataset.site == 0] >= 20).all()
    assert set(np.unique(dataset.labels)) == {0, 1}


def test_a_subset_of_a_covariate_dataset_says_what_it_is():
    assert "CovariateDataset" in repr(xd.SubsetDataset(covariate(), [0, 1]))


def test_the_index_of_a_covariate_table_starts_at_zero():
    dataset = covariate()
    assert dataset.csv.index.tolist() == list(range(len(dataset)))
    assert dataset.csv["label"].tolist() == dataset.labels[:, 0].tolist()


# Batches


def test_masks_that_only_later_samples_have_are_not_dropped(releases):
    dataset = releases("NIH_Dataset", views="*", unique_patients=False, pathology_masks=True)
    marked = np.flatnonzero(dataset.csv["has_masks"])
    plain = np.flatnonzero(~dataset.csv["has_masks"])
    subset = xd.SubsetDataset(dataset, [plain[0], marked[0]])
    (batch,) = DataLoader(subset, batch_size=2, collate_fn=xd.collate)
    assert batch["pathology_masks"]
    for key, given in batch["pathology_masks_given"].items():
        assert given.tolist() == [False, True], key


def test_boxes_of_several_lengths_batch(releases):
    dataset = releases("TBX11K_Dataset")
    (batch,) = DataLoader(dataset, batch_size=len(dataset), collate_fn=xd.collate)
    assert len(batch["bbox"]) == len(dataset)
    assert len({len(boxes) for boxes in batch["bbox"]}) > 1


# Files and pickles


def test_two_folders_have_two_indices(folder, tmp_path):
    (tmp_path / "a.png").write_bytes((folder / "d.png").read_bytes())
    images = IndexedFiles("{name}")
    one, two = tiny(folder, images=images), tiny(tmp_path, images=images)
    np.testing.assert_array_equal(two[0]["img"], one[3]["img"])


def test_a_dataset_with_an_open_archive_pickles(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        file.write(folder / "a.png", "any/folder/a.png")
    dataset = tiny(tmp_path / "all.zip", images=ZipFiles("{name}.png", folders=("any/folder",)))
    first = dataset[0]["img"]
    context = pickle.loads(pickle.dumps(dataset._context))
    again = dataset.spec.images.read(dataset._row(0), context)
    np.testing.assert_array_equal(again, first)


# Types


def test_findings_counts_and_labels_have_the_types_of_python(any_kind):
    assert all(type(finding) is str for finding in any_kind.pathologies)
    for counts in any_kind.totals().values():
        assert all(type(label) is float and type(n) is int for label, n in counts.items())
    assert any_kind.labels.dtype == np.float32


def test_the_callers_table_is_not_changed():
    table = rows()
    dataset = Tiny(csvpath=table, unique_patients=True)
    dataset.csv["name"] = "changed"
    dataset.labels[:] = 0
    assert table.equals(rows())


@pytest.mark.parametrize("name", ["transform", "data_aug", "labels", "pathologies"])
def test_what_follows_the_datasets_inside_cannot_be_set_on_a_container(pair, name):
    with pytest.raises(NotImplementedError, match="inside"):
        setattr(xd.MergeDataset(pair), name, None)
