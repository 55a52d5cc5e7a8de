"""MIMIC, BRAX and CheXlocalize: what the contract over all datasets does not look for."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from fakes import brax, chexlocalize, mimic
from fakes._fake import area
from torchxrayvision.errors import DatasetError

EVERY = {"views": "*", "unique_patients": False}


def column(dataset, finding):
    return dataset.labels[:, dataset.pathologies.index(finding)].tolist()


def paths(dataset):
    return [dataset.image_path(i) for i in range(len(dataset))]


class TestMimic:
    @pytest.fixture
    def context(self, tmp_path):
        return mimic.build(tmp_path)

    def test_no_finding_leaves_support_devices_alone(self, context):
        dataset = xd.MIMIC_Dataset(**context.kwargs)
        assert column(dataset, "Support Devices") == [1.0]
        assert column(dataset, "Edema") == [0.0]

    def test_compat_clears_support_devices_too(self, context):
        dataset = xd.MIMIC_Dataset(**context.kwargs, compat="xrv-1.5")
        assert column(dataset, "Support Devices") == [0.0]

    def test_only_compat_mixes_the_studies_of_a_patient(self, context):
        kwargs = {**context.kwargs, "views": "AP"}
        one, mixed = xd.MIMIC_Dataset(**kwargs), xd.MIMIC_Dataset(**kwargs, compat="xrv-1.5")
        assert paths(one) == paths(mixed)
        assert np.isnan(column(one, "Pneumonia")[0])  # said in the second study of the patient
        assert column(mixed, "Pneumonia") == [1.0]

    def test_studies_without_images_are_left_out_and_kept_in_compat(self, context):
        whole = xd.MIMIC_Dataset(**context.kwargs, **EVERY)
        compat = xd.MIMIC_Dataset(**context.kwargs, **EVERY, compat="xrv-1.5")
        assert whole.csv["dicom_id"].notna().all()
        assert len(compat) - len(whole) == compat.csv["dicom_id"].isna().sum() == 1

    def test_compat_keeps_the_raw_name_of_lateral_views(self, context):
        compat = xd.MIMIC_Dataset(**context.kwargs, compat="xrv-1.5", views="LATERAL")
        assert paths(compat) == paths(xd.MIMIC_Dataset(**context.kwargs, views="L"))

    def test_days_are_days(self, context):
        dataset = xd.MIMIC_Dataset(**context.kwargs, **EVERY)
        days = dataset.csv.groupby("study_id")["offset_day_int"].first()
        assert days[53189527] - days[50414267] == 51  # from 6 May to 26 June

    @pytest.mark.parametrize("part", ["train", "validate", "test"])
    def test_split_keeps_one_official_part(self, context, part):
        dataset = xd.MIMIC_Dataset(**context.kwargs, **EVERY, split=part)
        assert paths(dataset) == context.splits[part]

    def test_split_needs_its_table(self, context):
        context.kwargs.pop("splitcsvpath")
        assert "split" not in xd.MIMIC_Dataset(**context.kwargs).csv
        with pytest.raises(DatasetError, match="splitcsvpath"):
            xd.MIMIC_Dataset(**context.kwargs, split="test")

    @pytest.mark.parametrize("wrong", [{"split": "dev"}, {"labeler": "vision"}])
    def test_unknown_choices_are_refused(self, context, wrong):
        with pytest.raises(DatasetError, match=r"must be one of .* got"):
            xd.MIMIC_Dataset(**context.kwargs, **wrong)

    def test_the_folder_of_the_release_is_enough(self, context, tmp_path):
        chexpert = context.kwargs["csvpath"]
        text = chexpert.read_text().replace("-1.0", "1.0")
        with gzip.open(tmp_path / "mimic-cxr-2.0.0-negbio.csv.gz", "wt") as stream:
            stream.write(text)
        by_file = xd.MIMIC_Dataset(**context.kwargs, **EVERY)
        kwargs = {"imgpath": context.kwargs["imgpath"], "csvpath": tmp_path}
        by_folder = xd.MIMIC_Dataset(**kwargs, **EVERY)
        pd.testing.assert_frame_equal(by_folder.csv, by_file.csv)
        np.testing.assert_array_equal(by_folder.labels, by_file.labels)
        negbio = xd.MIMIC_Dataset(**kwargs, **EVERY, labeler="negbio")
        assert paths(negbio) == paths(by_file)
        # What the fake says is uncertain, the other program calls present.
        assert negbio.totals()["Edema"][1.0] == by_file.totals()["Edema"].get(1.0, 0) + 1

    def test_an_empty_folder_and_a_labeler_without_one_are_refused(self, context, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DatasetError, match="csvpath"):
            xd.MIMIC_Dataset(csvpath=tmp_path / "empty")
        with pytest.raises(DatasetError, match="must be that folder"):
            xd.MIMIC_Dataset(**context.kwargs, labeler="negbio")


class TestBrax:
    def test_strips_are_kept_on_request(self, tmp_path):
        context = brax.build(tmp_path)
        films = xd.BRAX_Dataset(**context.kwargs, **EVERY)
        every = xd.BRAX_Dataset(**context.kwargs, **EVERY, max_aspect_ratio=None)
        assert [path for path in paths(every) if path not in paths(films)] == [
            f"{brax.ROWS[-1][0]}.png"
        ]
        assert len(xd.BRAX_Dataset(**context.kwargs, **EVERY, max_aspect_ratio=20)) == len(every)

    def test_compat_keeps_whole_rows_as_1_5_7_does_here(self, tmp_path):
        context = brax.build(tmp_path)
        dataset = xd.BRAX_Dataset(**context.kwargs, compat="xrv-1.5")
        assert paths(dataset) == context.default
        assert np.isnan(column(dataset, "Lung Lesion")).tolist() == [False, True]


class TestCheXlocalize:
    def test_the_blinded_test_set_has_no_age_or_sex(self, tmp_path):
        context = chexlocalize.build_test(tmp_path)
        dataset = xd.CheXlocalize_Dataset(**context.kwargs, **EVERY)
        assert paths(dataset) == list(context.labels)
        assert dataset.csv["view"].tolist() == ["Unknown", "Unknown", "L"]
        assert dataset.csv["age_years"].isna().all()
        assert not dataset.csv[["sex_male", "sex_female"]].to_numpy().any()
        for i, path in enumerate(paths(dataset)):
            assert {f: dataset.labels[i, j] for j, f in enumerate(dataset.pathologies)} == {
                finding: context.labels[path].get(finding, 0.0) for finding in dataset.pathologies
            }

    def test_without_the_json_there_are_no_masks(self, tmp_path, recwarn):
        context = chexlocalize.build_test(tmp_path)
        dataset = xd.CheXlocalize_Dataset(context.kwargs["imgpath"], context.kwargs["csvpath"])
        assert paths(dataset) == context.default
        assert "pathology_masks" not in dataset[0]
        assert not dataset.csv["has_masks"].any()
        assert not recwarn.list

    def test_the_folder_of_the_part_will_do(self, tmp_path):
        context = chexlocalize.build_test(tmp_path)
        kwargs = {**context.kwargs, "imgpath": tmp_path / "test"}
        assert xd.CheXlocalize_Dataset(**kwargs)[0]["img"].shape == (1, 65, 48)

    def test_val_stands_for_valid(self, tmp_path):
        context = chexlocalize.build(tmp_path)
        root = context.kwargs["imgpath"]
        before = xd.CheXlocalize_Dataset(**context.kwargs)[1]["img"]
        (root / "valid").rename(root / "val")
        dataset = xd.CheXlocalize_Dataset(**context.kwargs)
        np.testing.assert_array_equal(dataset[1]["img"], before)
        dataset.check_paths_exist()

    def test_another_json_is_refused(self, tmp_path):
        context = chexlocalize.build(tmp_path)
        (tmp_path / "other.json").write_text('{"patient": {"Edema": [1, 2]}}')
        kwargs = {**context.kwargs, "segmentation_jsonpath": tmp_path / "other.json"}
        with pytest.raises(DatasetError, match=r"segmentation_jsonpath.*counts"):
            xd.CheXlocalize_Dataset(**kwargs)

    def test_masks_keep_the_shape_of_the_image_under_a_crop(self, tmp_path):
        context = chexlocalize.build(tmp_path)
        dataset = xd.CheXlocalize_Dataset(**context.kwargs, transform=xd.XRayCenterCrop())
        sample = dataset[0]
        assert sample["img"].shape == (1, 320, 320)
        heart = sample["pathology_masks"][dataset.pathologies.index("Cardiomegaly")]
        np.testing.assert_array_equal(heart[0], area((320, 390), (100, 150, 250, 300))[:, 35:355])

    @pytest.mark.shared
    def test_the_published_sample_has_the_masks_of_its_authors(self, shared):
        folder = shared / "samples" / "chexlocalize"
        dataset = xd.CheXlocalize_Dataset(
            folder, folder / "valid.csv", segmentation_jsonpath=folder / "gt_segmentations_val.json"
        )
        masks = dataset[0]["pathology_masks"]
        pixels = {dataset.pathologies[key]: int(mask.sum()) for key, mask in masks.items()}
        assert pixels == {
            "Enlarged Cardiomediastinum": 962252,
            "Cardiomegaly": 867107,
            "Lung Opacity": 163040,
        }
        assert {mask.shape for mask in masks.values()} == {(1, 2320, 2828)}
