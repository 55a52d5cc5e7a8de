"""Splits that keep each patient on one side, and the official splits of the releases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.containers import MergeDataset, SubsetDataset
from torchxrayvision.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    """
    if isinstance(dataset, SubsetDataset):
        chosen: Rows = patients(dataset.dataset)[dataset.idxs]
        return chosen
    codes = _apart(dataset)
    rows = np.arange(len(codes))
    cohorts: dict[object, list[Part]] = {}
    for part in _leaves(dataset, rows, rows):
        cohorts.setdefault(getattr(part[0], "_cohort", id(part[0])), []).append(part)
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
        DatasetError: If the release has none.
    """
    spec = getattr(dataset, "spec", None)
    column = None if spec is None else spec.split
    if column is None or column not in dataset.csv.columns:
        msg = f"{type(dataset).__name__} has no official split; see split_by_patient"
        raise DatasetError(msg)
    values = dataset.csv[column]
    return {
        str(name): SubsetDataset(dataset, np.flatnonzero(values == name))
        for name in values.dropna().unique()
    }
