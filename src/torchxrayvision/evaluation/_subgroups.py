"""Whether a model works alike for everyone: AUROC by sex, age, view and site."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation._auroc import auroc_table
from torchxrayvision.evaluation._input import matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

__all__ = ["AGE_BANDS", "UNKNOWN", "age_bands", "subgroup_table", "subgroups_of"]

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
        csv: ``dataset.csv``, or the rows of it that were predicted.

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
        male, female = (csv[name].eq(True).to_numpy(bool) for name in ("sex_male", "sex_female"))
        found["sex"] = np.where(male, "male", np.where(female, "female", UNKNOWN)).astype(object)
    if "age_years" in csv:
        found["age"] = age_bands(csv["age_years"].to_numpy(dtype=np.float64))
    found |= {name: _named(csv[name]) for name in ("view", "site") if name in csv}
    return found


def subgroup_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    subgroups: Mapping[str, ArrayLike],
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """AUROC with intervals within each subgroup.

    Subgroups differ in how common and how severe a finding is, so a gap is a question, not a
    verdict.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        subgroups: Attribute to its value on each row, (N,), as `subgroups_of` gives them.
        groups: Patient of each row, shape (N,); None if each row is a patient of its own.
        n: Bootstrap replicates; patients are resampled.
        seed: Of a generator of its own.
        level: Confidence.

    Returns:
        ``attribute``, ``subgroup`` and the columns of `auroc_table`, whose row ``mean`` closes
        each subgroup.

    Raises:
        EvaluationError: If shapes differ.

    Example:
        >>> view = {"view": ["PA", "PA", "AP", "AP"]}
        >>> table = subgroup_table([[0], [1], [0], [1]], [[1], [2], [3], [4]], ["Mass"], view)
        >>> table.query("finding == 'mean'")[["subgroup", "auroc"]].to_dict("list")
        {'subgroup': ['AP', 'PA'], 'auroc': [1.0, 1.0]}
    """
    import pandas as pd

    known, given = matrix(labels, scores)
    patients = None if groups is None else np.asarray(groups).reshape(-1)
    if patients is not None and len(patients) != len(known):
        msg = f"groups name the patient of each of {len(known)} rows, got {len(patients)}"
        raise EvaluationError(msg)
    parts = []
    for attribute, given_values in subgroups.items():
        members = _named(pd.Series(np.asarray(given_values).reshape(-1)))
        if len(members) != len(known):
            msg = f"subgroups[{attribute!r}] has {len(members)} values for {len(known)} rows"
            raise EvaluationError(msg)
        for value in sorted(set(members)):
            rows = members == value
            table = auroc_table(
                known[rows],
                given[rows],
                names,
                None if patients is None else patients[rows],
                n,
                seed,
                level,
            )
            table.insert(0, "subgroup", value)
            table.insert(0, "attribute", attribute)
            parts.append(table)
    if not parts:
        msg = "subgroups needs an attribute or more, got none"
        raise EvaluationError(msg)
    return pd.concat(parts, ignore_index=True)


def _named(column: pd.Series) -> NDArray[np.object_]:
    """Values as text, missing ones as unknown."""
    known = column.notna().to_numpy()
    return np.where(known, column.astype(str).to_numpy(dtype=object), UNKNOWN).astype(object)
