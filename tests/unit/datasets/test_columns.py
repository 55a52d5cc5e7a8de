"""Tables whose columns were renamed by their release, or left out by whoever passes them."""

from __future__ import annotations

import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from fakes import BUILDERS
from support.tiny import Tiny, rows
from torchxrayvision.datasets.releases.stonybrook import read_scores
from torchxrayvision.datasets.split import patients
from torchxrayvision.datasets.storage import plain_text
from torchxrayvision.errors import DatasetError
from torchxrayvision.labels import VINDR14


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    built = {}

    def get(name):
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name))
        return built[name].kwargs

    return get


@pytest.mark.parametrize("name", ["NIH_Dataset", "NIH_Google_Dataset"])
@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
def test_nih_calls_the_sex_patient_gender_or_patient_sex(releases, name, compat):
    kwargs = {**releases(name), "views": "*", "unique_patients": False, "compat": compat}
    old = pd.read_csv(kwargs["csvpath"])
    new = old.rename(columns={"Patient Gender": "Patient Sex"})
    assert list(new) != list(old)
    before = getattr(xd, name)(**kwargs).csv
    after = getattr(xd, name)(**{**kwargs, "csvpath": new}).csv
    for column in ("sex_male", "sex_female"):
        assert 0 < after[column].sum() < len(after)
        assert after[column].tolist() == before[column].tolist()
    assert "Patient Sex" in after


NEEDED = {
    "NIH_Dataset": {
        "csvpath": ["Image Index", "Finding Labels", "View Position", "Patient ID", "Patient Age",
                    "Patient Gender"],
        "bbox_list_path": ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"],
    },
    "NIH_Google_Dataset": {
        "csvpath": ["Image Index", "View Position", "Patient ID", "Patient Age",
                    "Patient Gender", "Fracture"],
    },
    "RSNA_Pneumonia_Dataset": {
        "csvpath": ["patientId", "Target", "x", "y", "width", "height"],
        "dicomcsvpath": ["PatientID", "ViewPosition", "PatientAge", "PatientSex"],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "argument", "column"),
    [
        (name, argument, column)
        for name, tables in NEEDED.items()
        for argument, columns in tables.items()
        for column in columns
    ],
)
def test_a_missing_column_is_named(releases, name, argument, column):
    kwargs = releases(name)
    table = pd.read_csv(kwargs[argument]).drop(columns=column)
    for others in (kwargs, {}):  # with the packaged tables beside it, too
        with pytest.raises(DatasetError, match=f"{name}.*no column.*") as caught:
            getattr(xd, name)(**{**others, argument: table})
        assert repr(column) in str(caught.value)


def test_a_table_of_masks_that_lacks_columns_is_named_by_its_argument(releases):
    kwargs = releases("NIH_Dataset")
    boxes = pd.read_csv(kwargs["bbox_list_path"]).drop(columns="h]")
    with pytest.raises(DatasetError, match="table bbox_list_path has no column 'h]'"):
        xd.NIH_Dataset(**{**kwargs, "bbox_list_path": boxes})


@pytest.mark.parametrize("column", ["position", "subject", "age", "sex"])
def test_every_rule_of_a_spec_names_the_column_that_it_misses(column):
    with pytest.raises(DatasetError, match=f"Tiny.*no column '{column}'"):
        Tiny(csvpath=rows().drop(columns=column), unique_patients=True)


# Blanks, which the oldest pandas that is supported turns into the text "nan"

BLANK = {
    "Openi_Dataset": ("dicomcsv_path", "View Position"),
    "CheXpertPlus_Dataset": ("csvpath", "ap_pa"),
    "HannoverCOVID_Dataset": ("csvpath", "projection"),
}


@pytest.mark.parametrize("name", BLANK)
def test_a_blank_view_is_unknown(releases, name):
    argument, column = BLANK[name]
    kwargs = {**releases(name), "views": "*", "unique_patients": False}
    table = pd.read_csv(kwargs[argument])
    table[column] = table[column].astype(object).where(table.index % 2 == 0)
    views = set(getattr(xd, name)(**{**kwargs, argument: table}).csv["view"])
    assert "UNKNOWN" in views
    assert not {"nan", "NAN", "None"} & views


