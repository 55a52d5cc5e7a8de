"""How well the scores of one finding rank: AUROC, average precision, and the curves behind them.

The variance of an AUROC is that of clustered data (DeLong, Obuchowski), and its interval inverts
the score test: each end is an area that, with the variance which *it* would have, is just not
refuted. Where a class has few patients the variance is drawn towards that of two normal
distributions of the same area. `docs/intervals.md` shows how often the intervals hold the truth.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.evaluation.intervals import (
    Interval,
    checked_level,
    column,
    matrix,
    patient_codes,
    score_ends,
    t_of,
    too_few,
    z_of,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation.intervals import Floats, Rows

# Patients with the finding that average precision needs: with fewer its value lies up to one
# standard error above the truth, and intervals around it held the truth in 79 to 93 % of studies.
_LEAST_FOR_PRECISION: Final = 30
# Weight, in patients, of the variance of a share against the variance that the scores show.
_PRIOR: Final = 3

# What follows was chosen by simulation, benchmarks/coverage_of_intervals.py.

# Patients of each class that an area needs.
LEAST_FOR_AREA: Final = 5
# Weight of the variance of normal scores, in patients, against that which the scores show; and
# how far it is widened, for scores are seldom quite normal.
_PRIOR_PATIENTS: Final = 20
_WIDENED: Final = 1.1
# How alike images of one patient are until pairs of images show it, and the weight of that, in
# pairs.
_ALIKE: Final = 0.5
_PRIOR_PAIRS: Final = 20
_STEPS: Final = 40  # of a bisection: to twelve digits


@dataclass(frozen=True)
class Ranking:
    """Rows with the finding, placed among the sorted rows without it.

    A row with the finding outranks the rows without it that score less, and half of its equals.

    Attributes:
        positives: Rows with the finding, int64 (A,).
        negatives: Rows without it, by rising score, int64 (B,).
        below: Of each positive, how many negatives score less, int64 (A,).
        upto: And how many score less or the same, int64 (A,).
    """

    positives: Rows
    negatives: Rows
    below: Rows
    upto: Rows

    @classmethod
    def of(cls, labels: Floats, scores: Floats) -> Ranking:
        """Rank one finding; rows with a NaN label are in neither class."""
        positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        negatives = negatives[np.argsort(scores[negatives], kind="stable")]
        floor, ours = scores[negatives], scores[positives]
        return cls(
            positives,
            negatives,
            np.searchsorted(floor, ours, side="left"),
            np.searchsorted(floor, ours, side="right"),
        )

    @property
    def area(self) -> float:
        """AUROC."""
        pairs = 2 * len(self.positives) * len(self.negatives)
        return float((self.below + self.upto).sum() / pairs)

    def placements(self) -> tuple[Floats, Floats]:
        """Share of the other class that each row outranks: (A,), and (B,) in sorted order."""
        ours = (self.below + self.upto) / (2 * len(self.negatives))
        steps = np.zeros(len(self.negatives) + 1)
        # A positive outranks the negatives before `below` and ties with those up to `upto`.
        np.add.at(steps, self.below, 0.5)
        np.add.at(steps, self.upto, 0.5)
        beaten = steps[::-1].cumsum()[::-1][1:]
        return ours, beaten / len(self.positives)


@dataclass(frozen=True)
class RankedClass:
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
    def of(cls, placements: Floats, area: float, codes: Rows, everyone: int) -> RankedClass:
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
class Area:
    """An AUROC and all that its interval needs.

    Attributes:
        value: The area.
        scale: Variance over that of one pair of normal scores with the same area.
        with_finding: Rows with the finding, by patient.
        without: Rows without it.
    """

    value: float
    scale: float
    with_finding: RankedClass
    without: RankedClass

    @classmethod
    def of(cls, labels: Floats, scores: Floats, codes: Rows, everyone: int) -> Area:
        """Measure one finding; rows with a NaN label are in neither class."""
        ranking = Ranking.of(labels, scores)
        ours, theirs = ranking.placements()
        value = ranking.area
        a = RankedClass.of(ours, value, codes[ranking.positives], everyone)
        b = RankedClass.of(theirs, value, codes[ranking.negatives], everyone)
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


def _scale(value: float, a: RankedClass, b: RankedClass) -> float:
    if value in (0.0, 1.0):  # a perfect ranking has no spread to judge by: patients count
        return _WIDENED / a.effective(1.0) + _WIDENED / b.effective(1.0)
    informative = [part for part in (a, b) if part.spread > 0]
    pairs = sum(part.pairs for part in informative)
    likeness = sum(part.likeness for part in informative)
    alike = (likeness + _PRIOR_PAIRS * _ALIKE) / (pairs + _PRIOR_PAIRS)
    alike = min(max(alike, 0.0), 1.0)
    normal = float(spread_of_normal(np.array([value]))[0])
    parts = []
    for part in (a, b):
        expected = _WIDENED * normal / part.effective(alike)
        seen = float(part.influence @ part.influence)
        weight = part.patients - 1
        parts.append((_PRIOR_PATIENTS * expected + weight * seen) / (_PRIOR_PATIENTS + weight))
    return sum(parts) / normal * (1 + _shared(a, b))


def _shared(a: RankedClass, b: RankedClass) -> float:
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


def spread_of_normal(areas: Floats) -> Floats:
    """Variance of a placement of normal scores with these areas; 0 beyond 0 and 1."""
    known, variance = _normal_table()
    return np.asarray(np.interp(areas, known, variance), np.float64)


def area_ends(values: Floats, scales: Floats, level: float) -> tuple[Floats, Floats]:
    """Lowest and highest area that the score test does not refute, for each value."""
    z = z_of(level)
    start = np.stack([values, 1 - values])  # the highest area is the lowest of the other class
    near, far = start, np.zeros_like(start)
    for _ in range(_STEPS):
        middle = (near + far) / 2
        refuted = start - middle > z * np.sqrt(scales * spread_of_normal(middle))
        near, far = np.where(refuted, near, middle), np.where(refuted, middle, far)
    return far[0], 1 - far[1]


def area_interval(area: Area, level: float) -> tuple[Interval, tuple[float, float]]:
    """AUROC with its interval, and the ends though patients be few."""
    low, high = area_ends(np.array([area.value]), np.array([area.scale]), level)
    few = area.lacks(LEAST_FOR_AREA)
    ends = float(low[0]), float(high[0])
    shown = (math.nan, math.nan) if few else ends
    counts = (area.with_finding.rows + area.without.rows, area.with_finding.rows)
    return Interval(area.value, *shown, *counts, level, few), ends


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a row with the finding scores above one without.

    Exact; equal scores count half.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).

    Returns:
        The area in [0, 1].

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> auroc([0, 0, 1, 1, float("nan")], [0.1, 0.4, 0.35, 0.8, 0.9])
        0.75

    Source:
        Hanley and McNeil. The meaning and use of the area under a ROC curve. Radiology 143, 1982.
    """
    present, known = column(labels, scores)
    return Ranking.of(present.astype(np.float64), known).area


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as a sum of steps, without interpolation.

    A ranking by chance scores the share of rows with the finding.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).

    Returns:
        The average precision in [0, 1].

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
        0.8333

    Source:
        Zhu. Recall, precision and average precision. University of Waterloo, 2004.
    """
    present, known = column(labels, scores)
    hits, alarms, _ = _steps(present, known)
    precision = hits / (hits + alarms)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


@with_former_names
def average_precision_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Average precision with an interval.

    The variance is that of the patients' influence on the value; Wilson's interval turns it into
    ends that never leave [0, 1]. With fewer than thirty patients who have the finding there is no
    interval: the value itself is too high then, by up to a standard error.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        The average precision and its interval.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> labels = np.arange(300) % 4 == 0
        >>> scores = labels + np.random.default_rng(0).normal(size=300)
        >>> interval = average_precision_interval(labels, scores)
        >>> 0.3 < interval.low < interval.value < interval.high < 0.7
        True

    Source:
        Boyd, Eng and Page. Area under the precision-recall curve: point estimates and confidence
        intervals. ECML PKDD 2013.
    """
    present, known = column(labels, scores)
    checked_level(level)
    rows = ~np.isnan(matrix(labels, scores)[0][:, 0])
    codes = patient_codes(patient_ids, len(rows))[rows]
    return precision_with_influence(present, known, codes, level)[0]


