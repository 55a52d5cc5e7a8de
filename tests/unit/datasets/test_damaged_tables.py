"""Tables that are damaged, packed badly or hold odd values: a typed error from every reader."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import torchxrayvision.datasets as xd
from torchxrayvision.errors import DatasetError, EvaluationError, XRVError
from torchxrayvision.evaluation import join_labels, read_table

FRAME = pd.DataFrame({"path": [f"{i}.png" for i in range(40)], "Mass": np.arange(40) % 2})
CSV = FRAME.to_csv(index=False).encode()


def zipped(data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", data)
    return file.getvalue()


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 8]) + data[place + 1 :]


def wrong_checksum(data):
    return data[:-6] + bytes([data[-6] ^ 1]) + data[-5:]


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": zipped}
DAMAGES = [(kind, how) for kind in PACKERS for how in (cut, flipped)] + [("gz", wrong_checksum)]


@pytest.mark.parametrize(("kind", "how"), DAMAGES)
def test_damaged_packing(tmp_path, kind, how):
    path = tmp_path / f"t.csv.{kind}"
    path.write_bytes(PACKERS[kind](CSV))
    assert len(xd.CSV_Dataset(path)) == len(read_table(path)) == 40
    path.write_bytes(how(PACKERS[kind](CSV)))
    with pytest.raises(DatasetError, match="cannot be read as your table"):
        xd.CSV_Dataset(path)
    with pytest.raises(EvaluationError, match="cannot be read as a table"):
        read_table(path)


def test_page_whose_checksum_is_wrong_is_not_read(tmp_path):
    path = tmp_path / "t.parquet"
    table = pa.Table.from_pandas(FRAME)
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"7.png", b"8.png", 1))
    for read in (xd.CSV_Dataset, read_table):
        with pytest.raises(XRVError, match="CRC checksum verification failed"):
            read(path)


@pytest.mark.parametrize("name", [None, ""])
def test_rows_without_the_name_of_an_image(name):
    blank = FRAME.assign(path=[name, *FRAME["path"][1:]])
    with pytest.raises(EvaluationError, match="1 row of the labels without an image"):
        join_labels(FRAME, blank)


RECORDS = [
    [],
    3,
    [[[[]]]],
    [{"file_name": "a", "syms": ["Mass"], "boxes": [5], "polygons": []}],
    [{"file_name": "a", "syms": ["Mass"], "boxes": [[1]], "polygons": []}],
    [{"file_name": "a", "syms": ["Mass"], "boxes": [["x", 1, 2, 3]], "polygons": []}],
    {"images": 3, "categories": 3, "annotations": 3},
]


@pytest.mark.parametrize("tree", RECORDS, ids=str)
def test_odd_json(tmp_path, tree):
    path = tmp_path / "t.json"
    for text in (json.dumps(tree), "[" * 50_000, json.dumps({"a": "\ud800"})):
        path.write_text(text)
        for make in (
            lambda: xd.TBX11K_Dataset(imgpath=tmp_path, jsonpath=path),
            lambda: xd.ChestXDet_Dataset(imgpath=tmp_path, train_json=path, test_json=path),
        ):
            with pytest.raises(DatasetError):
                make()
    path.write_text(json.dumps([{"path": "\ud800", "Mass": 1}]))
    with pytest.raises(EvaluationError, match="cannot be read as a table"):
        read_table(path)


# The pandas parser asked this stream for more without end where it reads in pieces.
ENDLESS = (
    "QlpoOTFBWSZTWY+zbgMAAHdfgAASAAV/4CICQAAj4d+AIACVQ0TTQQyBoAGgkSQBPUMEaGCNC/U0JAAAAADHDGNv"
    "wL0CiQ5C26lOmc5mbVVeufWrBz4ZZ00jHEEGCiMCAEYIGCBhEMQNjY2NGoKgS14N5P7vmCyOvfNoLm3bv24AT2uh"
    "WsjEYu/F3JFOFCQj7NuAwA=="
)


@pytest.mark.timeout(60)
def test_damaged_stream_that_pandas_reads_for_ever(tmp_path):
    path = tmp_path / "t.csv.bz2"
    path.write_bytes(base64.b64decode(ENDLESS))
    for read in (xd.CSV_Dataset, read_table):
        with pytest.raises(XRVError):
            read(path)
