"""AUROC with intervals: one finding, a table of findings, two models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation._input import column, matrix, patient_codes, problem_of
from torchxrayvision.evaluation._interval import Interval, checked_level, score_interval, z_of
from torchxrayvision.evaluation._ranking import Ranking
from torchxrayvision.evaluation._resample import Resampler, ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from torchxrayvision.evaluation._input import Floats, Rows

__all__ = [
    "MEAN",
    "auroc_interval",
    "auroc_table",
    "delong_interval",
    "mean_auroc",
    "paired_difference",
]

# Patients of a class; resampling fewer shows too little spread. With 20 of them and an area of 0.96
# percentile intervals of 95 % held the truth in 87 % of simulated studies, score intervals in 97 %.
_FEW: Final = 30

MEAN: Final = "mean"
"""Name of the row of a table that holds the mean over findings."""


def auroc_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """AUROC with a bootstrap interval that resamples patients.

    A perfect ranking, or a class of fewer than thirty patients, gets the score interval of
    Newcombe: resampling would show no spread, or too little.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        groups: Patient of each row, shape (N,); None if each row is a patient of its own.
        n: Replicates; those without a row of either class are left out.
        seed: Of a generator of its own.
        level: Confidence.

    Returns:
        The area and its interval.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> labels = np.arange(400) % 4 == 0
        >>> interval = auroc_interval(labels, labels + rng.normal(size=400))
        >>> 0.7 < interval.low < interval.value < interval.high < 0.85
        True
    """
    column(labels, scores)
    (interval,) = _intervals(labels, scores, groups, n, seed, level)[0]
    return interval


def delong_interval(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """AUROC with an interval by formula, on the scale of its logit.

    With groups the variance is that of clustered data. A perfect ranking, or a class of fewer than
    thirty patients, gets the score interval of Newcombe.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        groups: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        The area and its interval.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> print(delong_interval([0, 0, 0, 1, 1, 1], [0.1, 0.4, 0.6, 0.3, 0.7, 0.9]))
        0.778 [0.317, 0.960]

    Source:
        DeLong et al. Comparing the areas under two or more correlated receiver operating
        characteristic curves. Biometrics 44, 1988. Obuchowski. Nonparametric analysis of clustered
        ROC curve data. Biometrics 53, 1997.
    """
    column(labels, scores)
    known, given = matrix(labels, scores)
    ranking = Ranking.of(known[:, 0], given[:, 0])
    ours, theirs = ranking.placements()
    area, counted = float(ours.mean()), len(ours) + len(theirs)
    codes = patient_codes(groups, len(known))
    patients = _patients(known[:, 0], codes)
    if _needs_score(area, patients):
        low, high = score_interval(area, *patients, level)
        return Interval(area, low, high, counted, len(ours), level)
    error = float(np.sqrt(_variance(ranking, ours - area, theirs - area, codes)))
    centre, reach = np.log(area / (1 - area)), z_of(level) * error / (area * (1 - area))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (centre - reach, centre + reach))
    return Interval(area, low, high, counted, len(ours), level)


def _variance(ranking: Ranking, ours: Floats, theirs: Floats, codes: Rows) -> float:
    """Obuchowski's variance; DeLong's where each row is a patient of its own."""
    parts = []
    for rows, centred in ((ranking.positives, ours), (ranking.negatives, theirs)):
        summed = np.bincount(codes[rows], weights=centred, minlength=int(codes.max()) + 1)
        members = len(np.unique(codes[rows]))
        parts.append((summed, len(rows), members / max(members - 1, 1)))
    (a, n_a, grow_a), (b, n_b, grow_b) = parts
    patients = len(np.unique(codes[np.concatenate([ranking.positives, ranking.negatives])]))
    both = patients / max(patients - 1, 1) * float(a @ b) / (n_a * n_b)
    return float(grow_a * (a @ a) / n_a**2 + grow_b * (b @ b) / n_b**2 + 2 * both)


def mean_auroc(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean AUROC over findings with a bootstrap interval that resamples patients.

    Findings without an AUROC, for want of rows of a class, are left out of the mean. Where one of
    the others has a perfect ranking or fewer than thirty patients of a class, the intervals of the
    findings are combined as Donner and Zou do, with the correlations that resampling shows.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        groups: Patient of each row, shape (N,); None if each row is a patient of its own.
        n: Replicates.
        seed: Of a generator of its own.
        level: Confidence.

    Returns:
        The mean and its interval; `n` counts rows with any label, `positives` all labels of 1.

    Raises:
        EvaluationError: If shapes differ, or no finding has an AUROC.

    Source:
        Donner and Zou. Closed-form confidence intervals for functions of the normal mean and
        standard deviation. Statistical Methods in Medical Research 21, 2012.

    Example:
        >>> mean_auroc([[0, 0], [1, 0], [0, 1], [1, 1]], [[1, 2], [2, 1], [1, 3], [3, 0]]).value
        0.75
    """
    _, mean = _intervals(labels, scores, groups, n, seed, level)
    if mean.reason:
        raise EvaluationError(mean.reason)
    return mean


