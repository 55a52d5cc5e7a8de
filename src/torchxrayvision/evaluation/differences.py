"""Intervals of what two estimates differ by: two models on the same patients, or two subgroups.

Each rule was chosen by simulation, `benchmarks/coverage_of_measures.py`; the figures are in
`docs/intervals.md`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.evaluation.estimates import PROBABILITIES, Estimate, correlation
from torchxrayvision.evaluation.intervals import Interval, t_of, too_few, z_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.evaluation.intervals import Rows

    Spread = Callable[[float], float]

# Patients of a class that the difference of two models' decisions needs: with fewer, intervals of
# every rule that was tried held the truth in 91 to 99 % of studies, by how rare disagreement was.
LEAST_FOR_DECISIONS: Final = 30
# Patients in the denominators that a gap of two shares needs.
LEAST_FOR_GAP: Final = 10
_MANY: Final = 1000  # degrees of freedom from which Student's distribution is the normal one
_STEPS: Final = 40  # of a bisection: to twelve digits
_ROUNDS: Final = 3  # in which a pair of true values settles


def paired_numbers(first: Estimate, second: Estimate, bound: float) -> Estimate:
    """Difference of Brier scores, slopes or intercepts of two models on the same patients.

    Student's interval with the variance of what each patient adds to the difference.

    Args:
        first: Of one model.
        second: Of the other.
        bound: Largest difference there can be.

    Returns:
        First minus second.
    """
    moved = first.influence - second.influence
    patients = max(first.patients, 2)
    error = math.sqrt(patients / (patients - 1) * float(moved @ moved))
    value = first.value - second.value
    reach = t_of(first.interval.level, max(first.freedom, 1.0)) * error
    return _estimate(first, second, (max(-bound, value - reach), min(bound, value + reach)))


def paired_shares(first: Estimate, second: Estimate) -> Estimate:
    """Difference of predictive values or F1 of two models on the same patients.

    An end is refuted by the score test, with the correlation that patients show: each pair of true
    values so far apart is taken where it lies closest to what was seen, and has the variance that
    it would have there.

    Args:
        first: Of one model.
        second: Of the other.

    Returns:
        First minus second; `interval` is withheld from too few patients of a class.
    """
    few, which = first.rarer
    reason = too_few(f"{few} {which}", LEAST_FOR_DECISIONS) if few < LEAST_FOR_DECISIONS else ""
    together = correlation(first.influence, second.influence)
    times = t_of(first.interval.level, max(few - 1, 1))
    return _estimate(first, second, score_ends_of(first, second, together, times), reason)


def paired_rates(
    first: Estimate, second: Estimate, called: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    members: NDArray[np.bool_], codes: Rows,
) -> Estimate:  # fmt: skip
    """Difference of sensitivities, or of specificities, of two models on the same patients.

    Tango's score interval, with the number of rows of different patients that would show the
    disagreement of the models as closely.

    Args:
        first: Of one model.
        second: Of the other.
        called: Rows that count for each, bool (N,).
        members: Rows of the class, bool (N,).
        codes: Patient of each row, (N,).

    Returns:
        First minus second; `interval` is withheld from too few patients of the class.

    Source:
        Tango. Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design. Statistics in Medicine 17, 1998.
    """
    n, people = int(members.sum()), np.bincount(codes[members])
    patients = int(np.count_nonzero(people))
    ours, theirs = (hits & members for hits in called)
    gained, lost = int((ours & ~theirs).sum()) / n, int((theirs & ~ours).sum()) / n
    size = float(n)
    if patients < n:
        moved = first.influence - second.influence
        seen = patients / max(patients - 1, 1) * float(moved @ moved)
        alone = gained + lost - (gained - lost) ** 2
        size = min(size, alone / seen) if seen > 0 and alone > 0 else float(patients)
    reason = ""
    if patients < LEAST_FOR_DECISIONS:
        reason = too_few(f"{patients} in the denominator", LEAST_FOR_DECISIONS)
    ends = tango_ends(gained, lost, size, z_of(first.interval.level))
    return _estimate(first, second, ends, reason)


def tango_ends(gained: float, lost: float, n: float, z: float) -> tuple[float, float]:
    """Lowest and highest difference that the score test of a paired table does not refute.

    Args:
        gained: Share of pairs in which the first alone is a hit.
        lost: Share in which the second alone is.
        n: Pairs.
        z: Standard errors.

    Returns:
        The ends.

    Example:
        >>> low, high = tango_ends(0.0, 0.1, 50, 1.96)  # 0 against 5 of 50
        >>> round(low, 4), round(high, 4)
        (-0.2136, -0.0215)
    """
    seen = gained - lost

    def refuted(truth: float) -> bool:
        b = -(gained + lost) + (2 - seen) * truth
        inside = max(b * b + 8 * lost * truth * (1 - truth), 0.0)
        alone = (math.sqrt(inside) - b) / 4  # share that the second alone hits, were it so
        variance = max(2 * alone + truth * (1 - truth), 0.0) / n
        return abs(seen - truth) > z * math.sqrt(variance)

    return _edge(refuted, seen, -1.0), _edge(refuted, seen, 1.0)


def _edge(refuted: Callable[[float], bool], inside: float, outside: float) -> float:
    """The last value from `inside` on that is not refuted."""
    if not refuted(outside):
        return outside
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return inside


def score_ends_of(
    first: Estimate, second: Estimate, together: float, times: float
) -> tuple[float, float]:
    """Lowest and highest difference of two shares that a score test does not refute.

    Args:
        first: One; its `spread` is the variance at a true value.
        second: The other.
        together: Their correlation.
        times: Standard errors.

    Returns:
        The ends.
    """
    if first.spread is None or second.spread is None:
        return math.nan, math.nan
    a, b, of_a, of_b = first.value, second.value, first.spread, second.spread
    seen = a - b

    def refuted(truth: float) -> bool:
        away, x, y = seen - truth, a, b
        for _ in range(_ROUNDS):
            s, t = math.sqrt(of_a(x)), math.sqrt(of_b(y))
            variance = s * s + t * t - 2 * together * s * t
            share = (s * s - together * s * t) / variance if variance > 0 else 0.5
            x = min(max(a - share * away, 0.0), 1.0)
            y = min(max(x - truth, 0.0), 1.0)
        s, t = math.sqrt(of_a(x)), math.sqrt(of_b(y))
        variance = max(s * s + t * t - 2 * together * s * t, 0.0)
        return abs(away) > times * math.sqrt(variance)

    return _edge(refuted, seen, -1.0), _edge(refuted, seen, 1.0)


def gap(first: Estimate, second: Estimate, bound: float = 1.0) -> Interval:
    """What a subgroup and the rest differ by, whether patients are in both or not.

    Shares and areas by the score test of a difference, which holds their mean, weighted by the
    effective numbers of rows, where it was seen; other measures by MOVER. Where patients have
    several rows, how alike these are is known from as many patients only, so Student's
    distribution takes the place of the normal one, with Welch's degrees of freedom.

    Args:
        first: Of the subgroup.
        second: Of the rest, over the same patients in the order of their codes.
        bound: Largest difference there can be.

    Returns:
        The gap; `reason` says whose interval is missing.

    Source:
        Mee. Confidence bounds for the difference between two probabilities. Biometrics 40, 1984.
        Welch. The generalization of "Student's" problem when several different population
        variances are involved. Biometrika 34, 1947. Zou. Toward using confidence intervals to
        compare correlations. Psychological Methods 12, 2007.
    """
    a, b = first.interval, second.interval
    value, reason = a.value - b.value, a.reason or b.reason
    if reason or math.isnan(value):
        return Interval(value, math.nan, math.nan, a.n, a.positives, a.level, reason)
    few = min(first.patients, second.patients)
    if first.freedom > 0 and first.spread is not None and few < LEAST_FOR_GAP:
        reason = too_few(f"{few} in the denominator of a side", LEAST_FOR_GAP)
        return Interval(value, math.nan, math.nan, a.n, a.positives, a.level, reason)
    if first.spread is None or second.spread is None:
        ends = mover_ends(first, second, bound)
    else:
        ends = _ends_about_mean(first, second, first.spread, second.spread)
    return Interval(value, *ends, a.n, a.positives, a.level)


def _ends_about_mean(
    first: Estimate, second: Estimate, of_a: Spread, of_b: Spread
) -> tuple[float, float]:
    together = correlation(first.influence, second.influence)
    weight = first.size / (first.size + second.size)
    seen, times = first.value - second.value, _times(first, second, of_a, of_b)
    middle = weight * first.value + (1 - weight) * second.value

    def refuted(truth: float) -> bool:
        s = math.sqrt(of_a(min(max(middle + (1 - weight) * truth, 0.0), 1.0)))
        t = math.sqrt(of_b(min(max(middle - weight * truth, 0.0), 1.0)))
        variance = max(s * s + t * t - 2 * together * s * t, 0.0)
        return abs(seen - truth) > times * math.sqrt(variance)

    return _edge(refuted, seen, -1.0), _edge(refuted, seen, 1.0)


def _times(first: Estimate, second: Estimate, of_a: Spread, of_b: Spread) -> float:
    """Standard errors to either side; a share at 0 or 1 has the spread of half a row."""
    level = first.interval.level
    if not (first.freedom > 0 and second.freedom > 0):
        return z_of(level)
    a = max(of_a(first.value), 0.25 / first.size**2)
    b = max(of_b(second.value), 0.25 / second.size**2)
    freedom = (a + b) ** 2 / (a * a / first.freedom + b * b / second.freedom or math.inf)
    if freedom == 0 or freedom >= _MANY:
        return z_of(level)
    return t_of(level, max(math.floor(freedom), 1))


def mover_ends(first: Estimate, second: Estimate, bound: float) -> tuple[float, float]:
    """The intervals of both, and their correlation over patients, as Zou combines them.

    Also of estimates whose own ends are not shown.
    """
    value = first.value - second.value
    together = correlation(first.influence, second.influence)
    down = _reach(first.value - first.ends[0], second.ends[1] - second.value, together)
    up = _reach(first.ends[1] - first.value, second.value - second.ends[0], together)
    return max(-bound, value - down), min(bound, value + up)


def _reach(a: float, b: float, together: float) -> float:
    return math.sqrt(max(0.0, a * a + b * b - 2 * together * a * b))


def _estimate(
    first: Estimate, second: Estimate, ends: tuple[float, float], reason: str = ""
) -> Estimate:
    """The difference as an estimate; no interval where a part has none."""
    a, b = first.interval, second.interval
    why = a.reason or b.reason or reason
    shown = (math.nan, math.nan) if why else ends
    interval = Interval(a.value - b.value, *shown, a.n, a.positives, a.level, why)
    return Estimate(interval, ends, first.influence - second.influence)


def paired(first: Estimate, second: Estimate, measure: str, bound: float) -> Estimate:
    """Two models on the same patients, for the measures that need no more than their estimates.

    Args:
        first: Of one model.
        second: Of the other.
        measure: Which.
        bound: Largest difference there can be.

    Returns:
        First minus second.
    """
    if same(first, second):
        # One estimate twice; the rules would leave the skewness of its interval.
        return _estimate(first, second, (0.0, 0.0))
    if measure in PROBABILITIES and first.freedom > 0:
        return paired_numbers(first, second, bound)
    if measure in ("ppv", "npv", "f1"):
        return paired_shares(first, second)
    return _estimate(first, second, mover_ends(first, second, bound))


def same(first: Estimate, second: Estimate) -> bool:
    """Whether two estimates are one, so that their difference is nothing for certain."""
    return first.interval == second.interval and np.array_equal(first.influence, second.influence)


def p_value(interval: Interval) -> float:
    """Chance of a difference as far from 0, with the standard error on the side of 0.

    It is below 1 - level where the interval leaves out 0, and only there; NaN without an interval.
    """
    if math.isnan(interval.low):
        return math.nan
    reach = interval.value - interval.low if interval.value > 0 else interval.high - interval.value
    if reach <= 0:
        return 1.0 if interval.value == 0 else 0.0
    return math.erfc(z_of(interval.level) * abs(interval.value) / reach / math.sqrt(2))
