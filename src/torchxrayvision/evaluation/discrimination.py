"""AUROC with intervals: one finding, a table of findings, two models on the same rows.

One rule serves all of them. The variance of an AUROC is that of clustered data (DeLong, Obuchowski)
and the interval inverts the score test: each end is an area that, with the variance which *it*
would have, is just not refuted. Where a class has few patients the variance is drawn towards that
of two normal distributions of the same area. `docs/intervals.md` shows how often the intervals
hold the truth.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.arguments import (
    column,
    matrix,
    patient_codes,
    problem_of,
    with_former_names,
)
from torchxrayvision.evaluation.intervals import Interval, checked_level, too_few, z_of
from torchxrayvision.evaluation.ranking import Ranking

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from torchxrayvision.evaluation.arguments import Floats, Rows

MEAN: Final = "mean"
"""Name of the row of a table that holds the mean over findings."""

# What follows was chosen by simulation, benchmarks/coverage_of_intervals.py.

# Patients of each class that an area, and a difference of two, needs.
_LEAST: Final = 5
_LEAST_FOR_DIFFERENCE: Final = 10
# Weight of the variance of normal scores, in patients, against that which the scores show; and
# how far it is widened, for scores are seldom quite normal.
_PRIOR_PATIENTS: Final = 20
_WIDENED: Final = 1.1
# How alike images of one patient are until pairs of images show it, and the weight of that, in
# pairs.
_ALIKE: Final = 0.5
_PRIOR_PAIRS: Final = 20
# Weight, in patients, of the other class's correlation of two models against that of the class.
_PRIOR_CORRELATION: Final = 6
_STEPS: Final = 40  # of a bisection: to twelve digits


@dataclass(frozen=True)
class _Class:
    """The rows of one class, by patient.

    Attributes:
        rows: How many.
        patients: How many patients they come from.
        pairs: Pairs of rows of one patient, each counted twice.
        spread: Sum of squared deviations of the rows' placements.
        summed: Sum of the deviations of each patient, (K,).
    """

    rows: int
    patients: int
    pairs: int
    spread: float
    summed: Floats

    @classmethod
    def of(cls, placements: Floats, area: float, codes: Rows, everyone: int) -> _Class:
        """Sum up placements, (A,), of rows with patient codes (A,)."""
        away = placements - area
        sizes = np.bincount(codes)
        return cls(
            rows=len(away),
            patients=int(np.count_nonzero(sizes)),
            pairs=int(sizes @ sizes) - len(away),
            spread=float(away @ away),
            summed=np.asarray(np.bincount(codes, weights=away, minlength=everyone), np.float64),
        )

    @property
    def likeness(self) -> float:
        """Sum over pairs of rows of one patient of the product of deviations, in variances."""
        return (float(self.summed @ self.summed) - self.spread) / self.spread * self.rows

    @property
    def influence(self) -> Floats:
        """What each patient adds to the area; squares add up to the variance of the class."""
        few = math.sqrt(self.patients / max(self.patients - 1, 1))
        return self.summed * (few / self.rows)

    def effective(self, alike: float) -> float:
        """Rows of different patients that would tell as much."""
        return self.rows / (1 + self.pairs / self.rows * alike)


@dataclass(frozen=True)
class _Area:
    """An AUROC and all that its interval needs.

    Attributes:
        value: The area.
        scale: Variance over that of one pair of normal scores with the same area.
        with_finding: Rows with the finding, by patient.
        without: Rows without it.
    """

    value: float
    scale: float
    with_finding: _Class
    without: _Class

    @classmethod
    def of(cls, labels: Floats, scores: Floats, codes: Rows, everyone: int) -> _Area:
        """Measure one finding; rows with a NaN label are in neither class."""
        ranking = Ranking.of(labels, scores)
        ours, theirs = ranking.placements()
        value = ranking.area
        a = _Class.of(ours, value, codes[ranking.positives], everyone)
        b = _Class.of(theirs, value, codes[ranking.negatives], everyone)
        return cls(value, _scale(value, a, b), a, b)

    @property
    def patients(self) -> int:
        """Patients of the class that has fewer."""
        return min(self.with_finding.patients, self.without.patients)

    @property
    def influence(self) -> Floats:
        """What each patient adds to the area, (K,)."""
        return self.with_finding.influence + self.without.influence

    def lacks(self, needed: int) -> str:
        """Why there is no interval; empty if there is one."""
        if self.patients >= needed:
            return ""
        counts = (
            f"{self.with_finding.patients} with the finding and {self.without.patients} without it"
        )
        return too_few(counts, needed)


def _scale(value: float, a: _Class, b: _Class) -> float:
    if value in (0.0, 1.0):  # a perfect ranking has no spread to judge by: patients count
        return _WIDENED / a.effective(1.0) + _WIDENED / b.effective(1.0)
    informative = [part for part in (a, b) if part.spread > 0]
    pairs = sum(part.pairs for part in informative)
    likeness = sum(part.likeness for part in informative)
    alike = (likeness + _PRIOR_PAIRS * _ALIKE) / (pairs + _PRIOR_PAIRS)
    alike = min(max(alike, 0.0), 1.0)
    normal = float(_spread_of_normal(np.array([value]))[0])
    parts = []
    for part in (a, b):
        expected = _WIDENED * normal / part.effective(alike)
        seen = float(part.influence @ part.influence)
        weight = part.patients - 1
        parts.append((_PRIOR_PATIENTS * expected + weight * seen) / (_PRIOR_PATIENTS + weight))
    return sum(parts) / normal * (1 + _shared(a, b))


def _shared(a: _Class, b: _Class) -> float:
    """Covariance of the classes, which patients in both bring about, over their variance."""
    everyone = int(np.count_nonzero((a.summed != 0) | (b.summed != 0)))
    both = 2 * float(a.summed @ b.summed) / (a.rows * b.rows) * everyone / max(everyone - 1, 1)
    own = float(a.influence @ a.influence) + float(b.influence @ b.influence)
    if not own:  # every row of both classes is placed alike, so there is nothing to share
        return 0.0
    patients = min(a.patients, b.patients)
    return max(both / own, -0.8) * patients / (patients + _PRIOR_PATIENTS)


@functools.cache
def _normal_table() -> tuple[Floats, Floats]:
    """Areas and the variance of a placement, for normal scores of equal spread, by area."""
    distances = np.linspace(-8.3, 8.3, 16_601)
    areas = np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in distances])
    # Owen's T(x, 1 / sqrt 3): two rows without the finding that share one with it correlate by 1/2.
    nodes, weights = np.polynomial.legendre.leggauss(32)
    points = (nodes + 1) / 2 / math.sqrt(3)
    inner = np.exp(-(distances[:, None] ** 2) * (1 + points**2) / 2) / (1 + points**2)
    owen = inner @ weights / (2 * math.sqrt(3)) / (2 * math.pi)
    variance = np.maximum(areas - 2 * owen - areas**2, 0.0)
    return np.r_[0.0, areas, 1.0], np.r_[0.0, variance, 0.0]


def _spread_of_normal(areas: Floats) -> Floats:
    """Variance of a placement of normal scores with these areas; 0 beyond 0 and 1."""
    known, variance = _normal_table()
    return np.asarray(np.interp(areas, known, variance), np.float64)


def _score_ends(values: Floats, scales: Floats, level: float) -> tuple[Floats, Floats]:
    """Lowest and highest area that the score test does not refute, for each value."""
    z = z_of(level)
    start = np.stack([values, 1 - values])  # the highest area is the lowest of the other class
    near, far = start, np.zeros_like(start)
    for _ in range(_STEPS):
        middle = (near + far) / 2
        refuted = start - middle > z * np.sqrt(scales * _spread_of_normal(middle))
        near, far = np.where(refuted, near, middle), np.where(refuted, middle, far)
    return far[0], 1 - far[1]


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
    ours: list[_Area], theirs: list[_Area], level: float
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
        first = np.sqrt(scale_a * _spread_of_normal(middle + half))
        second = np.sqrt(scale_b * _spread_of_normal(middle - half))
        variance = (first - second) ** 2 + 2 * (1 - together) * first * second
        inside = reach <= z * np.sqrt(variance)
        near, far = np.where(inside, reach, near), np.where(inside, far, reach)
    low, high = apart - near[0], apart + near[1]
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def _together(first: _Area, second: _Area) -> float:
    """Correlation of two models' areas: each class's, drawn towards that of the other class."""
    a, b = first.with_finding, first.without
    with_finding = _correlation(a.summed, second.with_finding.summed)
    without = _correlation(b.summed, second.without.summed)

    def drawn(part: _Class, own: float, other: float) -> float:
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
    low, high = _score_ends(values, np.array([area.scale for area in areas]), level)
    few = [area.lacks(_LEAST) for area in areas]
    for place, j in enumerate(good):
        ends = (math.nan, math.nan) if few[place] else (float(low[place]), float(high[place]))
        counts = _counts(known[:, [j]])
        result[j] = Interval(float(values[place]), *ends, *counts, level, few[place])
    moved = np.stack([area.influence for area in areas])
    return result, combined(known[:, good], values, low, high, moved, few, 0.0, level)


def area_with_influence(
    labels: Floats, scores: Floats, codes: Rows, everyone: int, level: float
) -> tuple[Interval, tuple[float, float], Floats]:
    """AUROC of one finding, its ends though patients be few, and what each patient adds, (K,)."""
    area = _Area.of(labels, scores, codes, everyone)
    low, high = _score_ends(np.array([area.value]), np.array([area.scale]), level)
    few = area.lacks(_LEAST)
    ends = float(low[0]), float(high[0])
    shown = (math.nan, math.nan) if few else ends
    return Interval(area.value, *shown, *_counts(labels[:, None]), level, few), ends, area.influence


def _measured(known: Floats, scores: Floats, codes: Rows) -> list[_Area]:
    everyone = int(codes.max()) + 1
    return [_Area.of(known[:, j], scores[:, j], codes, everyone) for j in range(known.shape[1])]


def combined(
    known: Floats,
    values: Floats,
    low: Floats,
    high: Floats,
    moved: Floats,
    few: list[str],
    least: float,
    level: float,
    most: float = 1.0,
) -> Interval:
    """The mean over findings: their intervals by Donner and Zou's formula.

    Args:
        known: Labels, (N, P).
        values: Of the P findings.
        low: Lower ends.
        high: Upper ends.
        moved: Influence of each patient on each value, (P, K).
        few: Why a finding has too few patients; empty where it has enough.
        least: The lowest possible value.
        level: Confidence.
        most: The highest.

    Returns:
        The mean.
    """
    value = float(values.mean())
    below, above = values - low, high - values
    widths = (below + above) ** 2
    scarce = np.array([bool(reason) for reason in few])
    if widths[scarce].sum() > widths.sum() / 2 or scarce.all():
        reason = next(reason for reason in few if reason)
        if len(few) > 1:
            reason = f"too few patients for an interval in {scarce.sum()} of {len(few)} findings"
        return Interval(value, math.nan, math.nan, *_counts(known), level, reason)
    together = _correlations(moved)
    ends = [
        math.sqrt(max(0.0, float(reach @ together @ reach))) / len(values)
        for reach in (below, above)
    ]
    limits = max(least, value - ends[0]), min(most, value + ends[1])
    return Interval(value, *limits, *_counts(known), level)


def _correlations(moved: Floats) -> Floats:
    """Between rows of influence; 0 for one without spread, whose chance is its own."""
    length = np.sqrt((moved**2).sum(axis=1))
    scaled = moved / np.where(length > 0, length, 1.0)[:, None]
    together: Floats = scaled @ scaled.T
    np.fill_diagonal(together, 1.0)
    return together


def _undefined(known: Floats, reason: str, level: float) -> Interval:
    return Interval(math.nan, math.nan, math.nan, *_counts(known), level, reason)


def _counts(known: Floats) -> tuple[int, int]:
    """Rows with a label, and labels of 1."""
    return int((~np.isnan(known)).any(axis=1).sum()), int((known == 1).sum())
