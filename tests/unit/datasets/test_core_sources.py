"""PadChest, Open-i and SIIM-ACR: what terms mean, rows, files and oddities."""

from __future__ import annotations

import tarfile

import numpy as np
import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from fakes import openi, padchest, siim
from fakes._fake import write_text
from torchxrayvision import tables
from torchxrayvision.datasets.releases.openi_terms import OPENI_SUBSTRINGS, OPENI_TERMS, openi_terms
from torchxrayvision.datasets.releases.padchest import PADCHEST_TERMS, padchest_terms, read_padchest
from torchxrayvision.errors import DatasetError
from torchxrayvision.labels import OPENI18, PADCHEST28

COMPAT = "xrv-1.5"


def present(dataset):
    return {finding: counts.get(1.0, 0) for finding, counts in dataset.totals().items()}


@pytest.fixture(scope="module")
def padchests():
    arguments = {"views": "*", "unique_patients": False}
    return xd.PC_Dataset(**arguments), xd.PC_Dataset(**arguments, compat=COMPAT)


@pytest.fixture(scope="module")
def openis():
    arguments = {"views": "*", "unique_patients": False}
    return xd.Openi_Dataset(**arguments), xd.Openi_Dataset(**arguments, compat=COMPAT)


def labelled(tmp_path, *texts):
    """PadChest labels of some texts."""
    rows = tables.load("padchest").head(len(texts)).copy()
    rows = rows.assign(Labels=list(texts), PatientID=[str(i) for i in range(len(texts))])
    return xd.PC_Dataset(csvpath=rows, views="*", unique_patients=False), rows


@pytest.mark.parametrize(
    ("term", "findings"),
    [
        ("normal", ()),
        ("pseudonodule", ()),
        ("nipple shadow", ()),
        ("multiple nodules", ("Nodule",)),
        ("subcutaneous emphysema", ()),
        ("pericardial effusion", ()),
        ("loculated fissural effusion", ("Effusion",)),
        ("hydropneumothorax", ("Effusion", "Pneumothorax")),
        ("tuberculosis sequelae", ()),
        ("mediastinal mass", ()),
        ("soft tissue mass", ()),
        ("pulmonary mass", ("Mass",)),
        ("clavicle fracture", ("Fracture",)),
        ("callus rib fracture", ("Fracture",)),
        ("vertebral compression", ()),
        ("calcified granuloma", ("Granuloma",)),
        ("air bronchogram", ("Consolidation", "Infiltration")),
        ("miliary opacities", ("Infiltration",)),
        ("calcified mediastinal adenopathy", ()),
        ("vascular hilar enlargement", ("Hilar Enlargement",)),
        ("dai", ("Support Devices",)),
        ("endoprosthesis", ()),
        ("double J stent", ("Tube",)),
        ("NSG tube", ("Tube",)),
    ],
)
def test_a_term_of_padchest_means_these_findings(tmp_path, term, findings):
    dataset, _ = labelled(tmp_path, f"['{term}']", f"['unchanged', ' {term}', '']")
    wanted = [float(finding in findings) for finding in PADCHEST28]
    assert dataset.labels.tolist() == [wanted, wanted]


@pytest.mark.parametrize("text", ["['']", "['unchanged']", "['suboptimal study', ' unchanged']"])
def test_reports_that_say_nothing_leave_the_findings_unknown(tmp_path, text):
    dataset, _ = labelled(tmp_path, text, "['cardiomegaly']")
    told = dataset.labels[[("cardiomegaly" in labels) for labels in dataset.csv["Labels"]]]
    assert np.isnan(dataset.labels).all(axis=1).sum() == 1
    assert not np.isnan(told).any()
    assert dataset.csv["suboptimal"].sum() == ("suboptimal" in text)


def test_every_term_of_padchest_is_in_the_release_but_one():
    texts = tables.load("padchest", columns=["Labels"])["Labels"].dropna().unique()
    known = {term for text in texts for term in padchest_terms(str(text))}
    assert {t for terms in PADCHEST_TERMS.values() for t in terms} - known == {"hemothorax"}
    assert tuple(PADCHEST_TERMS) == PADCHEST28


def test_padchest_findings_before_and_after(padchests):
    new, old = padchests
    assert (len(old), len(new)) == (158_616, 154_415)
    before, after = present(old), present(new)
    counts = {finding: (before[finding], after[finding]) for finding in before}
    assert counts["Nodule"] == (6226, 4054)
    assert counts["Emphysema"] == (1738, 1534)
    assert counts["Mass"] == (1487, 1081)
    assert counts["Tuberculosis"] == (1306, 291)
    assert counts["Fracture"] == (4622, 4620)
    assert counts["Effusion"] == (9984, 9893)


def test_padchest_leaves_out_children_and_excluded_reports(padchests):
    new, old = padchests
    assert new.csv["age_years"].min() == 11
    assert not new.csv["Labels"].str.contains("'exclude'|' exclude'").any()
    study_year = old.csv["StudyDate_DICOM"] // 10_000
    assert (study_year - old.csv["PatientBirth"] <= 10).sum() == 2947
    assert np.isnan(new.labels).all(axis=1).sum() == np.isnan(new.labels).any(axis=1).sum() > 4000


