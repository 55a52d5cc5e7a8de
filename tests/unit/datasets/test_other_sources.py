"""COVID-19, NLM-TB, TBX11K, Stony Brook, object-CXR: what the contract does not look for."""

from __future__ import annotations

import pickle
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from fakes import covid19, nlmtb, objectcxr, stonybrook, tbx11k
from fakes._fake import NAN, area, write_text
from torchxrayvision.datasets.releases.nlmtb import read_age, read_sex
from torchxrayvision.datasets.releases.objectcxr import shapes
from torchxrayvision.errors import DatasetError, DatasetNotFoundError


def column(dataset, finding):
    return dataset.labels[:, dataset.pathologies.index(finding)].tolist()


def paths(dataset):
    return [dataset.image_path(i) for i in range(len(dataset))]


class TestCovid19:
    @pytest.mark.parametrize("era", "abc")
    def test_the_early_tables_are_read(self, tmp_path, era):
        context = covid19.build_era(tmp_path, era)
        dataset = xd.COVID19_Dataset(**context.kwargs, views="*")
        assert dataset.pathologies == ["ARDS", "COVID-19"]
        assert paths(dataset) == list(context.labels)
        assert column(dataset, "ARDS") == [0.0, 1.0]
        assert column(dataset, "COVID-19") == [1.0, 1.0]
        assert dataset.csv["patientid"].tolist() == ["1", "2"]
        np.testing.assert_array_equal(dataset.csv["offset_day_int"], [0, NAN])
        assert xd.COVID19_Dataset(**context.kwargs, compat="xrv-1.5").pathologies == [
            "COVID-19",
            "COVID-19, ARDS",
        ]

    def test_compat_looks_for_parts_of_the_text(self, tmp_path):
        rows = [
            ("a.png", "1", "0", "M", "1", "Pneumonia/Viral/Influenza", "PA", "X-ray"),
            ("b.png", "2", "0", "M", "1", "Pneumonia/Viral/Influenza-like", "PA", "X-ray"),
        ]  # fmt: skip
        table = write_text(tmp_path / "metadata.csv", covid19.table("d", rows))
        assert column(xd.COVID19_Dataset(csvpath=table), "Influenza") == [1.0, 0.0]
        compat = xd.COVID19_Dataset(csvpath=table, compat="xrv-1.5")
        assert column(compat, "Influenza") == [1.0, 1.0]

    def test_ct_slices_are_in_compat_only(self, tmp_path):
        context = covid19.build(tmp_path)
        assert "slice.jpg" not in paths(xd.COVID19_Dataset(**context.kwargs, views="*"))
        compat = xd.COVID19_Dataset(**context.kwargs, views="Axial", compat="xrv-1.5")
        assert paths(compat) == ["slice.jpg"]

    def test_the_root_of_the_repository_will_do(self, tmp_path):
        context = covid19.build(tmp_path)
        dataset = xd.COVID19_Dataset(**{**context.kwargs, "imgpath": tmp_path})
        dataset.check_paths_exist()

    def test_without_the_table_the_error_says_what_to_pass(self):
        with pytest.raises(DatasetError, match=r"csvpath, metadata\.csv of the covid-chestxray"):
            xd.COVID19_Dataset()

    @pytest.mark.shared
    def test_the_packaged_mask_lies_on_the_lungs(self, shared):
        name = "16747_3_1.jpg"
        row = (name, "1", "0", "M", "1", "Pneumonia/Viral/COVID-19", "PA", "X-ray")
        fields = dict(
            zip(
                ("filename", "patientid", "offset", "sex", "age", "finding", "view", "modality"),
                row,
                strict=True,
            )
        )
        dataset = xd.COVID19_Dataset(
            shared / "samples", pd.DataFrame([fields]), semantic_masks=True
        )
        sample = dataset[0]
        lungs = sample["semantic_masks"]["Lungs"] > 0
        assert lungs.shape == sample["img"].shape
        assert sample["img"][lungs].mean() < sample["img"][~lungs].mean()  # air is dark


