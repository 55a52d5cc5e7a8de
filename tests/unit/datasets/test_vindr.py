"""VinDr-CXR in its two forms: readers one by one and in agreement."""

from __future__ import annotations

import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from fakes import vindr
from fakes._fake import write_dicom, write_text
from torchxrayvision.errors import DatasetError, ViewError
from torchxrayvision.labels import VINDR14, VINDR_GLOBAL, VINDR_LOCAL


def present(dataset):
    return {finding: counts.get(1.0, 0) for finding, counts in dataset.totals().items()}


@pytest.fixture
def vindr_fake(tmp_path):
    return vindr.build(tmp_path)


@pytest.mark.parametrize(
    ("consensus", "found"),
    [
        (
            "any",
            {
                vindr.IDS[1]: {"Other Lesion", "Pulmonary Fibrosis"},
                vindr.IDS[2]: {"Cardiomegaly", "Effusion"},
                vindr.IDS[3]: {"Pleural_Thickening", "Lung Opacity"},
            },
        ),
        (
            "majority",
            {
                vindr.IDS[1]: {"Pulmonary Fibrosis"},
                vindr.IDS[2]: {"Cardiomegaly", "Effusion"},
                vindr.IDS[3]: {"Lung Opacity"},
            },
        ),
        ("all", {vindr.IDS[2]: {"Cardiomegaly"}}),
    ],
)
def test_labels_and_masks_follow_the_agreement_of_the_readers(vindr_fake, consensus, found):
    dataset = xd.VinDr_Dataset(**vindr_fake.kwargs, consensus=consensus)
    labels = pd.DataFrame(dataset.labels, dataset.csv["image_id"], dataset.pathologies)
    for image in vindr.IDS:
        assert set(labels.columns[labels.loc[image] == 1]) == found.get(image, set())
        masks = dataset.get_mask_dict(image, (64, 48))
        drawn = {dataset.pathologies[j] for j in masks}
        assert drawn == found.get(image, set()) - {"Pleural_Thickening"}  # its box has no area
    marked = dataset.csv.set_index("image_id")["has_masks"]
    assert {image for image in vindr.IDS if marked[image]} == set(found)


def test_an_unknown_consensus_is_refused():
    with pytest.raises(DatasetError, match="majority"):
        xd.VinDr_Dataset(consensus="two")


def test_vindr_agreement_counts():
    counts = {name: xd.VinDr_Dataset(consensus=name).labels.sum() for name in ("any", "majority")}
    assert counts == {"any": 15_365, "majority": 8825}  # 6,540 findings are those of one reader


def test_readers_are_kept_one_by_one(vindr_fake):
    dataset = xd.VinDr_Dataset(**vindr_fake.kwargs)
    rows = dataset.csv.set_index("image_id")
    assert rows.loc[vindr.IDS[2], "rad_id"] == "R10|R8|R9"
    assert rows.loc[vindr.IDS[0], ["rad_id", "class_name"]].tolist() == [
        "R11|R15|R16",
        "No finding",
    ]
    assert rows.loc[vindr.IDS[2], ["readers", "Cardiomegaly", "Pleural effusion"]].tolist() == [
        3,
        3,
        2,
    ]
    table = dataset.reader_labels().set_index(["image_id", "rad_id"])
    assert len(table) == 3 + 3 + 3 + 3
    assert table.loc[(vindr.IDS[2], "R8"), "Effusion"] == 0
    assert table.loc[(vindr.IDS[2], "R9"), ["Cardiomegaly", "Effusion"]].tolist() == [1, 1]
    assert tuple(table.columns) == VINDR14
    assert len(xd.VinDr_Dataset().reader_labels()) == 45_000


def test_every_image_of_vindr_is_pa():
    assert len(xd.VinDr_Dataset(views=["PA", "AP"])) == 15_000
    with pytest.raises(ViewError, match="PA"):
        xd.VinDr_Dataset(views=["AP"])
    assert xd.VinBrain_Dataset is xd.VinDr_Dataset


CLASSES = [
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture"),
    *("Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity"),
    *("Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion"),
    *("Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion"),
    *("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding"),
]