def test_padchest_rows_are_in_the_order_of_their_names(padchests):
    for dataset in padchests:
        assert dataset.csv["ImageID"].is_monotonic_increasing
    assert (padchests[0].csv["offset_day_int"] > 13_000).all()


def test_padchest_reads_long_numbers_as_text(tmp_path):
    fake = padchest.build(tmp_path)
    table = read_padchest(fake.kwargs["csvpath"])
    assert set(table["PatientID"]) == {padchest.A, padchest.B, padchest.C, padchest.D, padchest.E}


def test_padchest_finds_images_in_the_folders_of_the_release(tmp_path):
    fake = padchest.build(tmp_path)
    for flat in (True, False):
        dataset = xd.PC_Dataset(**fake.kwargs, flat_dir=flat, views="*", unique_patients=False)
        dataset.check_paths_exist()
        assert dataset.image_path(0) == ("a3.png" if flat else "2/a3.png")


def test_compat_padchest_matches_parts_of_words(tmp_path):
    fake = padchest.build(tmp_path)
    old = xd.PC_Dataset(**fake.kwargs, views="*", unique_patients=False, compat=COMPAT)
    assert list(old.csv["ImageID"]) == [
        f"{name}.png" for name in ("a3", "b0", "b1", "b2", "c1", "d1", "d2")
    ]
    found = {image: old.labels[i] for i, image in enumerate(old.csv["ImageID"])}
    for image, findings in {
        "b2.png": ("Nodule",),
        "b1.png": ("Emphysema", "Effusion"),
        "b0.png": ("Tuberculosis", "Mass"),
    }.items():
        assert all(found[image][PADCHEST28.index(finding)] == 1 for finding in findings)
    assert not np.isnan(old.labels).any()


@pytest.mark.parametrize(
    ("term", "findings"),
    [
        ("normal", ()),
        ("nodule/lung/base/left", ("Lung Lesion", "Nodule")),
        ("nodule/thorax", ("Lung Lesion", "Nodule")),
        ("nodule/pleura", ()),
        ("mass/breast", ()),
        ("mass/lung/hilum", ("Lung Lesion", "Mass")),
        ("thyroid mass", ()),
        ("paratracheal mass", ()),
        ("mass lesion", ("Lung Lesion", "Mass")),
        ("pericardial effusion", ()),
        ("pleural effusion/right/small", ("Effusion",)),
        ("hemopneumothorax", ("Effusion", "Pneumothorax")),
        ("subcutaneous emphysema", ()),
        ("bullous emphysema/apex", ("Emphysema",)),
        ("cystic fibrosis", ()),
        ("granulomatous disease", ()),
        ("calcified granuloma/heart", ("Calcified Granuloma", "Granuloma")),
        ("fractures, bone/clavicle/healed", ("Fracture",)),
        ("hip fractures", ()),
        ("cardiac shadow/enlarged/borderline", ("Cardiomegaly",)),
        ("cardiac shadow/irregular", ()),
        ("thickening/pleura/apex", ("Pleural_Thickening",)),
        ("thickening/bronchi", ()),
        ("opacity/lung/base", ("Lung Opacity",)),
        ("opacity/ribs", ()),
        ("airspace disease/lung", ("Lung Opacity",)),
        ("mycoplasma pneumoniae", ()),
        ("aspiration", ()),
    ],
)
def test_a_term_of_openi_means_these_findings(term, findings):
    meant = [f for f in OPENI18 if set(openi_terms(term)) & set(OPENI_TERMS[f])]
    assert sorted(meant) == sorted(findings)


def test_every_term_of_openi_is_in_the_release():
    frame = tables.load("openi")
    texts = {str(text) for name in ("labels_major", "labels_automatic") for text in frame[name]}
    known = {term for text in texts for term in openi_terms(text)}
    assert {term for terms in OPENI_TERMS.values() for term in terms} - known == set()
    assert tuple(OPENI_TERMS) == tuple(OPENI_SUBSTRINGS) == OPENI18


def test_openi_findings_before_and_after(openis):
    new, old = openis
    before, after = present(old), present(new)
    counts = {finding: (before[finding], after[finding]) for finding in before}
    assert counts["Cardiomegaly"] == (493, 693)
    assert counts["Granuloma"] == (781, 640)
    assert counts["Mass"] == (13, 35)
    assert counts["Nodule"] == (157, 236)
    assert counts["Lung Lesion"] == (7, 269)
    assert np.isnan(new.labels).all(axis=1).sum() == 162
    assert not np.isnan(old.labels).any()


def test_openi_views_of_headers_and_clusters(openis):
    new, old = openis
    assert set(old.csv["view"]) - set(new.csv["view"]) == {"LATERAL", "LARGE LATERAL"}
    assert (new.csv["view"] == "L").sum() == 121
    clusters = xd.Openi_Dataset(use_tsne_derived_view=True, views=["PA"], unique_patients=False)
    assert len(clusters) == 3267


