"""Patients that several sources of a merge share: they stay on one side of a split."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

import torchxrayvision.datasets as xd
from fakes import BUILDERS
from support.tiny import rows
from torchxrayvision import tables
from torchxrayvision.datasets import keys_of, patient_keys, patients, same_numbering
from torchxrayvision.errors import DatasetError, DataWarning

EVERYTHING = {"views": "*", "unique_patients": False}


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    built = {}

    def get(name):
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name)).kwargs
        return getattr(xd, name)(**built[name])

    return get


def united(*datasets):
    return xd.MergeDataset(datasets, label_concat=True)


def common(datasets):
    """How many patients each two sources of a merge have in common."""
    merged = united(*datasets)
    of_source = np.split(patients(merged), np.cumsum([len(inner) for inner in datasets])[:-1])
    return [len(np.intersect1d(a, b)) for a, b in combinations(of_source, 2)]


def test_a_release_listed_twice_shares_its_patients_and_no_part_does():
    films = [xd.Phantom_Dataset(n=200, size=16, views=view) for view in ("PA", "AP")]
    shared = set(films[0].csv["patientid"]) & set(films[1].csv["patientid"])
    assert len(shared) > 3
    parts = xd.split_by_patient(xd.MergeDataset(films), (0.5, 0.3, 0.2))
    owners = [set(part.csv["patientid"]) for part in parts]
    assert all(not a & b for a, b in combinations(owners, 2))
    assert sum(map(len, parts)) == sum(map(len, films))


def test_phantoms_of_another_seed_are_other_patients():
    assert common([xd.Phantom_Dataset(n=20, size=16, seed=seed) for seed in (0, 1)]) == [0]


def test_google_labels_images_of_nih_patients():
    nih, google = xd.NIH_Dataset(**EVERYTHING), xd.NIH_Google_Dataset(**EVERYTHING)
    assert common([nih, google]) == [google.csv["patientid"].nunique()]


MATCHED = ("NIH_Dataset", "RSNA_Pneumonia_Dataset", "NIH_Google_Dataset")


@pytest.mark.filterwarnings("ignore:RSNA_Pneumonia_Dataset. 98 images")
@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
@pytest.mark.parametrize("names", [MATCHED, *((name,) for name in MATCHED)])
def test_an_image_of_nih_is_on_the_side_of_its_twin_and_of_its_patient(names, compat):
    sources = [getattr(xd, name)(**EVERYTHING, compat=compat) for name in names]
    merged = united(*sources)
    matches = tables.load("rsna_nih").dropna().set_index("patientId")["nih_image"].to_dict()
    assert len(matches) == 26_586
    films = pd.concat(
        [source.csv.get("Image Index", source.csv.get("patientId")) for source in sources]
    ).astype(object)
    films = films.map(lambda name: matches.get(name, name)).reset_index(drop=True)
    side = np.full(len(merged), -1)
    for i, part in enumerate(xd.split_by_patient(merged, seed=3)):
        side[part.idxs] = i
    assert (side >= 0).all()
    assert len(np.unique(side)) == 3
    for shared in (films, films.str[:8].where(films.str.endswith(".png"), films)):
        assert pd.Series(side).groupby(shared).nunique().max() == 1


@pytest.mark.parametrize("compat", [None, "xrv-1.5"])
def test_a_split_says_how_many_images_have_no_patient_that_is_known(compat):
    rsna = xd.RSNA_Pneumonia_Dataset(**EVERYTHING, compat=compat)
    with pytest.warns(DataWarning, match=r"98 images are not matched .* of NIH ChestX-ray14") as w:
        xd.split_by_patient(united(xd.NIH_Dataset(), rsna))
    assert w[0].filename == __file__
    lost = xd.RSNA_Pneumonia_Dataset(**EVERYTHING).csv["nih_image"].isna().to_numpy()
    with pytest.warns(DataWarning, match="1 image is not matched"):
        xd.split_by_patient(xd.SubsetDataset(rsna, [*np.flatnonzero(~lost)[:50], lost.argmax()]))
    xd.split_by_patient(xd.SubsetDataset(rsna, np.flatnonzero(~lost)))  # none, and no warning


def test_rsna_names_the_patients_of_nih_and_those_it_tests_on():
    csv = xd.RSNA_Pneumonia_Dataset(**EVERYTHING).csv
    assert len(csv) == 26_684
    known = csv["nih_image"].notna()
    assert known.sum() == 26_586
    assert (csv["patientid"] == csv["patientId"]).equals(~known)
    nih = xd.NIH_Dataset(**EVERYTHING).csv.set_index("Image Index")
    twins = nih.loc[csv.loc[known, "nih_image"]]
    assert twins["patientid"].tolist() == csv.loc[known, "patientid"].tolist()
    assert twins["view"].tolist() == csv.loc[known, "view"].tolist()
    assert twins["sex_male"].tolist() == csv.loc[known, "sex_male"].tolist()
    assert csv["nih_test"].sum() == 7_170
    assert csv.groupby("patientid")["nih_test"].nunique().max() == 1


def test_the_patientid_of_1_5_7_stays_in_compat():
    csv = xd.RSNA_Pneumonia_Dataset(**EVERYTHING, compat="xrv-1.5").csv
    assert csv["patientid"].tolist() == csv["patientId"].tolist()
    assert not {"nih_image", "nih_test"} & set(csv)


@pytest.mark.parametrize("name", ["SIIM_Pneumothorax_Dataset", "ChestXDet_Dataset"])
def test_images_of_nih_without_its_names_cannot_be_split(releases, name):
    merged = united(xd.NIH_Dataset(), releases(name))
    with pytest.raises(DatasetError, match="patients of NIH ChestX-ray14, under names of their"):
        xd.split_by_patient(merged)


def test_hannovers_patients_are_not_known_among_those_of_covid19(releases):
    covid, hannover = releases("COVID19_Dataset"), releases("HannoverCOVID_Dataset")
    assert len(xd.split_by_patient(united(covid, xd.NIH_Dataset()))) == 3
    with pytest.raises(DatasetError, match="COVID19_Dataset holds images of Hannover"):
        xd.split_by_patient(united(covid, hannover))


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["CheXlocalize_Dataset", "CheXpertPlus_Dataset"], None),
        (["MIMIC_Dataset", "MSCXR_Dataset"], None),
        (["CheX_Dataset", "NIH_Dataset"], 0),
        (["PC_Dataset", "MIMIC_Dataset"], 0),
    ],
)
def test_releases_of_one_cohort_share_patients_whatever_their_csv_calls_them(
    releases, names, wanted
):
    datasets = [releases(name) for name in names]
    for dataset, prefix in zip(datasets, ("", "patient"), strict=True):
        prefix = prefix if type(dataset).__name__ == "CheXpertPlus_Dataset" else ""
        dataset.csv = dataset.csv.assign(patientid=f"{prefix}00007")
    assert common(datasets) == [1 if wanted is None else wanted]


COHORTS = {
    "NIH ChestX-ray14": {
        *("NIH_Dataset", "NIH_Google_Dataset", "RSNA_Pneumonia_Dataset"),
        *("SIIM_Pneumothorax_Dataset", "ChestXDet_Dataset", "ChestMNIST_Dataset"),
    },
    "CheXpert": {"CheX_Dataset", "CheXlocalize_Dataset", "CheXpertPlus_Dataset"},
    "MIMIC-CXR": {"MIMIC_Dataset", "MSCXR_Dataset", "REFLACX_Dataset"},
    "PadChest": {"PC_Dataset", "PadChestGR_Dataset"},
    "NLM tuberculosis sets, Montgomery County and Shenzhen": {"TBX11K_Dataset"},
}


def test_cohorts_are_those_that_are_documented():
    classes = {name: getattr(xd, name) for name in xd.list_datasets()}
    found = {}
    for name, cls in classes.items():
        if cls.spec.cohort:
            found.setdefault(cls.spec.cohort, set()).add(name)
    assert found == COHORTS
    titles = [cls.spec.title for cls in classes.values()]
    assert len(set(titles)) == len(titles)  # an unnamed cohort is known by its title


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("CheX_Dataset", r"\d{5}"),
        ("CheXlocalize_Dataset", r"\d{5}"),
        ("CheXpertPlus_Dataset", r"patient\d{5}"),
        ("MIMIC_Dataset", r"\d{8}"),
        ("MSCXR_Dataset", r"\d{8}"),
        ("REFLACX_Dataset", r"\d{8}"),
    ],
)
def test_a_cohort_writes_its_numbers_in_one_form(releases, name, form):
    assert releases(name).csv["patientid"].str.fullmatch(form).all()


# What does not change


def apart(*datasets):
    """Codes of a merge whose sources have no patient in common."""
    start, parts = 0, []
    for dataset in datasets:
        codes = patients(dataset)
        parts.append(codes + start)
        start += codes.max(initial=-1) + 1
    return np.concatenate(parts)


def test_codes_of_one_dataset_and_of_unrelated_ones_stay():
    nih, chex = xd.NIH_Dataset(**EVERYTHING), xd.CheX_Dataset(**EVERYTHING)
    codes = pd.factorize(nih.csv["patientid"])[0]
    assert patients(nih).tolist() == codes.tolist()
    some = xd.SubsetDataset(chex, np.arange(0, len(chex), 3))
    assert patients(some).tolist() == pd.factorize(chex.csv["patientid"])[0][::3].tolist()
    assert patients(united(nih, some)).tolist() == apart(nih, some).tolist()


def test_shared_patients_are_found_below_other_containers():
    nih = xd.NIH_Dataset(**EVERYTHING)
    first, second = xd.SubsetDataset(nih, [0, 1, 2, 3]), xd.SubsetDataset(nih, [9, 2, 1])
    wanted = nih.csv["patientid"].iloc[[0, 1, 2, 3, 9, 2, 1]].factorize()[0]
    for merged in (united(first, second), united(xd.MergeDataset([first]), second)):
        assert pd.factorize(patients(merged))[0].tolist() == wanted.tolist()
        part = xd.SubsetDataset(merged, [6, 3])
        assert patients(part).tolist() == patients(merged)[[6, 3]].tolist()


def test_patients_without_a_number_are_nobody_else(tmp_path):
    table = rows().assign(subject=[7, None, None, 9])
    made = [xd.CSV_Dataset(table, tmp_path, path="name", patient="subject") for _ in range(2)]
    codes = patients(united(*made))
    assert len(np.unique(codes)) == 6  # two with a number, and four without
    assert codes[0] == codes[4]


def test_own_tables_share_patients_with_the_same_table_only(tmp_path):
    table = rows()
    for name in ("one", "two"):
        table.to_csv(tmp_path / f"{name}.csv", index=False)

    def made(given):
        return xd.CSV_Dataset(given, tmp_path, path="name", patient="subject")

    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    assert common([made(one), made(str(one))]) == [3]
    assert common([made(one), made(two)]) == [0]
    assert common([made(table), made(table)]) == [3]
    assert common([made(table), made(table.copy())]) == [0]


def test_a_covariate_shift_within_one_release_keeps_patients_apart():
    films = [xd.Phantom_Dataset(n=400, size=16, views=view) for view in ("PA", "L")]
    targets = [np.arange(len(film)) % 2 for film in films]
    arguments = films[0], targets[0], films[1], targets[1]
    owners = [
        set(xd.CovariateDataset(*arguments, mode=mode, by_patient=True).csv["patientid"])
        for mode in ("train", "valid", "test")
    ]
    assert set(films[0].csv["patientid"]) & set(films[1].csv["patientid"])
    assert all(not a & b for a, b in combinations(owners, 2))


# Numbers that can be compared without a merge


def partition(codes):
    return pd.factorize(codes)[0].tolist()


def test_keys_tell_the_same_patients_apart_as_a_merge():
    nih, chex = xd.NIH_Dataset(**EVERYTHING), xd.CheX_Dataset(**EVERYTHING)
    google = xd.NIH_Google_Dataset(**EVERYTHING)
    merged = united(nih, chex, xd.SubsetDataset(google, range(0, len(google), 2)))
    keys = patient_keys(merged)
    assert partition(keys) == partition(patients(merged))
    alone = np.concatenate([patient_keys(one) for one in (nih, chex, google)])
    assert alone[: len(nih) + len(chex)].tolist() == keys[: len(nih) + len(chex)].tolist()
    assert alone[len(nih) + len(chex) :: 2].tolist() == keys[len(nih) + len(chex) :].tolist()
    assert 0 <= keys.min() <= keys.max() < 2**52
    assert keys.dtype == np.int64


def test_keys_are_those_of_another_process():
    assert keys_of(["Tiny\0patient\x00007"]).tolist() == [379544046845259]  # sha256sum
    assert keys_of(["a", "b"], np.array([1, 1, 0])).tolist() == [*[keys_of(["b"])[0]] * 2,
                                                                 keys_of(["a"])[0]]  # fmt: skip
    assert keys_of([]).tolist() == []


def test_keys_know_a_table_by_its_file_or_by_what_it_says(tmp_path):
    table = rows()
    for name in ("one", "two"):
        table.to_csv(tmp_path / f"{name}.csv", index=False)

    def keys(given, **options):
        made = xd.CSV_Dataset(given, tmp_path, path="name", patient="subject", **options)
        return set(patient_keys(made).tolist())

    one, two = keys(tmp_path / "one.csv"), keys(tmp_path / "two.csv")
    assert len(one) == 3
    assert one == keys(str(tmp_path / "one.csv"))
    assert not one & two
    held = keys(table)
    assert held == keys(table.copy())
    assert len(held & keys(table, view="position", views=["AP"])) == 1
    assert not held & (one | keys(table.assign(subject=[7, 7, 8, 10])))


def test_a_blank_patient_is_known_by_the_image(tmp_path):
    table = rows().assign(subject=[7, None, None, 9])
    made = [
        xd.CSV_Dataset(table, tmp_path, path="name", patient="subject", view="position", views=v)
        for v in (None, ["AP"])
    ]
    keys = patient_keys(made[0])
    assert len(set(keys.tolist())) == 4
    assert patient_keys(made[1]).tolist() == [keys[1]]


@pytest.mark.filterwarnings("ignore:RSNA_Pneumonia_Dataset. 98 images")
def test_keys_of_renumbered_patients_cannot_be_compared(releases):
    covid, hannover = releases("COVID19_Dataset"), releases("HannoverCOVID_Dataset")
    assert not same_numbering(covid, hannover)
    assert not same_numbering(xd.SubsetDataset(hannover, [0]), covid)
    assert same_numbering(covid, xd.NIH_Dataset())
    with pytest.raises(DatasetError, match="COVID19_Dataset holds images of Hannover"):
        patient_keys(united(covid, hannover))
    with pytest.raises(DatasetError, match="patients of NIH ChestX-ray14, under names of their"):
        patient_keys(releases("SIIM_Pneumothorax_Dataset"))
