"""Columns and attributes that code written for 1.5.7 reads from single datasets."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from fakes import BUILDERS
from torchxrayvision import tables

EVERYTHING = {"views": "*", "unique_patients": False}


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    built = {}

    def get(name, **kwargs):
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name)).kwargs
        return getattr(xd, name)(**{**built[name], **kwargs})

    return get


# Columns


def test_nlmtb_has_labels_of_whole_numbers(releases):
    csv = releases("NLMTB_Dataset").csv
    assert csv["label"].dtype == np.int64
    assert csv["label"].tolist() == releases("NLMTB_Dataset").labels[:, 0].tolist()


def test_tbx11k_lists_its_boxes(releases):
    dataset = releases("TBX11K_Dataset", split="trainval")
    boxes = dataset.csv["bbox"]
    assert [] in boxes.tolist()
    assert max(map(len, boxes)) == 3
    assert all(type(number) is float for listed in boxes for box in listed for number in box)
    for i in range(len(dataset)):
        shape = dataset[i]["img"].shape
        scale = np.array([shape[2] / dataset.csv["width"][i], shape[1] / dataset.csv["height"][i]])
        wanted = np.array(boxes[i], np.float32).reshape(-1, 4) * np.tile(scale, 2)
        np.testing.assert_allclose(dataset[i]["bbox"], wanted, rtol=1e-6)
    assert pickle.loads(pickle.dumps(dataset)).csv["bbox"].tolist() == boxes.tolist()


@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
def test_stony_brook_has_its_scores_as_columns(releases, compat):
    dataset = releases("StonyBrookCOVID_Dataset", compat=compat)
    scores = dataset.csv[["Geographic Extent", "Lung Opacity"]].to_numpy()
    np.testing.assert_array_equal(scores.astype(np.float32), dataset.labels)


# Attributes


def test_nih_has_its_boxes_with_columns_and_findings_by_name(releases):
    boxes = releases("NIH_Dataset").pathology_maskscsv
    assert boxes.columns.tolist() == ["Image Index", "Finding Label", "x", "y", "w", "h"]
    assert boxes["Finding Label"].tolist() == ["Infiltration", "Infiltration", "Mass", "Nodule"]
    assert boxes.iloc[0, 2:].tolist() == [100, 200, 300, 400]
    packaged = xd.NIH_Dataset().pathology_maskscsv
    assert packaged.shape == (984, 6)
    assert packaged.dtypes.tolist()[2:] == [np.float64] * 4
    assert set(packaged["Finding Label"]) <= set(xd.NIH_Dataset.spec.findings.names)


def test_rsna_has_both_tables(releases):
    dataset = releases("RSNA_Pneumonia_Dataset")
    pd.testing.assert_frame_equal(dataset.raw_csv, pd.read_csv(dataset.csvpath))
    headers = pd.read_csv(dataset.dicomcsvpath)
    assert dataset.dicomcsv.index.tolist() == headers["PatientID"].tolist()
    assert dataset.dicomcsv.columns.tolist() == [c for c in headers if c != "PatientID"]
    packaged = xd.RSNA_Pneumonia_Dataset()
    assert (packaged.raw_csv.shape, len(packaged.dicomcsv)) == ((30227, 6), 26684)
    assert packaged.raw_csv["Target"].dtype == np.int64


def test_vindr_and_mimic_have_the_tables_of_their_release(releases):
    vindr, mimic = releases("VinDr_Dataset"), releases("MIMIC_Dataset")
    pd.testing.assert_frame_equal(vindr.rawcsv, pd.read_csv(vindr.csvpath))
    assert xd.VinDr_Dataset().rawcsv.shape == (67914, 8)
    assert mimic.metacsv.index.names == ["subject_id", "study_id"]
    assert len(mimic.metacsv) == len(pd.read_csv(mimic.metacsvpath))


def test_openi_has_all_fields_of_the_headers():
    dataset = xd.Openi_Dataset()
    headers = dataset.dicom_metadata
    assert headers.index.name == "imageid"
    assert headers.shape == (7469, len(tables.info("openi_dicom").columns) - 1)
    assert len(dataset._context.tables) == 0  # nothing of it is kept


def test_a_table_of_the_callers_that_is_not_kept_is_not_replaced_by_another(releases):
    given = pd.read_csv(releases("RSNA_Pneumonia_Dataset").dicomcsvpath)
    dataset = releases("RSNA_Pneumonia_Dataset", dicomcsvpath=given)
    assert not hasattr(dataset, "dicomcsv")
    with pytest.raises(AttributeError, match="dicomcsvpath is not kept"):
        _ = dataset.dicomcsv
    assert hasattr(pickle.loads(pickle.dumps(releases("RSNA_Pneumonia_Dataset"))), "dicomcsv")


def test_a_callers_change_to_such_a_table_changes_no_mask(releases):
    dataset = releases("NIH_Dataset", **EVERYTHING, pathology_masks=True)
    marked = int(np.flatnonzero(dataset.csv["has_masks"])[0])
    before = dataset[marked]["pathology_masks"]
    boxes = dataset.pathology_maskscsv
    boxes["x"] = 0
    for key, mask in dataset[marked]["pathology_masks"].items():
        np.testing.assert_array_equal(mask, before[key])


def test_lungs_of_covid_images_are_found_by_name(releases):
    dataset = releases("COVID19_Dataset")
    name = str(tables.load("covid_lungs")["filename"].iloc[0])
    masks = dataset.get_semantic_mask_dict(name, (1, 64, 48))
    assert list(masks) == ["Lungs"]
    assert (masks["Lungs"].shape, masks["Lungs"].dtype) == ((1, 64, 48), np.float32)
    assert dataset.get_semantic_mask_dict("nowhere.png", (64, 48)) == {}


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_of_any_type_stays_an_attribute(tmp_path, kind):
    given = BUILDERS["NIH_Dataset"](tmp_path).kwargs
    dataset = xd.NIH_Dataset(**{name: kind(path) for name, path in given.items()})
    assert dataset.csvpath == kind(given["csvpath"])
    assert dataset.bbox_list_path == kind(given["bbox_list_path"])
    assert not hasattr(xd.NIH_Dataset(csvpath=pd.read_csv(given["csvpath"])), "csvpath")
