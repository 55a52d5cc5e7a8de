"""Splits that keep each patient on one side, and the official splits of the releases."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision import tables
from torchxrayvision.datasets.containers import MergeDataset, SubsetDataset
from torchxrayvision.errors import DatasetError, DataWarning, caller_stacklevel, counted
from torchxrayvision.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Part = tuple[Any, Rows, Rows]


def patients(dataset: Any) -> NDArray[Any]:
    """The patient of each row, as codes from 0.

    Patients of merged sources are the same where the sources have one cohort and the numbers
    agree: a release that is merged with another choice of itself (CheXpert's PA and AP images), or
    releases that number the same patients alike (`DatasetSpec.cohort`): NIH ChestX-ray14, Google's
    labels and RSNA, whose images were matched to NIH's (98 of 26,684 have no match and count as a
    patient each); CheXpert, CheXlocalize and CheXpert Plus; MIMIC-CXR, MS-CXR and REFLACX;
    PadChest and PadChest-GR. A merge is refused where images of a cohort have names of their own
    and no patients (SIIM, ChestX-Det, ChestMNIST) or other numbers (Hannover's in COVID19).
    A `CSV_Dataset` shares patients with the same table only, and a dataset without a spec with
    nobody but itself. Patients of other sources are never the same.

    Args:
        dataset: A dataset whose csv has the column ``patientid``, or a container of such.

    Returns:
        int64 (N,).

    Raises:
        DatasetError: If a source does not say whose image it is, or two sources hold the same
            patients under other numbers.

    Warns:
        DataWarning: Images of a cohort could not be matched to its patients.
    """
    codes = _codes(dataset)
    rows = np.arange(len(codes))
    for leaf, chosen, _ in _leaves(dataset, rows, rows):
        _say_unmatched(leaf, chosen)
    return codes


def patient_keys(dataset: Any) -> NDArray[np.int64]:
    """The patient of each row, as numbers that mean the same patient in any dataset.

    `patients` counts from 0 in each dataset; these can be compared between datasets that are not
    merged, and between processes: they are hashes of the cohort and of its number of the patient,
    by the rules of `patients`. A table in memory is known by its patients and images, so an equal
    one has the same patients. A row whose patient is blank is known by its image.

    Args:
        dataset: A dataset whose csv has the column ``patientid``, or a container of such.

    Returns:
        int64 (N,), from 0 to below 2**52, so that every program reads them exactly.

    Raises:
        DatasetError: If a source does not say whose image it is, or two sources hold the same
            patients under other numbers.

    Example:
        >>> from torchxrayvision.datasets import Phantom_Dataset
        >>> many, few = (patient_keys(Phantom_Dataset(n=n, size=32)) for n in (9, 3))
        >>> bool((many[:3] == few).all())
        True
    """
    keys = patients(dataset).astype(np.int64)  # which refuses what cannot be told
    rows = np.arange(len(keys))
    for leaf, chosen, places in _leaves(dataset, rows, rows):
        source, numbers = _source(leaf), _numbers(leaf).iloc[chosen]
        codes, ids = numbers.factorize()
        keys[places] = keys_of([f"{source}\0patient\0{one}" for one in ids], codes)
        for row in np.flatnonzero(codes < 0):
            image = leaf.image_path(int(chosen[row])) if hasattr(leaf, "image_path") else row
            keys[places[row]] = keys_of([f"{source}\0image\0{image}"])[0]
    return keys


def keys_of(names: Iterable[str], codes: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Numbers for names, the same wherever the name is the same.

    Args:
        names: Of anything, K of them.
        codes: Which name each row has, (N,), -1 for none; None for one row per name.

    Returns:
        int64 (N,), from 0 to below 2**52: among a million names the chance that two have one
        number is 1 in 9,000. A row without a name has 0.
    """
    each = [int(sha256_of(name.encode())[:13], 16) for name in names]
    return np.array(each, np.int64) if codes is None else np.array([*each, 0], np.int64)[codes]


def same_numbering(first: Any, second: Any) -> bool:
    """Whether `patient_keys` of two datasets can be compared.

    Args:
        first: A dataset or container.
        second: Another one.

    Returns:
        False if one holds patients of the other under numbers of its own.
    """
    cohorts: dict[object, list[Part]] = {}
    for dataset in (first, second):
        rows = np.arange(len(dataset))
        for part in _leaves(dataset, rows, rows):
            cohorts.setdefault(_cohort(part[0]), []).append(part)
    try:
        for part in (part for parts in cohorts.values() for part in parts):
            _refuse_renumbered(part[0], cohorts)
    except DatasetError:
        return False
    return True


def _cohort(dataset: Any) -> object:
    """Whose patients these are; a dataset without a spec has its own."""
    return getattr(dataset, "_cohort", id(dataset))


def _source(dataset: Any) -> str:
    """A cohort by a name that is the same in every process."""
    named: str | None = getattr(dataset, "_cohort_name", None)
    if named is not None:
        return named
    ids = "\n".join(dataset.csv["patientid"].astype(str))
    return f"{type(dataset).__name__} {sha256_of(ids.encode())}"


def _say_unmatched(dataset: Any, rows: Rows) -> None:
    """Warn where some rows are images of patients of a cohort, and nobody could tell of which."""
    spec = getattr(dataset, "spec", None)
    if spec is None or (rule := spec.unknown_patient) is None:
        return
    unknown = int(np.asarray(rule(dataset.csv, dataset._context), dtype=bool)[rows].sum())
    if unknown:
        images = counted(unknown, "image is", "images are")
        msg = (
            f"{type(dataset).__name__}: {images} not matched to a patient of {spec.cohort}; each "
            f"counts as a patient of its own, who may also be on another side"
        )
        warnings.warn(msg, DataWarning, stacklevel=caller_stacklevel())


def _codes(dataset: Any) -> Rows:
    """Codes of the patients of each row."""
    if isinstance(dataset, SubsetDataset):
        chosen: Rows = _codes(dataset.dataset)[dataset.idxs]
        return chosen
    codes = _apart(dataset)
    rows = np.arange(len(codes))
    cohorts: dict[object, list[Part]] = {}
    for part in _leaves(dataset, rows, rows):
        cohorts.setdefault(_cohort(part[0]), []).append(part)
    for part in (part for parts in cohorts.values() for part in parts):
        _refuse_renumbered(part[0], cohorts)
    for parts in cohorts.values():
        if len(parts) > 1:
            _unite(codes, parts)
    return codes


def _refuse_renumbered(dataset: Any, cohorts: Mapping[object, Sequence[Part]]) -> None:
    """Raise where patients of one dataset are in another one under numbers that nobody can tell."""
    for cohort in getattr(getattr(dataset, "spec", None), "renumbered_cohorts", ()):
        if cohort in cohorts:
            msg = (
                f"{type(dataset).__name__} holds images of {type(cohorts[cohort][0][0]).__name__} "
                f"under patient numbers of its own, so which patients are the same is not known; "
                f"leave one of the two out"
            )
            raise DatasetError(msg)


def _apart(dataset: Any) -> Rows:
    """Codes of the patients as if merged sources had none in common."""
    if isinstance(dataset, SubsetDataset):
        codes: Rows = _apart(dataset.dataset)[dataset.idxs]
        return codes
    if isinstance(dataset, MergeDataset):
        start, parts = 0, []
        for inner in dataset.datasets:
            codes = _apart(inner)
            parts.append(codes + start)
            start += int(codes.max(initial=-1)) + 1
        return np.concatenate(parts)
    numbers, uniques = _numbers(dataset).factorize()
    unknown = numbers < 0
    codes = numbers.astype(np.int64)
    codes[unknown] = len(uniques) + np.arange(int(unknown.sum()))
    return codes


def _leaves(dataset: Any, rows: Rows, places: Rows) -> Iterator[Part]:
    """Each dataset inside, rows of it, and where these stand in the whole.

    Args:
        dataset: A dataset or a container.
        rows: Some of its rows.
        places: Where each of them stands in the whole.
    """
    if isinstance(dataset, SubsetDataset):
        yield from _leaves(dataset.dataset, dataset.idxs[rows], places)
    elif isinstance(dataset, MergeDataset):
        which = dataset.which_dataset[rows]
        within = rows - dataset.offset[rows]
        for i, inner in enumerate(dataset.datasets):
            yield from _leaves(inner, within[which == i], places[which == i])
    else:
        yield dataset, rows, places


def _unite(codes: Rows, parts: Sequence[Part]) -> None:
    """Give the patients of one cohort the lowest of their codes, in place."""
    import pandas as pd

    ids = pd.concat([_numbers(leaf).iloc[rows] for leaf, rows, _ in parts], ignore_index=True)
    places = np.concatenate([places for _, _, places in parts])
    people = ids.factorize()[0]
    places, people = places[people >= 0], people[people >= 0]
    lowest = np.full(people.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, people, codes[places])
    codes[places] = lowest[people]


def _numbers(dataset: Any) -> pd.Series[Any]:
    """The patients of a dataset as its cohort numbers them."""
    spec, csv = getattr(dataset, "spec", None), dataset.csv
    if spec is not None and spec.true_patient is not None:
        told: pd.Series[Any] = spec.true_patient(csv, dataset._context)
        return told
    if "patientid" not in csv.columns:
        msg = f"{type(dataset).__name__} has no column patientid, so its patients are not known"
        if spec is not None and spec.cohort:
            msg += f"; its images are of patients of {spec.cohort}, under names of their own"
        raise DatasetError(msg)
    ids: pd.Series[Any] = csv["patientid"].astype(object)
    prefix = getattr(spec, "cohort_prefix", "")
    return ids.str.removeprefix(prefix) if prefix else ids


def split_by_patient(
    dataset: Any, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0
) -> tuple[SubsetDataset, ...]:
    """Random parts of a dataset that share no patient.

    Args:
        dataset: A dataset with ``patientid``, or a container of such.
        fractions: Share of the *patients* in each part; they sum to 1 or less.
        seed: Of a generator of its own. The same seed gives the same parts.

    Returns:
        One `SubsetDataset` a fraction, rows in the order of the dataset.

    Raises:
        DatasetError: If the fractions do not fit, or the patients are not known.

    Source:
        Patients on both sides of a split inflate results: Zech et al., PLoS Medicine 2018,
        https://doi.org/10.1371/journal.pmed.1002683.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.ndim != 1 or not len(shares) or (shares <= 0).any() or shares.sum() > 1 + 1e-9:
        msg = f"fractions must be positive and sum to at most 1, got {list(fractions)}"
        raise DatasetError(msg)
    codes = patients(dataset)
    names, codes = np.unique(codes, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    ends = np.round(np.cumsum(shares) * len(names)).astype(int)
    part_of = np.full(len(names), -1)
    start = 0
    for part, end in enumerate(ends):
        part_of[order[start:end]] = part
        start = end
    rows = part_of[codes]
    return tuple(SubsetDataset(dataset, np.flatnonzero(rows == part)) for part in range(len(ends)))


def official_splits(dataset: Any) -> dict[str, SubsetDataset]:
    """The parts that a release itself defines.

    Args:
        dataset: A dataset whose release has a split.

    Returns:
        Name of the part, such as "train", to its rows.

    Raises:
        DatasetError: If the release has none, or the tables at hand do not say.

    Example:
        >>> from torchxrayvision.datasets import NIH_Dataset
        >>> parts = official_splits(NIH_Dataset(views="*", unique_patients=False))
        >>> {name: len(part) for name, part in parts.items()}
        {'train_val': 86524, 'test': 25596}
    """
    import pandas as pd

    spec = getattr(dataset, "spec", None)
    rule = None if spec is None else spec.split
    if rule is None or (isinstance(rule, str) and rule not in dataset.csv.columns):
        msg = f"{type(dataset).__name__} has no official split; see split_by_patient"
        raise DatasetError(msg)
    if isinstance(rule, str):
        values: pd.Series[Any] = dataset.csv[rule]
    else:
        values = pd.Series(rule(dataset.csv, dataset._context), dtype=object)
    return {
        str(name): SubsetDataset(dataset, np.flatnonzero(values == name))
        for name in values.dropna().unique()
    }


def official_split(dataset: Any, part: str) -> SubsetDataset:
    """One part that a release itself defines; `SpecDataset.official_split` is the same.

    Args:
        dataset: A dataset whose release has a split.
        part: Its name, such as ``"test"``.

    Returns:
        Its rows.

    Raises:
        DatasetError: If the release has no split, or none of these rows is in that part.
    """
    parts = official_splits(dataset)
    if part not in parts:
        has = ", ".join(map(repr, parts)) or "no part that its tables tell"
        msg = f"{type(dataset).__name__} has no part {part!r} here; these rows are in {has}"
        raise DatasetError(msg)
    return parts[part]


@dataclass(frozen=True, kw_only=True)
class Split:
    """A part of a dataset by hash, so that a paper can name it and a reader can check it.

    Args:
        images: How many.
        patients: How many; None where the release does not say.
        images_sha256: Of the names of the images, sorted and joined by line feeds.
        patients_sha256: Of the patients as the release numbers them, likewise.
    """

    images: int
    patients: int | None
    images_sha256: str
    patients_sha256: str | None

    def __str__(self) -> str:
        people = "" if self.patients is None else f" of {counted(self.patients, 'patient')}"
        return f"{counted(self.images, 'image')}{people}, sha256 {self.images_sha256}"


def describe_split(dataset: Any) -> Split:
    """Count and hash the images and patients of a dataset or a part of one.

    The order of rows does not matter, and neither does where files are: a name is the path below
    the folder of the release. NIH's patients are hashed with eight digits, as in names of files.

    Args:
        dataset: A dataset with a spec, or a container of such.

    Returns:
        Its counts and hashes.

    Raises:
        DatasetError: If a dataset inside has no names of images.

    Example:
        >>> from torchxrayvision.datasets import SIIM_Pneumothorax_Dataset
        >>> describe_split(SIIM_Pneumothorax_Dataset()).images
        12047
    """
    rows = np.arange(len(dataset))
    leaves = list(_leaves(dataset, rows, rows))
    names: list[str] = []
    people: list[str] | None = []
    for leaf, chosen, _ in leaves:
        if not hasattr(leaf, "image_path"):
            msg = f"{type(leaf).__name__} does not name its images, so its rows have no hash"
            raise DatasetError(msg)
        prefix = f"{type(leaf).__name__}/" if len(leaves) > 1 else ""
        names += [prefix + leaf.image_path(int(i)) for i in chosen]
        if people is not None and "patientid" in leaf.csv.columns:
            ids = leaf.csv["patientid"].iloc[chosen].dropna().astype(str).unique()
            width = 8 if type(leaf).__name__ in ("NIH_Dataset", "NIH_Google_Dataset") else 0
            people += [prefix + name.zfill(width) for name in ids]
        else:
            people = None
    hashed = None if people is None else sha256_of("\n".join(sorted(people)).encode())
    count = None if people is None else len(people)
    return Split(
        images=len(names),
        patients=count,
        images_sha256=sha256_of("\n".join(sorted(names)).encode()),
        patients_sha256=hashed,
    )


@dataclass(frozen=True, kw_only=True)
class OfficialSplit:
    """A part of a release as it is known, to compare what is on a disk with.

    Args:
        dataset: Class of `torchxrayvision.datasets`.
        part: Name for `official_split`.
        images: With every view and all images of each patient.
        patients: How many; None where nobody says.
        images_sha256: See `Split`; empty where the release may not be looked at without an account
            and nobody has published one.
        patients_sha256: Likewise.
        source: Where the counts are from.
    """

    dataset: str
    part: str
    images: int
    patients: int | None
    images_sha256: str = ""
    patients_sha256: str = ""
    source: str

    def problems(self, found: Split) -> list[str]:
        """How a part on a disk differs from this one, one phrase each.

        Args:
            found: What `describe_split` says of it.

        Returns:
            Nothing where it is the same, as far as is known.
        """
        pairs = [
            ("images", found.images, self.images),
            ("patients", found.patients, self.patients),
            ("sha256 of the images", found.images_sha256, self.images_sha256),
            ("sha256 of the patients", found.patients_sha256, self.patients_sha256),
        ]
        return [f"{what} {a}, not {b}" for what, a, b in pairs if b and a is not None and a != b]


_PACKAGED: Final = "computed from the packaged table"
OFFICIAL_SPLITS: Final = (
    OfficialSplit(
        dataset="NIH_Dataset", part="test", images=25_596, patients=2_797,
        images_sha256="38ca5ef7f756092946f57c1a59faca882ed589a1ab1f72590b45dc06c6d5e1cc",
        patients_sha256="c8785378860368fe9cfe9d0f35d0b40f6cf438c0ffe5c74bd392a882e09b6d38",
        source="test_list.txt of the release",
    ),
    OfficialSplit(
        dataset="NIH_Dataset", part="train_val", images=86_524, patients=28_008,
        images_sha256="61fbe896321c1c1c8b75f3e4f3a08e4fef6486d95ef8a667c31d4d60dca6cb81",
        patients_sha256="7a4c7bbf37a849ef7246d26e1e1fd1418def7aff6c59748611d98b7b965d47fe",
        source="all images that test_list.txt does not name",
    ),
    OfficialSplit(
        dataset="NIH_Google_Dataset", part="val", images=2_414, patients=835,
        images_sha256="5c65a18539fb690b1caf547470042f34d89793907510922aa371c41a7a3e3db4",
        patients_sha256="5a3794c3186d8dc93602752f748942f24af1476b680d91d040d36e2520c2f0a7",
        source=_PACKAGED,
    ),
    OfficialSplit(
        dataset="NIH_Google_Dataset", part="test", images=1_962, patients=860,
        images_sha256="57ca800831f84c724f7e1fc0d5d181173f06cdce6cabf61ba2294a36b88cf0b4",
        patients_sha256="a9080dc32cd4d578a4eb68da25c7ff259dfe15338104241af03bce41af60034d",
        source=_PACKAGED,
    ),
    OfficialSplit(
        dataset="CheX_Dataset", part="train", images=223_414, patients=64_540,
        images_sha256="3d676e50d2f36abf485b85d7c9f6f98c2824b8e5d73d58ea99002b06eb8e77f8",
        patients_sha256="017393d825437336c8ac4515f1e3b7d9148c7476a812824efc6adc3a65171cac",
        source=_PACKAGED,
    ),
    OfficialSplit(
        dataset="CheX_Dataset", part="valid", images=234, patients=200,
        source="Irvin et al., AAAI 2019, https://arxiv.org/abs/1901.07031",
    ),
    OfficialSplit(
        dataset="CheX_Dataset", part="test", images=668, patients=500,
        source="Saporta et al., 2022, https://doi.org/10.1038/s42256-022-00536-x",
    ),
    OfficialSplit(
        dataset="CheXlocalize_Dataset", part="valid", images=234, patients=200,
        source="Saporta et al., 2022, https://doi.org/10.1038/s42256-022-00536-x",
    ),
    OfficialSplit(
        dataset="CheXlocalize_Dataset", part="test", images=668, patients=500,
        source="Saporta et al., 2022, https://doi.org/10.1038/s42256-022-00536-x",
    ),
    OfficialSplit(
        dataset="VinDr_Dataset", part="train", images=15_000, patients=None,
        images_sha256="6f309ecb96e90eb22b38b5acebee449df7c7e27a686e110d5ddb56b32b7628fa",
        source=_PACKAGED,
    ),
    OfficialSplit(
        dataset="VinDr_Dataset", part="test", images=3_000, patients=None,
        source="Nguyen et al., 2022, https://doi.org/10.1038/s41597-022-01498-w",
    ),
    OfficialSplit(
        dataset="TBX11K_Dataset", part="train", images=6_600, patients=None,
        source="Liu et al., CVPR 2020, https://doi.org/10.1109/CVPR42600.2020.00272",
    ),
    OfficialSplit(
        dataset="TBX11K_Dataset", part="val", images=1_800, patients=None,
        source="Liu et al., CVPR 2020, https://doi.org/10.1109/CVPR42600.2020.00272",
    ),
    OfficialSplit(
        dataset="MIMIC_Dataset", part="test", images=5_159, patients=None,
        source="mimic-cxr-2.0.0-split.csv, https://doi.org/10.13026/8360-t248",
    ),
)  # fmt: skip
"""Parts of releases whose counts are known. BRAX, RSNA's and SIIM's challenges publish no split."""


def find_official_split(dataset: str, part: str) -> OfficialSplit | None:
    """What is known of a part of a release.

    Args:
        dataset: Name of the class.
        part: Name of the part.

    Returns:
        Its counts and hashes, or None.
    """
    found = (s for s in OFFICIAL_SPLITS if (s.dataset, s.part) == (dataset, part))
    return next(found, None)


def in_official_test(dataset: Any) -> NDArray[np.bool_]:
    """Rows whose patient is in NIH's official test list, in whatever release they are.

    RSNA's challenge and Google's labels are made of NIH's images, so a model that trains on them
    has seen patients that NIH tests on, unless these rows are left out.

    Args:
        dataset: A dataset or container; images of other cohorts are in no list.

    Returns:
        Boolean (N,).

    Raises:
        DatasetError: If images are NIH's and their patients are not known (SIIM, ChestX-Det).

    Example:
        >>> from torchxrayvision.datasets import RSNA_Pneumonia_Dataset
        >>> int(in_official_test(RSNA_Pneumonia_Dataset(views="*")).sum())
        7170
    """
    tested = set(tables.load("nih_test")["Patient ID"].astype(str))
    rows = np.arange(len(dataset))
    inside = np.zeros(len(dataset), dtype=bool)
    for leaf, chosen, places in _leaves(dataset, rows, rows):
        if getattr(leaf, "_cohort", None) == "NIH ChestX-ray14":
            inside[places] = _numbers(leaf).iloc[chosen].astype(str).isin(tested).to_numpy()
    return inside