def test_openi_takes_all_columns_of_the_headers_as_a_table():
    dataset = xd.Openi_Dataset(dicomcsv_path=tables.load("openi_dicom"))
    assert {"KVP", "Exposure", "Window Center"} <= set(dataset.csv.columns)
    assert len(dataset) == 2315


def test_openi_reads_a_folder_of_reports_like_the_archive(tmp_path):
    fake = openi.build(tmp_path)
    with tarfile.open(fake.kwargs["xmlpath"]) as archive:
        archive.extractall(tmp_path / "reports", filter="data")
    arguments = {"views": "*", "unique_patients": False}
    packed = xd.Openi_Dataset(**fake.kwargs, **arguments)
    kwargs = {**fake.kwargs, "xmlpath": tmp_path / "reports"}
    loose = xd.Openi_Dataset(**kwargs, **arguments)
    order = ["imageid", "labels_major", "labels_automatic"]
    pd.testing.assert_frame_equal(
        packed.csv[order].sort_values("imageid", ignore_index=True),
        loose.csv[order].sort_values("imageid", ignore_index=True),
    )
    write_text(tmp_path / "reports" / "ecgen-radiology" / "9.xml", ["<eCitation>"])
    with pytest.raises(DatasetError, match=r"xmlpath=.*no XML"):
        xd.Openi_Dataset(**kwargs)


def test_compat_openi_believes_the_program_alone(tmp_path):
    fake = openi.build(tmp_path)
    old = xd.Openi_Dataset(**fake.kwargs, views="*", unique_patients=False, compat=COMPAT)
    rows = dict(zip(old.csv["imageid"], old.labels, strict=True))
    film = rows["CXR100_IM-0003-1001"]
    wrong = {f for f, label in zip(old.pathologies, film, strict=True) if label}
    assert wrong == {"Effusion", "Emphysema", "Mass"}
    assert not rows["CXR1000_IM-0004-1001"].any()


def test_siim_unites_outlines_and_compat_shows_the_last(tmp_path):
    fake = siim.build(tmp_path)
    new = xd.SIIM_Pneumothorax_Dataset(**fake.kwargs, pathology_masks=True)
    old = xd.SIIM_Pneumothorax_Dataset(**fake.kwargs, pathology_masks=True, compat=COMPAT)
    assert (len(new), len(old)) == (3, 4)
    assert old.labels.ravel().tolist() == [0, 1, 1, 1]
    assert list(new.csv["outlines"]) == [0, 2, 1]
    assert new[1]["pathology_masks"][0].sum() == 40 * 60 + 40 * 50 - 20 * 10
    assert old[1]["pathology_masks"][0].sum() == 40 * 50
    again = new.get_pathology_mask_dict(siim.NAMES[1], 1024)[0]
    np.testing.assert_array_equal(again, new[1]["pathology_masks"][0])


def test_siim_counts_images_not_outlines():
    dataset = xd.SIIM_Pneumothorax_Dataset()
    assert len(dataset) == dataset.csv["ImageId"].nunique() == 12_047
    assert (dataset.csv["outlines"] > 1).sum() == 624
    assert present(dataset) == {"Pneumothorax": 2669}


def test_siim_reads_the_table_of_stage_2(tmp_path):
    fake = siim.build(tmp_path)
    text = fake.kwargs["csvpath"].read_text().replace(", EncodedPixels", ",EncodedPixels")
    stage_2 = write_text(tmp_path / "stage_2_train.csv", text.splitlines())
    dataset = xd.SIIM_Pneumothorax_Dataset(tmp_path, stage_2, pathology_masks=True)
    assert dataset.csv["has_masks"].tolist() == [False, True, True]
    assert dataset[2]["pathology_masks"][0].sum() == 1


def test_two_folders_of_siim_do_not_share_their_files(tmp_path):
    fake = siim.build(tmp_path / "a")
    siim.build(tmp_path / "b")
    table = fake.kwargs["csvpath"]
    first, second = (xd.SIIM_Pneumothorax_Dataset(tmp_path / name, table) for name in "ab")
    first[0], second[0]
    found = [
        dataset.spec.images.open(dataset._row(0), dataset._context) for dataset in (first, second)
    ]
    assert [path.relative_to(tmp_path).parts[0] for path in found] == ["a", "b"]


@pytest.mark.shared
def test_a_real_file_of_siim_loads(shared):
    dataset = xd.SIIM_Pneumothorax_Dataset(shared / "samples", pathology_masks=True)
    sample = dataset[0]
    assert dataset.csv["ImageId"][0].endswith("6904.1517875201.850819")
    assert sample["img"].shape == (1, 1024, 1024)
    assert sample["img"][0, 60, 2] == pytest.approx(-959.749, abs=0.01)
    assert sample["pathology_masks"] == {}
