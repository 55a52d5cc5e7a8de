"""Options and tolerances of datasets that the contract does not reach."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import torchxrayvision.datasets as xd
from fakes import BUILDERS, nlmtb
from torchxrayvision.errors import DatasetError


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """A builder's release by the name of its class, built once."""
    built = {}

    def get(name):
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name))
        return built[name]

    return get


@pytest.mark.parametrize(
    ("image_format", "ending"), [("png", ".png"), ("dicom", ".dcm"), ("jpg", ".jpg")]
)
def test_chexpert_plus_reads_the_format_asked_for(fake, image_format, ending):
    kwargs = fake("CheXpertPlus_Dataset").kwargs
    dataset = xd.CheXpertPlus_Dataset(**kwargs, image_format=image_format)
    assert dataset.image_path(0).endswith(f"view1_frontal{ending}")


def test_chexpert_plus_refuses_another_format(fake):
    with pytest.raises(DatasetError, match="'png', 'dicom' or 'jpg', got 'tiff'"):
        xd.CheXpertPlus_Dataset(**fake("CheXpertPlus_Dataset").kwargs, image_format="tiff")


def test_chexpert_plus_knows_no_labels_without_a_label_file(fake):
    kwargs = dict(fake("CheXpertPlus_Dataset").kwargs, labelpath=None)
    dataset = xd.CheXpertPlus_Dataset(**kwargs, views="*", unique_patients=False)
    assert len(dataset.pathologies) == 13
    assert np.isnan(dataset.labels).all()


def test_chexpert_plus_keeps_no_text_of_the_reports(fake):
    kwargs = fake("CheXpertPlus_Dataset").kwargs
    from_frame = dict(kwargs, csvpath=pd.read_csv(kwargs["csvpath"]))
    for arguments in (kwargs, from_frame):
        columns = set(xd.CheXpertPlus_Dataset(**arguments).csv)
        assert not [name for name in columns if name == "report" or name.startswith("section_")]
        assert {"race", "insurance_type", "patient_report_date_order"} <= columns


def test_chexpert_plus_takes_labels_from_a_csv_too(fake, tmp_path):
    kwargs = fake("CheXpertPlus_Dataset").kwargs
    wanted = xd.CheXpertPlus_Dataset(**kwargs, views="*", unique_patients=False)
    path = tmp_path / "labels.csv"
    pd.read_json(kwargs["labelpath"], lines=True).to_csv(path, index=False)
    found = xd.CheXpertPlus_Dataset(
        **dict(kwargs, labelpath=path), views="*", unique_patients=False
    )
    np.testing.assert_array_equal(found.labels, wanted.labels)


def test_chexpert_plus_refuses_labels_of_another_form(fake):
    kwargs = dict(fake("CheXpertPlus_Dataset").kwargs, labelpath=pd.DataFrame({"a": [1]}))
    with pytest.raises(DatasetError, match="no column 'path_to_image'"):
        xd.CheXpertPlus_Dataset(**kwargs)


def test_candid_knows_nothing_of_tables_that_were_not_given(fake):
    kwargs = dict(fake("CANDIDPTX_Dataset").kwargs, chest_tube_csvpath=None)
    dataset = xd.CANDIDPTX_Dataset(**kwargs)
    tube = dataset.pathologies.index("Chest Tube")
    assert np.isnan(dataset.labels[:, tube]).all()
    assert not np.isnan(np.delete(dataset.labels, tube, axis=1)).any()


def test_candid_names_the_columns_that_a_table_lacks(fake):
    kwargs = dict(fake("CANDIDPTX_Dataset").kwargs, chest_tube_csvpath=pd.DataFrame({"a": [1]}))
    with pytest.raises(DatasetError, match=r"Chest Tube.*anon_SOPUID.*mask_rle.*\['a'\]"):
        xd.CANDIDPTX_Dataset(**kwargs)


def test_hannover_reads_both_letters_for_women_and_tables_without_ages():
    table = pd.DataFrame(
        {"patient_id": ["a", "b"], "image_id": ["x", "y"], "projection": ["ap", " PA"]}
    )
    bare = xd.HannoverCOVID_Dataset(csvpath=table)
    assert bare.labels.tolist() == [[1.0], [1.0]]
    assert bare.csv["view"].tolist() == ["AP", "PA"]
    assert bare.csv["offset_day_int"].isna().all()
    dataset = xd.HannoverCOVID_Dataset(csvpath=table.assign(sex=["w", "f"], age=[130, 40]))
    assert dataset.csv["sex_female"].tolist() == [True, True]
    assert np.isnan(dataset.csv["age_years"][0])


@pytest.mark.parametrize("name", ["ChestMNIST_Dataset", "PneumoniaMNIST_Dataset"])
def test_medmnist_maps_its_images_instead_of_holding_them(fake, name):
    dataset = getattr(xd, name)(**fake(name).kwargs)
    with np.load(fake(name).kwargs["npzpath"]) as arrays:
        wanted = np.concatenate([arrays[f"{split}_images"] for split in ("train", "val", "test")])
    for i, image in enumerate(wanted):
        found = dataset[i]["img"]
        assert (found.shape, found.dtype) == ((1, *image.shape), np.float32)
        np.testing.assert_allclose(found[0], image / 255 * 2048 - 1024, atol=1e-3)
    assert len(pickle.dumps(dataset)) < 20_000
    assert all(isinstance(path, Path) for path in dataset._context.cache.values())