@pytest.mark.parametrize("kind", ["object", "str", "category", "string"])
def test_a_blank_patient_is_nobody(kind):
    subject = pd.Series(["7", None, "8", None], dtype=kind)
    dataset = Tiny(csvpath=rows().assign(subject=subject))
    assert dataset.csv["patientid"].isna().tolist() == [False, True, False, True]
    assert xd.describe(dataset)["patients"] == 2
    assert len(set(patients(dataset))) == 4


@pytest.mark.parametrize(
    "column", [pd.Series([1.5, None]), pd.Series([1, None], dtype="Int64"), pd.Series([1, 2])]
)
def test_numbers_become_text_and_blanks_stay(column):
    text = plain_text(column)
    assert text.isna().tolist() == column.isna().tolist()
    assert text.dropna().tolist() == [str(value) for value in column.dropna()]


def test_reports_without_terms_have_no_term_nan(releases):
    from torchxrayvision.datasets.releases.openi import read_openi_reports

    kwargs = {**releases("Openi_Dataset"), "views": "*", "unique_patients": False}
    table = read_openi_reports(kwargs["xmlpath"])
    blank = pd.Series([float("nan")] * len(table), dtype=object)
    table = table.assign(labels_major=blank, labels_automatic=blank)
    table.loc[0, "labels_major"] = "normal"
    dataset = xd.Openi_Dataset(**{**kwargs, "xmlpath": table})
    assert dataset.csv["terms"].tolist() == ["normal|", *["|"] * (len(table) - 1)]


# Rows and findings of 1.5.7


@pytest.fixture(scope="module")
def ralo(tmp_path_factory):
    context = BUILDERS["StonyBrookCOVID_Dataset"](tmp_path_factory.mktemp("ralo")).kwargs
    return context["imgpath"], read_scores(context["csvpath"])


@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
def test_rows_of_stony_brook_that_somebody_kept_are_shown_with_their_own_images(ralo, compat):
    folder, table = ralo
    whole = xd.StonyBrookCOVID_Dataset(folder, table, compat=compat)
    some = xd.StonyBrookCOVID_Dataset(folder, table.iloc[[2, 4]], compat=compat)
    assert [some.image_path(i) for i in range(2)] == ["2.jpg", "4.jpg"]
    for i, row in enumerate((2, 4)):
        assert some[i]["img"].shape == whole[row]["img"].shape == (1, 64 + row, 48)
        assert some[i]["lab"].tolist() == pytest.approx(whole[row]["lab"].tolist(), nan_ok=True)


@pytest.mark.parametrize("index", [list("abcde"), [0, 1, 1, 2, 3], [0.5, 1, 2, 3, 4]])
def test_a_table_of_stony_brook_without_row_numbers_is_refused(ralo, index):
    folder, table = ralo
    with pytest.raises(DatasetError, match=r"row numbers.*read_csv"):
        xd.StonyBrookCOVID_Dataset(folder, table.set_axis(index))


def test_boxes_of_physionet_give_the_findings_of_1_5_7_on_request(releases):
    kwargs = releases("VinDr_Dataset")
    table = pd.read_csv(kwargs["csvpath"]).drop(columns="class_id")  # PhysioNet has none
    table.loc[0, "class_name"] = "Rib fracture"
    boxes = {**kwargs, "csvpath": table}
    assert len(xd.VinDr_Dataset(**boxes).pathologies) == 22
    old = xd.VinDr_Dataset(**boxes, compat="xrv-1.5", pathology_masks=True)
    assert tuple(old.pathologies) == VINDR14
    assert len(old) == table["image_id"].nunique()
    assert old.labels.sum() > 0
    assert all(key < 14 for i in range(len(old)) for key in old[i]["pathology_masks"])
