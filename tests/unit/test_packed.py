"""Packed tables: read in every packing, and never more of them than is allowed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zipfile

import numpy as np
import pandas as pd
import pytest

from torchxrayvision.csvtext import open_table
from torchxrayvision.datasets import CSV_Dataset, PC_Dataset
from torchxrayvision.errors import DatasetError, EvaluationError
from torchxrayvision.evaluation import read_table


def zipped(content, *more):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.csv", *more):
            archive.writestr(name, content)
    return file.getvalue()


PACKINGS = {
    ".csv": bytes,
    ".csv.gz": gzip.compress,
    ".csv.bz2": bz2.compress,
    ".csv.xz": lzma.compress,
    ".csv.zip": zipped,
}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_gives_the_same_table(packing, separator, tmp_path):
    """The separator is that of the text, not the byte that is most frequent in what is packed."""
    rows = [["path", "patientid", "Mass"], ["a.png", "007", "1"], ["b.png", "7", "0"]]
    text = "\ufeff" + "\n".join(separator.join(row) for row in rows)
    file = tmp_path / f"labels{packing}"
    file.write_bytes(PACKINGS[packing](text.encode()))
    assert read_table(file).to_numpy().tolist() == rows[1:]
    if separator == ",":
        table = CSV_Dataset(file).csv
        assert table["patientid"].tolist() == ["007", "7"]


@pytest.mark.parametrize("packing", [name for name in PACKINGS if name != ".csv"])
def test_a_table_that_unpacks_to_too_much_is_refused_at_once(packing, tmp_path, monkeypatch):
    monkeypatch.setenv("XRV_MAX_TABLE_BYTES", "100000")
    file = tmp_path / f"labels{packing}"
    file.write_bytes(PACKINGS[packing](b"path,Mass\n" + b"a.png,1\n" * 4_000_000))
    assert file.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(EvaluationError, match=r"100,000 bytes.*XRV_MAX_TABLE_BYTES"):
            read_table(file)
        with pytest.raises(DatasetError, match="unpacks to more than"):
            CSV_Dataset(file)
        with pytest.raises(DatasetError, match="unpacks to more than"):
            PC_Dataset(imgpath=tmp_path, csvpath=file)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setenv("XRV_MAX_TABLE_BYTES", "40000000")
    with open_table(file) as table:
        assert sum(map(len, table)) == 10 + 8 * 4_000_000


def test_a_parquet_file_that_says_that_it_is_too_large_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "labels.parquet"
    same = np.ones(300_000)  # one run: a kilobyte or two on disk
    pd.DataFrame({"path": ["a.png"] * 300_000, "Mass": same}).to_parquet(file)
    assert len(read_table(file)) == 300_000
    monkeypatch.setenv("XRV_MAX_TABLE_BYTES", "4000000")
    with pytest.raises(EvaluationError, match="unpacks to more than"):
        read_table(file)
    with pytest.raises(DatasetError, match="unpacks to more than"):
        CSV_Dataset(file)


def test_odd_packings_and_limits_are_said(tmp_path, monkeypatch):
    (tmp_path / "two.csv.zip").write_bytes(zipped(b"path\n", "b.csv"))
    (tmp_path / "a.csv.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(EvaluationError, match="holds 2 files"):
        read_table(tmp_path / "two.csv.zip")
    with pytest.raises(EvaluationError, match=r"\.zst are not read; unpack it"):
        read_table(tmp_path / "a.csv.zst")
    monkeypatch.setenv("XRV_MAX_TABLE_BYTES", "1 GB")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"path\n"))
    with pytest.raises(EvaluationError, match="no number of bytes"):
        read_table(tmp_path / "a.csv.gz")
