"""Official parts of releases: their images, patients and hashes, here and in the docs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import torchxrayvision.datasets as xd
from fakes import chexlocalize, nih, tbx11k
from torchxrayvision.cli import app
from torchxrayvision.errors import DatasetError

DOCS = Path(__file__).parents[3] / "docs" / "benchmarks.md"
HASHED = [split for split in xd.OFFICIAL_SPLITS if split.images_sha256]


@functools.cache
def everything(name):
    cls = xd.get_dataset_class(name)
    few = {} if name == "VinDr_Dataset" else {"unique_patients": False}
    return cls(None, views="*", **few)


def named(split):
    return f"{split.dataset} {split.part}"


@pytest.mark.parametrize("split", HASHED, ids=named)
def test_a_named_split_has_its_images_patients_and_hashes(split):
    if split.images > 100_000:
        pytest.skip("seconds of hashing: test_large_splits_have_their_hashes")
    found = xd.describe_split(everything(split.dataset).official_split(split.part))
    assert split.problems(found) == []
    assert (found.images, found.patients) == (split.images, split.patients)


@pytest.mark.slow
@pytest.mark.parametrize("split", [s for s in HASHED if s.images > 100_000], ids=named)
def test_large_splits_have_their_hashes(split):
    found = xd.describe_split(everything(split.dataset).official_split(split.part))
    assert split.problems(found) == []


def test_nih_tests_on_25596_images_of_2797_patients_and_trains_on_no_one_of_them():
    whole = everything("NIH_Dataset")
    test, others = whole.official_split("test"), whole.official_split("train_val")
    assert (len(test), test.csv["patientid"].nunique()) == (25_596, 2_797)
    assert not set(test.csv["patientid"]) & set(others.csv["patientid"])
    assert len(test) + len(others) == len(whole) == 112_120
    # The list that was published hashes the names of files, and the numbers with eight digits.
    names = "\n".join(sorted(test.csv["Image Index"].astype(str)))
    assert hashlib.sha256(names.encode()).hexdigest().startswith("38ca5ef7f756092946f57c1a59fa")


def test_images_of_tested_patients_are_found_in_every_release_of_the_cohort():
    whole = everything("NIH_Dataset")
    assert int(xd.in_official_test(whole).sum()) == 25_596
    google = everything("NIH_Google_Dataset").official_split("test")
    merged = xd.MergeDataset([xd.RSNA_Pneumonia_Dataset(views="*"), google], label_concat=True)
    inside = xd.in_official_test(merged)
    assert int(inside[:26_684].sum()) == 7_170
    assert inside[26_684:].all(), "Google tests on patients that NIH tests on"
    assert not xd.in_official_test(everything("VinDr_Dataset")).any()
    with pytest.raises(DatasetError, match="under names of their own"):
        xd.in_official_test(xd.SIIM_Pneumothorax_Dataset())


@pytest.mark.parametrize("split", xd.OFFICIAL_SPLITS, ids=named)
def test_every_named_split_is_in_the_docs(split):
    (row,) = [
        line for line in DOCS.read_text("utf-8").splitlines()
        if line.startswith(f"| `{split.dataset}` | {split.part} |")
    ]  # fmt: skip
    assert f"| {split.images:,} |" in row
    assert split.images_sha256 in row
    assert xd.get_dataset_class(split.dataset).spec.split is not None


def test_other_images_are_not_the_official_part(tmp_path):
    fake = nih.build(tmp_path)
    dataset = xd.NIH_Dataset(**fake.kwargs, views="*", unique_patients=False)
    known = xd.find_official_split("NIH_Dataset", "test")
    problems = known.problems(xd.describe_split(dataset.official_split("test")))
    assert len(problems) == 4
    assert problems[0] == "images 1, not 25596"


def test_the_test_part_of_chexlocalize_says_so_although_it_has_no_patients_table(tmp_path):
    fake = chexlocalize.build_test(tmp_path)
    dataset = xd.CheXlocalize_Dataset(**fake.kwargs, views="*", unique_patients=False)
    assert len(dataset.official_split("test")) == 3
    with pytest.raises(DatasetError, match="these rows are in 'test'"):
        dataset.official_split("valid")


def test_the_test_part_of_vindr_is_told_by_its_common_result():
    rows = {"image_id": ["a"], "class_name": ["No finding"]}
    boxes = {name: [np.nan] for name in ("x_min", "y_min", "x_max", "y_max")}
    dataset = xd.VinDr_Dataset(csvpath=pd.DataFrame(rows | boxes))
    assert len(dataset.official_split("test")) == 1


def test_tbx11k_knows_its_part_by_the_annotations_that_were_read(tmp_path):
    tbx11k.build(tmp_path)
    assert len(xd.TBX11K_Dataset(tmp_path, split="val").official_split("val")) == 2
    with pytest.raises(DatasetError, match="no part that its tables tell"):
        xd.TBX11K_Dataset(tmp_path, split="trainval").official_split("val")


def test_a_seeded_split_has_a_hash_whatever_the_order_of_rows(tmp_path):
    dataset = everything("NIH_Google_Dataset")
    first, again = (xd.split_by_patient(dataset, (0.5, 0.5), seed=3) for _ in range(2))
    other = xd.split_by_patient(dataset, (0.5, 0.5), seed=4)
    assert xd.describe_split(first[0]) == xd.describe_split(again[0])
    turned = xd.SubsetDataset(dataset, first[0].idxs[::-1])
    assert xd.describe_split(turned) == xd.describe_split(first[0])
    assert xd.describe_split(other[0]).images_sha256 != xd.describe_split(first[0]).images_sha256


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_prints_hashes_and_writes_rows(tmp_path):
    done = run("datasets", "split", "NIH_Google", "--json", "--output", tmp_path / "parts.csv")
    assert done.exit_code == 0, done.output
    found = {row["part"]: row["images_sha256"] for row in json.loads(done.output)}
    assert found == {s.part: s.images_sha256 for s in HASHED if s.dataset == "NIH_Google_Dataset"}
    table = pd.read_csv(tmp_path / "parts.csv", dtype=str)
    assert table["split"].value_counts().to_dict() == {"val": 2414, "test": 1962}
    assert "00000013_008.png" in set(table["path"])


def test_the_command_fails_where_images_are_missing(tmp_path):
    fake = nih.build(tmp_path)
    given = [f"csvpath={fake.kwargs['csvpath']}"]
    done = run("datasets", "split", "nih_dataset", "--part", "test", "--with", *given)
    assert done.exit_code == 1
    assert "is not the official part: images 1, not 25596" in done.output
    drawn = run("datasets", "split", "nih_dataset", "--fractions", "0.5,0.5", "--with", *given)
    assert drawn.exit_code == 0
    assert drawn.output.count("sha256") == 2
    assert run("datasets", "split", "nih_dataset", "--fractions", "a").exit_code == 2


def test_known_counts_are_those_of_the_class():
    known = xd.find_official_split("NIH_Dataset", "test")
    assert dataclasses.replace(known, images_sha256="").problems(
        xd.Split(images=25_596, patients=2_797, images_sha256="x",
                 patients_sha256=known.patients_sha256)
    ) == []  # fmt: skip