def auroc_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """AUROC of every finding with intervals, and their mean.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        groups: Patient of each row, shape (N,); None if each row is a patient of its own.
        n: Bootstrap replicates; patients are resampled, the same ones for every finding.
        seed: Of a generator of its own.
        level: Confidence.

    Returns:
        Columns ``finding``, ``n``, ``positives``, ``auroc``, ``low``, ``high``, ``reason``; the
        last row is ``mean``. A finding without an AUROC has NaN and says why in ``reason``.

    Raises:
        EvaluationError: If shapes differ, or a label is neither 0, 1 nor NaN.

    Example:
        >>> labels, scores = [[0, 0], [1, 0], [0, 0]], [[1, 5], [2, 6], [0, 7]]
        >>> auroc_table(labels, scores, ["Mass", "Edema"])["reason"].tolist()
        ['', 'no row has the finding', '']
    """
    import pandas as pd

    intervals, mean = _intervals(labels, scores, groups, n, seed, level)
    if len(intervals) != len(names):
        msg = f"names are those of {len(intervals)} findings, got {len(names)}"
        raise EvaluationError(msg)
    rows = [*zip(names, intervals, strict=True), (MEAN, mean)]
    return pd.DataFrame(
        {
            "finding": [name for name, _ in rows],
            "n": [interval.n for _, interval in rows],
            "positives": [interval.positives for _, interval in rows],
            "auroc": [interval.value for _, interval in rows],
            "low": [interval.low for _, interval in rows],
            "high": [interval.high for _, interval in rows],
            "reason": [interval.reason for _, interval in rows],
        }
    )


def paired_difference(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Difference in mean AUROC of two models on the same rows, with a paired bootstrap interval.

    Few patients of a class, or perfect rankings, are treated as by `mean_auroc`.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N,) or (N, P).
        scores_a: Of the first model, same shape.
        scores_b: Of the second model, same shape.
        groups: Patient of each row, shape (N,); None if each row is a patient of its own.
        n: Replicates; patients are resampled, the same ones for both models.
        seed: Of a generator of its own.
        level: Confidence.

    Returns:
        First minus second, over the findings for which both have an AUROC. An interval that
        leaves out 0 is a difference that chance would seldom make.

    Raises:
        EvaluationError: If shapes differ, or no finding has an AUROC.

    Example:
        >>> paired_difference([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], [0.9, 0.1, 0.2, 0.8]).value
        0.75
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
    sampler = Resampler.of(groups, len(known), n, seed)
    rankings = [*_rankings(known, first[:, usable]), *_rankings(known, second[:, usable])]
    found, replicates, few = _resampled(np.tile(known, 2), rankings, sampler, level)
    count = known.shape[1]
    shares = np.repeat([1 / count, -1 / count], count)
    if few:
        return _combined(known, found, replicates, shares, level)
    drawn = _nanmean(replicates[:count]) - _nanmean(replicates[count:])
    return _interval(known, found, shares, ends(drawn, level), level)