def precision_with_influence(
    present: NDArray[np.bool_], known: Floats, codes: Rows, level: float
) -> tuple[Interval, tuple[float, float], Floats]:
    """Average precision, its ends though patients be few, and what each row adds to it, (N,)."""
    value = average_precision(present, known)
    influence = _influence(present, known)
    patients, count = len(np.unique(codes[present])), int(present.sum())
    size = float(patients)
    if value < 1:
        summed = np.bincount(codes, weights=influence)
        everyone = len(np.unique(codes))
        seen = everyone / max(everyone - 1, 1) * float(summed @ summed)
        usual = value * (1 - value) / patients
        size = value * (1 - value) * (patients + _PRIOR) / (patients * seen + _PRIOR * usual)
    few = (
        too_few(f"{patients} with the finding", _LEAST_FOR_PRECISION)
        if patients < _LEAST_FOR_PRECISION
        else ""
    )
    ends = score_ends(value, size, t_of(level, max(patients - 1, 1)))
    shown = (math.nan, math.nan) if few else ends
    return Interval(value, *shown, len(known), count, level, few), ends, influence


def _influence(present: NDArray[np.bool_], scores: Floats) -> Floats:
    """What each row adds to the average precision, to first order; the sum is 0."""
    order = np.argsort(-scores, kind="stable")
    hits, alarms, _ = _steps(present, scores)
    sizes = np.diff(hits + alarms, prepend=0).astype(np.int64)
    new = np.diff(hits, prepend=0)
    called = hits + alarms
    precision = hits / called
    # A row changes the precision at its own score and at every lower one.
    gained = np.cumsum((new * alarms / called**2)[::-1])[::-1]
    lost = np.cumsum((new * hits / called**2)[::-1])[::-1]
    value = float(new @ precision) / hits[-1]
    by_step = (precision - value + gained, -lost)
    step = np.repeat(np.arange(len(sizes)), sizes)
    ordered = np.where(present[order], by_step[0][step], by_step[1][step]) / hits[-1]
    influence = np.empty(len(scores))
    influence[order] = ordered
    return influence


