"""`xrv datasets` from the outside."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from fakes.nih import build
from torchxrayvision.cli import app
from torchxrayvision.datasets import (
    NIH_Dataset,
    card,
    describe,
    export_folder,
    find_dataset_class,
    list_datasets,
)
from torchxrayvision.errors import DatasetError

runner = CliRunner()


def xrv(*arguments):
    return runner.invoke(app, ["datasets", *map(str, arguments)])


@pytest.fixture
def fake(tmp_path):
    return build(tmp_path / "release")


@pytest.fixture
def given(fake):
    tables = [f"--with={name}={path}" for name, path in fake.kwargs.items() if name != "imgpath"]
    return ["nih", "--imgpath", fake.kwargs["imgpath"], *tables]


def test_every_dataset_is_listed():
    cards = json.loads(xrv("list", "--json").stdout)
    assert [card["name"] for card in cards] == list_datasets()
    assert "NIH_Dataset" in xrv("list").stdout


def test_packaged_tables_are_described_without_images():
    result = xrv("describe", "rsna", "--json")
    assert json.loads(result.stdout)["images"] == 26_684


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("nih", "NIH_Dataset"),
        ("padchest", "PC_Dataset"),  # though PadChestGR_Dataset begins like it
        ("PadChest-GR", "PadChestGR_Dataset"),
        ("chexpert", "CheX_Dataset"),
        ("chexpert plus", "CheXpertPlus_Dataset"),
        ("open-i", "Openi_Dataset"),
        ("vinbrain", "VinDr_Dataset"),  # an alias
        ("siim", "SIIM_Pneumothorax_Dataset"),
    ],
)
def test_a_dataset_is_found_by_class_or_release(asked, means):
    assert find_dataset_class(asked).__name__ == means


def test_every_dataset_is_found_by_its_own_title():
    for name in list_datasets():
        assert find_dataset_class(card(name).title).__name__ == name


def test_counts_are_those_of_the_release(given, fake):
    found = json.loads(xrv("describe", *given, "--json").stdout)
    assert found["images"] == len(fake.labels)
    assert found["patients"] == len(set(fake.patients.values()))
    present = {name: counts["present"] for name, counts in found["findings"].items()}
    for finding, count in present.items():
        assert count == sum(labels.get(finding) == 1 for labels in fake.labels.values())
    assert found["view"] == {"PA": 4, "AP": 2}
    assert found["sex"] == {"male": 3, "female": 3}
    assert sum(found["age"].values()) == len(fake.labels)
    text = xrv("describe", *given).stdout
    assert "6 images of 4 patients" in text


def test_views_and_one_image_a_patient_are_chosen(given):
    result = xrv("describe", *given, "--view", "AP", "--json")
    assert json.loads(result.stdout)["view"] == {"AP": 2}
    result = xrv("describe", *given, "--view", "PA", "--one-per-patient", "--json")
    assert json.loads(result.stdout)["images"] == 3


def test_verify_reports_what_is_wrong_and_fails(given, fake):
    assert xrv("verify", *given).exit_code == 0
    dataset = NIH_Dataset(**fake.kwargs, views="*", unique_patients=False)
    found = {p.name: p for p in fake.kwargs["imgpath"].rglob("*.png")}
    lateral = next(n for n, view in fake.views.items() if view != "PA")
    found.pop(lateral).unlink()  # every view is looked at unless one is asked for
    next(iter(found.values())).write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "1 missing" not in xrv("verify", *given, "--view", "PA").stdout
    result = xrv("verify", *given)
    assert result.exit_code == 1
    assert "1 missing, 1 unreadable" in result.stdout
    assert len(dataset) == 6


def test_labels_are_exported_with_the_csv(given, tmp_path):
    target = tmp_path / "labels.parquet"
    assert xrv("export", *given, "--output", target).exit_code == 0
    table = pd.read_parquet(target)
    dataset = NIH_Dataset(**dict(a.split("=")[1:] for a in given if "--with" in str(a)))
    assert len(table) == len(dataset)
    np.testing.assert_array_equal(
        table[[f"label:{name}" for name in dataset.pathologies]], dataset.labels
    )
    assert list(table["patientid"]) == list(dataset.csv["patientid"])


def test_images_masks_and_labels_are_exported_as_plain_files(fake, tmp_path):
    dataset = NIH_Dataset(**fake.kwargs, views="*", unique_patients=False, pathology_masks=True)
    missing = next(p for p in fake.kwargs["imgpath"].rglob("00000002_000.png"))
    missing.unlink()
    failed = export_folder(dataset, tmp_path / "out")
    assert list(failed) == ["000000002"]
    assert "error" in json.loads((tmp_path / "out" / "000000002.json").read_text())
    record = json.loads((tmp_path / "out" / "000000003.json").read_text())
    assert record["labels"]["Infiltration"] == 1.0
    assert record["fields"]["patientid"] == "3"
    image = np.asarray(Image.open(tmp_path / "out" / "000000003.png"), dtype=np.float64)
    np.testing.assert_allclose(image / 65535 * 2048 - 1024, dataset[3]["img"][0], atol=0.02)
    mask = np.asarray(Image.open(tmp_path / "out" / "000000003.mask.Infiltration.png")) > 0
    name = dataset.image_path(3).name if hasattr(dataset.image_path(3), "name") else None
    np.testing.assert_array_equal(mask, fake.masks[name or "00000003_000.png"]["Infiltration"])
    with pytest.raises(DatasetError, match="not empty"):
        export_folder(dataset, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["describe", "nhi"], "unknown dataset 'nhi'"),
        (["describe", "nih", "--with", "colour=1"], "does not take colour"),
        (["describe", "nih", "--with", "csvpath"], "NAME=VALUE"),
        (["describe", "nih-google", "--with", "nrows=few"], "takes a whole number, got 'few'"),
        (["describe", "nih", "--with", "unique_patients=maybe"], "takes true or false"),
        (["describe", "nih", "--view", "LATERAL"], "PA"),
        (["describe", "nih", "--with", "csvpath=absent.csv"], "absent.csv"),
        (["verify", "nih"], "needs its images: --imgpath FOLDER"),
        (["export", "nih", "--to", "folder", "--output", "x"], "needs its images"),
        (["export", "nih", "--output", "labels.csv"], "ends in .parquet"),
        (
            ["export", "nih", "--output", "x", "--to", "zip"],
            "'zip' is not one of 'parquet', 'folder'",
        ),
        (["verify", "nih"], "imgpath"),
    ],
)
def test_errors_say_what_to_do(arguments, said):
    result = xrv(*arguments)
    assert result.exit_code != 0
    text = result.output + str(result.exception or "")
    assert said in " ".join(text.replace("│", " ").split())


def test_numbers_and_switches_of_the_constructor_are_given_as_text():
    described = xrv("describe", "nih-google", "--with", "nrows=10", "--with", "compat=xrv-1.5")
    assert "10 images" in described.output
    for text, images in (("false", "112,120"), ("True", "30,805")):
        described = xrv("describe", "nih", "--with", f"unique_patients={text}")
        assert f"{images} images" in described.output


def test_a_container_is_described_too():
    from torchxrayvision.datasets import MergeDataset, RSNA_Pneumonia_Dataset

    parts = [RSNA_Pneumonia_Dataset(views="PA"), RSNA_Pneumonia_Dataset(views="AP")]
    assert describe(MergeDataset(parts))["images"] == sum(map(len, parts))
