"""Choosing a calibration per finding by cross-validation over patients, with scikit-learn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.calibration.choosing import choose_threshold, conformal_limits, parse_target
from torchxrayvision.calibration.record import (
    KINDS,
    Calibration,
    FindingCalibration,
    logits_of,
)
from torchxrayvision.errors import CalibrationError, needs_package
from torchxrayvision.evaluation import (
    RANKS_ONLY,
    brier_score,
    expected_calibration_error,
    mean_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.int64]

METHODS: Final = ("unchanged", "temperature", "platt", "isotonic")
"""From the simplest to the most flexible."""

_LEAST: Final = 10  # patients of each class that anything can be chosen on


def fit(
    labels: ArrayLike,
    outputs: ArrayLike,
    names: Sequence[str],
    *,
    output: str,
    patient_ids: ArrayLike | None = None,
    method: str | None = None,
    target: str | None = None,
    coverage: float | None = None,
    folds: int = 5,
    seed: int = 0,
    facts: Mapping[str, Any] | None = None,
) -> Calibration:
    """Choose probabilities, thresholds and sets of each finding.

    Methods are compared by their logarithmic loss on held-out patients. The simplest one is taken
    that is not worse than the best by more than one standard error of the difference, where
    patients count; then it is fitted to all rows.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N, P).
        outputs: Of the network, shape (N, P).
        names: The P findings.
        output: What the outputs are: ``"probability"``, ``"logit"``, ``"operating-point"``, or
            ``"zero-shot"`` or ``"similarity"`` of a zero-shot network, which are never left as
            they are.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        method: One of `METHODS` for all findings; None to choose.
        target: What thresholds are to achieve, see `parse_target`; None for no thresholds.
        coverage: Of conformal sets; None for no sets.
        folds: Of cross-validation.
        seed: Of the folds.
        facts: For the record: ``weights``, ``weights_sha256``, ``preprocessing``, ``data``,
            ``provenance``.

    Returns:
        The calibration. A finding with fewer than ten patients of a class is skipped with a
        reason.

    Raises:
        CalibrationError: If nothing could be calibrated, or an argument is unknown.
        DependencyError: If scikit-learn is missing.
        EvaluationError: If labels and outputs are not such arrays.

    Source:
        Guo et al. On calibration of modern neural networks. ICML 2017. Platt. Probabilistic
        outputs for support vector machines. 1999. Zadrozny and Elkan. Transforming classifier
        scores into accurate multiclass probability estimates. KDD 2002.
    """
    from torchxrayvision.evaluation import patient_codes

    with needs_package("scikit-learn", "calibration", "report"):
        import sklearn  # noqa: F401
    methods = METHODS[1:] if output in RANKS_ONLY else METHODS
    if output not in KINDS or (method is not None and method not in methods):
        msg = (
            f"output is {', '.join(KINDS[:-1])} or {KINDS[-1]} and method one of "
            f"{', '.join(methods)} for it; "
            f"got {output!r} and {method!r}"
        )
        raise CalibrationError(msg)
    wanted = None if target is None else parse_target(target)
    known, given = np.asarray(labels, np.float64), np.asarray(outputs, np.float64)
    if known.shape != given.shape or known.ndim != 2 or known.shape[1] != len(names):
        msg = (
            f"labels and outputs have shape (N, {len(names)}), one column per finding; got "
            f"{known.shape} and {given.shape}"
        )
        raise CalibrationError(msg)
    codes = patient_codes(patient_ids, len(known))
    found: dict[str, FindingCalibration] = {}
    skipped = {}
    for j, name in enumerate(names):
        sample = _Sample.of(known[:, j], given[:, j], codes, output)
        if sample.reason:
            skipped[name] = sample.reason
            continue
        made = _fitted(sample, method, wanted, coverage, folds, seed, methods)
        if made.method not in methods:
            skipped[name] = "its scores do not rise with the finding"
        else:
            found[name] = made
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3])
        msg = f"no finding can be calibrated ({reasons})"
        raise CalibrationError(msg)
    return Calibration(output=output, findings=found, skipped=skipped, **dict(facts or {}))


@dataclass(frozen=True)
class _Sample:
    """One finding: rows whose label is known."""

    labels: Floats
    outputs: Floats
    logits: Floats
    codes: Rows
    kind: str
    reason: str

    @classmethod
    def of(cls, labels: Floats, outputs: Floats, codes: Rows, kind: str) -> _Sample:
        rows = ~np.isnan(labels)
        y, x, c = labels[rows], outputs[rows], codes[rows]
        reason = ""
        if missing := int(np.isnan(x).sum()):
            reason = f"{missing} of {len(x)} rows have a label and no output"
        counts = [len(np.unique(c[y == side])) for side in (1, 0)]
        if min(counts) < _LEAST:
            reason = reason or (
                f"{counts[0]} patients with the finding and {counts[1]} without it, {_LEAST} of "
                "each are needed"
            )
        bounded = kind not in ("logit", "similarity")
        if bounded and len(x) and not reason and not (0 <= x.min() <= x.max() <= 1):
            reason = f"outputs of kind {kind} lie in [0, 1], got {x.min():g} to {x.max():g}"
        return cls(y, x, logits_of(x, kind) if not reason else x, c, kind, reason)


def _fitted(
    sample: _Sample,
    method: str | None,
    target: tuple[str, float] | None,
    coverage: float | None,
    folds: int,
    seed: int,
    methods: Sequence[str],
) -> FindingCalibration:
    splits = _splits(sample, folds, seed)
    held = {name: _held_out(sample, name, splits) for name in METHODS}
    losses = {name: _log_loss(sample.labels, chances) for name, chances in held.items()}
    chosen = method or _simplest_good({name: losses[name] for name in methods}, sample.codes)
    parameters = _FITTERS[chosen](sample.logits, sample.labels)
    if parameters is None:
        chosen, parameters = "unchanged", {}
    judged = {
        name: {
            "log_loss": round(float(losses[name].mean()), 6),
            "brier": round(brier_score(sample.labels, chances), 6),
            "ece": round(expected_calibration_error(sample.labels, chances), 6),
        }
        for name, chances in held.items()
    }
    threshold = None
    if target is not None:
        threshold = choose_threshold(
            target, sample.labels, sample.outputs, held[chosen], sample.codes, splits
        )
    return FindingCalibration(
        method=chosen,
        parameters=parameters,
        counts={
            "n": len(sample.labels),
            "positives": int(sample.labels.sum()),
            "patients": len(np.unique(sample.codes)),
        },
        judged=judged,
        threshold=threshold,
        conformal=None
        if coverage is None
        else conformal_limits(sample.labels, sample.outputs, sample.codes, coverage),
    )


def _splits(sample: _Sample, folds: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Rows to fit on and rows to judge on, no patient in both, classes spread over the folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    cutter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    zeros = np.zeros(len(sample.labels))
    made = list(cutter.split(zeros, sample.labels.astype(int), sample.codes))
    return [(np.asarray(a, np.int64), np.asarray(b, np.int64)) for a, b in made]


def _held_out(sample: _Sample, method: str, splits: list[tuple[Rows, Rows]]) -> Floats:
    """Probabilities for patients that the fit did not see."""
    chances = np.empty(len(sample.labels))
    for rest, held in splits:
        parameters = None
        if 0 < sample.labels[rest].sum() < len(rest):
            parameters = _FITTERS[method](sample.logits[rest], sample.labels[rest])
        name = "unchanged" if parameters is None else method
        made = FindingCalibration(name, parameters or {}, {}, {})
        chances[held] = made.probabilities(sample.logits[held], "logit")
    return chances


def _log_loss(labels: Floats, chances: Floats) -> Floats:
    clipped = np.clip(chances, 1e-7, 1 - 1e-7)
    return np.asarray(-np.log(np.where(labels == 1, clipped, 1 - clipped)), np.float64)


def _simplest_good(losses: Mapping[str, Floats], codes: Rows) -> str:
    best = min(losses, key=lambda name: float(losses[name].mean()))
    for name in losses:
        worse = mean_interval(losses[name] - losses[best], codes, 0.6827)
        # `low` is one standard error below the mean; without spread the losses are the same.
        if math.isnan(worse.low) or worse.low <= 0:
            return name
    return best


def _unchanged(logits: Floats, labels: Floats) -> dict[str, Any]:
    del logits, labels
    return {}


def _regression(logits: Floats, labels: Floats, *, intercept: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf, fit_intercept=intercept, max_iter=1000)
    return model.fit(logits[:, None], labels.astype(int))


def _temperature(logits: Floats, labels: Floats) -> dict[str, Any] | None:
    """One over the temperature: a logistic regression on the logit without an intercept."""
    scale = float(_regression(logits, labels, intercept=False).coef_[0, 0])
    return {"scale": scale} if scale > 0 else None


def _platt(logits: Floats, labels: Floats) -> dict[str, Any] | None:
    model = _regression(logits, labels, intercept=True)
    scale = float(model.coef_[0, 0])
    return {"scale": scale, "shift": float(model.intercept_[0])} if scale > 0 else None


def _isotonic(logits: Floats, labels: Floats) -> dict[str, Any]:
    """A rising step function; its ends are those of a share that one more row would not refute."""
    from sklearn.isotonic import IsotonicRegression

    least = 1 / (len(labels) + 2)
    model = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
    model.fit(logits, labels)
    return {"at": model.X_thresholds_.tolist(), "probability": model.y_thresholds_.tolist()}


_FITTERS: Final[dict[str, Callable[[Floats, Floats], dict[str, Any] | None]]] = {
    "unchanged": _unchanged,
    "temperature": _temperature,
    "platt": _platt,
    "isotonic": _isotonic,
}
