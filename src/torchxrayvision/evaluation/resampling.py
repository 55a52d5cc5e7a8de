"""The bootstrap over patients, for measures whose interval has no formula here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.intervals import (
    Interval,
    checked_level,
    patient_codes,
    t_of,
    too_few,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation.intervals import Floats, Rows

# Weights held at a time: eight megabytes, so that a pass over them stays near the processor.
_CELLS: Final = 1_000_000
# Resampling fewer patients than this shows too little spread, whatever the measure.
_LEAST: Final = 20
# Share of the replicates that may lack a value; more is a sign of a class with a handful of cases.
_UNDEFINED: Final = 0.01
# Shares of the replicates below the value are held this far from 0 and 1.
_EDGE: Final = 0.005


@dataclass(frozen=True)
class Resampler:
    """Replicates of a sample, drawn patient by patient with replacement.

    Images of one patient are alike, so resampling images would give intervals that are too narrow.

    Attributes:
        codes: Patient of each row, int64 (N,), from 0.
        replicates: How many.
        seed: Of a generator of its own; the same seed gives the same replicates.
    """

    codes: Rows
    replicates: int
    seed: int

    @classmethod
    def of(cls, patient_ids: ArrayLike | None, rows: int, replicates: int, seed: int) -> Resampler:
        """Check the arguments of a public function."""
        if rows == 0 or replicates < 1:
            msg = (
                "resampling needs a row and a replicate or more, got "
                f"{rows} rows and replicates={replicates}"
            )
            raise EvaluationError(msg)
        return cls(patient_codes(patient_ids, rows), replicates, seed)

    @property
    def patients(self) -> int:
        """How many patients there are."""
        return int(self.codes.max()) + 1

    def weights(self) -> Iterator[Floats]:
        """How often each row is in each replicate, in blocks (N, R)."""
        generator = np.random.default_rng(self.seed)
        patients = self.patients
        block = max(1, _CELLS // len(self.codes))
        for start in range(0, self.replicates, block):
            size = min(block, self.replicates - start)
            drawn = generator.integers(patients, size=(size, patients))
            drawn += np.arange(size)[:, None] * patients
            counts = np.bincount(drawn.reshape(-1), minlength=size * patients)
            by_patient = counts.reshape(size, patients).T.astype(np.float64)
            yield by_patient[self.codes]


@with_former_names
def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    patient_ids: ArrayLike | None = None,
    replicates: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of any measure, by resampling patients and measuring again.

    AUROC, average precision, means and shares have intervals of their own here, which hold better
    and are a hundred times faster. This one corrects the percentiles for bias and for the number
    of patients; it remains a little short for measures that few cases decide.

    Args:
        statistic: Takes the arrays, resampled alike, and returns a number; a replicate for which
            it raises `EvaluationError` or returns NaN is left out.
        *arrays: Each with N rows.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        replicates: How many, 1 or more.
        seed: Of a generator of its own.
        level: Confidence.

    Returns:
        The measure of all rows and its interval; `positives` is the number of rows. There is no
        interval where there are fewer than 20 patients, or where more than 1 % of the replicates
        have no value.

    Raises:
        EvaluationError: If the arrays differ in length, or the measure is undefined for all rows.

    Example:
        >>> interval = bootstrap(lambda a: float(np.median(a)), np.arange(101.0))
        >>> interval.value, interval.low < 50 < interval.high
        (50.0, True)

    Source:
        Efron and Tibshirani. An introduction to the bootstrap. 1993, chapters 13 and 14.
        Hesterberg. What teachers should know about the bootstrap. The American Statistician 69,
        2015, section 5.3.
    """
    given = [np.asarray(array) for array in arrays]
    lengths = {len(array) for array in given}
    if len(lengths) != 1:
        msg = f"bootstrap needs arrays with the same number of rows, got {sorted(lengths)}"
        raise EvaluationError(msg)
    rows = lengths.pop()
    checked_level(level)
    sampler = Resampler.of(patient_ids, rows, replicates, seed)
    value = float(statistic(*given))
    if sampler.patients < _LEAST:
        reason = too_few(f"{sampler.patients}", _LEAST)
        return Interval(value, math.nan, math.nan, rows, rows, level, reason)
    measured = np.array(
        [
            _measured(statistic, [array.repeat(counts, axis=0) for array in given])
            for weights in sampler.weights()
            for counts in weights.T.astype(np.int64)
        ]
    )
    undefined = float(np.isnan(measured).mean())
    if undefined > _UNDEFINED:
        reason = (
            f"too few patients for an interval: {undefined:.0%} of the replicates have no value"
        )
        return Interval(value, math.nan, math.nan, rows, rows, level, reason)
    ends = _corrected(measured[~np.isnan(measured)], value, sampler.patients, level)
    return Interval(value, *ends, rows, rows, level)


def _corrected(measured: Floats, value: float, patients: int, level: float) -> tuple[float, float]:
    """Percentiles, moved for the bias that replicates show and spread for few patients."""
    normal = NormalDist()
    below = float((measured < value).mean() + (measured == value).mean() / 2)
    bias = normal.inv_cdf(min(max(below, _EDGE), 1 - _EDGE))
    reach = math.sqrt(patients / (patients - 1)) * t_of(level, patients - 1)
    low, high = np.quantile(measured, [normal.cdf(2 * bias - reach), normal.cdf(2 * bias + reach)])
    return float(low), float(high)


def _measured(statistic: Callable[..., float], arrays: list[NDArray[np.generic]]) -> float:
    try:
        return float(statistic(*arrays))
    except EvaluationError:
        return math.nan