class TestNlmTb:
    def test_odd_readings_of_shenzhen(self, tmp_path):
        context = nlmtb.build_shenzhen(tmp_path)
        dataset = xd.NLMTB_Dataset(**context.kwargs, semantic_masks=True)
        assert paths(dataset) == list(context.labels)
        assert column(dataset, "Tuberculosis") == [
            row["Tuberculosis"] for row in context.labels.values()
        ]
        np.testing.assert_allclose(dataset.csv["age_years"], list(context.ages.values()))
        male = [sex == "M" for sex in context.sexes.values()]
        female = [sex == "F" for sex in context.sexes.values()]
        assert dataset.csv["sex_male"].tolist() == male
        assert dataset.csv["sex_female"].tolist() == female
        lungs = dataset[0]["semantic_masks"]["Lungs"]
        np.testing.assert_array_equal(lungs[0] > 0, context.semantic[paths(dataset)[0]]["Lungs"])
        assert dataset[1]["semantic_masks"] == {}

    def test_masks_are_found_below_the_images_too(self, tmp_path):
        context = nlmtb.build_shenzhen(tmp_path)
        dataset = xd.NLMTB_Dataset(context.kwargs["imgpath"], semantic_masks=True)
        assert list(dataset[0]["semantic_masks"]) == ["Lungs"]

    def test_labels_need_no_readings(self, tmp_path):
        context = nlmtb.build(tmp_path)
        shutil.rmtree(tmp_path / "ClinicalReadings")
        dataset = xd.NLMTB_Dataset(**context.kwargs)
        assert paths(dataset) == list(context.labels)
        assert dataset.csv["age_years"].isna().all()

    def test_a_repeated_patient_is_one_patient(self, tmp_path):
        context = nlmtb.build(tmp_path)
        assert len(xd.NLMTB_Dataset(**context.kwargs)) == 4
        assert len(xd.NLMTB_Dataset(**context.kwargs, unique_patients=True)) == 3

    def test_both_sets_merge(self, tmp_path):
        parts = [nlmtb.build(tmp_path / "m"), nlmtb.build_shenzhen(tmp_path / "s")]
        merged = xd.MergeDataset([xd.NLMTB_Dataset(**part.kwargs) for part in parts])
        assert merged.totals() == {"Tuberculosis": {0.0: 7, 1.0: 6}}

    @pytest.mark.parametrize("folder", [None, "nowhere"])
    def test_a_missing_folder_is_named(self, tmp_path, folder):
        with pytest.raises(DatasetNotFoundError, match=r"imgpath.*CXR_png and ClinicalReadings"):
            xd.NLMTB_Dataset(folder and tmp_path / folder)

    @pytest.mark.parametrize(
        ("text", "age", "sex"),
        [
            ("Patient's Sex: M \r\nPatient's Age: 058Y\r\nnormal 3 yrs", 58.0, "M"),
            ("female, 30yrs", 30.0, "F"),
            ("Male 60 yrs", 60.0, "M"),
            ("marked infiltrate, 3 mm", NAN, ""),
            ("", NAN, ""),
        ],
    )
    def test_readings(self, text, age, sex):
        np.testing.assert_equal((read_age(text), read_sex(text)), (age, sex))


class TestTbx11k:
    @pytest.fixture
    def context(self, tmp_path):
        return tbx11k.build(tmp_path)

    @pytest.mark.parametrize(
        ("split", "rows"),
        [("train", tbx11k.TRAIN), ("val", tbx11k.VAL), ("trainval", tbx11k.TRAIN + tbx11k.VAL)],
    )
    def test_split_reads_its_annotations(self, context, split, rows):
        dataset = xd.TBX11K_Dataset(context.kwargs["imgpath"], split)
        assert paths(dataset) == [f"imgs/{name}" for _, name, _ in rows]
        assert dataset.split == split

    def test_another_split_is_refused(self, context):
        with pytest.raises(DatasetError, match="'test'"):
            xd.TBX11K_Dataset(context.kwargs["imgpath"], split="test")

    def test_without_a_folder_the_error_says_what_to_pass(self):
        with pytest.raises(DatasetError, match="jsonpath"):
            xd.TBX11K_Dataset()

    def test_boxes_and_masks_move_with_the_image(self, context):
        v2 = pytest.importorskip("torchvision.transforms.v2")
        plain = xd.TBX11K_Dataset(**context.kwargs, pathology_masks=True)
        flipped = xd.TBX11K_Dataset(
            **context.kwargs, pathology_masks=True, transform=v2.RandomHorizontalFlip(p=1.0)
        )
        before, after = plain[3], flipped[3]
        np.testing.assert_array_equal(after["img"], before["img"][..., ::-1])
        for key, mask in before["pathology_masks"].items():
            np.testing.assert_array_equal(after["pathology_masks"][key], mask[..., ::-1])
        wanted = before["bbox"].copy()
        wanted[:, 0] = 512 - wanted[:, 0] - wanted[:, 2]
        np.testing.assert_allclose(after["bbox"], wanted)

    def test_a_batch_holds_boxes_and_masks(self, context):
        dataset = xd.TBX11K_Dataset(**context.kwargs, pathology_masks=True)
        batch = xd.collate([dataset[i] for i in range(len(dataset))])
        assert [len(boxes) for boxes in batch["bbox"]] == [1, 2, 0, 3, 0]
        assert batch["pathology_masks"][3].shape == (5, 1, 512, 512)

    def test_masks_are_found_by_file_name(self, context):
        dataset = xd.TBX11K_Dataset(**context.kwargs)
        masks = dataset.get_mask_dict("tb/tb0011.png", 256)
        np.testing.assert_array_equal(
            masks[1][0] > 0, area((256, 256), (150, 150, 154, 154))
        )  # the box of 9 pixels at 300, halved

    @pytest.mark.shared
    def test_the_published_sample_has_its_boxes(self, shared):
        dataset = xd.TBX11K_Dataset(shared / "samples" / "tbx11k", pathology_masks=True)
        assert column(dataset, "Tuberculosis") == [1.0, 1.0, 0.0]
        np.testing.assert_allclose(
            dataset[0]["bbox"], [[381.8337, 126.8734, 40.2369, 44.5658]], atol=1e-3
        )
        assert [len(dataset[i]["pathology_masks"]) for i in range(3)] == [2, 2, 0]


