"""AUROC with intervals: one finding, a table of findings, two models on the same rows.

One rule serves all of them, see `ranking`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.intervals import (
    MEAN,
    Interval,
    checked_level,
    column,
    combined,
    counts_of,
    matrix,
    patient_codes,
    problem_of,
    z_of,
)
from torchxrayvision.evaluation.ranking import (
    LEAST_FOR_AREA,
    Area,
    RankedClass,
    area_ends,
    spread_of_normal,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from torchxrayvision.evaluation.intervals import Floats, Rows

# What follows was chosen by simulation, benchmarks/coverage_of_intervals.py.

# Patients of each class that a difference of two areas needs.
_LEAST_FOR_DIFFERENCE: Final = 10
# Weight, in patients, of the other class's correlation of two models against that of the class.
_PRIOR_CORRELATION: Final = 6
_STEPS: Final = 40  # of a bisection: to twelve digits


@with_former_names
def auroc_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """AUROC with its interval: a score interval with the variance of clustered data.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        The area and its interval; no interval where a class has fewer than five patients.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(400) % 4 == 0
        >>> interval = auroc_interval(labels, labels + rng.normal(size=400))
        >>> 0.7 < interval.low < interval.value < interval.high < 0.85
        True

    Source:
        DeLong et al. Comparing the areas under two or more correlated receiver operating
        characteristic curves. Biometrics 44, 1988. Obuchowski. Nonparametric analysis of clustered
        ROC curve data. Biometrics 53, 1997. Newcombe. Confidence intervals for an effect size
        measure based on the Mann-Whitney statistic, part 2. Statistics in Medicine 25, 2006.
    """
    column(labels, scores)
    (interval,) = intervals_of(labels, scores, patient_ids, level)[0]
    return interval


@with_former_names
def mean_auroc(
    labels: ArrayLike,
    scores: ArrayLike,
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Mean AUROC over findings with its interval.

    Findings without an AUROC, for want of rows of a class, are left out of the mean. The intervals
    of the others are combined as Donner and Zou do, with the correlations that the patients show.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        The mean and its interval; `n` counts rows with any label, `positives` all labels of 1.
        There is no interval where more than half of its variance is that of findings with too few
        patients.

    Raises:
        EvaluationError: If shapes differ, or no finding has an AUROC.

    Source:
        Donner and Zou. Closed-form confidence intervals for functions of the normal mean and
        standard deviation. Statistical Methods in Medical Research 21, 2012.

    Example:
        >>> mean_auroc([[0, 0], [1, 0], [0, 1], [1, 1]], [[1, 2], [2, 1], [1, 3], [3, 0]]).value
        0.75
    """
    _, mean = intervals_of(labels, scores, patient_ids, level)
    if math.isnan(mean.value):
        raise EvaluationError(mean.reason)
    return mean


@with_former_names
def auroc_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """AUROC of every finding with intervals, and their mean.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        Columns ``finding``, ``n``, ``positives``, ``auroc``, ``low``, ``high``, ``findings`` and
        ``reason``; the last row is ``mean``, over as many ``findings``. A finding without an AUROC
        or without an interval has NaN there and says why in ``reason``.

    Raises:
        EvaluationError: If shapes differ, or a label is neither 0, 1 nor NaN.

    Example:
        >>> labels, scores = [[0, 0], [1, 0]] * 5, [[1, 5], [2, 6]] * 5
        >>> auroc_table(labels, scores, ["Mass", "Edema"])["reason"].tolist()
        ['', 'no row has the finding', '']
    """
    intervals, mean = intervals_of(labels, scores, patient_ids, level)
    if len(intervals) != len(names):
        msg = f"names are those of {len(intervals)} findings, got {len(names)}"
        raise EvaluationError(msg)
    return table_of(names, intervals, mean)


def table_of(names: Sequence[str], intervals: list[Interval], mean: Interval) -> pd.DataFrame:
    """The table of `auroc_table` from its intervals."""
    import pandas as pd

    defined = sum(not math.isnan(interval.value) for interval in intervals)
    counts = [int(not math.isnan(interval.value)) for interval in intervals]
    rows = [*intervals, mean]
    return pd.DataFrame(
        {
            "finding": [*names, MEAN],
            "n": [interval.n for interval in rows],
            "positives": [interval.positives for interval in rows],
            "auroc": [interval.value for interval in rows],
            "low": [interval.low for interval in rows],
            "high": [interval.high for interval in rows],
            "findings": [*counts, 0 if math.isnan(mean.value) else defined],
            "reason": [interval.reason for interval in rows],
        }
    )


