"""The dataset examples of the readme of 1.5.7, on fake releases: what people have in their scripts.

Three of them were false there. `COVID19_Dataset()` without its files says what to pass, and
`RSNA_Pneumonia_Dataset(unique_patients=True)` and `Subset_Dataset` work.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torchvision

import torchxrayvision as xrv
from fakes import BUILDERS
from torchxrayvision.errors import DatasetError


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Class name to its fake release, built when first asked for."""
    built = {}

    def get(name):
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name))
        return built[name]

    return get


@pytest.fixture
def transform():
    return torchvision.transforms.Compose(
        [xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(224)]
    )


@pytest.fixture
def d_rsna(release):
    return xrv.datasets.RSNA_Pneumonia_Dataset(
        **release("RSNA_Pneumonia_Dataset").kwargs, views=["PA", "AP"], pathology_masks=True
    )


DATASETS = (
    "RSNA_Pneumonia_Dataset",
    "CheX_Dataset",
    "NIH_Dataset",
    "NIH_Google_Dataset",
    "PC_Dataset",
    "COVID19_Dataset",
    "SIIM_Pneumothorax_Dataset",
    "VinBrain_Dataset",
    "NLMTB_Dataset",
)


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_loads_with_a_transform(name, release, transform):
    fake = release("VinDr_Dataset" if name == "VinBrain_Dataset" else name)
    dataset = getattr(xrv.datasets, name)(**fake.kwargs, transform=transform)
    sample = dataset[0]
    assert set(sample) >= {"idx", "lab", "img"}
    assert sample["img"].shape == (1, 224, 224)
    assert sample["lab"].shape == (len(dataset.pathologies),)
    assert -1024 <= sample["img"].min() < sample["img"].max() <= 1024


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("NIH_Dataset", 28868),
        ("NIH_Google_Dataset", 810),
        ("RSNA_Pneumonia_Dataset", 14511),
        ("CheX_Dataset", 20543),
        ("VinBrain_Dataset", 15000),
    ],
)
def test_the_packaged_tables_need_no_csvpath(name, images):
    dataset = getattr(xrv.datasets, name)(imgpath="path to the images")
    assert len(dataset) == images
    assert repr(dataset).startswith(type(dataset).__name__)


def test_chexpert_prints_its_summary():
    d_chex = xrv.datasets.CheX_Dataset(
        imgpath="path to CheXpert-v1.0-small", views=["PA", "AP"], unique_patients=False
    )
    assert "CheX_Dataset num_samples=191010 views=['PA', 'AP']" in str(d_chex)
    totals = d_chex.totals()
    assert totals["Atelectasis"] == {0.0: 17621, 1.0: 29718}
    assert totals["Cardiomegaly"] == {0.0: 22645, 1.0: 23384}
    assert totals["Effusion"] == {0.0: 34376, 1.0: 76894}


def test_relabelling_aligns_a_dataset_with_the_models(release):
    d_nih = xrv.datasets.NIH_Dataset(**release("NIH_Dataset").kwargs)
    xrv.datasets.relabel_dataset(xrv.datasets.default_pathologies, d_nih)
    assert d_nih.pathologies == list(xrv.datasets.default_pathologies)
    assert d_nih[0]["lab"].shape == (18,)


def test_datasets_merge_after_relabelling(release, transform):
    members = [
        getattr(xrv.datasets, name)(**release(name).kwargs, transform=transform)
        for name in ("NIH_Dataset", "CheX_Dataset", "PC_Dataset")
    ]
    for member in members:
        xrv.datasets.relabel_dataset(xrv.datasets.default_pathologies, member)
    for merge in (xrv.datasets.Merge_Dataset, xrv.datasets.MergeDataset):
        merged = merge(members)
        assert len(merged) == sum(map(len, members))
        assert [merged[i]["source"] for i in (0, -1)] == [0, 2]
    loader = torch.utils.data.DataLoader(merged, batch_size=4, collate_fn=xrv.datasets.collate)
    assert next(iter(loader))["lab"].shape == (4, 18)


def test_a_subset_keeps_chosen_rows(release):
    d_nih = xrv.datasets.NIH_Dataset(**release("NIH_Dataset").kwargs)
    subset = xrv.datasets.Subset_Dataset(d_nih, [2, 0])
    assert [subset[i]["idx"] for i in range(2)] == [2, 0]
    assert len(xrv.datasets.SubsetDataset(d_nih)) == len(d_nih)


