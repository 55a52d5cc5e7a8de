"""Whether probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.intervals import (
    column,
    matrix,
    patient_codes,
    share_interval,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation.intervals import Floats

Bins = Literal["width", "quantile"]

_TINY: Final = 1e-7  # keeps the logit of probabilities that were rounded to 0 or 1 finite
_STEPS: Final = 100
_CLOSE: Final = 1e-10


@dataclass(frozen=True)
class CalibrationLine:
    """Logistic regression of the labels on the logit of the predicted probabilities.

    Attributes:
        slope: 1 if calibrated; below 1 where predictions are too extreme.
        intercept: Of the same regression; 0 if calibrated.
        in_the_large: Intercept with the slope held at 1: above 0 where the finding is more common
            than predicted.
    """

    slope: float
    intercept: float
    in_the_large: float


def brier_score(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared difference between probability and outcome; 0 is perfect.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        probabilities: In [0, 1], shape (N,).

    Returns:
        The score in [0, 1].

    Raises:
        EvaluationError: If a probability is outside [0, 1], a class has no row, or shapes differ.

    Example:
        >>> brier_score([0, 1], [0.0, 0.5])
        0.125

    Source:
        Brier. Verification of forecasts expressed in terms of probability. Monthly Weather Review
        78, 1950.
    """
    present, known = _probabilities(labels, probabilities)
    return float(np.mean((known - present) ** 2))


@with_former_names
def reliability_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    bins: int = 10,
    by: Bins = "width",
    level: float = 0.95,
    patient_ids: ArrayLike | None = None,
) -> pd.DataFrame:
    """Predicted probability against observed share in bins of the probability.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        probabilities: In [0, 1], shape (N,).
        bins: How many.
        by: ``"width"`` for bins of equal width, ``"quantile"`` for bins of about as many rows.
        level: Confidence of the observed share, by Wilson.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.

    Returns:
        One row per bin that holds any: ``n``, ``predicted`` (mean probability), ``observed``
        (share of rows with the finding), ``low``, ``high``; NaN at the ends of a bin with rows of
        fewer than five patients.

    Raises:
        EvaluationError: As in `brier_score`, or if `bins` or `by` are no such thing.

    Example:
        >>> reliability_curve([0, 1, 1, 1], [0.1, 0.1, 0.9, 0.9], bins=2)["observed"].tolist()
        [0.5, 1.0]

    Source:
        DeGroot and Fienberg. The comparison and evaluation of forecasters. The Statistician 32,
        1983.
    """
    import pandas as pd

    present, known = _probabilities(labels, probabilities)
    labelled = ~np.isnan(matrix(labels, probabilities)[0][:, 0])
    codes = patient_codes(patient_ids, len(labelled))[labelled]
    rows = []
    for members in binned(known, bins, by):
        everyone = np.ones(len(members), bool)
        share = share_interval(present[members], everyone, codes[members], level)
        rows.append((share.n, float(known[members].mean()), share.value, share.low, share.high))
    return pd.DataFrame(rows, columns=["n", "predicted", "observed", "low", "high"])


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = 10, by: Bins = "width"
) -> float:
    """Mean distance of probability and observed share over bins, weighted by their rows.

    It depends on the bins, and chance alone keeps it above 0: compare errors of equal bins and
    numbers of rows.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        probabilities: In [0, 1], shape (N,).
        bins: How many.
        by: ``"width"`` or ``"quantile"``, as in `reliability_curve`.

    Returns:
        The error in [0, 1].

    Raises:
        EvaluationError: As in `reliability_curve`.

    Example:
        >>> round(expected_calibration_error([0, 1, 1, 1], [0.1, 0.1, 0.9, 0.9], bins=2), 3)
        0.25

    Source:
        Naeini et al. Obtaining well calibrated probabilities using Bayesian binning. AAAI 2015.
    """
    curve = reliability_curve(labels, probabilities, bins, by)
    gaps = (curve["predicted"] - curve["observed"]).abs()
    return float(np.average(gaps, weights=curve["n"]))


def calibration_line(labels: ArrayLike, probabilities: ArrayLike) -> CalibrationLine:
    """Slope and intercept of calibration.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        probabilities: In [0, 1], shape (N,); 0 and 1 count as 1e-7 from there.

    Returns:
        The line.

    Raises:
        EvaluationError: As in `brier_score`, or if the probabilities separate the classes or are
            all the same, so that no line fits best.

    Example:
        >>> line = calibration_line([0, 0, 0, 1, 0, 1, 1, 1], [0.25] * 4 + [0.75] * 4)
        >>> round(line.slope, 6), round(line.intercept, 6)
        (1.0, 0.0)

    Source:
        Cox. Two further applications of a model for binary regression. Biometrika 45, 1958. Van
        Calster et al. Calibration: the Achilles heel of predictive analytics. BMC Medicine 17,
        2019, https://doi.org/10.1186/s12916-019-1466-7.
    """
    present, known = _probabilities(labels, probabilities)
    logits = logits_of(known)
    ours, theirs = logits[present], logits[~present]
    apart = ours.min() >= theirs.max() or ours.max() <= theirs.min()
    if apart or np.ptp(logits) == 0:
        msg = "no calibration line fits: the probabilities separate the classes or are all the same"
        raise EvaluationError(msg)
    ones = np.ones_like(logits)
    intercept, slope = fit_logistic(
        np.stack([ones, logits], axis=1), present, np.zeros_like(logits)
    )
    (shift,) = fit_logistic(ones[:, None], present, logits)
    return CalibrationLine(float(slope), float(intercept), float(shift))


def logits_of(probabilities: Floats) -> Floats:
    """Logarithms of the odds; 0 and 1 count as 1e-7 from there."""
    clipped = np.clip(probabilities, _TINY, 1 - _TINY)
    return np.asarray(np.log(clipped / (1 - clipped)), np.float64)


def fit_logistic(design: Floats, present: NDArray[np.bool_], offset: Floats) -> Floats:
    """Maximum likelihood of a logistic regression by Newton's method, steps halved as needed."""
    weights = np.zeros(design.shape[1])
    loss = _loss(design @ weights + offset, present)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights + offset, -500, 500)))
        gradient = design.T @ (chance - present)
        curvature = design.T @ (design * (chance * (1 - chance))[:, None])
        step = np.asarray(np.linalg.lstsq(curvature, gradient, rcond=None)[0], np.float64)
        while (new := _loss(design @ (weights - step) + offset, present)) > loss + _CLOSE:
            step = step / 2
        weights, loss = weights - step, new
        if np.abs(step).max() < _CLOSE:
            break
    return weights


def _loss(logits: Floats, present: NDArray[np.bool_]) -> float:
    return float(np.logaddexp(0, np.where(present, -logits, logits)).sum())


def _probabilities(labels: ArrayLike, given: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    present, known = column(labels, given)
    if known.min() < 0 or known.max() > 1:
        msg = f"probabilities lie in [0, 1], got {known.min():g} to {known.max():g}"
        raise EvaluationError(msg)
    return present, known


def binned(known: Floats, bins: int, by: Bins) -> list[NDArray[Any]]:
    """Rows of each bin that holds any."""
    if bins < 1 or by not in ("width", "quantile"):
        msg = f"bins is 1 or more and by is 'width' or 'quantile', got {bins} and {by!r}"
        raise EvaluationError(msg)
    if by == "width":
        places = np.minimum((known * bins).astype(np.int64), bins - 1)
    else:
        inner = np.quantile(known, np.arange(1, bins) / bins)
        places = np.searchsorted(inner, known, side="left")
    return [np.flatnonzero(places == place) for place in np.unique(places)]