def _intervals(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None,
    n: int,
    seed: int,
    level: float,
) -> tuple[list[Interval], Interval]:
    """One interval a finding, and that of their mean, over the same replicates."""
    checked_level(level)
    known, given = matrix(labels, scores)
    sampler = Resampler.of(groups, len(known), n, seed)
    problems = [problem_of(known[:, j], given[:, j]) for j in range(known.shape[1])]
    good = [j for j, problem in enumerate(problems) if not problem]
    rankings = _rankings(known[:, good], given[:, good])
    found, replicates, few = _resampled(known[:, good], rankings, sampler, level)
    result = [_undefined(known[:, [j]], problem, level) for j, problem in enumerate(problems)]
    for j, interval in zip(good, found, strict=True):
        result[j] = interval
    if not found:
        return result, _undefined(known, "no finding has an AUROC", level)
    shares = np.full(len(found), 1 / len(found))
    if few:
        return result, _combined(known, found, replicates, shares, level)
    return result, _interval(known, found, shares, ends(_nanmean(replicates), level), level)


def _resampled(
    known: Floats, rankings: list[Ranking], sampler: Resampler, level: float
) -> tuple[list[Interval], Floats, bool]:
    """Interval and replicates of each ranking of a column of `known`, and whether one has few."""
    values = [float(ranking.areas(np.ones((len(known), 1)))[0]) for ranking in rankings]
    blocks = [_areas(rankings, weights) for weights in sampler.weights()] if rankings else []
    replicates = np.concatenate(blocks, axis=1) if blocks else np.empty((0, sampler.n))
    found, any_few = [], False
    for labels, value, drawn in zip(known.T, values, replicates, strict=True):
        patients = _patients(labels, sampler.codes)
        few = _needs_score(value, patients)
        low, high = score_interval(value, *patients, level) if few else ends(drawn, level)
        found.append(Interval(value, low, high, *_counts(labels[:, None]), level))
        any_few = any_few or few
    return found, replicates, any_few


def _combined(
    known: Floats, found: list[Interval], replicates: Floats, shares: Floats, level: float
) -> Interval:
    """A weighted sum of areas: their intervals by Donner and Zou's formula."""
    value = float(shares @ [i.value for i in found])
    below = np.array([i.value - i.low for i in found])
    above = np.array([i.high - i.value for i in found])
    together = _correlations(replicates)
    low, high = (
        math.sqrt(max(0.0, float((shares * reach) @ together @ (shares * reach))))
        for reach in (np.where(shares > 0, below, above), np.where(shares > 0, above, below))
    )
    least = 0.0 if (shares > 0).all() else -1.0
    limits = max(least, value - low), min(1.0, value + high)
    return _interval(known, found, shares, limits, level)


def _correlations(replicates: Floats) -> Floats:
    """Between the rows of replicates; 0 for one without spread, whose chance is its own."""
    centred = replicates - _nanmean(replicates.T)[:, None]
    centred[np.isnan(centred)] = 0
    length = np.sqrt((centred**2).sum(axis=1))
    scaled = centred / np.where(length > 0, length, 1.0)[:, None]
    together: Floats = scaled @ scaled.T
    np.fill_diagonal(together, 1.0)
    return together


def _interval(
    known: Floats, found: list[Interval], shares: Floats, limits: tuple[float, float], level: float
) -> Interval:
    value = float(shares @ [interval.value for interval in found])
    return Interval(value, *limits, *_counts(known), level)


def _undefined(known: Floats, reason: str, level: float) -> Interval:
    nan = float("nan")
    return Interval(nan, nan, nan, *_counts(known), level, reason)


def _rankings(known: Floats, scores: Floats) -> list[Ranking]:
    return [Ranking.of(known[:, j], scores[:, j]) for j in range(known.shape[1])]


def _areas(rankings: list[Ranking], weights: Floats) -> Floats:
    return np.stack([ranking.areas(weights) for ranking in rankings])


def _nanmean(areas: Floats) -> Floats:
    """Mean over findings of each replicate; NaN, without a warning, where none is defined."""
    count = (~np.isnan(areas)).sum(axis=0)
    total = np.nansum(areas, axis=0)
    means = np.full(len(total), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def _needs_score(area: float, patients: tuple[int, int]) -> bool:
    return area in (0.0, 1.0) or min(patients) < _FEW


def _counts(known: Floats) -> tuple[int, int]:
    """Rows with a label, and labels of 1."""
    return int((~np.isnan(known)).any(axis=1).sum()), int((known == 1).sum())


def _patients(labels: Floats, codes: Rows) -> tuple[int, int]:
    """Patients with and without the finding: what there is of independent evidence."""
    return len(np.unique(codes[labels == 1])), len(np.unique(codes[labels == 0]))
