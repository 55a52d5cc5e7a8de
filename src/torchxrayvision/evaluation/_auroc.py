"""AUROC with intervals: one finding, a table of findings, two models."""

from __future__ import annotations

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
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation._input import Floats, Rows

__all__ = [
    "MEAN",
    "auroc_interval",
    "auroc_table",
    "delong_interval",
    "mean_auroc",
    "paired_difference",
]

_FEW: Final = 10  # patients of a class; resampling fewer shows too little spread

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

    A perfect ranking, or a class of fewer than ten patients, gets the score interval of Newcombe:
    resampling would show no spread, or too little.

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
    ten patients, gets the score interval of Newcombe.

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

    Findings without an AUROC, for want of rows of a class, are left out of the mean.

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
    pairs = [_rankings(known, scores[:, usable]) for scores in (first, second)]
    plain = np.ones((len(known), 1))
    value = _means(pairs[0], plain) - _means(pairs[1], plain)
    replicates = [_means(pairs[0], w) - _means(pairs[1], w) for w in sampler.weights()]
    low, high = ends(np.concatenate(replicates), level)
    rows, positives = _counts(known)
    return Interval(float(value[0]), low, high, rows, positives, level)


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
    values = [float(ranking.areas(np.ones((len(known), 1)))[0]) for ranking in rankings]
    blocks = [_areas(rankings, weights) for weights in sampler.weights()] if rankings else []
    replicates = np.concatenate(blocks, axis=1) if blocks else np.empty((0, n))
    found = []
    for j, value, drawn in zip(good, values, replicates, strict=True):
        low, high = ends(drawn, level)
        patients = _patients(known[:, j], sampler.codes)
        if _needs_score(value, patients):
            low, high = score_interval(value, *patients, level)
        rows, positives = _counts(known[:, [j]])
        found.append(Interval(value, low, high, rows, positives, level))
    result = [_undefined(known[:, [j]], problem, level) for j, problem in enumerate(problems)]
    for j, interval in zip(good, found, strict=True):
        result[j] = interval
    return result, _mean_of(known, found, replicates, level)


def _mean_of(
    known: Floats, found: list[Interval], replicates: NDArray[np.float64], level: float
) -> Interval:
    if not found:
        return _undefined(known, "no finding has an AUROC", level)
    low, high = ends(_nanmean(replicates), level)
    if low == high:  # every finding is perfectly ranked; the mean is no more certain than one
        low, high = min(i.low for i in found), max(i.high for i in found)
    value = float(np.mean([interval.value for interval in found]))
    return Interval(value, low, high, *_counts(known), level)


def _undefined(known: Floats, reason: str, level: float) -> Interval:
    nan = float("nan")
    return Interval(nan, nan, nan, *_counts(known), level, reason)


def _rankings(known: Floats, scores: Floats) -> list[Ranking]:
    return [Ranking.of(known[:, j], scores[:, j]) for j in range(known.shape[1])]


def _areas(rankings: list[Ranking], weights: Floats) -> Floats:
    return np.stack([ranking.areas(weights) for ranking in rankings])


def _means(rankings: list[Ranking], weights: Floats) -> Floats:
    return _nanmean(_areas(rankings, weights))


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
