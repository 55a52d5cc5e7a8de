"""Whether a model works alike for everyone: AUROC by sex, age, view and site."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.discrimination import intervals_of, table_of
from torchxrayvision.evaluation.intervals import (
    Interval,
    matrix,
    patient_codes,
    problem_of,
)
from torchxrayvision.evaluation.joining import plain_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation.intervals import Floats, Rows

# Names of columns of ages in years, without case, spaces and punctuation.
_AGES: Final = ("age", "ageyears", "patientage")

AGE_BANDS: Final = (0, 18, 40, 60, 80)
"""First years of the bands: 0-17, 18-39, 40-59, 60-79, 80+."""

UNKNOWN: Final = "unknown"
"""The subgroup of rows whose attribute is not known."""


def age_bands(years: ArrayLike, starts: Sequence[float] = AGE_BANDS) -> NDArray[np.object_]:
    """The band of each age.

    Args:
        years: Ages, shape (N,); NaN unknown.
        starts: First year of each band, rising.

    Returns:
        Names such as ``"18-39"`` and ``"80+"``, shape (N,).

    Example:
        >>> age_bands([17.9, 18, 85, float("nan")]).tolist()
        ['0-17', '18-39', '80+', 'unknown']
    """
    ages = np.asarray(years, dtype=np.float64).reshape(-1)
    names = [f"{low:g}-{high - 1:g}" for low, high in itertools.pairwise(starts)]
    names = [UNKNOWN, *names, f"{starts[-1]:g}+"]
    places = np.searchsorted(np.asarray(starts, dtype=np.float64), ages, side="right")
    return np.array(names, dtype=object)[np.where(np.isnan(ages), 0, places)]


def subgroups_of(csv: pd.DataFrame) -> dict[str, NDArray[np.object_]]:
    """The attributes by which a dataset of this package can be split.

    Args:
        csv: ``dataset.csv``, the rows of it that were predicted, or what `xrv datasets export`
            wrote, also as text.

    Returns:
        Of ``sex``, ``age``, ``view`` and ``site`` those that the table has, each of shape (N,).

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"sex_male": [True, False], "sex_female": [False, False]})
        >>> subgroups_of(rows)["sex"].tolist()
        ['male', 'unknown']
    """
    found: dict[str, NDArray[np.object_]] = {}
    if {"sex_male", "sex_female"} <= set(csv.columns):
        # Merged tables have neither where a source does not say it, and NaN is true to NumPy.
        male, female = (_is_true(csv[name]) for name in ("sex_male", "sex_female"))
        found["sex"] = np.where(male, "male", np.where(female, "female", UNKNOWN)).astype(object)
    if "age_years" in csv:
        found["age"] = age_bands(_years(csv["age_years"]))
    found |= {name: named(csv[name]) for name in ("view", "site") if name in csv}
    return found


def subgroups_by(csv: pd.DataFrame, names: Sequence[str]) -> dict[str, NDArray[np.object_]]:
    """The subgroups of a table by columns of it, or by an attribute of `subgroups_of`.

    Args:
        csv: Any table.
        names: Columns, or ``sex`` and ``age`` where the table has ``sex_male``, ``sex_female`` and
            ``age_years``. A column of ages in years is split into `AGE_BANDS`.

    Returns:
        Name to the subgroup of each row, (N,); ``unknown`` where the value is missing.

    Raises:
        EvaluationError: If the table has no such column.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"Patient Age": [30, 61], "site": ["01", "1"]})
        >>> {k: v.tolist() for k, v in subgroups_by(rows, ["Patient Age", "site"]).items()}
        {'Patient Age': ['18-39', '60-79'], 'site': ['01', '1']}
    """
    derived = subgroups_of(csv)
    found = {}
    for name in names:
        if name in csv:
            years = plain_name(name) in _AGES
            found[name] = age_bands(_years(csv[name])) if years else named(csv[name])
        elif name in derived:
            found[name] = derived[name]
        else:
            has = ", ".join(map(str, [*csv, *(key for key in derived if key not in csv)]))
            msg = f"the table has no column {name!r}; it has {has}"
            raise EvaluationError(msg)
    return found


@with_former_names
def subgroup_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    subgroups: Mapping[str, ArrayLike],
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """AUROC with intervals within each subgroup.

    Subgroups differ in how common and how severe a finding is, so a gap is a question and not a
    verdict. So that the means of an attribute's subgroups can be compared, they are over the
    findings that have an AUROC in all of them; rows whose value is unknown do not decide which.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        subgroups: Attribute to its value on each row, (N,), as `subgroups_of` gives them.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        ``attribute``, ``subgroup`` and the columns of `auroc_table`, whose row ``mean`` closes
        each subgroup; its ``findings`` is how many the mean is over.

    Raises:
        EvaluationError: If shapes differ.

    Example:
        >>> view = {"view": ["PA", "PA", "AP", "AP"]}
        >>> table = subgroup_table([[0], [1], [0], [1]], [[1], [2], [3], [4]], ["Mass"], view)
        >>> table.query("finding == 'mean'")[["subgroup", "auroc"]].to_dict("list")
        {'subgroup': ['AP', 'PA'], 'auroc': [1.0, 1.0]}
    """
    known, given = matrix(labels, scores)
    if len(names) != known.shape[1]:
        msg = f"names are those of {known.shape[1]} findings, got {len(names)}"
        raise EvaluationError(msg)
    patients = patient_codes(patient_ids, len(known))

    def tables(rows_of: dict[str, NDArray[np.bool_]]) -> Iterator[pd.DataFrame]:
        shared = _shared(known, given, rows_of)
        for rows in rows_of.values():
            intervals, _ = intervals_of(known[rows], given[rows], patients[rows], level)
            mean = _mean(known[rows], given[rows], patients[rows], shared, level)
            table = table_of(names, intervals, mean)
            table["findings"] = [*table["findings"][:-1], len(shared)]
            yield table

    return table_by_subgroup(subgroups, len(known), tables)


def table_by_subgroup(
    subgroups: Mapping[str, ArrayLike],
    rows: int,
    tables: Callable[[dict[str, NDArray[np.bool_]]], Iterable[pd.DataFrame]],
) -> pd.DataFrame:
    """One table of the tables of every subgroup of every attribute.

    Args:
        subgroups: Attribute to the subgroup of each row.
        rows: How many rows there are, N.
        tables: Makes the table of each subgroup of one attribute, given its rows, (N,) each.

    Returns:
        Them below each other, with the columns ``attribute`` and ``subgroup`` in front.

    Raises:
        EvaluationError: If there is no attribute, or one has not one value per row.
    """
    import pandas as pd

    parts = []
    for attribute, values in subgroups.items():
        members = members_of(values, attribute, rows)
        rows_of = {value: members == value for value in sorted(set(members))}
        for value, table in zip(rows_of, tables(rows_of), strict=True):
            table.insert(0, "subgroup", value)
            table.insert(0, "attribute", attribute)
            parts.append(table)
    if not parts:
        msg = "subgroups needs an attribute or more, got none"
        raise EvaluationError(msg)
    return pd.concat(parts, ignore_index=True)


def members_of(values: ArrayLike, attribute: str, rows: int) -> NDArray[np.object_]:
    """The subgroup of each row, (N,).

    Args:
        values: Of each row, (N,).
        attribute: What messages call them.
        rows: How many there must be, N.

    Raises:
        EvaluationError: If there are not as many.
    """
    import pandas as pd

    members = named(pd.Series(np.asarray(values).reshape(-1)))
    if len(members) != rows:
        msg = f"subgroups[{attribute!r}] has {len(members)} values for {rows} rows"
        raise EvaluationError(msg)
    return members


def _shared(known: Floats, given: Floats, rows_of: Mapping[str, NDArray[np.bool_]]) -> list[int]:
    """Findings that have an AUROC in every subgroup that is known."""
    groups = [rows for value, rows in rows_of.items() if value != UNKNOWN] or [*rows_of.values()]
    return [
        j
        for j in range(known.shape[1])
        if not any(problem_of(known[rows, j], given[rows, j]) for rows in groups)
    ]


def _mean(
    known: Floats, given: Floats, patients: Rows, shared: list[int], level: float
) -> Interval:
    """The mean over the shared findings, or why there is none."""
    intervals, mean = intervals_of(known[:, shared], given[:, shared], patients, level)
    lacking = sum(math.isnan(interval.value) for interval in intervals)
    if shared and not lacking:
        return mean
    reason = (
        f"{lacking} of the {len(shared)} findings that the other subgroups share have no AUROC here"
        if shared
        else "no finding has an AUROC in every subgroup"
    )
    return Interval(math.nan, math.nan, math.nan, mean.n, mean.positives, level, reason)


def named(column: pd.Series) -> NDArray[np.object_]:
    """Values as text, missing ones as unknown."""
    text = column.astype(str).to_numpy(dtype=object)
    known = column.notna().to_numpy() & (text != "")
    return np.where(known, text, UNKNOWN).astype(object)


def _is_true(column: pd.Series) -> NDArray[np.bool_]:
    """Where a column says yes, as a truth value or in text."""
    return column.astype(str).str.lower().isin(["true", "1", "1.0"]).to_numpy(bool)


def _years(column: pd.Series) -> NDArray[np.float64]:
    """Ages as numbers; NaN where there is none."""
    import pandas as pd

    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
