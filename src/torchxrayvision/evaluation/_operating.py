"""What a threshold does: sensitivity, specificity and predictive values with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation._input import column, matrix, problem_of
from torchxrayvision.evaluation._interval import Interval, checked_level, wilson_interval
from torchxrayvision.evaluation._ranking import roc_curve
from torchxrayvision.evaluation._resample import Resampler, ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from torchxrayvision.evaluation._input import Floats

__all__ = [
    "OperatingPoint",
    "operating_point",
    "operating_table",
    "predictive_values",
    "threshold_at_sensitivity",
    "threshold_at_specificity",
    "youden_threshold",
]


@dataclass(frozen=True)
class OperatingPoint:
    """What calling rows positive at or above a threshold does.

    Attributes:
        threshold: On the scale of the scores.
        true_positives: Rows with the finding that are called positive.
        false_positives: Rows without it that are.
        true_negatives: Rows without it that are not.
        false_negatives: Rows with it that are not.
        sensitivity: Share of the rows with the finding that are called positive.
        specificity: Share of the rows without it that are not.
        ppv: Share of the rows called positive that have the finding, at the prevalence of these
            rows; `predictive_values` gives it for another.
        npv: Share of the rows not called positive that do not have it.
    """

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


def operating_point(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> OperatingPoint:
    """Count what a threshold gets right and wrong.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        threshold: Rows at or above it are called positive. Choose it on other patients.
        groups: Patient of each row, shape (N,). None if each row is a patient of its own: then
            intervals are Wilson's, else patients are resampled.
        n: Replicates, with groups.
        seed: Of a generator of its own, with groups.
        level: Confidence.

    Returns:
        Counts and rates.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> point = operating_point([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], threshold=0.5)
        >>> point.sensitivity.value, point.specificity.value, point.ppv.value
        (0.5, 0.5, 0.5)
    """
    column(labels, scores)
    known, given = (array[:, 0] for array in matrix(labels, scores))
    called = given >= threshold
    cells = [
        (known == 1) & called,
        (known == 0) & called,
        (known == 0) & ~called,
        (known == 1) & ~called,
    ]
    tp, fp, tn, fn = (int(cell.sum()) for cell in cells)
    pairs = ((0, 3), (2, 1), (0, 1), (2, 3))  # hits and misses of each rate, as places in `cells`
    if groups is None:
        level = checked_level(level)
        rates = [_wilson(int(cells[a].sum()), int(cells[b].sum()), level) for a, b in pairs]
    else:
        sampler = Resampler.of(groups, len(known), n, seed)
        rates = _resampled(np.stack(cells).astype(np.float64), pairs, sampler, level)
    return OperatingPoint(float(threshold), tp, fp, tn, fn, *rates)


def _wilson(hits: int, misses: int, level: float) -> Interval:
    n = hits + misses
    value = hits / n if n else float("nan")
    return Interval(value, *wilson_interval(hits, n, level), n, hits, level, _reason(n))


def _resampled(
    cells: Floats, pairs: Sequence[tuple[int, int]], sampler: Resampler, level: float
) -> list[Interval]:
    totals = np.concatenate([cells @ weights for weights in sampler.weights()], axis=1)
    rates = []
    for a, b in pairs:
        hits, n = int(cells[a].sum()), int(cells[a].sum() + cells[b].sum())
        both = totals[a] + totals[b]
        drawn = np.divide(totals[a], both, out=np.full(len(both), np.nan), where=both > 0)
        low, high = ends(drawn, checked_level(level))
        if n and hits in (0, n):  # resampling cannot leave 0 or 1
            patients = len(np.unique(sampler.codes[(cells[a] + cells[b]) > 0]))
            low, high = wilson_interval(patients * hits / n, patients, level)
        value = hits / n if n else float("nan")
        rates.append(Interval(value, low, high, n, hits, level, _reason(n)))
    return rates


def _reason(n: int) -> str:
    return "" if n else "no row is on this side of the threshold"


def operating_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    thresholds: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Rates of every finding at its threshold.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        thresholds: One each, or one for all.
        groups: Patient of each row, as in `operating_point`.
        n: Replicates, with groups.
        seed: Of a generator of its own, with groups.
        level: Confidence.

    Returns:
        ``finding``, ``threshold``, ``n``, ``positives``, each of ``sensitivity``, ``specificity``,
        ``ppv``, ``npv`` followed by its ``_low`` and ``_high``, and ``reason`` where a finding
        has rows of one class only.

    Raises:
        EvaluationError: If shapes differ.

    Example:
        >>> table = operating_table([[0], [1]], [[0.2], [0.9]], ["Mass"], 0.5)
        >>> table["sensitivity"].item(), round(table["sensitivity_low"].item(), 2)
        (1.0, 0.21)
    """
    import pandas as pd

    known, given = matrix(labels, scores)
    try:
        limits = np.broadcast_to(np.asarray(thresholds, np.float64), len(names))
    except ValueError:
        limits = np.empty(0)
    if known.shape[1] != len(names) or len(limits) != len(names):
        msg = (
            f"{known.shape[1]} findings need as many names and one threshold or as many, got "
            f"{len(names)} names and thresholds of shape {np.shape(thresholds)}"
        )
        raise EvaluationError(msg)
    rows = []
    for j, name in enumerate(names):
        reason = problem_of(known[:, j], given[:, j])
        row: dict[str, object] = {
            "finding": name,
            "threshold": float(limits[j]),
            "n": int((~np.isnan(known[:, j])).sum()),
            "positives": int((known[:, j] == 1).sum()),
        }
        if not reason:
            point = operating_point(
                known[:, j], given[:, j], float(limits[j]), groups, n, seed, level
            )
            row |= _flat(point)
        rows.append(row | {"reason": reason})
    order = ["finding", "threshold", "n", "positives"]
    order += [rate + end for rate in _RATES for end in ("", "_low", "_high")]
    return pd.DataFrame(rows).reindex(columns=[*order, "reason"])


