"""What every measure takes and gives: checked arguments, `Interval`, and the plainest intervals.

The intervals here are those of shares, of means, and of a mean over findings.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]

MEAN: Final = "mean"
"""Name of the row of a table that holds the mean over findings."""


def column(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """Labels and scores of the rows whose label is known.

    Returns:
        Whether the finding is present, bool (M,), and the scores, float64 (M,).

    Raises:
        EvaluationError: If shapes differ, a label is neither 0, 1 nor NaN, a score is missing
            where the label is known, or one of the classes has no row.
    """
    known_labels, known_scores = matrix(labels, scores)
    if known_labels.shape[1] != 1:
        msg = f"labels of one finding are an array (N,), got {np.shape(labels)}"
        raise EvaluationError(msg)
    problem = problem_of(known_labels[:, 0], known_scores[:, 0])
    if problem:
        raise EvaluationError(problem)
    known = ~np.isnan(known_labels[:, 0])
    return known_labels[known, 0] == 1, known_scores[known, 0]


def matrix(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Labels and scores as float64 (N, P); one finding may come as (N,).

    Raises:
        EvaluationError: If shapes differ, or a label is neither 0, 1 nor NaN.
    """
    known, given = values(labels, "labels"), values(scores, "scores")
    if known.shape != given.shape or known.ndim not in (1, 2):
        msg = (
            "labels and scores are arrays of one shape, (N,) or (N, findings), got "
            f"{known.shape} and {given.shape}"
        )
        raise EvaluationError(msg)
    odd = known[~(np.isnan(known) | (known == 0) | (known == 1))]
    if odd.size:
        msg = f"labels are 0, 1 or NaN for unknown, got {np.unique(odd)[:5].tolist()}"
        raise EvaluationError(msg)
    if known.ndim == 1:
        known, given = known[:, None], given[:, None]
    return known, given


def values(given: ArrayLike, what: str) -> Floats:
    """Numbers as float64."""
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"{what}: numbers are needed ({error})"
        raise EvaluationError(msg) from None


def problem_of(labels: Floats, scores: Floats) -> str:
    """Why these labels and scores have no AUROC; empty if they have one."""
    known = ~np.isnan(labels)
    missing = int(np.isnan(scores[known]).sum())
    positives = int((labels == 1).sum())
    if not known.any():
        return "no row has a label"
    if missing:
        return f"{missing} of {int(known.sum())} rows have a label and no score"
    if positives == 0:
        return "no row has the finding"
    if positives == known.sum():
        return "every row has the finding"
    return ""


def patient_codes(patient_ids: ArrayLike | Sequence[object] | None, rows: int) -> Rows:
    """The patient of each row as a number from 0; a row without a patient is one of its own.

    Identifiers are compared as they are: the texts "7" and "007" are two patients.

    Args:
        patient_ids: Anything that names them, (rows,); None if each row is a patient of its own.
        rows: How many rows there are.

    Returns:
        int64 (rows,).

    Raises:
        EvaluationError: If there is not one identifier per row.
    """
    if patient_ids is None:
        return np.arange(rows)
    import pandas as pd

    codes, names = pd.factorize(pd.Series(np.asarray(patient_ids).reshape(-1)))
    if len(codes) != rows:
        msg = f"patient_ids name the patient of each of {rows} rows, got {len(codes)}"
        raise EvaluationError(msg)
    codes = codes.astype(np.int64)
    unknown = codes < 0
    codes[unknown] = len(names) + np.arange(int(unknown.sum()))
    return codes


# Patients that a share needs. With fewer, 95 % intervals held the truth in 82 to 100 % of simulated
# studies, depending on the share (docs/intervals.md).
_LEAST_FOR_SHARE: Final = 5
# Patients that a mean needs: two show a spread.
_LEAST_FOR_MEAN: Final = 2


@dataclass(frozen=True)
class Interval:
    """A measured value and its confidence interval.

    Attributes:
        value: The measure; NaN where it is not defined, see `reason`.
        low: Lower end; NaN where there is no interval, see `reason`.
        high: Upper end; NaN where there is no interval.
        n: Rows that were measured.
        positives: Rows among them in which the finding is present.
        level: Confidence of the interval.
        reason: Why there is no value or no interval, such as too few patients; empty where there
            are both.

    Example:
        >>> interval = Interval(0.812, 0.78, 0.841, n=500, positives=60)
        >>> print(interval)
        0.812 [0.780, 0.841]
        >>> 0.8 in interval
        True
    """

    value: float
    low: float
    high: float
    n: int
    positives: int
    level: float = 0.95
    reason: str = ""

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"not defined: {self.reason}"
        if math.isnan(self.low):
            return f"{self.value:.3f} [{self.reason}]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def __contains__(self, value: float) -> bool:
        """Whether the data allow a value: without an interval they exclude none."""
        if math.isnan(self.low):
            return not math.isnan(self.value)
        return self.low <= value <= self.high


