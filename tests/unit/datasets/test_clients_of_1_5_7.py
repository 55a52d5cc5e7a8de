"""What programs written for 1.5.7 do with datasets, and what happens here."""

from __future__ import annotations

import json
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

import torchxrayvision.datasets as xd
from support.tiny import tiny, write_pictures
from torchxrayvision.datasets.annotations import BoxTable
from torchxrayvision.errors import (
    DatasetError,
    DatasetNotFoundError,
    DataWarning,
    EmptyDatasetError,
    UnknownNameError,
)


@pytest.mark.parametrize("form", [torch.tensor, np.ndarray.tolist, np.float64])
def test_labels_may_be_set_to_tensors_and_lists(tmp_path, form):
    dataset = tiny(write_pictures(tmp_path))
    values = np.array([[0.0, 1], [1, 0], [0, 0], [1, 1]])
    dataset.labels = form(values)
    for i in range(4):
        assert np.asarray(dataset[i]["lab"]).tolist() == values[i].tolist()
    assert dataset.totals()["Mass"] == {0.0: 2, 1.0: 2}
    assert len(dataset) == 4


def test_labels_of_an_image_go_through_json_and_a_loader(tmp_path):
    dataset = tiny(write_pictures(tmp_path))
    merged = xd.MergeDataset([dataset])
    xd.relabel_dataset(["Edema", "Mass"], merged, silent=True)
    for source in (dataset, merged, xd.SubsetDataset(merged, [0, 1])):
        lab = source[0]["lab"]
        said = json.loads(json.dumps(dict(zip(source.pathologies, lab, strict=True))))
        assert said == {"Mass": 1.0, "Edema": 0.0}
        assert lab.dtype == np.float32
        (batch,) = torch.utils.data.DataLoader(source, batch_size=len(source))
        assert type(batch["lab"]) is torch.Tensor
        assert batch["lab"].shape == (len(source), 2)
        assert pickle.loads(pickle.dumps(lab)).tolist() == lab.tolist()


@pytest.mark.parametrize("seed", [0, 5])
def test_an_explicit_seed_draws_what_it_draws_in_1_5_7(seed):
    def shifted(image):
        return image + random.random() * 10 + torch.rand(1).numpy() * 100

    sample = {"img": np.zeros((1, 4, 4), np.float32)}
    got = float(xd.apply_transforms(sample, shifted, seed=seed)["img"][0, 0, 0])
    generator = torch.Generator().manual_seed(seed)
    wanted = random.Random(seed).random() * 10 + float(torch.rand(1, generator=generator)) * 100
    assert got == pytest.approx(wanted, rel=1e-5)


def test_a_replaced_apply_transforms_counts(tmp_path, monkeypatch):
    seen, original = [], xd.apply_transforms
    dataset = tiny(write_pictures(tmp_path), kwargs={"transform": xd.XRayResizer(8)})
    monkeypatch.setattr(xd, "apply_transforms", lambda *a, **k: seen.append(a) or original(*a, **k))
    assert dataset[0]["img"].shape == (1, 8, 8)
    assert len(seen) == 1


def test_an_own_dataset_without_a_table_has_no_csv():
    class Own(xd.Dataset):
        def __init__(self):
            self.pathologies, self.labels = ["A"], np.zeros((2, 1))

    assert not hasattr(Own(), "csv")
    assert getattr(Own(), "csv", None) is None
    with pytest.raises(DatasetError, match="has no csv"):
        _ = Own().csv


def test_a_pickle_of_1_5_7_says_what_to_do():
    dataset = xd.NIH_Dataset.__new__(xd.NIH_Dataset)
    state = {"imgpath": "films", "labels": np.zeros((1, 14)), "csv": None, "pathologies": []}
    with pytest.raises(DatasetError, match=r"1\.5\.7.*imgpath='films'"):
        dataset.__setstate__(state)
    assert len(pickle.loads(pickle.dumps(xd.NIH_Google_Dataset()))) == 810


def test_a_merge_of_different_findings_says_what_1_5_7_says():
    with pytest.raises(DatasetError, match="incorrect pathology alignment"):
        xd.MergeDataset([xd.NIH_Google_Dataset(), xd.RSNA_Pneumonia_Dataset()])


