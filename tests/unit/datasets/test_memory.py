"""Small datasets: packed labels, a csv that is made when asked for, pickles for workers."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from support.tiny import Tiny, rows, write_pictures
from support.worker_memory import built, grown, resident
from torchxrayvision import tables
from torchxrayvision.datasets.storage import (
    LazyTable,
    is_among,
    is_value,
    pack_frame,
    pack_labels,
    row_numbers,
    rows_of,
    unpack_frame,
    unpack_labels,
)
from torchxrayvision.errors import DatasetError

EVERYTHING = {"views": "*", "unique_patients": False}
NAN = np.nan


def of(dataset):
    """What a dataset keeps besides its settings."""
    return dataset.__dict__


@pytest.fixture
def nih():
    return xd.NIH_Dataset(**EVERYTHING)


# Labels


@pytest.mark.parametrize("value", [0.0, 1.0, NAN])
def test_labels_of_zero_one_and_nan_fit_in_a_byte(value):
    labels = np.array([[value, 1.0], [0.0, value]], np.float32)
    packed = pack_labels(labels)
    assert packed.dtype == np.int8
    np.testing.assert_array_equal(unpack_labels(packed), labels)
    assert unpack_labels(packed).dtype == np.float32
    assert pack_labels(packed) is packed


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, np.inf, 1.0000001])
def test_other_labels_stay_as_they_are(value):
    labels = np.array([[value, 1.0, NAN]], np.float32)
    assert pack_labels(labels) is labels
    assert unpack_labels(labels) is labels


def test_labels_are_one_byte_each_until_looked_at(nih):
    assert of(nih)["_labels"].nbytes == 112120 * 14
    nih.totals()
    assert len(nih) == 112120
    xd.relabel_dataset(xd.default_pathologies, nih, silent=True)
    assert of(nih)["_labels"].dtype == np.int8
    labels = nih.labels
    assert (labels.dtype, labels.shape) == (np.float32, (112120, 18))
    assert nih.labels is labels  # a caller may change them in place


def test_totals_and_relabelling_do_not_depend_on_packing():
    packed, plain = Tiny(), Tiny()
    assert plain.labels.dtype == np.float32
    assert of(packed)["_labels"].dtype == np.int8
    assert packed.totals() == plain.totals() == {
        "Mass": {0.0: 1, 1.0: 2},
        "Edema": {0.0: 1, 1.0: 2},
    }  # fmt: skip
    for dataset in (packed, plain):
        xd.relabel_dataset(["Edema", "Hernia"], dataset, silent=True)
    np.testing.assert_array_equal(packed.labels, plain.labels)
    assert packed.labels.tolist()[1] == [1.0, pytest.approx(NAN, nan_ok=True)]


def test_labels_of_a_caller_are_taken_as_they_are(tmp_path):
    dataset = Tiny(write_pictures(tmp_path))
    dataset.labels = np.full((4, 2), -1, dtype=np.int8)
    assert dataset.labels.dtype == np.float32
    assert (dataset.labels == -1).all()  # not the NaN that -1 stands for inside
    assert dataset[0]["lab"].tolist() == [-1, -1]
    dataset.labels[0, 0] = 0.25
    assert dataset[0]["lab"].tolist() == [0.25, -1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset)).labels, dataset.labels)


def test_lab_is_the_row_of_labels_and_a_copy(tmp_path):
    dataset = Tiny(write_pictures(tmp_path))
    first = dataset[2]["lab"]
    np.testing.assert_array_equal(first, [NAN, 1])
    first[:] = 5
    np.testing.assert_array_equal(dataset[2]["lab"], dataset.labels[2])


# The table


def test_the_csv_has_every_column_of_the_packaged_table_in_its_order(nih):
    columns = list(tables.info("nih").columns)
    assert set(nih._table.frame.columns) < {*columns, "view", *nih.spec.columns, "has_masks"}
    assert list(nih.csv)[: len(columns)] == columns


@pytest.mark.parametrize(("views", "unique"), [("*", False), ("AP", True)])
@pytest.mark.parametrize(
    ("name", "table", "key"),
    [
        ("NIH_Dataset", "nih", "Image Index"),
        ("CheX_Dataset", "chexpert", "Path"),
        ("PC_Dataset", "padchest", "ImageID"),
    ],
)
def test_columns_read_later_belong_to_their_rows(name, table, key, views, unique):
    dataset = getattr(xd, name)(views=views, unique_patients=unique)
    later = getattr(xd, name).spec.tables[0].deferred_columns
    assert later
    assert not set(later) & set(dataset._table.frame.columns)
    source = tables.load(table, columns=[key, *later]).set_index(key)
    found = dataset.csv.set_index(key)
    wanted = source.loc[found.index]
    for column in later:
        ours, theirs = found[column].to_numpy(), wanted[column].to_numpy()
        same = (ours == theirs) | (pd.isna(ours) & pd.isna(theirs))
        assert same.all(), column


@pytest.mark.parametrize("name", ["NIH_Google_Dataset", "CheX_Dataset", "PC_Dataset"])
def test_shared_columns_of_packaged_tables_are_made_with_the_csv(name):
    dataset = getattr(xd, name)()
    shared = set(dataset.spec.columns)
    assert not shared & set(dataset._table.frame.columns)
    assert shared <= set(pickle.loads(pickle.dumps(dataset)).csv)
    assert shared <= set(dataset.csv)


def test_a_table_without_what_the_shared_columns_need_is_refused_at_once():
    table = tables.load("nih_google").drop(columns="Patient Age")
    with pytest.raises(DatasetError, match="Patient Age"):
        xd.NIH_Google_Dataset(csvpath=table)


@pytest.mark.parametrize("name", ["NIH_Dataset", "CheX_Dataset", "PC_Dataset", "VinDr_Dataset"])
def test_the_csv_holds_ordinary_values(name):
    csv = getattr(xd, name)().csv
    kinds = {str(kind) for kind in csv.dtypes}
    assert kinds <= {"int64", "float64", "bool", str(pd.Series(["a"], dtype="str").dtype)}


def test_a_caller_can_work_with_the_csv_as_with_any():
    csv = xd.NIH_Dataset().csv
    csv["new"] = csv["Finding Labels"] + "|" + csv["view"]
    csv.loc[0, "View Position"] = "a value that no row has"
    assert csv["new"].str.endswith("|PA").all()
    assert len(csv.groupby("Finding Labels").size()) == csv["Finding Labels"].nunique()
    other = pd.DataFrame({"patientid": ["1", "2"], "more": [3.0, 4.0]})
    assert csv.merge(other, on="patientid")["more"].tolist() == [3.0, 4.0]
    assert int(csv["Patient ID"].max()) * 200_000 == (csv["Patient ID"] * 200_000).max()  # int64
    assert csv["Finding Labels"].fillna("none").eq("none").sum() == 0


def test_a_callers_table_keeps_its_types():
    table = rows().astype({"sex": "category", "age": "int32"})
    csv = Tiny(csvpath=table).csv
    assert str(csv["sex"].dtype) == "category"
    assert csv["age"].dtype == np.int32
    assert csv["view"].tolist() == ["PA", "AP", "PA", "PA"]


@pytest.mark.parametrize("index", [list("wxyz"), [2**40, 1, 5, 3], [0.5, 1.5, 2.5, 3.5]])
def test_a_callers_table_may_have_any_index(index):
    dataset = Tiny(csvpath=rows().set_index(pd.Index(index)))
    assert dataset.csv.index.tolist() == [0, 1, 2, 3]
    assert dataset.labels[:, 0].tolist()[:2] == [1, 0]


def test_items_follow_a_csv_that_the_caller_changed(tmp_path):
    dataset = Tiny(write_pictures(tmp_path))
    before = dataset[1]["img"]
    dataset.csv.loc[0, "name"] = "b"
    assert dataset.image_path(0) == "b.png"
    np.testing.assert_array_equal(dataset[0]["img"], before)
    dataset.csv = dataset.csv.assign(name="c")
    assert dataset.image_path(3) == "c.png"
    assert pickle.loads(pickle.dumps(dataset)).image_path(3) == "c.png"


def test_items_are_the_same_before_and_after_somebody_looked_at_the_csv():
    for name in ("NIH_Dataset", "CheX_Dataset", "PC_Dataset", "RSNA_Pneumonia_Dataset"):
        dataset = getattr(xd, name)()
        first = [dataset.image_path(i) for i in (0, 17, -1)]
        assert len(dataset.csv) == len(dataset)
        assert [dataset.image_path(i) for i in (0, 17, -1)] == first


def test_compat_mixes_rows_of_all_columns_as_before():
    csv = xd.NIH_Dataset(compat="xrv-1.5").csv
    assert set(tables.info("nih").columns) <= set(csv)


def test_text_is_looked_up_where_it_stands_first():
    values = pd.Series(["b", "a", None, "b"], dtype="str")
    assert rows_of(pd.Series(["a", "c", "b", None], dtype="str"), values).tolist() == [1, -1, 0, -1]
    assert is_among(pd.Series(["a", "c"], dtype="str"), values).tolist() == [True, False]
    assert is_among(pd.Series([1, 3]), pd.Series([3, 4])).tolist() == [False, True]


# Pickles


FRAME = pd.DataFrame(
    {
        "text": ["a", None, "c"],
        "code": pd.Categorical(["x", "y", None]),
        "whole": [1, 2, 3],
        "part": [0.5, NAN, 1.5],
        "yes": [True, False, True],
        "time": pd.to_datetime(["2020-01-01", None, "2021-01-01"]),
    }
)


def test_a_packed_table_comes_back_whole():
    packed = pack_frame(FRAME)
    assert isinstance(packed, bytes)
    pd.testing.assert_frame_equal(unpack_frame(packed), FRAME)
    assert pack_frame(packed) is packed
    assert unpack_frame(FRAME) is FRAME


def test_a_table_is_unpacked_when_one_of_its_columns_is_needed():
    again = pickle.loads(pickle.dumps(LazyTable(FRAME)))
    assert list(again.columns) == list(FRAME)
    assert isinstance(again._frame, bytes)
    for name in FRAME:
        pd.testing.assert_series_equal(again[name], FRAME[name])
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(again)).whole(), FRAME)


@pytest.mark.parametrize("odd", [[1, "a", None], [[1], [2], []], [{"a": 1}, None, {}], [2**80] * 3])
def test_a_table_of_mixed_objects_goes_as_it_is(odd):
    frame = FRAME.assign(odd=pd.Series(odd, dtype=object))
    packed = pack_frame(frame)
    assert packed is frame


def test_an_index_of_the_callers_survives():
    frame = FRAME.set_index("whole")
    pd.testing.assert_frame_equal(unpack_frame(pack_frame(frame)), frame)


@pytest.mark.parametrize("looked", [False, True])
def test_an_unpickled_dataset_reads_items_before_its_table(tmp_path, looked):
    dataset = Tiny(write_pictures(tmp_path))
    if looked:
        assert len(dataset.csv) == 4
    again = pickle.loads(pickle.dumps(dataset))
    assert ("_table" in again.__dict__) != looked  # the table of the caller is the only one then
    for i in range(4):
        np.testing.assert_array_equal(again[i]["img"], dataset[i]["img"])
    twice = pickle.loads(pickle.dumps(again))
    pd.testing.assert_frame_equal(twice.csv, dataset.csv)
    pd.testing.assert_frame_equal(again.csv, dataset.csv)


def three():
    members = [xd.NIH_Dataset(**EVERYTHING), xd.CheX_Dataset(**EVERYTHING)]
    members.append(xd.PC_Dataset(**EVERYTHING))
    for member in members:
        xd.relabel_dataset(xd.default_pathologies, member, silent=True)
    return xd.MergeDataset(members)


def in_a_new_process(function, *arguments):
    """What a function of `worker_memory` sends from a process of its own."""
    try:
        resident()
    except OSError:
        pytest.skip("no /proc: memory of a process cannot be read here")
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=function, args=(*arguments, there))
    process.start()
    try:
        assert here.poll(60), "the worker did not answer"
        return here.recv()
    finally:
        process.kill()
        process.join()


def test_a_merge_of_the_three_largest_costs_a_spawned_worker_little(tmp_path):
    packed = pickle.dumps(three())
    assert len(packed) < 15 * 2**20
    (tmp_path / "merged").write_bytes(packed)
    assert in_a_new_process(grown, tmp_path / "merged") < 60  # 1.5.7: 999


def test_the_eight_datasets_with_packaged_tables_take_little_memory():
    assert in_a_new_process(built) < 104  # measured: 93; 1.5.7: 417


@pytest.mark.parametrize(
    "name", ["NIH_Dataset", "NIH_Google_Dataset", "CheX_Dataset", "PC_Dataset"]
)
def test_columns_of_a_packaged_table_are_not_kept_but_read_for_items(name):
    dataset = getattr(xd, name)()
    packaged = tables.info(dataset.spec.tables[0].packaged).columns
    assert not set(dataset._table.frame.columns) & set(packaged)
    path = dataset.image_path(3)
    assert 0 < len(dataset._table.read) <= 2  # those that name the file
    again = pickle.loads(pickle.dumps(dataset))
    assert not again._table.read
    assert again.image_path(3) == path
    expected = dataset.csv
    assert dataset._frame is expected
    assert dataset.image_path(3) == path
    assert isinstance(again._table._frame, bytes)  # no item needed what the dataset made itself
    pd.testing.assert_frame_equal(again.csv, expected)


@pytest.mark.parametrize("kind", ["str", "object", "category", "string"])
def test_values_are_found_in_text_of_any_type(kind):
    column = pd.Series(["PA", None, "", "AP"], dtype=kind)
    assert is_value(column, "PA").tolist() == [True, False, False, False]
    assert is_value(column, "nowhere").tolist() == [False] * 4
    assert is_value(column, "").dtype == bool


@pytest.mark.parametrize("kind", ["float64", "Int64", "object"])
def test_values_are_found_in_numbers_of_any_type(kind):
    assert is_value(pd.Series([1, None, 0], dtype=kind), 1).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [([0, 1, 2], range(3)), ([4, 5], range(4, 6)), ([7], range(7, 8)), ([0, 2], [0, 2]),
     ([2, 1], [2, 1]), ([], [])],
)  # fmt: skip
def test_row_numbers_without_a_gap_are_a_range(rows, kept):
    found = row_numbers(pd.Index(rows, dtype="int64"))
    assert list(found) == list(kept)
    assert isinstance(found, range) == isinstance(kept, range)


def test_a_merge_holds_no_array_a_row():
    merged = three()
    arrays = [value for value in merged.__dict__.values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) < 1000
    starts = np.cumsum([0, *(len(inner) for inner in merged.datasets)])
    assert merged.which_dataset.tolist() == np.repeat([0, 1, 2], np.diff(starts)).tolist()
    assert (np.arange(len(merged)) - merged.offset)[starts[:-1]].tolist() == [0, 0, 0]