def too_few(what: str, needed: int) -> str:
    """The reason of a value that has no interval for want of patients."""
    return f"too few patients for an interval: {what}, {needed} are needed"


def checked_level(level: float) -> float:
    """The level, if it is a share between 0 and 1."""
    if not 0 < level < 1:
        msg = f"level is a share between 0 and 1 such as 0.95, got {level}"
        raise EvaluationError(msg)
    return float(level)


def z_of(level: float) -> float:
    """Standard deviations of a normal distribution to either side that hold a share of it."""
    return NormalDist().inv_cdf((1 + checked_level(level)) / 2)


@functools.lru_cache(maxsize=1024)
def t_of(level: float, freedom: float) -> float:
    """The same for Student's distribution.

    Args:
        level: The share.
        freedom: Degrees of freedom, above 0; not necessarily whole.

    Returns:
        The quantile.
    """
    low = high = z_of(level)
    while _share_within(high, freedom) < level:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, freedom) < level else (low, middle)
    return high


def _share_within(t: float, freedom: float) -> float:
    """Share of Student's distribution within ``t`` of 0: an integral of a power of the cosine."""
    angle = math.atan(t / math.sqrt(freedom))
    nodes, weights = _legendre()
    powers = np.cos(angle * (nodes + 1) / 2) ** (freedom - 1)
    whole = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    return angle / math.sqrt(math.pi) * math.exp(whole) * float(weights @ powers)


@functools.cache
def _legendre() -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(64)


