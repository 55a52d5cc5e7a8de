"""Datasets of drawn annotations: options, official files that are missing, raw annotations."""

import json

import numpy as np
import pytest

import torchxrayvision.datasets as xd
from fakes import BUILDERS
from torchxrayvision.errors import DatasetError, DatasetNotFoundError


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """A builder's release by the name of its class, built once."""
    built = {}

    def get(name):
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name))
        return built[name]

    return get


def test_chestxdet_needs_one_of_its_files(fake, tmp_path):
    context = fake("ChestXDet_Dataset")
    with pytest.raises(DatasetError, match="train_json or test_json"):
        xd.ChestXDet_Dataset(tmp_path)
    alone = xd.ChestXDet_Dataset(test_json=context.kwargs["test_json"])
    assert [alone.image_path(i) for i in range(len(alone))] == context.splits["test"]
    assert set(xd.official_splits(alone)) == {"test"}


def test_chestxdet_finds_its_files_beside_the_images(fake):
    context = fake("ChestXDet_Dataset")
    assert len(xd.ChestXDet_Dataset(context.kwargs["imgpath"])) == len(context.labels)


def test_chestxdet10_has_ten_findings_and_masks_of_boxes(fake):
    context = fake("ChestXDet_Dataset")
    ten = xd.ChestXDet_Dataset(**context.kwargs, version="ChestX-Det10", pathology_masks=True)
    assert len(ten.pathologies) == 10
    assert {"Cardiomegaly", "Diffuse Nodule", "Pleural_Thickening"}.isdisjoint(ten.pathologies)
    sample = ten[2]
    assert sample["lab"].sum() == 1
    assert list(sample["pathology_masks"]) == [ten.pathologies.index("Mass")]
    with pytest.raises(DatasetError, match="'ChestX-Det10', got 'Det10'"):
        xd.ChestXDet_Dataset(**context.kwargs, version="Det10")


def test_chestxdet_refuses_json_of_another_form(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(DatasetError, match=r"train_json=.*no list of objects"):
        xd.ChestXDet_Dataset(train_json=path)
    path.write_text(json.dumps([{"name": "a.png"}]))
    with pytest.raises(DatasetError, match="no column 'file_name'"):
        xd.ChestXDet_Dataset(train_json=path)


def test_chestxdet_scales_outlines_to_smaller_copies(tmp_path):
    from fakes._fake import write_image

    write_image(tmp_path / "1.png", (512, 512))
    corners = [[100, 200], [300, 200], [300, 400], [100, 400]]
    entry = {"file_name": "1.png", "syms": ["Mass"], "boxes": [[100, 200, 300, 400]]}
    path = tmp_path / "ChestX_Det_train.json"
    for polygons in ([corners], []):
        path.write_text(json.dumps([{**entry, "polygons": polygons}]))
        sample = xd.ChestXDet_Dataset(tmp_path, pathology_masks=True)[0]
        (mask,) = sample["pathology_masks"].values()
        assert np.argwhere(mask[0]).min(axis=0).tolist() == [100, 50]
        assert np.argwhere(mask[0]).max(axis=0).tolist() == [199, 149]
        assert sample["bbox"].tolist() == [[50, 100, 100, 100]]


def test_annotations_are_those_of_the_image_in_the_order_of_its_boxes(fake):
    context = fake("ChestXDet_Dataset")
    dataset = xd.ChestXDet_Dataset(**context.kwargs)
    drawn = dataset.annotations(0)
    assert drawn["finding"].tolist() == ["Effusion", "Effusion", "Pleural Thickening"]
    assert drawn["x_min"].tolist() == dataset[0]["bbox"][:, 0].tolist()
    assert len(dataset.annotations(1)) == 0
    with pytest.raises(IndexError):
        dataset.annotations(6)


def test_mscxr_keeps_the_phrase_of_each_box(fake):
    dataset = xd.MSCXR_Dataset(**fake("MSCXR_Dataset").kwargs)
    drawn = dataset.annotations(0)
    assert drawn["label_text"].tolist()[0] == "right, lower lobe opacity"
    assert drawn["category_name"].tolist() == ["Pneumonia", "Pneumonia", "Pleural Effusion"]
    assert len(drawn) == len(dataset[0]["bbox"])


def test_mscxr_of_version_1_0_0_has_no_split_and_may_lack_the_first_folder(fake, tmp_path):
    context = fake("MSCXR_Dataset")
    lines = context.kwargs["csvpath"].read_text().splitlines()
    older = tmp_path / "MS_CXR_Local_Alignment_v1.0.0.csv"
    older.write_text("\n".join(line.rpartition(",")[0].replace("files/", "") for line in lines))
    dataset = xd.MSCXR_Dataset(context.kwargs["imgpath"], older)
    assert [dataset.image_path(i) for i in range(len(dataset))] == list(context.labels)
    with pytest.raises(DatasetError, match="no official split"):
        xd.official_splits(dataset)
    dataset.check_paths_exist()


def test_mscxr_names_the_place_of_a_missing_image(fake, tmp_path):
    dataset = xd.MSCXR_Dataset(tmp_path, fake("MSCXR_Dataset").kwargs["csvpath"])
    with pytest.raises(DatasetNotFoundError, match=r"files/p10/p10000032/s50414267"):
        dataset[0]


def test_reflacx_thresholds_the_mean_certainty(fake):
    kwargs = fake("REFLACX_Dataset").kwargs
    for threshold, atelectasis, mass, edema in ((1, 1, 1, 1), (2.5, 1, 1, 0), (4, 0, 0, 0)):
        dataset = xd.REFLACX_Dataset(**kwargs, threshold=threshold)
        row = dict(zip(dataset.pathologies, dataset.labels[0].tolist(), strict=True))
        assert (row["Atelectasis"], row["Mass"], row["Edema"]) == (atelectasis, mass, edema)
        assert row["Support Devices"] == 1  # seen or not, whatever the threshold
    assert dataset.csv["Atelectasis"][0] == 3.5
    assert dataset.csv["readers"].tolist() == [2, 1, 1]


def test_reflacx_keeps_reader_and_certainty_of_each_ellipse(fake):
    kwargs = fake("REFLACX_Dataset").kwargs
    drawn = xd.REFLACX_Dataset(**kwargs).annotations(0)
    assert set(drawn["id"]) == {"P101R000001", "P101R000002"}
    assert drawn["certainty"].min() == 3
    every = xd.REFLACX_Dataset(**kwargs, threshold=1).annotations(0)
    assert len(every) == len(drawn) + 1


def test_reflacx_phases_and_formats(fake):
    kwargs = fake("REFLACX_Dataset").kwargs
    assert len(xd.REFLACX_Dataset(**kwargs, phases=1)) == 2
    third = xd.REFLACX_Dataset(**kwargs, phases=[3], image_format="dicom")
    assert third.image_path(0).endswith("s58733084/2a2277a9-b0ded155.dcm")
    with pytest.raises(DatasetError, match=r"no phase \(2,\)"):
        xd.REFLACX_Dataset(**kwargs, phases=2)
    beside = dict(kwargs, reflacxpath=kwargs["reflacxpath"] / "main_data")
    assert len(xd.REFLACX_Dataset(**beside)) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"phases": 4}, "some of 1, 2 and 3, got 4"),
        ({"phases": ()}, "some of 1, 2 and 3"),
        ({"threshold": 0}, "above 0 and at most 5, got 0"),
        ({"threshold": 6}, "above 0 and at most 5"),
        ({"image_format": "png"}, "'jpg' or 'dicom', got 'png'"),
    ],
)
def test_reflacx_refuses_what_makes_no_sense(fake, arguments, said):
    with pytest.raises(DatasetError, match=said):
        xd.REFLACX_Dataset(**fake("REFLACX_Dataset").kwargs, **arguments)