@pytest.mark.parametrize("mode", ["train", "valid", "test"])
def test_a_covariate_shift_between_two_sources(mode):
    d1 = xrv.datasets.NIH_Dataset(imgpath="path to NIH images")
    d2 = xrv.datasets.CheX_Dataset(imgpath="path to CheXpert-v1.0-small")
    d = xrv.datasets.CovariateDataset(
        d1=d1,
        d1_target=d1.labels[:, d1.pathologies.index("Effusion")],
        d2=d2,
        d2_target=d2.labels[:, d2.pathologies.index("Effusion")],
        mode=mode,
        ratio=0.9,
    )
    ratio = 0.9 if mode == "train" else 0.1
    positive = d.site[d.labels[:, 0] == 1]
    assert positive.mean() == pytest.approx(ratio, abs=0.01)
    assert d.labels.mean() == pytest.approx(0.5, abs=0.01)


def test_masks_are_found_under_the_index_of_the_finding(d_rsna):
    assert d_rsna.csv.has_masks.value_counts()[True] > 0
    sample = d_rsna[int(np.flatnonzero(d_rsna.csv.has_masks)[0])]
    mask = sample["pathology_masks"][d_rsna.pathologies.index("Lung Opacity")]
    assert mask.shape == sample["img"].shape
    assert set(np.unique(mask)) == {0, 1}


def test_the_packaged_boxes_are_counted():
    d_rsna = xrv.datasets.RSNA_Pneumonia_Dataset(
        imgpath="stage_2_train_images_jpg", views=["PA", "AP"], pathology_masks=True
    )
    assert d_rsna.csv.has_masks.value_counts().to_dict() == {False: 20672, True: 6012}


def test_masks_are_augmented_with_their_image(release):
    data_aug = torchvision.transforms.Compose(
        [
            xrv.datasets.ToPILImage(),
            torchvision.transforms.RandomAffine(45, translate=(0.15, 0.15), scale=(0.85, 1.15)),
            torchvision.transforms.ToTensor(),
        ]
    )
    plain, augmented = (
        xrv.datasets.RSNA_Pneumonia_Dataset(
            **release("RSNA_Pneumonia_Dataset").kwargs,
            views=["PA", "AP"],
            pathology_masks=True,
            data_aug=aug,
        )
        for aug in (None, data_aug)
    )
    row = int(np.flatnonzero(plain.csv.has_masks)[0])
    key = plain.pathologies.index("Lung Opacity")
    before, after = plain[row], augmented[row]
    assert after["img"].shape == before["img"].shape
    assert after["pathology_masks"][key].shape == before["pathology_masks"][key].shape
    moved = np.asarray(after["pathology_masks"][key])
    assert moved.max() > 0
    assert not np.array_equal(moved, before["pathology_masks"][key])


def test_a_batch_of_a_dataset_goes_into_a_model(release, transform):
    dataset = xrv.datasets.NIH_Dataset(**release("NIH_Dataset").kwargs, transform=transform)
    xrv.datasets.relabel_dataset(xrv.datasets.default_pathologies, dataset)
    model = xrv.models.DenseNet(weights=None, num_classes=18).eval()
    batch = torch.from_numpy(dataset[0]["img"]).unsqueeze(0)
    with torch.no_grad():
        assert model(batch).shape == (1, len(dataset.pathologies))


# False in the readme of 1.5.7


def test_covid19_without_its_files_says_what_to_pass():
    with pytest.raises(DatasetError, match="csvpath"):
        xrv.datasets.COVID19_Dataset()


def test_rsna_takes_unique_patients():
    dataset = xrv.datasets.RSNA_Pneumonia_Dataset(unique_patients=True)
    assert len(dataset) == len(xrv.datasets.RSNA_Pneumonia_Dataset())


def test_nothing_is_printed_and_relabelling_is_logged(release, capsys, caplog):
    with caplog.at_level(logging.INFO, logger="torchxrayvision"):
        d_nih = xrv.datasets.NIH_Dataset(**release("NIH_Dataset").kwargs)
        xrv.datasets.relabel_dataset(xrv.datasets.default_pathologies, d_nih)
    assert "Enlarged Cardiomediastinum" in caplog.text
    assert capsys.readouterr() == ("", "")
