"""What every measure requires of its arguments, and the argument names of release 2.0.0a1."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import numpy as np

from torchxrayvision.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]

_P = ParamSpec("_P")
_R = TypeVar("_R")

_FORMER: Final = {"groups": "patient_ids", "n": "replicates"}
# Arguments of resampling, which intervals with a formula do not need.
_RESAMPLING: Final = ("replicates", "seed")


def with_former_names(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function take the keyword arguments of 2.0.0a1: ``groups`` and ``n``.

    A function whose interval has a formula takes ``replicates`` and ``seed`` too and needs neither:
    the interval is the same whatever they are.

    Args:
        function: One that takes ``patient_ids``.

    Returns:
        The function; it warns with `DeprecationWarning` where a former name is used.
    """
    taken = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        named: dict[str, Any] = dict(kwargs)
        for former in [name for name in _FORMER if name in named and name not in taken]:
            new = _FORMER[former]
            warnings.warn(
                f"{function.__name__}: the argument {former} is now {new}; "
                "the old name goes in release 3",
                DeprecationWarning,
                stacklevel=2,
            )
            if new in named:
                msg = f"{function.__name__}() got both {former} and {new}; give {new} alone"
                raise TypeError(msg)
            named[new] = named.pop(former)
        for name in _RESAMPLING:
            if name not in taken:
                named.pop(name, None)
        return function(*args, **named)

    return call


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
