"""Every packaged source in compat mode, against what 1.5.7 itself returned."""

from __future__ import annotations

import json

import numpy as np
import pytest

import torchxrayvision.datasets as xd
from support.digests import digest_column, digest_labels, digest_masks, golden

RECORD = golden()
CASES = [(name, case) for name, cases in RECORD["datasets"].items() for case in cases]

# Ages and days of 1.5.7 that are wrong for every reader; they are right in both modes here.
WRONG_COLUMNS = {
    "PC_Dataset": {
        "age_years",  # 1.5.7 reckons all ages in 2017
        "offset_day_int",  # and, with pandas 3, days in units of 1,000
    },
    "CheX_Dataset": {"age_years"},  # 0 stands for unknown
}
# README of 1.5.7 for CheXpert, views PA and AP, all images: absent and present.
README_TOTALS = {
    "Atelectasis": (17621, 29718),
    "Cardiomegaly": (22645, 23384),
    "Consolidation": (30463, 12982),
    "Edema": (29449, 49674),
    "Enlarged Cardiomediastinum": (26527, 9186),
    "Fracture": (18111, 7434),
    "Lung Lesion": (17523, 7040),
    "Lung Opacity": (20165, 94207),
    "Effusion": (34376, 76894),
    "Pleural Other": (17166, 2503),
    "Pneumonia": (18105, 4674),
    "Pneumothorax": (54165, 17693),
}


def case_id(value):
    return value if isinstance(value, str) else json.dumps(value["parameters"])


@pytest.mark.parametrize(("name", "case"), CASES, ids=case_id)
def test_compat_has_the_rows_order_and_labels_of_1_5_7(name, case):
    dataset = getattr(xd, name)(compat="xrv-1.5", **case["parameters"])
    assert len(dataset) == case["rows"]
    assert dataset.pathologies == case["pathologies"]
    assert digest_column(dataset.csv[RECORD["image_column"][name]]) == case["images"]
    assert digest_labels(dataset.labels) == case["labels"]
    for column, digest in case["columns"].items():
        if column not in WRONG_COLUMNS.get(name, ()):
            assert digest_column(dataset.csv[column]) == digest, column


def masks_of(dataset, images, size):
    for image in images:
        found = dataset.get_mask_dict(image, size)
        for finding, mask in sorted((dataset.pathologies[j], mask) for j, mask in found.items()):
            yield image, finding, mask[0]


@pytest.mark.parametrize("name", sorted(RECORD["masks"]))
def test_compat_has_the_masks_of_1_5_7(name):
    record = RECORD["masks"][name]
    dataset = getattr(xd, name)(compat="xrv-1.5", pathology_masks=True, **record["parameters"])
    images = RECORD["image_column"][name]
    assert dataset.csv[images][dataset.csv["has_masks"]].nunique() == record["marked_images"]
    for size in record["sizes"]:
        digest, pixels = digest_masks(masks_of(dataset, record["images"], size["size"]))
        assert (digest, pixels) == (size["masks"], size["pixels"]), size["size"]


@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
def test_chexpert_has_the_totals_of_the_readme(compat):
    dataset = xd.CheX_Dataset(views=["PA", "AP"], unique_patients=False, compat=compat)
    assert len(dataset) == 191_010
    totals = dataset.totals()
    for finding, (absent, present) in README_TOTALS.items():
        assert totals[finding] == {0.0: absent, 1.0: present}, finding
    # The thirteenth was published under an older rule, which cleared devices of healthy chests.
    assert totals["Support Devices"] == {0.0: 5_340, 1.0: 107_167}


@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
def test_rsna_has_the_boxes_of_the_readme(compat):
    dataset = xd.RSNA_Pneumonia_Dataset(views=["PA", "AP"], compat=compat)
    assert np.bincount(dataset.csv["has_masks"]).tolist() == [20_672, 6_012]
