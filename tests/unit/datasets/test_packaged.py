"""Published totals and counts, from the packaged tables."""

from __future__ import annotations

import numpy as np
import pytest

import torchxrayvision.datasets as xd

# README of 1.5.7, CheXpert with views=["PA", "AP"] and all images: finding to (absent, present).
# Support Devices is left out: its two numbers come from an older rule.
CHEXPERT_TOTALS = {
    "Atelectasis": (17621, 29718),
    "Cardiomegaly": (22645, 23384),
    "Consolidation": (30463, 12982),
}


@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
def test_chexpert_has_the_published_totals(compat):
    dataset = xd.CheX_Dataset(views=["PA", "AP"], unique_patients=False, compat=compat)
    assert len(dataset) == 191010
    totals = dataset.totals()
    for finding, (absent, present) in CHEXPERT_TOTALS.items():
        assert totals[finding] == {0.0: absent, 1.0: present}


def test_default_chexpert_rows_have_the_labels_of_their_own_image():
    whole = xd.CheX_Dataset(views="*", unique_patients=False)
    row_of = {path: row for row, path in enumerate(whole.csv["Path"])}
    for views, mixed in ((["PA"], 3197), (["PA", "AP"], 24844)):
        right = xd.CheX_Dataset(views=views)
        own = whole.labels[[row_of[path] for path in right.csv["Path"]]]
        np.testing.assert_array_equal(right.labels, own)
        old = xd.CheX_Dataset(views=views, compat="xrv-1.5")
        assert list(old.csv["Path"]) == list(right.csv["Path"])
        same = (old.labels == own) | (np.isnan(old.labels) & np.isnan(own))
        assert int((~same.all(axis=1)).sum()) == mixed


def test_rsna_counts_its_masks():
    dataset = xd.RSNA_Pneumonia_Dataset(views=["PA", "AP"])
    assert dataset.csv["has_masks"].value_counts().to_dict() == {False: 20672, True: 6012}


def test_nih_counts_its_boxes_and_google_its_parts():
    dataset = xd.NIH_Dataset(views="*", unique_patients=False)
    assert dataset.csv["has_masks"].sum() == 880
    google = xd.NIH_Google_Dataset(views="*", unique_patients=False)
    assert {part: len(rows) for part, rows in xd.official_splits(google).items()} == {
        "test": 1962,
        "val": 2414,
    }


@pytest.mark.shared
def test_boxes_of_real_films_load_as_masks(shared):
    folder = shared / "data" / "nih-mini" / "images-1024"
    names = {path.name for path in folder.iterdir()}
    dataset = xd.NIH_Dataset(folder, views="*", unique_patients=False, pathology_masks=True)
    rows = np.flatnonzero(dataset.csv["Image Index"].isin(names))
    assert len(rows) == len(names) > 0
    sample = dataset[int(np.flatnonzero(dataset.csv["Image Index"] == "00000150_002.png")[0])]
    assert sample["img"].shape == (1, 1024, 1024)
    pneumonia = dataset.pathologies.index("Pneumonia")
    assert sample["pathology_masks"][pneumonia].sum() == 38700
