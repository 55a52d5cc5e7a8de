"""The packaged tables are what tables.json says, and what 1.5.7 reads from its own files."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from support.digests import digest_column, golden
from torchxrayvision import masks, tables
from torchxrayvision.errors import DatasetError, UnknownNameError

NAMES = tables.list_tables()
TOOL = Path(__file__).parents[2] / "tools" / "build_tables.py"


@pytest.fixture(scope="module")
def tool():
    """tools/build_tables.py as a module."""
    spec = importlib.util.spec_from_file_location("build_tables", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_tables"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build_tables"]


@pytest.mark.parametrize("name", NAMES)
class TestEveryTable:
    def test_bytes_are_those_on_record(self, name):
        facts = tables.info(name)
        assert hashlib.sha256(tables.path(name).read_bytes()).hexdigest() == facts.sha256

    def test_rows_and_columns_are_those_on_record(self, name):
        facts, stored = tables.info(name), parquet.ParquetFile(tables.path(name))
        assert stored.metadata.num_rows == facts.rows
        assert tuple(stored.schema_arrow.names) == facts.columns
        assert not set(facts.left_out) & set(facts.columns)

    def test_provenance_is_complete(self, name):
        facts = tables.info(name)
        for field in ("title", "source", "publisher", "licence", "terms", "taken"):
            assert getattr(facts, field), field
        assert facts.url.startswith("https://")
        assert len(facts.source_sha256) == 64

    def test_frame_is_the_callers_own(self, name):
        first = tables.load(name)
        assert isinstance(first.index, pd.RangeIndex)
        assert len(first) == tables.info(name).rows
        for column in first.columns:
            kept = first[column].iloc[0]
            first.loc[0, column] = first[column].iloc[-1]
            again = tables.load(name, [column])[column].iloc[0]
            assert again == kept or (pd.isna(again) and pd.isna(kept))

    def test_categories_are_distinct_and_sorted(self, name):
        frame = tables.load(name)
        for column in frame.columns[frame.dtypes == "category"]:
            order = frame[column].cat.categories.to_list()
            numeric = (name, column) == ("padchest", "PatientID")
            assert order == sorted(set(order), key=int if numeric else None), column


def test_every_parquet_file_is_on_record():
    folder = tables.path("nih").parent
    assert {p.name for p in folder.glob("*.parquet")} == {tables.info(n).file for n in NAMES}


def test_tables_leave_room_in_a_wheel_of_20_megabytes():
    assert sum(tables.path(name).stat().st_size for name in NAMES) < 16e6


def test_free_text_of_reports_is_left_out():
    assert tables.info("padchest").left_out["Report"]
    assert "Report" not in tables.info("padchest").columns
    assert tables.info("openi").columns == (
        "uid",
        "imageid",
        "labels_major",
        "labels_automatic",
    )


def test_columns_come_in_the_order_asked_for():
    frame = tables.load("chexpert", ["Sex", "Path", "Age"])
    assert list(frame.columns) == ["Sex", "Path", "Age"]
    assert frame.iloc[0].to_list() == [
        "Female",
        "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
        68,
    ]


def test_missing_values_are_nan():
    frame = tables.load("chexpert", ["AP/PA", "Edema"])
    assert frame["AP/PA"].isna().sum() == 32_387
    assert frame["Edema"].isna().sum() == 137_458


def test_a_column_with_a_leading_space_keeps_it():
    assert " EncodedPixels" in tables.load("siim").columns


def test_an_unknown_table_is_named_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="did you mean 'padchest'"):
        tables.load("padchst")
    with pytest.raises(UnknownNameError):
        tables.path("")


def test_an_unknown_column_is_named_with_the_known_ones():
    with pytest.raises(DatasetError, match=r"no columns \['Views'\]; it has .*'View Position'"):
        tables.load("nih", ["Image Index", "Views"])


def test_no_columns_give_rows_without_columns():
    assert tables.load("rsna", []).shape[1] == 0


def test_reading_a_table_imports_neither_torch_nor_pillow():
    code = (
        "import sys; from torchxrayvision import tables; tables.load('nih_boxes'); "
        "print(*sorted({'torch', 'PIL', 'skimage', 'pydicom'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("NIH_Dataset", "nih"),
        ("NIH_Google_Dataset", "nih_google"),
        ("CheX_Dataset", "chexpert"),
        ("Openi_Dataset", "openi"),
        ("SIIM_Pneumothorax_Dataset", "siim"),
    ],
)
def test_rows_stand_in_the_order_of_1_5_7(dataset, name):
    record = golden()
    column = record["image_column"][dataset]
    rows = [r for r in record["datasets"][dataset] if r["parameters"]["unique_patients"] is False]
    assert digest_column(tables.load(name, [column])[column]) == rows[-1]["images"]


def test_padchest_holds_every_image_that_1_5_7_keeps():
    kept = golden()["datasets"]["PC_Dataset"][-1]
    frame = tables.load("padchest", ["ImageID", "PatientID"])
    assert frame["ImageID"].is_unique
    assert len(frame) > kept["rows"]
    assert {*kept["first_images"], kept["last_image"]} <= set(frame["ImageID"])
    assert frame["PatientID"].nunique() == 67_625


@pytest.mark.parametrize("image", sorted(golden()["lungs"]))
def test_lung_masks_are_those_of_1_5_7(image, lungs):
    want, row = golden()["lungs"][image], lungs.loc[image]
    mask = masks.decode_coco_rle(row["counts"], (row["height"], row["width"]))
    assert list(mask.shape) == want["shape"]
    assert mask.sum() == want["pixels"]
    assert hashlib.sha256(np.packbits(mask, axis=None).tobytes()).hexdigest() == want["mask"]


@pytest.fixture(scope="module")
def lungs():
    return tables.load("covid_lungs").set_index("filename")


class TestBuilder:
    @pytest.fixture
    def frame(self):
        rows = 25_000
        return pd.DataFrame(
            {
                "Unnamed: 0": np.arange(rows)[::-1],
                "name": [f"image-{n:05}.png" for n in range(rows)],
                "view": ["PA", "AP", None, "LL", "PA"] * (rows // 5),
                "patient": pd.array(["10", "9", "9", "100", "1"] * (rows // 5), "str"),
                "finding": [1.0, 0.0, -1.0, np.nan, 1.0] * (rows // 5),
                "x": np.linspace(0, 1, rows),
                "wide": np.arange(rows) << 32,
            }
        )

    def source(self, tool, frame):
        return tool.Source(
            name="made",
            file="made.csv",
            title="A made table",
            publisher="-",
            url="https://example.org",
            licence="-",
            terms="-",
            read=lambda path: pd.read_csv(path, dtype={"patient": str}),
            numeric_text=("patient",),
        )

    def test_values_survive(self, tool, frame, tmp_path):
        frame.to_csv(tmp_path / "made.csv", index=False)
        record = tool.build(self.source(tool, frame), tmp_path, tmp_path)
        back = parquet.ParquetFile(tmp_path / "made.parquet").read().to_pandas()
        assert record["rows"] == 25_000
        assert back["name"].to_list() == frame["name"].to_list()
        assert back["wide"].to_list() == frame["wide"].to_list()
        assert back["finding"].dtype == np.float32
        assert back["x"].dtype == np.float64
        np.testing.assert_array_equal(back["finding"], frame["finding"])
        assert back["patient"].cat.categories.to_list() == ["1", "9", "10", "100"]
        assert back["view"].isna().equals(frame["view"].isna())

    @pytest.mark.parametrize("column", ["name", "view", "patient", "finding", "x", "wide"])
    def test_a_changed_value_is_found(self, tool, frame, tmp_path, column):
        path = tmp_path / "made.parquet"
        tool.write(tool.to_arrow(frame, self.source(tool, frame)), path)
        tool.check(path, frame)
        changed = frame.copy()
        changed.loc[7, column] = changed[column].iloc[8]
        with pytest.raises(ValueError, match=column):
            tool.check(path, changed)

    def test_a_lost_column_is_found(self, tool, frame, tmp_path):
        path = tmp_path / "made.parquet"
        tool.write(tool.to_arrow(frame, self.source(tool, frame)), path)
        with pytest.raises(ValueError, match="lost"):
            tool.check(path, frame.assign(more=1))
