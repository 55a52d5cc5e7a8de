import csv
import json
import math

import numpy as np
import pandas as pd
import pytest

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.inference import Result, columns_of, open_writer

NAMES = ("Mass", "", "Hernia, hiatal")
RESULTS = [
    Result("broken.png", "the file is empty"),
    Result('a,"b"\nü.png', "", np.array([0.1, 0.5, 1 / 3], "f4"), np.arange(3, dtype="f4") / 7),
    Result("late.dcm", "no pixel data"),
]


def columns():
    return columns_of(NAMES, [True, False, True])


def write(path, embeddings=False):
    with open_writer(path, columns(), embeddings) as writer:
        for result in RESULTS:
            writer.write(result)
    return path


def read(path):
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False).to_dict("records")
    if path.suffix == ".json":
        return json.loads(path.read_text("utf-8"))
    return pd.read_parquet(path).to_dict("records")


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_every_format_holds_every_row_and_only_trained_findings(tmp_path, suffix):
    rows = read(write(tmp_path / f"table{suffix}"))
    assert [r["path"] for r in rows] == [r.path for r in RESULTS]
    assert [r["error"] for r in rows] == [r.error for r in RESULTS]
    assert list(rows[0]) == ["path", "error", "Mass", "Hernia, hiatal"]
    assert np.float32(rows[1]["Hernia, hiatal"]) == np.float32(1 / 3)
    missing = rows[0]["Mass"]
    assert missing in (None, "") or math.isnan(missing)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_embeddings_come_back_exactly(tmp_path, suffix):
    rows = read(write(tmp_path / f"table{suffix}", embeddings=True))
    if suffix == ".csv":
        vector = [rows[1][f"embedding_{i:04d}"] for i in range(3)]
        assert rows[0]["embedding_0000"] == ""
    else:
        vector = list(rows[1]["embedding"])
        assert rows[0]["embedding"] is None
    assert np.array_equal(np.array(vector, "f4"), RESULTS[1].embedding)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_run_without_rows_gives_an_empty_table(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    with open_writer(path, columns(), embeddings=True):
        pass
    assert read(path) == []


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_an_interrupted_run_leaves_its_rows_but_not_the_final_name(tmp_path, suffix):
    path = tmp_path / f"table{suffix}"
    path.write_text("earlier result")
    with pytest.raises(KeyboardInterrupt), open_writer(path, columns(), False) as writer:
        writer.write(RESULTS[1])
        raise KeyboardInterrupt
    assert path.read_text() == "earlier result"
    part = path.with_name(path.name + ".part")
    part = part.rename(tmp_path / f"kept{suffix}")
    assert len(read(part)) == 1


def test_csv_is_read_by_the_standard_library(tmp_path):
    with write(tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [r.path for r in RESULTS]


def test_unknown_format_names_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match=r"\.parquet"):
        open_writer(tmp_path / "table.xlsx", columns(), False)
    assert not list(tmp_path.iterdir())


HARD = [
    "a\rb.png", "=1+1", "+x", "-x", "@x", "\tx", "\rx", "'=x", "''=x", "it's", "'", 'a"b', "a,b",
    "a\nb", "",
]  # fmt: skip


def test_text_that_spreadsheets_take_for_formulas_comes_back_exactly(tmp_path):
    from torchxrayvision.csvtext import from_cell

    path = tmp_path / "t.csv"
    with open_writer(path, {"=Mass": 0}, False) as writer:
        for text in HARD:
            writer.write(Result(text, f"{text}: no such file"))
        writer.write(Result("last", "", np.array([-0.5], "f4")))
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    assert [from_cell(name) for name in header] == ["path", "error", "=Mass"]
    assert [from_cell(row[0]) for row in rows] == [*HARD, "last"]
    assert [from_cell(row[1]) for row in rows[:-1]] == [f"{text}: no such file" for text in HARD]
    assert rows[-1][2] == "-0.5"  # a number, which is no formula
    cells = [cell for row in [header, *rows[:-1]] for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r")]
    read = pd.read_csv(path, keep_default_na=False, dtype=str)
    assert [from_cell(cell) for cell in read["path"]] == [*HARD, "last"]
    assert path.read_bytes().count(b"\n") == len(HARD) + 2 + 2  # one per row, two in a name


def test_our_own_readers_take_back_what_was_escaped(tmp_path):
    from torchxrayvision.csvtext import restored, write_frame
    from torchxrayvision.inputs import expand

    names = [name for name in HARD if name]
    path = tmp_path / "t.csv"
    with open_writer(path, columns(), False) as writer:
        for name in names:
            writer.write(Result(name, ""))
    assert [str(file.path) for file in expand([path])] == names
    table = pd.DataFrame({"=finding": HARD, "n": range(len(HARD)), "value": 0.1})
    write_frame(table, tmp_path / "u.csv")
    text = pd.read_csv(tmp_path / "u.csv", dtype=str, keep_default_na=False)
    assert list(restored(text)["=finding"]) == HARD
    assert text["value"].tolist() == ["0.1"] * len(HARD)