class TestStonyBrook:
    def test_one_rater_is_enough_and_compat_wants_both(self, tmp_path):
        context = stonybrook.build(tmp_path)
        dataset = xd.StonyBrookCOVID_Dataset(**context.kwargs)
        compat = xd.StonyBrookCOVID_Dataset(**context.kwargs, compat="xrv-1.5")
        np.testing.assert_array_equal(dataset.labels[4], [2, 1])
        np.testing.assert_array_equal(compat.labels[4], [NAN, NAN])
        np.testing.assert_array_equal(compat.labels[:4], dataset.labels[:4])

    def test_images_keep_the_number_of_their_row(self, tmp_path):
        context = stonybrook.build(tmp_path)
        dataset = xd.StonyBrookCOVID_Dataset(**context.kwargs, unique_patients=True)
        assert sorted(paths(dataset)) == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
        for i, path in enumerate(paths(dataset)):
            assert dataset[i]["img"].shape == (1, 64 + int(path[0]), 48)
            assert dataset.csv["Subject_ID"][i] == stonybrook.ROWS[int(path[0])][0]

    def test_the_banner_may_be_gone(self, tmp_path):
        context = stonybrook.build(tmp_path)
        table = context.kwargs["csvpath"]
        before = xd.StonyBrookCOVID_Dataset(**context.kwargs)
        _, _, rest = table.read_text().partition("\n")
        table.write_text(rest)
        after = xd.StonyBrookCOVID_Dataset(**context.kwargs)
        np.testing.assert_array_equal(after.labels, before.labels)


class TestObjectCxr:
    def test_a_pickled_dataset_opens_its_archive_anew(self, tmp_path):
        context = objectcxr.build(tmp_path)
        dataset = xd.ObjectCXR_Dataset(**context.kwargs)
        before = dataset[0]["img"]
        again = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(again[0]["img"], before)

    def test_members_may_lie_in_any_folder(self, tmp_path):
        context = objectcxr.build(tmp_path)
        other = tmp_path / "dev.zip"
        with zipfile.ZipFile(other, "w") as archive:
            for path in (tmp_path / "loose").iterdir():
                archive.write(path, path.name)
        kwargs = {**context.kwargs, "imgzippath": other}
        assert xd.ObjectCXR_Dataset(**kwargs)[2]["img"].shape == (1, 42, 50)

    @pytest.mark.parametrize(
        "text", ["3 1 2 3 4", "0 1 2 3", "1 1 2 3 4 5 6", "2 1 2 3 4", "0 a b c d"]
    )
    def test_malformed_annotations_are_refused(self, text):
        with pytest.raises(DatasetError, match="rectangle"):
            list(shapes(f"0 1 2 3 4;{text}"))

    def test_corners_may_be_in_any_order(self, tmp_path):
        context = objectcxr.build(tmp_path)
        frame = pd.DataFrame({"image_name": ["00001.jpg"], "annotation": ["0 20 15 10 5"]})
        dataset = xd.ObjectCXR_Dataset(context.kwargs["imgzippath"], frame, pathology_masks=True)
        mask = dataset[0]["pathology_masks"][0][0] > 0
        np.testing.assert_array_equal(mask, area((40, 50), (10, 5, 20, 15)))