@pytest.mark.parametrize("name", ["NIH_Dataset", "CheX_Dataset"])
def test_the_first_look_at_a_table_may_come_from_several_threads(name):
    for _ in range(3):
        dataset = getattr(xd, name)(views="*", unique_patients=False)
        merged = xd.MergeDataset([dataset])
        with ThreadPoolExecutor(8) as pool:
            looked = list(pool.map(lambda source: source.csv, [dataset, merged] * 4))
            labels = list(pool.map(lambda source: source.labels, [dataset] * 8))
        assert len({id(frame) for frame in looked[::2]}) == 1
        assert len({id(array) for array in labels}) == 1


def test_a_finding_of_no_dataset_is_warned_of():
    dataset = xd.NIH_Google_Dataset()
    with pytest.warns(DataWarning, match="'Efusion'.*did you mean 'Effusion'"):
        xd.relabel_dataset(["Efusion", "Fracture"], dataset)
    xd.relabel_dataset(["Efusion"], xd.NIH_Google_Dataset(), silent=True)
    xd.relabel_dataset(xd.default_pathologies, xd.NIH_Google_Dataset())


def test_swapped_arguments_of_relabel_dataset_are_named():
    with pytest.raises(DatasetError, match="findings first"):
        xd.relabel_dataset(xd.NIH_Google_Dataset(), xd.default_pathologies)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("CheXprt_Dataset", "CheX_Dataset"),
        ("nhi", "NIH_Dataset"),
        ("padchst", "PC_Dataset"),
        ("RSNA_Pnuemonia_Dataset", "RSNA_Pneumonia_Dataset"),
        ("VinBran", "VinDr_Dataset"),
    ],
)
def test_a_misspelt_name_gets_the_right_suggestion(given, meant):
    for find in (xd.find_dataset_class, xd.get_dataset_class, xd.card):
        with pytest.raises(UnknownNameError, match=f"did you mean '{meant}'"):
            find(given)


def test_the_title_of_a_release_is_a_name_too():
    assert xd.find_dataset_class("CheXpert_Dataset") is xd.CheX_Dataset
    with pytest.raises(UnknownNameError, match="did you mean 'CheX_Dataset'"):
        xd.get_dataset_class("CheXpert_Dataset")


def test_a_card_takes_the_names_that_the_command_line_takes():
    assert xd.card("nih").name == "NIH_Dataset"


def test_datasets_add_as_those_of_torch_do(tmp_path):
    dataset = tiny(write_pictures(tmp_path))
    both = dataset + torch.utils.data.Subset(dataset, [0])
    assert isinstance(both, torch.utils.data.ConcatDataset)
    assert len(both) == 5
    assert both[4]["idx"] == 0


def test_masks_without_collate_name_it(tmp_path):
    boxes = pd.DataFrame({"name": ["a", "b"], "x": 1, "y": 1, "w": 3, "h": 3})
    source = BoxTable(table="marks", image="name", box=("x", "y", "w", "h"), finding=("Mass",))
    dataset = tiny(
        write_pictures(tmp_path), masks=source, kwargs={"marks": boxes, "pathology_masks": True}
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    with pytest.raises(KeyError, match="torchxrayvision.datasets.collate".replace(".", "[.]")):
        next(iter(loader))
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, collate_fn=xd.collate)
    assert next(iter(loader))["pathology_masks"][0].shape[0] == 4


def test_only_available_keeps_the_films_that_are_on_disk(tmp_path):
    dataset = tiny(write_pictures(tmp_path))
    (tmp_path / "b.png").unlink()
    labels = dataset.labels[[0, 2, 3]].copy()
    assert dataset.only_available() is dataset
    assert dataset.csv["name"].tolist() == ["a", "c", "d"]
    np.testing.assert_array_equal(dataset.labels, labels)
    assert [dataset[i]["idx"] for i in range(len(dataset))] == [0, 1, 2]
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(EmptyDatasetError):
        dataset.only_available()
    with pytest.raises(DatasetNotFoundError):
        tiny(tmp_path / "nowhere").only_available()