_RATES = ("sensitivity", "specificity", "ppv", "npv")


def _flat(point: OperatingPoint) -> dict[str, object]:
    result: dict[str, object] = {}
    for rate in _RATES:
        interval: Interval = getattr(point, rate)
        result |= {
            rate: interval.value,
            f"{rate}_low": interval.low,
            f"{rate}_high": interval.high,
        }
    return result


def predictive_values(
    sensitivity: float, specificity: float, prevalence: float
) -> tuple[float, float]:
    """Positive and negative predictive value where the finding is as common as stated.

    Args:
        sensitivity: In [0, 1].
        specificity: In [0, 1].
        prevalence: Share of the population that has the finding, in [0, 1].

    Returns:
        Positive and negative predictive value; NaN where nothing is called positive or negative.

    Raises:
        EvaluationError: If a share is outside [0, 1].

    Example:
        >>> [round(value, 3) for value in predictive_values(0.9, 0.9, 0.01)]
        [0.083, 0.999]

    Source:
        Altman and Bland. Diagnostic tests 2: predictive values. BMJ 309, 1994.
    """
    shares = (sensitivity, specificity, prevalence)
    if not all(0 <= share <= 1 for share in shares):
        msg = f"sensitivity, specificity and prevalence are shares in [0, 1], got {shares}"
        raise EvaluationError(msg)
    hits, misses = prevalence * sensitivity, prevalence * (1 - sensitivity)
    alarms, passes = (1 - prevalence) * (1 - specificity), (1 - prevalence) * specificity
    nan = float("nan")
    positive = hits / (hits + alarms) if hits + alarms else nan
    negative = passes / (passes + misses) if passes + misses else nan
    return positive, negative


def youden_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The threshold with the largest sum of sensitivity and specificity.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).

    Returns:
        A score that occurs; the highest of equals.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> youden_threshold([0, 0, 1, 1], [0.1, 0.3, 0.35, 0.8])
        0.35

    Source:
        Youden. Index for rating diagnostic tests. Cancer 3, 1950.
    """
    curve = roc_curve(labels, scores).iloc[1:]
    best = np.argmax(curve["sensitivity"].to_numpy() + curve["specificity"].to_numpy())
    return float(curve["threshold"].iloc[int(best)])


def threshold_at_sensitivity(labels: ArrayLike, scores: ArrayLike, sensitivity: float) -> float:
    """The highest threshold that finds at least a share of the rows with the finding.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        sensitivity: Share in (0, 1].

    Returns:
        A score that occurs.

    Raises:
        EvaluationError: If the share is out of range, or labels and scores do not do.

    Example:
        >>> threshold_at_sensitivity([0, 1, 1, 1], [0.1, 0.3, 0.5, 0.8], 0.6)
        0.5
    """
    present, known = column(labels, scores)
    ours = np.sort(known[present])[::-1]
    return float(ours[_places(sensitivity, len(ours)) - 1])


def threshold_at_specificity(labels: ArrayLike, scores: ArrayLike, specificity: float) -> float:
    """The lowest threshold that passes at least a share of the rows without the finding.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        specificity: Share in (0, 1].

    Returns:
        The number just above the score that must pass, also for scores compared in float32.

    Raises:
        EvaluationError: If the share is out of range, or labels and scores do not do.

    Example:
        >>> round(threshold_at_specificity([0, 0, 0, 1], [0.1, 0.3, 0.5, 0.8], 0.6), 6)
        0.3
    """
    present, known = column(labels, scores)
    theirs = np.sort(known[~present])
    passes = theirs[_places(specificity, len(theirs)) - 1]
    # A step of float64 would round away where NumPy or torch compares in float32.
    above = float(np.nextafter(np.float32(passes), np.float32(np.inf)))
    return float(known[known > passes].min(initial=above))


def _places(share: float, n: int) -> int:
    """The least number of `n` rows that is at least the share of them."""
    if not 0 < share <= 1:
        msg = f"a share above 0 and up to 1 is needed, got {share}"
        raise EvaluationError(msg)
    return int(np.ceil(share * n - 1e-9))
