"""Resampling patients, many replicates at once, as weights instead of copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation._input import patient_codes, values
from torchxrayvision.evaluation._interval import Interval, checked_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation._input import Floats, Rows

__all__ = ["Resampler", "bootstrap", "ends", "mean_interval"]

# Weights held at a time: eight megabytes, so that a pass over them stays near the processor.
_CELLS: Final = 1_000_000


@dataclass(frozen=True)
class Resampler:
    """Replicates of a sample, drawn patient by patient with replacement.

    Films of one patient are alike, so resampling films would give intervals that are too narrow.

    Attributes:
        codes: Patient of each row, int64 (N,), from 0.
        n: Replicates.
        seed: Of a generator of its own; the same seed gives the same replicates.
    """

    codes: Rows
    n: int
    seed: int

    @classmethod
    def of(cls, groups: ArrayLike | None, rows: int, n: int, seed: int) -> Resampler:
        """Check the arguments of a public function."""
        if rows == 0 or n < 1:
            msg = f"resampling needs a row and a replicate or more, got {rows} rows and n={n}"
            raise EvaluationError(msg)
        return cls(patient_codes(groups, rows), n, seed)

    def weights(self) -> Iterator[Floats]:
        """How often each row is in each replicate, in blocks (N, R)."""
        generator = np.random.default_rng(self.seed)
        patients = int(self.codes.max()) + 1
        block = max(1, _CELLS // len(self.codes))
        for start in range(0, self.n, block):
            size = min(block, self.n - start)
            drawn = generator.integers(patients, size=(size, patients))
            drawn += np.arange(size)[:, None] * patients
            counts = np.bincount(drawn.reshape(-1), minlength=size * patients)
            by_patient = counts.reshape(size, patients).T.astype(np.float64)
            yield by_patient[self.codes]


def ends(replicates: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The middle share of replicates; those that are NaN are left out."""
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(
    numbers: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean of one number a row, such as Dice or an absolute error, with its interval.

    Args:
        numbers: Shape (N,); NaN is left out.
        groups: Patient of each row, shape (N,); None if each row is a patient of its own.
        n: Bootstrap replicates; patients are resampled.
        seed: Of a generator of its own.
        level: Confidence.

    Returns:
        The mean and its interval; `positives` is the number of rows that are not NaN.

    Raises:
        EvaluationError: If there is no row, or groups do not fit.

    Example:
        >>> mean_interval([0.9, 0.9, 0.9]).value
        0.9
    """
    array = values(numbers, "numbers").reshape(-1)
    sampler = Resampler.of(groups, len(array), n, seed)
    known = ~np.isnan(array)
    count = int(known.sum())
    if count == 0:
        nan = float("nan")
        return Interval(nan, nan, nan, len(array), 0, checked_level(level), "no row has a number")
    kept = array[known]
    replicates = []
    for weights in sampler.weights():
        total = weights[known].sum(axis=0)
        summed = kept @ weights[known]
        replicates.append(
            np.divide(summed, total, out=np.full_like(total, np.nan), where=total > 0)
        )
    low, high = ends(np.concatenate(replicates), checked_level(level))
    return Interval(float(kept.mean()), low, high, len(array), count, level)


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of any measure, by resampling patients and measuring again.

    The functions for AUROC and means are a hundred times faster, for they resample weights.

    Args:
        statistic: Takes the arrays, resampled alike, and returns a number; a replicate for which
            it raises `EvaluationError` or returns NaN is left out.
        *arrays: Each with N rows.
        groups: Patient of each row, shape (N,); None if each row is a patient of its own.
        n: Replicates.
        seed: Of a generator of its own.
        level: Confidence.

    Returns:
        The measure of all rows and the percentile interval; `positives` is the number of rows.

    Raises:
        EvaluationError: If the arrays differ in length, or the measure is undefined for all rows.

    Example:
        >>> interval = bootstrap(lambda a: float(np.median(a)), np.arange(101.0))
        >>> interval.value, interval.low < 50 < interval.high
        (50.0, True)

    Source:
        Efron and Tibshirani. An introduction to the bootstrap. 1993, chapters 8 and 13.
    """
    given = [np.asarray(array) for array in arrays]
    lengths = {len(array) for array in given}
    if len(lengths) != 1:
        msg = f"bootstrap needs arrays with the same number of rows, got {sorted(lengths)}"
        raise EvaluationError(msg)
    rows = lengths.pop()
    sampler = Resampler.of(groups, rows, n, seed)
    replicates = [
        _measured(statistic, [array.repeat(counts, axis=0) for array in given])
        for weights in sampler.weights()
        for counts in weights.T.astype(np.int64)
    ]
    low, high = ends(np.array(replicates), checked_level(level))
    return Interval(float(statistic(*given)), low, high, rows, rows, level)


def _measured(statistic: Callable[..., float], arrays: list[NDArray[np.generic]]) -> float:
    try:
        return float(statistic(*arrays))
    except EvaluationError:
        return float("nan")