def test_reflacx_says_what_a_folder_lacks(tmp_path):
    with pytest.raises(DatasetError, match=r"reflacxpath=.*no metadata_phase_1\.csv"):
        xd.REFLACX_Dataset(reflacxpath=tmp_path)


def test_padchest_gr_has_raw_labels_on_request(fake):
    kwargs = fake("PadChestGR_Dataset").kwargs
    raw = xd.PadChestGR_Dataset(**kwargs, findings="raw", pathology_masks=True)
    assert raw.pathologies == [
        *("Consolidation", "cardiomegaly", "nodule", "pleural effusion", "pseudonodule"),
        "scoliosis",
    ]
    assert raw.labels.sum(axis=0).tolist() == [1, 1, 1, 1, 1, 1]
    found = raw[0]["pathology_masks"]
    assert {raw.pathologies[j] for j in found} == {"Consolidation", "nodule", "pleural effusion"}
    with pytest.raises(DatasetError, match="'padchest' or 'raw'"):
        xd.PadChestGR_Dataset(**kwargs, findings="all")


def test_padchest_gr_keeps_sentences_groups_and_extra_boxes(fake):
    kwargs = fake("PadChestGR_Dataset").kwargs
    dataset = xd.PadChestGR_Dataset(**kwargs)
    drawn = dataset.annotations(0)
    assert drawn["sentence_en"].tolist()[2] == "Consolidation with a nodule."
    assert drawn["labels"].tolist()[2] == "Consolidation|nodule"
    assert dataset.csv["label_groups"].tolist()[:2] == ["Consolidation|Nodule|Pleural effusion", ""]
    more = xd.PadChestGR_Dataset(**kwargs, extra_boxes=True)
    assert len(more.annotations(0)) == len(drawn) + 1


def test_padchest_gr_finds_its_tables_beside_the_images(fake):
    dataset = xd.PadChestGR_Dataset(fake("PadChestGR_Dataset").kwargs["imgpath"])
    assert (len(dataset), len(dataset[0]["bbox"])) == (5, 3)


def test_padchest_gr_keeps_all_digits_of_its_numbers(fake):
    dataset = xd.PadChestGR_Dataset(**fake("PadChestGR_Dataset").kwargs)
    assert dataset.csv["StudyID"][1] == "20536686640136348236148679891891455886461"
