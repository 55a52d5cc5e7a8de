"""All measures at once: per finding and their mean, of all rows and of subgroups."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.estimates import (
    DECISIONS,
    MEASURES,
    Estimate,
    Sample,
    correlation,
    estimates_of,
)
from torchxrayvision.evaluation.intervals import (
    MEAN,
    Interval,
    checked_level,
    combined,
    matrix,
    patient_codes,
    too_few,
)
from torchxrayvision.evaluation.subgroups import UNKNOWN, table_by_subgroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation.intervals import Floats, Rows

KINDS: Final = ("probability", "operating-point", "logit", "zero-shot", "similarity")
"""What scores may be; logits become probabilities for the measures that need them."""

RANKS_ONLY: Final = ("zero-shot", "similarity")
"""Those that order images and have no scale, so that no threshold is known before calibration."""

_NO_PROBABILITY: Final = (
    "outputs scaled to operating points are no probabilities; predict with "
    "--output-kind probability"
)
_NO_SCALE: Final = (
    "scores of a zero-shot network order images and have no scale; make them probabilities with "
    "xrv calibrate"
)
_UNKNOWN_KIND: Final = "nothing says that the scores are probabilities"
# Why scores of a kind are no probabilities.
_WHY: Final[dict[str | None, str]] = {
    "operating-point": _NO_PROBABILITY,
    **dict.fromkeys(RANKS_ONLY, _NO_SCALE),
    None: _UNKNOWN_KIND,
}

UNBOUNDED: Final = ("calibration_slope", "calibration_intercept")
"""Measures that may leave [0, 1]."""


class MeasureOptions(TypedDict, total=False):
    """What `performance_table`, `performance_by`, `difference_table` and `gap_table` share.

    Attributes:
        thresholds: One per finding or one for all, on the scale of the scores; NaN or None for
            none.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        kind: What the scores are: ``"probability"``, ``"logit"`` (taken as probabilities of a
            logistic function), ``"operating-point"``, ``"zero-shot"`` or ``"similarity"`` (which
            order images only), or None for anything else.
        measures: Some of `MEASURES`; None for all.
        level: Confidence of each interval, 0.95 if not given.

    Example:
        >>> labels, scores = [[0], [1]] * 20, [[0.2], [0.9]] * 20
        >>> options: MeasureOptions = {"thresholds": 0.5, "measures": ["sensitivity"]}
        >>> performance_table(labels, scores, ["Mass"], **options)["value"].tolist()
        [1.0, 1.0]
    """

    thresholds: ArrayLike | None
    patient_ids: ArrayLike | None
    kind: str | None
    measures: Sequence[str] | None
    level: float


@dataclass(frozen=True)
class LabelledScores:
    """Labels and scores that have been checked.

    Attributes:
        known: Labels, (N, P).
        given: Scores, (N, P).
        chances: Probabilities, (N, P); the scores where they are none.
        names: The P findings.
        codes: Patient of each row, (N,).
        limits: Threshold of each finding, (P,).
        measures: Which.
        why: Why the scores are no probabilities; empty if they are.
        level: Confidence.
    """

    known: Floats
    given: Floats
    chances: Floats
    names: tuple[str, ...]
    codes: Rows
    limits: Floats
    measures: tuple[str, ...]
    why: str
    level: float

    @property
    def everyone(self) -> int:
        """How many patients there are."""
        return int(self.codes.max(initial=-1)) + 1

    def samples(self, rows: NDArray[np.bool_] | slice = slice(None)) -> list[Sample]:
        """One sample per finding, of some rows."""
        return [
            Sample.of(
                self.known[rows, j], self.given[rows, j], self.chances[rows, j],
                self.codes[rows], self.everyone, self.level,
            )
            for j in range(len(self.names))
        ]  # fmt: skip

    def estimates(self, rows: NDArray[np.bool_] | slice = slice(None)) -> list[dict[str, Estimate]]:
        """Every measure of each finding."""
        return [
            estimates_of(sample, self.measures, limit, self.why)
            for sample, limit in zip(self.samples(rows), self.limits, strict=True)
        ]


def labelled_scores(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    options: MeasureOptions,
) -> LabelledScores:
    """Check the arguments of a table.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        options: See there.

    Returns:
        All of it.

    Raises:
        EvaluationError: If shapes differ, a label is neither 0, 1 nor NaN, or scores are not of
            that kind.
    """
    level, kind = checked_level(options.get("level", 0.95)), options.get("kind")
    thresholds, measures = options.get("thresholds"), options.get("measures")
    known, given = matrix(labels, scores)
    if kind is not None and kind not in KINDS:
        msg = f"kind is one of {', '.join(KINDS)} or None, got {kind!r}"
        raise EvaluationError(msg)
    wanted = tuple(MEASURES if measures is None else measures)
    if unknown := [name for name in wanted if name not in MEASURES]:
        msg = f"measures are {', '.join(MEASURES)}; got {', '.join(map(str, unknown))}"
        raise EvaluationError(msg)
    limits = _limits(thresholds, known.shape[1], len(names))
    why = _WHY.get(kind, "")
    chances = _probabilities(given) if kind == "logit" else given
    low, high = float(np.nanmin(chances, initial=0)), float(np.nanmax(chances, initial=1))
    if kind not in (None, "similarity") and (low < 0 or high > 1):
        msg = f"scores of kind {kind} lie in [0, 1], got {low:g} to {high:g}; is the kind logit?"
        raise EvaluationError(msg)
    codes = patient_codes(options.get("patient_ids"), len(known))
    return LabelledScores(known, given, chances, tuple(names), codes, limits, wanted, why, level)


def _limits(thresholds: ArrayLike | None, findings: int, names: int) -> Floats:
    """A threshold for each finding; NaN for none."""
    limits = np.full(names, np.nan)
    try:
        if thresholds is not None:
            limits = np.broadcast_to(np.asarray(thresholds, np.float64), names).copy()
        fits = findings == names
    except ValueError:
        fits = False
    if not fits:
        msg = (
            f"{findings} findings need as many names and one threshold or as many, got "
            f"{names} names and thresholds of shape {np.asarray(thresholds).shape}"
        )
        raise EvaluationError(msg)
    return limits


def _probabilities(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))), np.float64)


def performance_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    *,
    prevalence: float | Mapping[str, float] | None = None,
    **options: Unpack[MeasureOptions],
) -> pd.DataFrame:
    """Every measure of every finding, and its mean over findings, with intervals.

    ``auroc`` and ``average_precision`` need scores alone; ``sensitivity``, ``specificity``,
    ``ppv``, ``npv`` and ``f1`` a threshold; ``brier``, ``calibration_slope``,
    ``calibration_intercept`` (with the slope held at 1) and ``ece`` (ten bins of equal width)
    probabilities. What cannot be given says why in ``reason``.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        prevalence: Share of a population that has the finding, for all or by finding: adds
            ``ppv_at_prevalence`` and ``npv_at_prevalence``.
        **options: ``thresholds``, ``patient_ids``, ``kind``, ``measures`` and ``level``, see
            `MeasureOptions`.

    Returns:
        ``finding``, ``measure``, ``value``, ``low``, ``high``, ``n`` rows with a label,
        ``positives``, ``patients``, ``threshold``, ``prevalence``, ``findings`` (of a mean: how
        many it is over) and ``reason``. The rows of ``mean`` come last.

    Raises:
        EvaluationError: If shapes differ, a label is neither 0, 1 nor NaN, or scores are not of
            that kind.

    Example:
        >>> labels, scores = [[0], [1]] * 20, [[0.2], [0.9]] * 20
        >>> table = performance_table(labels, scores, ["Mass"], thresholds=0.5, kind="probability")
        >>> table[table["measure"] == "brier"]["value"].round(3).tolist()
        [0.025, 0.025]
    """
    study = labelled_scores(labels, scores, names, options)
    return _table(study, study.estimates(), prevalence)


def _table(
    study: LabelledScores,
    found: list[dict[str, Estimate]],
    prevalence: float | Mapping[str, float] | None,
    rows: NDArray[np.bool_] | slice = slice(None),
    only: Mapping[str, list[int]] | None = None,
) -> pd.DataFrame:
    import pandas as pd

    records = []
    known, codes = study.known[rows], study.codes[rows]
    labelled = ~np.isnan(known)
    patients = [len(np.unique(codes[labelled[:, j]])) for j in range(known.shape[1])]
    for j, (name, estimates) in enumerate(zip(study.names, found, strict=True)):
        facts = {"finding": name, "patients": patients[j], "findings": 1}
        for measure, estimate in estimates.items():
            limit = study.limits[j] if measure in DECISIONS else math.nan
            records.append(
                {**facts, "measure": measure, "threshold": limit} | flat(estimate.interval)
            )
        share = prevalence if isinstance(prevalence, float | int) else (prevalence or {}).get(name)
        if share is not None:
            pair = shifted_predictive_values(estimates, float(share))
            for measure, interval in zip(_SHIFTED, pair, strict=True):
                extra = {"measure": measure, "threshold": study.limits[j], "prevalence": share}
                records.append({**facts, **extra} | flat(interval))
    everyone = len(np.unique(codes[labelled.any(axis=1)]))
    for measure in study.measures:
        mean, count = _mean(known, found, measure, None if only is None else only[measure])
        facts = {"finding": MEAN, "measure": measure, "patients": everyone, "findings": count}
        records.append(facts | flat(mean))
    columns = [
        "finding", "measure", "value", "low", "high", "n", "positives", "patients", "threshold",
        "prevalence", "findings", "reason",
    ]  # fmt: skip
    return pd.DataFrame(records).reindex(columns=columns)


def performance_by(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    subgroups: Mapping[str, ArrayLike],
    *,
    prevalence: float | Mapping[str, float] | None = None,
    **options: Unpack[MeasureOptions],
) -> pd.DataFrame:
    """The table of `performance_table` within each subgroup.

    So that the means of an attribute's subgroups can be compared, they are over the findings that
    have the measure in all of them; rows whose value is unknown do not decide which.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        subgroups: Attribute to its value on each row, (N,), as `subgroups_by` gives them.
        prevalence: As in `performance_table`.
        **options: See `MeasureOptions`.

    Returns:
        ``attribute``, ``subgroup`` and the columns of `performance_table`.

    Raises:
        EvaluationError: As in `performance_table`, or if a subgroup is not one value per row.

    Example:
        >>> labels, scores = [[0], [1]] * 10, [[0.2], [0.9]] * 10
        >>> table = performance_by(labels, scores, ["Mass"], {"sex": ["F", "F", "M", "M"] * 5})
        >>> table.query("measure == 'auroc'")["subgroup"].tolist()
        ['F', 'F', 'M', 'M']
    """
    study = labelled_scores(labels, scores, names, options)

    def tables(rows_of: dict[str, NDArray[np.bool_]]) -> Iterator[pd.DataFrame]:
        found = {value: study.estimates(rows) for value, rows in rows_of.items()}
        shared = _shared(
            [found[value] for value in rows_of if value != UNKNOWN] or [*found.values()]
        )
        for value, rows in rows_of.items():
            yield _table(study, found[value], prevalence, rows, shared)

    return table_by_subgroup(subgroups, len(study.known), tables)


def _shared(groups: Sequence[list[dict[str, Estimate]]]) -> dict[str, list[int]]:
    """For each measure the findings that have it in all groups."""
    return {
        measure: [
            j
            for j in range(len(groups[0]))
            if not any(math.isnan(found[j][measure].value) for found in groups)
        ]
        for measure in groups[0][0]
    }


def flat(interval: Interval) -> dict[str, object]:
    """An interval as columns of a table."""
    return {
        "value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n,
        "positives": interval.positives, "reason": interval.reason,
    }  # fmt: skip


# Patients of the rarer class that the finding of a mean needs beyond what its own interval needs. A
# slope of few patients lies too high in all findings, which does not average out: the mean of three
# held the truth in 91 % of studies with 50 such patients.
_LEAST_FOR_MEAN: Final = {"calibration_slope": 100}


def _few_for_mean(estimate: Estimate, measure: str) -> str:
    """Why a mean has no interval if all findings are such as this one; empty if it has one."""
    needed = _LEAST_FOR_MEAN.get(measure, 0)
    patients, which = estimate.rarer
    few = too_few(f"{patients} {which}", needed) if patients < needed else ""
    return estimate.interval.reason or few


def _mean(
    known: Floats, found: list[dict[str, Estimate]], measure: str, only: list[int] | None
) -> tuple[Interval, int]:
    """Mean of a measure over the findings that have it, or over those given."""
    all_of = [estimates[measure] for estimates in found]
    good = [j for j, e in enumerate(all_of) if not math.isnan(e.value)]
    if only is not None:
        lacking = [j for j in only if j not in good]
        good = [] if lacking else list(only)
    counts = int((~np.isnan(known)).any(axis=1).sum()), int((known == 1).sum())
    level = all_of[0].interval.level if all_of else 0.95
    if not good:
        reasons = {e.interval.reason for e in all_of}
        reason = reasons.pop() if len(reasons) == 1 else "no finding has this measure"
        if only is not None:
            reason = "no finding has this measure in every subgroup"
        return Interval(math.nan, math.nan, math.nan, *counts, level, reason), 0
    parts = [all_of[j] for j in good]
    low, high = (np.array([e.ends[end] for e in parts]) for end in (0, 1))
    least, most = (-math.inf, math.inf) if measure in UNBOUNDED else (0.0, 1.0)
    interval = combined(
        known[:, good], np.array([e.value for e in parts]), low, high,
        np.stack([e.influence for e in parts]), [_few_for_mean(e, measure) for e in parts],
        least, level, most,
    )  # fmt: skip
    if not interval.reason:
        # Chance averages out over findings, what lies too high in each of them does not.
        excess = float(np.mean([e.excess() if e.excess else 0.0 for e in parts]))
        interval = replace(interval, low=max(least, interval.low - excess))
    return interval, len(good)


_SHIFTED: Final = ("ppv_at_prevalence", "npv_at_prevalence")


def shifted_predictive_values(
    estimates: Mapping[str, Estimate], prevalence: float
) -> tuple[Interval, Interval]:
    """Predictive values where the finding is as common as stated.

    The logarithm of the likelihood ratio is a difference, so MOVER gives its interval.
    """
    if not 0 < prevalence < 1:
        msg = f"prevalence is a share between 0 and 1, got {prevalence}"
        raise EvaluationError(msg)
    if not {"sensitivity", "specificity"} <= set(estimates):
        msg = "predictive values at a prevalence need the measures sensitivity and specificity"
        raise EvaluationError(msg)
    hit, passed = estimates["sensitivity"], estimates["specificity"]
    odds = prevalence / (1 - prevalence)
    positive = _from_ratio(hit, _complement(passed), odds)
    negative = _from_ratio(passed, _complement(hit), 1 / odds)
    return positive, negative


def _complement(part: Estimate) -> Estimate:
    """One minus a share."""
    interval = part.interval
    turned = replace(
        interval, value=1 - interval.value, low=1 - interval.high, high=1 - interval.low
    )
    return Estimate(turned, (1 - part.ends[1], 1 - part.ends[0]), -part.influence)


def _from_ratio(top: Estimate, bottom: Estimate, odds: float) -> Interval:
    """Odds x top / (odds x top + bottom)."""
    a, b = top.interval, bottom.interval

    def share(x: float, y: float) -> float:
        return odds * x / (odds * x + y) if odds * x + y > 0 else math.nan

    value, reason = share(a.value, b.value), a.reason or b.reason
    if reason or math.isnan(value):
        nan = math.nan
        reason = reason or "no row is on this side of the threshold"
        return Interval(value, nan, nan, a.n, a.positives, a.level, reason)
    if a.value == 0 or b.value == 0:  # the logarithm has no value: vary the other part alone
        ends = (share(a.low, b.high), share(a.high, b.low))
        return Interval(value, *ends, a.n, a.positives, a.level)
    log = math.log
    middle = log(a.value) - log(b.value)
    together = correlation(top.influence, bottom.influence)

    def reach(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x + y * y - 2 * together * x * y))

    low_a = log(a.value / a.low) if a.low > 0 else math.inf
    low_b = log(b.value / b.low) if b.low > 0 else math.inf
    down = reach(low_a, log(b.high / b.value)) if a.low > 0 else math.inf
    up = reach(log(a.high / a.value), low_b) if b.low > 0 else math.inf
    low, high = (odds * math.exp(middle - down), odds * math.exp(min(middle + up, 500.0)))
    return Interval(value, low / (1 + low), high / (1 + high), a.n, a.positives, a.level)


def probabilities_of(scores: ArrayLike, kind: str) -> Floats:
    """Scores as probabilities: logits through the logistic function, probabilities as they are.

    Args:
        scores: Any shape.
        kind: ``"probability"`` or ``"logit"``.

    Returns:
        float64, of the same shape.

    Raises:
        EvaluationError: If the kind has no probabilities.

    Example:
        >>> probabilities_of([0.0], "logit").tolist()
        [0.5]
    """
    given = np.asarray(scores, np.float64)
    if kind == "logit":
        return _probabilities(given)
    if kind != "probability":
        raise EvaluationError(_WHY.get(kind, _UNKNOWN_KIND))
    return given