def test_medmnist_unpacks_again_where_the_cache_was_emptied(fake, tmp_path, monkeypatch):
    dataset = xd.ChestMNIST_Dataset(**fake("ChestMNIST_Dataset").kwargs)
    wanted = dataset[0]["img"]
    for kept in dataset._context.cache.values():
        kept.unlink()
    np.testing.assert_array_equal(dataset[0]["img"], wanted)
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XRV_CACHE_DIR", str(blocked))
    other = xd.ChestMNIST_Dataset(**fake("ChestMNIST_Dataset").kwargs)
    with pytest.raises(DatasetError, match="XRV_CACHE_DIR"):
        other[0]


def test_medmnist_reads_an_archive_that_was_replaced(fake, tmp_path):
    path = tmp_path / "pneumoniamnist.npz"
    shutil.copy(fake("PneumoniaMNIST_Dataset").kwargs["npzpath"], path)
    dataset = xd.PneumoniaMNIST_Dataset(path)
    before = dataset[0]["img"]
    with np.load(path) as arrays:
        others = {key: 255 - array if "images" in key else array for key, array in arrays.items()}
    np.savez_compressed(path, **others)
    np.testing.assert_allclose(dataset[0]["img"], -before, atol=1e-3)


def test_medmnist_refuses_other_archives(fake, tmp_path):
    with pytest.raises(DatasetError, match=r"labels of shape \(4, 14\).*\(N, 1\)"):
        xd.PneumoniaMNIST_Dataset(fake("ChestMNIST_Dataset").kwargs["npzpath"])
    other = tmp_path / "other.npz"
    np.savez(other, a=np.zeros(3))
    with pytest.raises(DatasetError, match="no archive of MedMNIST"):
        xd.ChestMNIST_Dataset(other)
    other.write_bytes(b"no archive")
    with pytest.raises(DatasetError, match="no archive of MedMNIST"):
        xd.ChestMNIST_Dataset(other)


def test_medmnist_executes_nothing_that_an_archive_holds(tmp_path):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.zeros((1, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.array([[Hostile()]], dtype=object)
    np.savez(tmp_path / "hostile.npz", **arrays)
    with pytest.raises(DatasetError, match="no archive of MedMNIST"):
        xd.PneumoniaMNIST_Dataset(tmp_path / "hostile.npz")
    assert not (tmp_path / "executed").exists()


def test_vindr_pcxr_takes_one_part_and_knows_no_findings_without_boxes(fake, tmp_path):
    context = fake("VinDrPCXR_Dataset")
    alone = xd.VinDrPCXR_Dataset(test_csvpath=context.kwargs["test_csvpath"])
    assert [alone.image_path(i) for i in range(len(alone))] == context.splits["test"]
    column = alone.labels[:, alone.pathologies.index("Consolidation")]
    assert np.isnan(column).all()
    assert alone.labels[0, alone.pathologies.index("Pneumonia")] == 1
    with pytest.raises(DatasetError, match="train_csvpath or test_csvpath"):
        xd.VinDrPCXR_Dataset(tmp_path)


def test_vindr_pcxr_finds_its_tables_beside_the_images(fake):
    context = fake("VinDrPCXR_Dataset")
    dataset = xd.VinDrPCXR_Dataset(context.kwargs["imgpath"])
    assert len(dataset) == len(context.labels)
    assert dataset.annotations(0)["class_name"].tolist()[2] == "Pleural effusion"


@pytest.mark.parametrize(
    "name",
    [
        *("CSV_Dataset", "MSCXR_Dataset", "CheXpertPlus_Dataset", "CANDIDPTX_Dataset"),
        *("HannoverCOVID_Dataset", "REFLACX_Dataset", "PadChestGR_Dataset"),
    ],
)
def test_compat_changes_nothing_where_1_5_7_has_no_such_dataset(fake, name):
    kwargs = {**fake(name).kwargs, "unique_patients": True}
    ours, theirs = (getattr(xd, name)(**kwargs, compat=way) for way in (None, "xrv-1.5"))
    assert [ours.image_path(i) for i in range(len(ours))] == [
        theirs.image_path(i) for i in range(len(theirs))
    ]
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    pd.testing.assert_frame_equal(ours.csv, theirs.csv)


@pytest.mark.parametrize("given", [False, True], ids=["below imgpath", "given"])
def test_masks_of_nlmtb_follow_the_folder_of_the_images_unless_they_were_given(tmp_path, given):
    for name, rows in (("old", None), ("new", 7)):
        nlmtb.build_shenzhen(tmp_path / name)
        (mask,) = (tmp_path / name / "masks").iterdir()
        shape = np.asarray(Image.open(mask)).shape
        nlmtb.write_mask(mask, np.arange(shape[0])[:, None] + np.zeros(shape) < (rows or shape[0]))
    where = {"maskpath": tmp_path / "old" / "masks"} if given else {}
    dataset = xd.NLMTB_Dataset(tmp_path / "old", semantic_masks=True, **where)
    assert dataset[0]["semantic_masks"]["Lungs"].all()
    dataset.imgpath = tmp_path / "new"
    mask = dataset[0]["semantic_masks"]["Lungs"]
    assert mask.all() if given else mask.any(axis=(0, 2)).sum() == 7
    again = pickle.loads(pickle.dumps(dataset))
    again.imgpath = str(tmp_path / "old")
    assert again[0]["semantic_masks"]["Lungs"].all()