def precision_excess(
    present: NDArray[np.bool_], known: Floats, codes: Rows, influence: Floats
) -> float:
    """How far the average precision lies above that of all patients, on average over studies.

    An image with the finding counts in the precision at its own score, and other images of its
    patient count there too. This is the second-order term of the average precision in the weights
    of the patients, at weights that differ by one patient each.

    Args:
        present: Whether the finding is present, (N,).
        known: Scores, (N,).
        codes: Patient of each row, (N,).
        influence: What each row adds to the value, (N,).

    Returns:
        The expected excess; 0 where it would be negative.

    Source:
        Efron. The Jackknife, the Bootstrap and Other Resampling Plans. SIAM 1982, chapters 2 and 6.
    """
    order = np.argsort(-known, kind="stable")
    score, hit, patient = known[order], present[order].astype(np.float64), codes[order]
    last = np.append(score[1:] != score[:-1], True)
    step = np.cumsum(np.append(0, last[:-1]))
    # Of each row, the rows of its patient that stand above it.
    by_patient = np.argsort(patient, kind="stable")
    of_one = patient[by_patient]
    first = np.flatnonzero(np.append(True, of_one[1:] != of_one[:-1]))
    sizes = np.diff(np.append(first, len(of_one)))

    def above(numbers: Floats) -> Floats:
        ordered = numbers[by_patient]
        total = np.cumsum(ordered) - ordered
        found = np.empty_like(total)
        found[by_patient] = total - np.repeat(total[first], sizes)
        return found

    hits_above, rows_above = above(hit), above(np.ones_like(hit))
    hits, called = np.cumsum(hit)[last], np.flatnonzero(last) + 1.0
    precision = hits / called
    squares = np.cumsum(2 * rows_above + 1)[last]
    products = np.cumsum(np.where(hit == 1, hits_above + rows_above + 1, hits_above))[last]
    curved = (precision * squares - products) / called**2
    # Rows of one patient with one score enter together.
    tied = np.append((np.diff(of_one) != 0) | (np.diff(step[by_patient]) != 0), True)
    end = by_patient[np.flatnonzero(tied)]
    end = np.repeat(end, np.diff(np.flatnonzero(tied), prepend=-1))
    of_patient = np.empty((2, len(hit)))
    of_patient[:, by_patient] = (hits_above + hit)[end], rows_above[end] + 1
    own = (of_patient[0] - precision[step] * of_patient[1]) / called[step]
    moved = np.bincount(codes, weights=influence) @ np.bincount(codes, weights=present)
    return max(0.0, float((hit @ (own + curved[step]) - moved) / hits[-1]))


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> pd.DataFrame:
    """Sensitivity and specificity at every threshold that changes them.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).

    Returns:
        Columns ``threshold`` (a row is called positive at or above it; falling, from infinity),
        ``sensitivity`` and ``specificity``.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> roc_curve([0, 1], [0.2, 0.7])["sensitivity"].tolist()
        [0.0, 1.0, 1.0]
    """
    import pandas as pd

    present, known = column(labels, scores)
    hits, alarms, thresholds = _steps(present, known)
    return pd.DataFrame(
        {
            "threshold": np.concatenate([[np.inf], thresholds]),
            "sensitivity": np.concatenate([[0.0], hits / hits[-1]]),
            "specificity": np.concatenate([[1.0], 1 - alarms / alarms[-1]]),
        }
    )


def precision_recall_curve(labels: ArrayLike, scores: ArrayLike) -> pd.DataFrame:
    """Precision and recall at every threshold that changes them.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).

    Returns:
        Columns ``threshold`` (a row is called positive at or above it; falling, from infinity),
        ``precision`` (1 where no row is called positive) and ``recall``.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> precision_recall_curve([0, 1, 0], [0.2, 0.7, 0.1])["precision"].round(2).tolist()
        [1.0, 1.0, 0.5, 0.33]
    """
    import pandas as pd

    present, known = column(labels, scores)
    hits, alarms, thresholds = _steps(present, known)
    return pd.DataFrame(
        {
            "threshold": np.concatenate([[np.inf], thresholds]),
            "precision": np.concatenate([[1.0], hits / (hits + alarms)]),
            "recall": np.concatenate([[0.0], hits / hits[-1]]),
        }
    )


def _steps(present: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats, Floats]:
    """True and false positives at each distinct score, from the highest, and the scores."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # of the rows with equal scores
    hits = np.cumsum(present[order], dtype=np.float64)[last]
    alarms = np.cumsum(~present[order], dtype=np.float64)[last]
    return hits, alarms, ordered[last]
