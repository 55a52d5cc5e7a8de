"""Croissant metadata of every dataset, validated and read by MLCommons' own library."""

from __future__ import annotations

import json
import socket
import sys
import warnings

import pytest

from fakes import BUILDERS
from torchxrayvision import datasets, tables
from torchxrayvision.cli import main
from torchxrayvision.datasets import columns_of, croissant, export_parquet
from torchxrayvision.files import sha256_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    mlc = pytest.importorskip("mlcroissant")

NAMES = datasets.list_datasets()
KNOWN_WARNINGS = ("datePublished", "version")  # which no release states in one place


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a description asks nobody")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def validated(held):
    """MLCommons' reader over it; raises for errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mlc.Dataset(jsonld=held)
    issues = found.metadata.ctx.issues
    assert not issues.errors
    odd = [w for w in issues.warnings if not any(known in w for known in KNOWN_WARNINGS)]
    assert odd == []
    return found


def test_there_are_29_datasets():
    assert len(NAMES) == 29


@pytest.mark.parametrize("name", NAMES)
def test_description_is_valid_and_says_what_is_known(name):
    held = croissant(name)
    found = validated(held)
    spec = datasets.get_dataset_class(name).spec
    assert found.metadata.url == spec.homepage
    assert spec.reference.title in found.metadata.cite_as
    assert spec.license.name in held["conditionsOfAccess"]
    assert len(found.metadata.description) > 80
    assert json.loads(json.dumps(held)) == held


@pytest.mark.parametrize("name", NAMES)
def test_packaged_tables_have_their_columns_and_hashes(name):
    held = croissant(name)
    files = {file["@id"]: file for file in held["distribution"]}
    for table in datasets.get_dataset_class(name).spec.tables:
        if table.packaged is None:
            assert "sha256" not in files[table.argument]
            assert held["isLiveDataset"] is True
            continue
        known = tables.info(table.packaged)
        assert files[table.argument]["sha256"] == known.source_sha256
        assert columns_of(held)[f"{table.argument}-rows"] == list(known.columns)


@pytest.mark.parametrize("name", NAMES)
def test_table_of_labels_is_described_and_read(name, tmp_path):
    release = tmp_path / "release"
    release.mkdir()
    fake = BUILDERS[name](release)
    dataset = datasets.get_dataset_class(name)(**fake.kwargs)
    table = export_parquet(dataset, tmp_path / "labels.parquet")
    held = croissant(dataset, table=table)
    (tmp_path / "croissant.json").write_text(json.dumps(held))
    found = validated(str(tmp_path / "croissant.json"))
    columns = columns_of(held)["labels-rows"]
    assert {f"label:{finding}" for finding in dataset.pathologies} <= set(columns)
    assert set(map(str, dataset.csv.columns)) <= set(columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = list(found.records("labels-rows"))
    assert len(rows) == len(dataset)
    finding = dataset.pathologies[0]
    field = next(
        f["@id"]
        for f in held["recordSet"][-1]["field"]
        if f["source"]["extract"]["column"] == f"label:{finding}"
    )
    values = [float("nan") if row[field] is None else float(row[field]) for row in rows]
    assert values == pytest.approx(dataset.labels[:, 0].astype(float).tolist(), nan_ok=True)


def test_command_writes_both_files_and_refuses_to_replace_them(tmp_path, monkeypatch, capsys):
    place, table = tmp_path / "siim.json", tmp_path / "siim.parquet"
    words = ["datasets", "croissant", "siim", "-o", str(place), "--table", str(table)]
    run(words, monkeypatch)
    held = json.loads(place.read_text("utf-8"))
    labels = next(f for f in held["distribution"] if f["@id"] == "labels")
    with table.open("rb") as file:
        assert labels["sha256"] == sha256_of(file)
    assert labels["contentUrl"] == "siim.parquet"
    validated(str(place))
    assert run(words, monkeypatch) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_table_in_another_folder_is_refused(tmp_path, monkeypatch, capsys):
    words = ["datasets", "croissant", "siim", "-o", str(tmp_path / "x.json")]
    assert run([*words, "--table", str(tmp_path / "sub" / "t.parquet")], monkeypatch) == 2
    assert "same folder" in capsys.readouterr().err


def run(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["xrv", *words])
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return 0