@with_former_names
def paired_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Difference in mean AUROC of two models on the same rows, with a paired interval.

    The interval inverts the score test of each finding's difference, with the correlation of the
    two models over patients; findings are combined as by `mean_auroc`.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N,) or (N, P).
        scores_a: Of the first model, same shape.
        scores_b: Of the second model, same shape.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        First minus second, over the findings for which both have an AUROC. An interval that
        leaves out 0 is a difference that chance would seldom make. There is no interval where
        more than half of its variance is that of findings with fewer than ten patients of a class.

    Raises:
        EvaluationError: If shapes differ, or no finding has an AUROC.

    Example:
        >>> paired_difference([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], [0.9, 0.1, 0.2, 0.8]).value
        0.75

    Source:
        DeLong et al. Comparing the areas under two or more correlated receiver operating
        characteristic curves. Biometrics 44, 1988.
    """
    checked_level(level)
    known, first = matrix(labels, scores_a)
    _, second = matrix(labels, scores_b)
    usable = [
        not problem_of(known[:, j], first[:, j]) and not problem_of(known[:, j], second[:, j])
        for j in range(known.shape[1])
    ]
    if not any(usable):
        msg = "no finding has rows of both classes with the scores of both models"
        raise EvaluationError(msg)
    known = known[:, usable]
    codes = patient_codes(patient_ids, len(known))
    ours = _measured(known, first[:, usable], codes)
    theirs = _measured(known, second[:, usable], codes)
    differences = np.array([a.value - b.value for a, b in zip(ours, theirs, strict=True)])
    low, high = _ends_of_differences(ours, theirs, level)
    moved = np.stack([a.influence - b.influence for a, b in zip(ours, theirs, strict=True)])
    few = [a.lacks(_LEAST_FOR_DIFFERENCE) for a in ours]
    return combined(known, differences, low, high, moved, few, -1.0, level)


def _ends_of_differences(
    ours: list[Area], theirs: list[Area], level: float
) -> tuple[Floats, Floats]:
    """Furthest differences that the score test does not refute, for each finding.

    The mean of the two areas is held where it is, and the difference varies about it.
    """
    a, b = (np.array([area.value for area in areas]) for areas in (ours, theirs))
    scale_a, scale_b = (np.array([area.scale for area in areas]) for areas in (ours, theirs))
    together = np.array([_together(x, y) for x, y in zip(ours, theirs, strict=True)])
    middle, apart, z = (a + b) / 2, a - b, z_of(level)
    signs = np.array([[-1.0], [1.0]])
    near, far = np.zeros((2, len(a))), np.full((2, len(a)), 2.0)
    for _ in range(_STEPS):
        reach = (near + far) / 2
        half = (apart + signs * reach) / 2
        first = np.sqrt(scale_a * spread_of_normal(middle + half))
        second = np.sqrt(scale_b * spread_of_normal(middle - half))
        variance = (first - second) ** 2 + 2 * (1 - together) * first * second
        inside = reach <= z * np.sqrt(variance)
        near, far = np.where(inside, reach, near), np.where(inside, far, reach)
    low, high = apart - near[0], apart + near[1]
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def _together(first: Area, second: Area) -> float:
    """Correlation of two models' areas: each class's, drawn towards that of the other class."""
    a, b = first.with_finding, first.without
    with_finding = _correlation(a.summed, second.with_finding.summed)
    without = _correlation(b.summed, second.without.summed)

    def drawn(part: RankedClass, own: float, other: float) -> float:
        whole = part.patients + _PRIOR_CORRELATION
        return (part.patients * own + _PRIOR_CORRELATION * other) / whole

    share = b.patients / (a.patients + b.patients)  # of the variance that positives bring
    together = drawn(a, with_finding, without) * share + drawn(b, without, with_finding) * (
        1 - share
    )
    return min(max(together, -1.0), 1.0)


def _correlation(x: Floats, y: Floats) -> float:
    if np.array_equal(x, y) and x.any():
        return 1.0
    length = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / length if length > 0 else 0.0


def intervals_of(
    labels: ArrayLike, scores: ArrayLike, patient_ids: ArrayLike | None, level: float
) -> tuple[list[Interval], Interval]:
    """One interval per finding, and that of their mean.

    Args:
        labels: (N, P) or (N,).
        scores: Of the same shape.
        patient_ids: (N,), or None.
        level: Confidence.

    Returns:
        P intervals, and the mean over those that have a value.
    """
    checked_level(level)
    known, given = matrix(labels, scores)
    codes = patient_codes(patient_ids, len(known))
    problems = [problem_of(known[:, j], given[:, j]) for j in range(known.shape[1])]
    good = [j for j, problem in enumerate(problems) if not problem]
    result = [_undefined(known[:, [j]], problem, level) for j, problem in enumerate(problems)]
    if not good:
        return result, _undefined(known, "no finding has an AUROC", level)
    areas = _measured(known[:, good], given[:, good], codes)
    values = np.array([area.value for area in areas])
    low, high = area_ends(values, np.array([area.scale for area in areas]), level)
    few = [area.lacks(LEAST_FOR_AREA) for area in areas]
    for place, j in enumerate(good):
        ends = (math.nan, math.nan) if few[place] else (float(low[place]), float(high[place]))
        counts = counts_of(known[:, [j]])
        result[j] = Interval(float(values[place]), *ends, *counts, level, few[place])
    moved = np.stack([area.influence for area in areas])
    return result, combined(known[:, good], values, low, high, moved, few, 0.0, level)


def _measured(known: Floats, scores: Floats, codes: Rows) -> list[Area]:
    everyone = int(codes.max()) + 1
    return [Area.of(known[:, j], scores[:, j], codes, everyone) for j in range(known.shape[1])]


def _undefined(known: Floats, reason: str, level: float) -> Interval:
    return Interval(math.nan, math.nan, math.nan, *counts_of(known), level, reason)
