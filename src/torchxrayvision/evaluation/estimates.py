"""Every measure of one finding with its interval and with what each patient adds to it.

What each patient adds, the influence, is what the rest needs: the mean over findings, differences
of two models on the same patients, and gaps between subgroups that may share patients, see
`differences`. `docs/intervals.md` shows how often the results hold the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.evaluation.calibration import binned, fit_logistic, logits_of
from torchxrayvision.evaluation.intervals import (
    Interval,
    effective_rows,
    problem_of,
    share_interval,
    t_of,
    too_few,
    wilson_interval,
    z_of,
)
from torchxrayvision.evaluation.ranking import (
    Area,
    area_interval,
    precision_excess,
    precision_with_influence,
    spread_of_normal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.evaluation.intervals import Floats, Rows

RANKING: Final = ("auroc", "average_precision")
"""Measures that need scores alone."""

DECISIONS: Final = ("sensitivity", "specificity", "ppv", "npv", "f1")
"""Measures at a threshold."""

PROBABILITIES: Final = ("brier", "calibration_slope", "calibration_intercept", "ece")
"""Measures of probabilities; the intercept is that with the slope held at 1."""

MEASURES: Final = (*RANKING, *DECISIONS, *PROBABILITIES)
"""Every measure of `performance_table`, in the order of its columns."""

# Chosen by simulation, benchmarks/coverage_of_measures.py: patients of the rarer class.
_LEAST_FOR_BRIER: Final = 10
_LEAST_FOR_LINE: Final = 10
_LEAST_FOR_ECE: Final = 30
_BINS: Final = 10
# How many standard errors above what chance alone brings about an ECE must lie for an interval.
_ECE_ABOVE_CHANCE: Final = 3.0


@dataclass(frozen=True)
class Estimate:
    """A measure with its interval, and what each patient adds to it.

    Attributes:
        interval: Value, ends, counts, and why there is none.
        ends: Those that a mean over findings uses, also where patients are too few to show them.
        influence: To first order, (K,) over all patients; empty where there is no value.
        spread: Variance that a share or an area would have if it were another one; None for others.
        size: Rows of different patients that would show a share as closely; of an area alike.
        freedom: Degrees of freedom: of a share those of its variance, of a measure of probabilities
            those of the difference of two models; 0 for others.
        rarer: Patients of the class that has fewer, and which it is.
        patients: Patients of all rows, of a share those in its denominator.
        excess: How far the value lies above the truth on average over studies, computed when a mean
            asks for it; None where it does not.
    """

    interval: Interval
    ends: tuple[float, float]
    influence: Floats
    spread: Callable[[float], float] | None = None
    size: float = 0.0
    freedom: float = 0.0
    rarer: tuple[int, str] = (0, "")
    patients: int = 0
    excess: Callable[[], float] | None = None

    @property
    def value(self) -> float:
        """The measure."""
        return self.interval.value


@dataclass(frozen=True)
class Sample:
    """One finding: the rows whose label is known.

    Attributes:
        present: Whether the finding is there, bool (M,).
        scores: (M,).
        chances: Probabilities, (M,); the scores where there are none.
        codes: Patient of each row, (M,).
        everyone: How many patients the whole table has, K.
        level: Confidence.
        reason: Why nothing can be measured; empty if something can.
    """

    present: NDArray[np.bool_]
    scores: Floats
    chances: Floats
    codes: Rows
    everyone: int
    level: float
    reason: str

    @classmethod
    def of(
        cls,
        labels: Floats,
        scores: Floats,
        chances: Floats,
        codes: Rows,
        everyone: int,
        level: float,
    ) -> Sample:
        """Keep what is labelled; (N,) each."""
        known = ~np.isnan(labels)
        reason = problem_of(labels, scores)
        kept = (labels[known] == 1, scores[known], chances[known], codes[known])
        return cls(*kept, everyone, level, reason)

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.present)

    @property
    def positives(self) -> int:
        """Rows with the finding."""
        return int(self.present.sum())

    @cached_property
    def patients(self) -> int:
        """Patients of all rows."""
        return len(np.unique(self.codes))

    @cached_property
    def rarer(self) -> tuple[int, str]:
        """Patients of the class that has fewer, and which it is."""
        counts = {
            "with the finding": len(np.unique(self.codes[self.present])),
            "without the finding": len(np.unique(self.codes[~self.present])),
        }
        which = min(counts, key=lambda name: counts[name])
        return counts[which], which

    def undefined(self, reason: str) -> Estimate:
        """No value, and why."""
        nan = math.nan
        interval = Interval(nan, nan, nan, self.n, self.positives, self.level, reason)
        return Estimate(interval, (nan, nan), np.empty(0))

    def by_patient(self, rows: Floats) -> Floats:
        """Sums of rows over patients, (K,)."""
        summed = np.bincount(self.codes, weights=rows, minlength=self.everyone)
        return np.asarray(summed, np.float64)

    def estimate(
        self, value: float, ends: tuple[float, float], moved: Floats, reason: str = "", **more: Any
    ) -> Estimate:
        """A value with ends, which are not shown where there is a reason against them."""
        shown = (math.nan, math.nan) if reason else ends
        interval = Interval(value, *shown, self.n, self.positives, self.level, reason)
        facts: dict[str, Any] = {"rarer": self.rarer, "patients": self.patients}
        return Estimate(interval, ends, moved, **(facts | more))


def estimates_of(
    sample: Sample, measures: Sequence[str], threshold: float, why_no_probability: str = ""
) -> dict[str, Estimate]:
    """All measures of one finding.

    Args:
        sample: Labels and scores.
        measures: Names, out of `MEASURES`.
        threshold: Rows at or above it are called positive; NaN if there is none.
        why_no_probability: Why the scores are no probabilities; empty if they are.

    Returns:
        Name to estimate.
    """
    found = {}
    for name in measures:
        reason = sample.reason
        if name in DECISIONS and math.isnan(threshold):
            reason = reason or "no threshold is given for this finding"
        if name in PROBABILITIES:
            reason = reason or why_no_probability
        if reason:
            found[name] = sample.undefined(reason)
        elif name in DECISIONS:
            found[name] = _DECISIONS[name](sample, sample.scores >= threshold)
        else:
            found[name] = _OTHERS[name](sample)
    return found


def _auroc(sample: Sample) -> Estimate:
    labels = sample.present.astype(np.float64)
    area = Area.of(labels, sample.scores, sample.codes, sample.everyone)
    interval, ends = area_interval(area, sample.level)

    def spread(value: float) -> float:
        return area.scale * float(spread_of_normal(np.array([value]))[0])

    more = {"spread": spread, "size": 1 / area.scale}
    return sample.estimate(area.value, ends, area.influence, interval.reason, **more)


def _average_precision(sample: Sample) -> Estimate:
    interval, ends, rows = precision_with_influence(
        sample.present, sample.scores, sample.codes, sample.level
    )

    def excess() -> float:
        return precision_excess(sample.present, sample.scores, sample.codes, rows)

    return sample.estimate(
        interval.value, ends, sample.by_patient(rows), interval.reason, excess=excess
    )


def _share(
    sample: Sample,
    hits: NDArray[np.bool_],
    members: NDArray[np.bool_],
    needs: tuple[int, str] | None,
) -> Estimate:
    """A share of rows, with the counts of the finding."""
    share = share_interval(hits, members, sample.codes, sample.level, needs)
    if not share.n:
        return sample.undefined(share.reason)
    moved = sample.by_patient(np.where(members, hits - share.value, 0.0) / share.n)
    ends = (share.low, share.high)
    patients = len(np.unique(sample.codes[members]))
    if share.reason:
        ends = wilson_interval(share.value * patients, patients, sample.level)
    size = effective_rows(hits, members, sample.codes)

    def spread(value: float) -> float:
        return value * (1 - value) / size

    # Only rows of one patient that are together say how alike they are.
    several = share.n - patients
    more = {
        "spread": spread, "size": size, "patients": patients,
        "freedom": (patients - 1) * share.n / several if several else math.inf,
    }  # fmt: skip
    return sample.estimate(share.value, ends, moved, share.reason, **more)


def _rate(sample: Sample, hits: NDArray[np.bool_], members: NDArray[np.bool_]) -> Estimate:
    """Sensitivity and specificity need no patients of the other class."""
    return _share(sample, hits, members, None)


def _predictive(sample: Sample, hits: NDArray[np.bool_], members: NDArray[np.bool_]) -> Estimate:
    return _share(sample, hits, members, sample.rarer if sample.patients < sample.n else None)


def _f1(sample: Sample, called: NDArray[np.bool_]) -> Estimate:
    """F1 is 2J / (1 + J) of the share J of rows called or present that are both."""
    share = _share(sample, called & sample.present, called | sample.present, sample.rarer)

    def of(value: float) -> float:
        return 2 * value / (1 + value)

    ends, reason = (of(share.ends[0]), of(share.ends[1])), share.interval.reason
    moved = share.influence * 2 / (1 + share.value) ** 2

    def spread(value: float) -> float:
        part = value / (2 - value)
        return share.spread(part) * (2 / (1 + part) ** 2) ** 2 if share.spread else math.nan

    more = {
        "spread": spread, "size": share.size, "patients": share.patients, "freedom": share.freedom,
    }  # fmt: skip
    return sample.estimate(of(share.value), ends, moved, reason, **more)


_DECISIONS: Final[dict[str, Callable[[Sample, NDArray[np.bool_]], Estimate]]] = {
    "sensitivity": lambda s, called: _rate(s, called, s.present),
    "specificity": lambda s, called: _rate(s, ~called, ~s.present),
    "ppv": lambda s, called: _predictive(s, s.present, called),
    "npv": lambda s, called: _predictive(s, ~s.present, ~called),
    "f1": _f1,
}


def _with_reach(
    sample: Sample,
    value: float,
    rows: Floats,
    least: int,
    bounds: tuple[float, float],
    freedom: tuple[float, float] | None = None,
) -> Estimate:
    """Student's interval with the variance of the patients' influence.

    The rarer class decides, so its patients are the degrees of freedom, unless others are given:
    those of the value and those of a difference of two models.
    """
    moved = sample.by_patient(rows)
    few, which = sample.rarer
    reason = too_few(f"{few} {which}", least) if few < least else ""
    patients = sample.patients
    error = math.sqrt(patients / max(patients - 1, 1) * float(moved @ moved))
    own, of_two = freedom or (few - 1, few - 1)
    reach = t_of(sample.level, max(own, 1)) * error
    ends = (max(bounds[0], value - reach), min(bounds[1], value + reach))
    return sample.estimate(value, ends, moved, reason, freedom=max(of_two, 1))


def _brier(sample: Sample) -> Estimate:
    away = (sample.chances - sample.present) ** 2
    value = float(away.mean())
    rows, everyone = (away - value) / sample.n, sample.patients - 1
    freedom = (everyone, everyone)  # rows of both classes weigh alike
    return _with_reach(sample, value, rows, _LEAST_FOR_BRIER, (0.0, 1.0), freedom)


def _line(sample: Sample, column: int) -> Estimate:
    """Slope (column 1 of two) or the intercept with the slope held at 1 (column 0 of one)."""
    logits = logits_of(sample.chances)
    ours, theirs = logits[sample.present], logits[~sample.present]
    apart = ours.min() >= theirs.max() or ours.max() <= theirs.min()
    if column and (apart or np.ptp(logits) == 0):
        return sample.undefined("the probabilities separate the classes or are all the same")
    ones = np.ones((sample.n, 1))
    design = np.column_stack([ones, logits]) if column else ones
    offset = np.zeros_like(logits) if column else logits
    weights = fit_logistic(design, sample.present, offset)
    chance = 1 / (1 + np.exp(-(design @ weights + offset)))
    bread = np.linalg.pinv((design * (chance * (1 - chance))[:, None]).T @ design)
    rows = ((sample.present - chance)[:, None] * design) @ bread[:, column]
    bounds, few = (-math.inf, math.inf), sample.rarer[0]
    freedom = None if column else (sample.patients - 1, 2 * few)
    return _with_reach(sample, float(weights[column]), rows, _LEAST_FOR_LINE, bounds, freedom)


def _ece(sample: Sample) -> Estimate:
    """Given the side on which each bin errs, the error is a mean over rows.

    Bins that err little may err on the other side in truth, which lifts the value: the interval is
    moved by as much as normal errors of the bins would. Near what chance alone brings about there
    is none, and where there is one it allows for that choice.
    """
    signs, by_chance, lift = np.zeros(sample.n), 0.0, 0.0
    for members in binned(sample.chances, _BINS, "width"):
        away = sample.chances[members] - sample.present[members]
        signs[members] = 1.0 if away.sum() >= 0 else -1.0
        summed = np.bincount(sample.codes[members], weights=away - away.mean())
        noise = math.sqrt(float(summed @ summed)) / sample.n
        by_chance += noise * math.sqrt(2 / math.pi)
        lift += _lift(abs(float(away.sum())) / sample.n, noise)
    rows = signs * (sample.chances - sample.present)
    value = float(rows.mean())
    found = _with_reach(sample, value, (rows - value) / sample.n, _LEAST_FOR_ECE, (-1.0, 1.0))
    error = math.sqrt(float(found.influence @ found.influence))
    reason, least = found.interval.reason, by_chance + _ECE_ABOVE_CHANCE * error
    if not reason and value < least:
        reason = (
            f"chance alone brings about {by_chance:.3f} with so many rows, and the value is too "
            "near to it for an interval"
        )
    scale = (found.ends[1] - value) / z_of(sample.level)  # Student's, as a normal one
    if not reason and scale > 0:
        ends = _beyond(value - lift, least - lift, scale, sample.level)
        return sample.estimate(value, ends, found.influence)
    return sample.estimate(value, found.ends, found.influence, reason)


def _beyond(value: float, least: float, error: float, level: float) -> tuple[float, float]:
    """Ends for a normal number that is reported because it is above a limit.

    Such numbers are too high on average, so each end is refuted only by what is above the limit.
    """

    def share_above(truth: float) -> float:
        whole = math.erfc((least - truth) / error / math.sqrt(2))
        return math.erfc((value - truth) / error / math.sqrt(2)) / whole if whole > 0 else 0.0

    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        low, high = 0.0, min(1.0, value + 10 * error)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if share_above(middle) < share else (low, middle)
        ends.append(high)
    return ends[0], ends[1]


def _lift(size: float, noise: float) -> float:
    """How far the mean size of a normal number lies above the size of its mean."""
    if noise == 0:
        return 0.0
    z = size / noise
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return noise * (2 * density - z * math.erfc(z / math.sqrt(2)))


_OTHERS: Final[dict[str, Callable[[Sample], Estimate]]] = {
    "auroc": _auroc,
    "average_precision": _average_precision,
    "brier": _brier,
    "calibration_slope": lambda s: _line(s, 1),
    "calibration_intercept": lambda s: _line(s, 0),
    "ece": _ece,
}


def correlation(x: Floats, y: Floats) -> float:
    """Of two influences, (K,) each; 0 where one has no spread."""
    length = math.sqrt(float(x @ x) * float(y @ y))
    return min(max(float(x @ y) / length, -1.0), 1.0) if length > 0 else 0.0