def wilson_interval(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Ends of the interval of a share; never outside [0, 1], never of width 0.

    Args:
        successes: How many of `n`.
        n: Independent trials; 0 gives NaN.
        level: Confidence.

    Returns:
        Lower and upper end.

    Example:
        >>> low, high = wilson_interval(10, 10)
        >>> round(low, 3), round(high, 3)
        (0.722, 1.0)

    Source:
        Wilson. Probable inference, the law of succession, and statistical inference. JASA 22,
        1927.
    """
    if n == 0:
        return math.nan, math.nan
    return score_ends(successes / n, n, z_of(level))


def score_ends(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's ends of a share for a number of standard errors."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def share_interval(
    hits: NDArray[np.bool_],
    members: NDArray[np.bool_],
    codes: Rows,
    level: float,
    needs: tuple[int, str] | None = None,
) -> Interval:
    """A share of rows: Wilson's interval with the number of rows that would count as much alone.

    Images of one patient are alike, so they count for less than as many images of different
    patients. The effective number follows from the spread of the patients' own counts (Rao and
    Scott). Where every row is a hit, or none is, nothing shows how alike they are, and patients
    are counted.

    Args:
        hits: Rows that count, bool (N,).
        members: Rows that could, bool (N,).
        codes: Patient of each row, int64 (N,), from 0.
        level: Confidence.
        needs: Patients of the rarer class and which class that is, for a predictive value where
            patients have several rows: it depends on how common the finding is among them.

    Returns:
        The share; `n` is the number of members and `positives` that of hits.

    Source:
        Rao and Scott. A simple method for the analysis of clustered binary data. Biometrics 48,
        1992.
    """
    checked_level(level)
    n, count = int(members.sum()), int((hits & members).sum())
    if n == 0:
        reason = "no row is on this side of the threshold"
        return Interval(math.nan, math.nan, math.nan, 0, 0, level, reason)
    per_patient = np.bincount(codes[members])
    patients = int((per_patient > 0).sum())
    if patients < _LEAST_FOR_SHARE:
        reason = too_few(f"{patients} in the denominator", _LEAST_FOR_SHARE)
        return Interval(count / n, math.nan, math.nan, n, count, level, reason)
    if needs is not None and needs[0] < _LEAST_FOR_SHARE:
        reason = too_few(f"{needs[0]} {needs[1]}", _LEAST_FOR_SHARE)
        return Interval(count / n, math.nan, math.nan, n, count, level, reason)
    found = np.bincount(codes[members & hits], minlength=len(per_patient))
    size = effective_number(found, per_patient, patients)
    return Interval(count / n, *wilson_interval(count / n * size, size, level), n, count, level)


def effective_rows(hits: NDArray[np.bool_], members: NDArray[np.bool_], codes: Rows) -> float:
    """Independent rows that would show a share as closely as these do.

    Args:
        hits: Rows that count, bool (N,).
        members: Rows that could, bool (N,); at least one.
        codes: Patient of each row, int64 (N,), from 0.

    Returns:
        Their number.
    """
    per_patient = np.bincount(codes[members])
    found = np.bincount(codes[members & hits], minlength=len(per_patient))
    return effective_number(found, per_patient, int((per_patient > 0).sum()))


def effective_number(found: Rows, per_patient: Rows, patients: int) -> float:
    """Independent rows that would show a share as closely, from counts of hits and of rows."""
    n, count = int(per_patient.sum()), int(found.sum())
    if patients == n:
        return float(n)
    if count in (0, n):
        return float(patients)
    away = (n * found - count * per_patient).astype(np.float64)
    spread = patients * float(away @ away)
    if spread == 0:  # every patient has the same share
        return float(n)
    return min(float(n), 1 + (patients - 1) * count * (n - count) * float(n) ** 2 / spread)


@with_former_names
def mean_interval(
    numbers: ArrayLike, patient_ids: ArrayLike | None = None, level: float = 0.95
) -> Interval:
    """Mean of one number per row, such as Dice or an absolute error, with Student's interval.

    The variance is that of patients, not of rows, with the corrections for few patients of Bell
    and McCaffrey. Of one patient, or where every number is the same, there is no spread to judge
    by and so no interval.

    Args:
        numbers: Shape (N,); NaN is left out.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        level: Confidence.

    Returns:
        The mean and its interval; `positives` is the number of rows that are not NaN.

    Raises:
        EvaluationError: If there is no row, or the patients do not fit.

    Example:
        >>> print(mean_interval([0.90, 0.92, 0.94, 0.88]))
        0.910 [0.869, 0.951]
        >>> mean_interval([0.9]).reason
        'too few patients for an interval: 1, 2 are needed'

    Source:
        Bell and McCaffrey. Bias reduction in standard errors for linear regression with
        multi-stage samples. Survey Methodology 28, 2002.
    """
    checked_level(level)
    array = values(numbers, "numbers").reshape(-1)
    if len(array) == 0:
        msg = "a mean needs a row or more, got 0 rows"
        raise EvaluationError(msg)
    codes = patient_codes(patient_ids, len(array))
    known = ~np.isnan(array)
    count = int(known.sum())
    if count == 0:
        reason = "no row has a number"
        return Interval(math.nan, math.nan, math.nan, len(array), 0, level, reason)
    kept = array[known]
    mean = float(kept.mean())
    per_patient = np.bincount(codes[known])
    seen = per_patient > 0
    sizes = per_patient[seen].astype(np.float64)
    if len(sizes) < _LEAST_FOR_MEAN or np.ptp(kept) == 0:
        few = len(sizes) < _LEAST_FOR_MEAN
        reason = (
            too_few(f"{len(sizes)}", _LEAST_FOR_MEAN)
            if few
            else "every number is the same, which shows no spread"
        )
        return Interval(mean, math.nan, math.nan, len(array), count, level, reason)
    away = np.bincount(codes[known], weights=kept - mean)[seen]
    shares = sizes / count
    error = math.sqrt(float((away**2 / (1 - shares)).sum())) / count
    reach = t_of(level, _freedom(sizes)) * error
    return Interval(mean, mean - reach, mean + reach, len(array), count, level)


def _freedom(sizes: Floats) -> float:
    """Degrees of freedom of the variance of a mean over patients with so many rows each."""
    n = float(sizes.sum())
    pulled = sizes**2 / (n * (1 - sizes / n))
    return float(n**2 / ((sizes**2).sum() + pulled.sum() ** 2 - (pulled**2).sum()))


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
            short = f"{scarce.sum()} of {len(few)} findings"
            reason = f"too few patients for the interval of a mean in {short}"
        return Interval(value, math.nan, math.nan, *counts_of(known), level, reason)
    together = _correlations(moved)
    ends = [
        math.sqrt(max(0.0, float(reach @ together @ reach))) / len(values)
        for reach in (below, above)
    ]
    limits = max(least, value - ends[0]), min(most, value + ends[1])
    return Interval(value, *limits, *counts_of(known), level)


def _correlations(moved: Floats) -> Floats:
    """Between rows of influence; 0 for one without spread, whose chance is its own."""
    length = np.sqrt((moved**2).sum(axis=1))
    scaled = moved / np.where(length > 0, length, 1.0)[:, None]
    together: Floats = scaled @ scaled.T
    np.fill_diagonal(together, 1.0)
    return together


def counts_of(known: Floats) -> tuple[int, int]:
    """Rows with a label, and labels of 1."""
    return int((~np.isnan(known)).any(axis=1).sum()), int((known == 1).sum())
