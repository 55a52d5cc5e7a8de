"""Thresholds at a target, with what they achieve, and limits of conformal sets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import CalibrationError
from torchxrayvision.evaluation import (
    Interval,
    effective_rows,
    mean_interval,
    operating_point,
    threshold_at_sensitivity,
    threshold_at_specificity,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]

TARGETS: Final = ("sensitivity", "specificity", "ppv", "net-benefit")
_LEAST_CALLS: Final = 10  # rows above a threshold, below which a predictive value says little


def parse_target(text: str) -> tuple[str, float]:
    """What a threshold is to achieve.

    Args:
        text: ``sensitivity=0.9``, ``specificity=0.9``, ``ppv=0.5``, or ``net-benefit=0.1``, where
            0.1 is the probability of the finding at which acting is worth as much as not acting.

    Returns:
        The measure and its value.

    Raises:
        CalibrationError: If it is something else.

    Example:
        >>> parse_target("sensitivity=0.9")
        ('sensitivity', 0.9)
    """
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name not in TARGETS or not 0 < value < 1:
        msg = (
            f"a target is one of {', '.join(TARGETS)} with a share between 0 and 1, such as "
            f"sensitivity=0.9; got {text!r}"
        )
        raise CalibrationError(msg)
    return name, value


def choose_threshold(
    target: tuple[str, float],
    labels: Floats,
    outputs: Floats,
    calibrated: Floats,
    codes: Rows,
    folds: list[tuple[Rows, Rows]],
) -> dict[str, Any]:
    """A threshold and what it achieves.

    A threshold for sensitivity or specificity is chosen on one class, so the rates of these very
    rows are what it achieves elsewhere, but for chance. One for the predictive value is chosen on
    both, so what it achieves is counted on patients that the choice did not see.

    Args:
        target: From `parse_target`.
        labels: 0 or 1, (M,).
        outputs: (M,).
        calibrated: Probabilities for held-out patients, (M,).
        codes: Patient of each row, (M,).
        folds: Rows to choose on and rows to judge on, by patient.

    Returns:
        For `FindingCalibration.threshold`.
    """
    name, value = target
    made: dict[str, Any] = {"target": name, "value": value}
    if name == "net-benefit":
        called = calibrated >= value
        made |= {"on": "calibrated", "at": value}
        made["net_benefit"] = _shown(net_benefit(labels, called, value, codes))
        return made | _rates(labels, called, codes)
    choose = _CHOICES[name]
    at = choose(labels, outputs, value)
    if at is None:
        reason = f"no threshold with {_LEAST_CALLS} positives or more reaches it"
        return made | {"on": "output", "at": None, "reason": reason}
    made |= {"on": "output", "at": at}
    called = outputs >= at
    if name != "ppv":
        members = labels == (1 if name == "sensitivity" else 0)
        right = called if name == "sensitivity" else ~called
        made["chosen_on"] = round(effective_rows(right, members, codes), 3)
    if name == "ppv":
        for rest, held in folds:
            limit = choose(labels[rest], outputs[rest], value)
            called[held] = outputs[held] >= (math.inf if limit is None else limit)
    return made | _rates(labels, called, codes)


def _at_ppv(labels: Floats, outputs: Floats, share: float) -> float | None:
    """The threshold with the highest sensitivity whose positives hold a share with the finding."""
    order = np.argsort(-outputs, kind="stable")
    last = np.append(outputs[order][1:] != outputs[order][:-1], True)
    hits = np.cumsum(labels[order])
    calls = np.arange(1, len(order) + 1)
    good = np.flatnonzero(last & (hits >= share * calls) & (calls >= _LEAST_CALLS))
    return float(outputs[order[good[-1]]]) if len(good) else None


_CHOICES: Final[dict[str, Callable[[Floats, Floats, float], float | None]]] = {
    "sensitivity": threshold_at_sensitivity,
    "specificity": threshold_at_specificity,
    "ppv": _at_ppv,
}


def net_benefit(
    labels: Floats, called: NDArray[np.bool_], at: float, codes: Rows | None
) -> Interval:
    """Net benefit per image: hits less false alarms at the odds of a probability."""
    gains = np.where(called, np.where(labels == 1, 1.0, -at / (1 - at)), 0.0)
    return mean_interval(gains, codes)


def _rates(labels: Floats, called: NDArray[np.bool_], codes: Rows) -> dict[str, Any]:
    point = operating_point(labels, called.astype(np.float64), 0.5, codes)
    rates = ("sensitivity", "specificity", "ppv", "npv")
    return {name: _shown(getattr(point, name)) for name in rates}


def _shown(interval: Interval) -> dict[str, Any]:
    """An interval as JSON holds it."""
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    made: dict[str, Any] = {k: None if math.isnan(v) else round(v, 6) for k, v in ends.items()}
    return made | ({"reason": interval.reason} if interval.reason else {"n": interval.n})


def conformal_limits(
    labels: Floats, outputs: Floats, codes: Rows, coverage: float
) -> dict[str, Any]:
    """Limits of outputs so that a set holds the truth with a probability, in either class.

    An image of a new patient who has the finding is not called absent alone, and one of a patient
    who has not is not called present alone, with a probability of at least `coverage`, whatever
    the network and the distribution of its outputs: only patients must be alike. A patient with
    several images of a class counts once.

    Args:
        labels: 0 or 1, (M,).
        outputs: (M,).
        codes: Patient of each row, (M,).
        coverage: Share in (0, 1).

    Returns:
        ``coverage``, ``present_from`` and ``absent_to``, None where there are too few patients to
        leave anything out, and ``reason``.

    Raises:
        CalibrationError: If the coverage is no such share.

    Example:
        >>> outputs = np.arange(100) / 100
        >>> labels = (outputs > 0.5).astype(float)
        >>> limits = conformal_limits(labels, outputs, np.arange(100), 0.9)
        >>> limits["present_from"], limits["absent_to"]
        (0.55, 0.46)

    Source:
        Vovk. Conditional validity of inductive conformal predictors. ACML 2012. Lee, Barber and
        Willett. Distribution-free inference with hierarchical data. 2023, arXiv:2306.06342.
    """
    if not 0 < coverage < 1:
        msg = f"coverage is a share between 0 and 1 such as 0.9, got {coverage}"
        raise CalibrationError(msg)
    limits = []
    for side, sign in ((1, 1.0), (0, -1.0)):
        rows = labels == side
        limit = _quantile(sign * outputs[rows], codes[rows], 1 - coverage)
        limits.append(None if limit is None else sign * limit)
    lacking = [n for n, limit in zip(("present", "absent"), limits, strict=True) if limit is None]
    reason = (
        f"too few patients with the finding {' and '.join(lacking)} to leave it out of a set"
        if lacking
        else ""
    )
    return {
        "coverage": coverage,
        "present_from": limits[0],
        "absent_to": limits[1],
        "reason": reason,
    }


def _quantile(outputs: Floats, codes: Rows, share: float) -> float | None:
    """The highest output such that patients below it weigh no more than a share, one more added."""
    sizes = np.bincount(codes, minlength=1)
    weights = 1 / sizes[codes]
    order = np.argsort(outputs, kind="stable")
    summed = np.cumsum(weights[order])
    patients = int((sizes > 0).sum())
    within = np.flatnonzero(summed <= share * (patients + 1) + 1e-9)
    return float(outputs[order[within[-1]]]) if len(within) else None