def physionet(folder, part):
    """Tables of PhysioNet: three readers in the training part, the common result in the test."""
    other = "Other diseases" if part == "train" else "Other disease"
    names = [other if name == "Other diseases" else name for name in CLASSES]
    said = {
        ("aa", "R1"): {"Rib fracture", "COPD"},
        ("aa", "R2"): {"Rib fracture", "COPD", other},
        ("aa", "R3"): {"No finding"},
        ("bb", "R1"): {"No finding"},
        ("bb", "R2"): {"No finding"},
        ("bb", "R4"): {"Pleural effusion", "Tuberculosis"},
    }
    boxes = [
        ("aa", "R1", "Rib fracture", "1.5,2.5,10.5,12.5"),
        ("aa", "R2", "Rib fracture", "5.0,5.0,20.0,20.0"),
        ("aa", "R3", "No finding", ",,,"),
        ("bb", "R1", "No finding", ",,,"),
        ("bb", "R2", "No finding", ",,,"),
        ("bb", "R4", "Pleural effusion", "0.0,0.0,4.0,4.0"),
    ]
    if part == "test":
        said = {("aa", ""): {"Rib fracture", other}, ("bb", ""): {"No finding"}}
        boxes = [boxes[0], boxes[3]]
    reader = "rad_id," if part == "train" else ""
    labels = [f"image_id,{reader}{','.join(names)}"]
    for (image, who), found in said.items():
        row = ",".join(str(int(name in found)) for name in names)
        labels.append(f"{image},{who + ',' if reader else ''}{row}")
    drawn = [f"image_id,{reader}class_name,x_min,y_min,x_max,y_max"]
    drawn += [f"{i},{who + ',' if reader else ''}{name},{xy}" for i, who, name, xy in boxes]
    for image in ("aa", "bb"):
        write_dicom(folder / part / f"{image}.dicom", (40, 30), bits=14)
    return (
        write_text(folder / f"annotations_{part}.csv", drawn),
        write_text(folder / f"image_labels_{part}.csv", labels),
    )


def test_vindr_of_physionet_has_22_findings_with_boxes(tmp_path):
    boxes, _ = physionet(tmp_path, "train")
    dataset = xd.VinDr_Dataset(tmp_path, boxes, pathology_masks=True)
    assert dataset.pathologies == sorted(VINDR_LOCAL)
    assert {f for f, n in present(dataset).items() if n} == {"Rib fracture", "Effusion"}
    mask = dataset[0]["pathology_masks"][dataset.pathologies.index("Rib fracture")]
    assert mask.shape == (1, 40, 30)
    assert mask.sum() == 9 * 10 + 15 * 15 - 5 * 7


def test_vindr_of_physionet_has_27_findings_with_its_labels(tmp_path):
    boxes, labels = physionet(tmp_path, "train")
    dataset = xd.VinDr_Dataset(tmp_path, boxes, labels_path=labels, consensus="majority")
    assert dataset.pathologies == sorted((*VINDR_LOCAL, *VINDR_GLOBAL))
    assert {f for f, n in present(dataset).items() if n} == {"Rib fracture", "COPD"}
    assert dataset.csv["has_masks"].tolist() == [True, False]
    each = xd.VinDr_Dataset(tmp_path, boxes, labels_path=labels).reader_labels()
    assert each["rad_id"].tolist() == ["R1", "R2", "R3", "R1", "R2", "R4"]
    assert each["Other disease"].tolist() == [0, 1, 0, 0, 0, 0]
    assert each["Tuberculosis"].tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("consensus", ["any", "majority", "all"])
def test_the_common_result_of_the_test_part_is_one_reader(tmp_path, consensus):
    boxes, labels = physionet(tmp_path, "test")
    dataset = xd.VinDr_Dataset(tmp_path, boxes, labels_path=labels, consensus=consensus)
    assert {f for f, n in present(dataset).items() if n} == {"Rib fracture", "Other disease"}
    assert dataset.csv["readers"].tolist() == [1, 1]
    assert set(dataset.reader_labels()["rad_id"]) == {"consensus"}
    assert dataset[0]["img"].shape == (1, 40, 30)
