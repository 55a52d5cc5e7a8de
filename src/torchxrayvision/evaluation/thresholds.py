"""What a threshold does: sensitivity, specificity and predictive values with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.intervals import (
    Interval,
    checked_level,
    column,
    effective_rows,
    matrix,
    mean_interval,
    patient_codes,
    problem_of,
    share_interval,
    wilson_interval,
)
from torchxrayvision.evaluation.ranking import roc_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from torchxrayvision.evaluation.intervals import Floats, Rows


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


@with_former_names
def operating_point(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> OperatingPoint:
    """Count what a threshold gets right and wrong.

    Intervals are Wilson's, with the effective number of rows where patients have several. A rate
    has none if its denominator comes from fewer than five patients; a predictive value has none
    either if patients have several rows and fewer than five of them are of the rarer class.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        threshold: Rows at or above it are called positive. Choose it on other patients.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
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
    return _point(known, given, threshold, patient_codes(patient_ids, len(known)), level)


def _point(
    known: Floats, given: Floats, threshold: float, codes: Rows, level: float
) -> OperatingPoint:
    checked_level(level)
    present, absent, called = known == 1, known == 0, given >= threshold
    patients = {
        f"{which} the finding": len(np.unique(codes[rows]))
        for which, rows in (("with", present), ("without", absent))
    }
    rarer = min(patients, key=lambda which: patients[which])
    known_rows = present | absent
    several = len(np.unique(codes[known_rows])) < int(known_rows.sum())
    needs = (patients[rarer], rarer) if several else None
    return OperatingPoint(
        threshold=float(threshold),
        true_positives=int((present & called).sum()),
        false_positives=int((absent & called).sum()),
        true_negatives=int((absent & ~called).sum()),
        false_negatives=int((present & ~called).sum()),
        sensitivity=share_interval(called, present, codes, level),
        specificity=share_interval(~called, absent, codes, level),
        ppv=share_interval(present, called & known_rows, codes, level, needs),
        npv=share_interval(absent, ~called & known_rows, codes, level, needs),
    )


@with_former_names
def operating_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    thresholds: ArrayLike,
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Rates of every finding at its threshold.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        thresholds: One per finding, or one for all.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        ``finding``, ``threshold``, ``n``, ``positives``, each of ``sensitivity``, ``specificity``,
        ``ppv``, ``npv`` followed by its ``_low`` and ``_high``, and ``reason`` where a finding
        has rows of one class only or a rate has no interval.

    Raises:
        EvaluationError: If shapes differ.

    Example:
        >>> table = operating_table([[0], [1]] * 5, [[0.2], [0.9]] * 5, ["Mass"], 0.5)
        >>> table["sensitivity"].item(), round(table["sensitivity_low"].item(), 2)
        (1.0, 0.57)
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
    codes = patient_codes(patient_ids, len(known))
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
            point = _point(known[:, j], given[:, j], float(limits[j]), codes, level)
            row |= _flat(point)
            reason = _first_reason(point)
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


def _first_reason(point: OperatingPoint) -> str:
    """Which rate has no interval, and why."""
    for rate in _RATES:
        interval: Interval = getattr(point, rate)
        if interval.reason:
            return f"{rate}: {interval.reason}"
    return ""


def achieved_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    rate: str,
    chosen_on: float,
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """A rate at a threshold that was chosen to reach a target on other patients.

    The interval of `operating_point` is for this very threshold. A threshold that was chosen on few
    patients misses its target by chance as well; this interval allows for both, so it holds the
    target in 95 % of studies unless the patients here are other ones than those of the choice.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        threshold: Rows at or above it are called positive.
        rate: ``"sensitivity"`` or ``"specificity"``.
        chosen_on: Effective number of rows of that class that the threshold was chosen on, as a
            calibration holds it.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        The rate; no interval where `operating_point` has none.

    Raises:
        EvaluationError: If the rate is unknown, a class has no row, or shapes differ.

    Example:
        >>> labels, scores = [0, 1] * 50, [0.1, 0.9] * 45 + [0.9, 0.1] * 5
        >>> print(achieved_interval(labels, scores, 0.5, "sensitivity", chosen_on=50))
        0.900 [0.725, 0.968]
    """
    if rate not in ("sensitivity", "specificity") or chosen_on <= 0:
        msg = f"rate is sensitivity or specificity, chosen_on above 0; got {rate!r}, {chosen_on}"
        raise EvaluationError(msg)
    point = operating_point(labels, scores, threshold, patient_ids, level)
    found: Interval = getattr(point, rate)
    if found.reason:
        return found
    known, given = (array[:, 0] for array in matrix(labels, scores))
    codes = patient_codes(patient_ids, len(known))
    right = (given >= threshold) == (rate == "sensitivity")
    here = effective_rows(right, known == (rate == "sensitivity"), codes)
    size = 1 / (1 / here + 1 / chosen_on)
    ends = wilson_interval(found.value * size, size, level)
    return Interval(found.value, *ends, found.n, found.positives, level)


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


def net_benefit_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    thresholds: ArrayLike | None = None,
    patient_ids: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Net benefit of acting where the probability reaches a threshold, for several of them.

    It is the share of rows that are rightly called positive less the share wrongly called, at the
    odds of the threshold: whoever acts from 10 % on takes nine false alarms for one hit.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        probabilities: In [0, 1], shape (N,).
        thresholds: In (0, 1); None for fifty up to five times the share with the finding.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        ``threshold``, ``net_benefit``, ``low``, ``high``, and ``all``, that of acting always;
        that of never acting is 0.

    Raises:
        EvaluationError: If a threshold or a probability is out of range, or labels do not do.

    Example:
        >>> curve = net_benefit_curve([0, 1] * 20, [0.1, 0.9] * 20, [0.5])
        >>> curve[["net_benefit", "all"]].to_numpy().tolist()
        [[0.5, 0.0]]

    Source:
        Vickers and Elkin. Decision curve analysis. Medical Decision Making 26, 2006.
    """
    import pandas as pd

    present, given = column(labels, probabilities)
    if given.min() < 0 or given.max() > 1:
        msg = f"probabilities lie in [0, 1], got {given.min():g} to {given.max():g}"
        raise EvaluationError(msg)
    rows = ~np.isnan(matrix(labels, probabilities)[0][:, 0])
    codes = patient_codes(patient_ids, len(rows))[rows]
    share = float(present.mean())
    top = min(0.95, max(5 * share, 0.2))
    limits = np.linspace(top / 50, top, 50) if thresholds is None else np.asarray(thresholds)
    if limits.ndim != 1 or not ((limits > 0) & (limits < 1)).all():
        msg = f"thresholds are shares between 0 and 1, got {limits.tolist()}"
        raise EvaluationError(msg)
    made = []
    for limit in limits:
        odds = limit / (1 - limit)
        gains = np.where(given >= limit, np.where(present, 1.0, -odds), 0.0)
        interval = mean_interval(gains, codes, level)
        everyone = share - (1 - share) * odds
        made.append((limit, interval.value, interval.low, interval.high, everyone))
    return pd.DataFrame(made, columns=["threshold", "net_benefit", "low", "high", "all"])


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
