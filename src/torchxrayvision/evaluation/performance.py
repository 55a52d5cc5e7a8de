"""All measures at once: per finding and their mean, two models, subgroups against the rest."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation.arguments import matrix, patient_codes
from torchxrayvision.evaluation.discrimination import MEAN, combined, paired_difference
from torchxrayvision.evaluation.estimates import (
    DECISIONS,
    MEASURES,
    Estimate,
    Sample,
    correlation,
    difference,
    estimates_of,
    p_value,
)
from torchxrayvision.evaluation.intervals import Interval, checked_level, too_few
from torchxrayvision.evaluation.subgroups import UNKNOWN, named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation.arguments import Floats, Rows

KINDS: Final = ("probability", "operating-point", "logit")
"""What scores may be; logits become probabilities for the measures that need them."""

_NO_PROBABILITY: Final = (
    "outputs scaled to operating points are no probabilities; predict with "
    "--output-kind probability"
)
_UNKNOWN_KIND: Final = "nothing says that the scores are probabilities"
# A measure that may leave [0, 1], with the largest difference of two.
_UNBOUNDED: Final = ("calibration_slope", "calibration_intercept")


@dataclass(frozen=True)
class _Study:
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


def _study(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    *,
    thresholds: ArrayLike | None,
    patient_ids: ArrayLike | None,
    kind: str | None,
    measures: Sequence[str] | None,
    level: float,
) -> _Study:
    checked_level(level)
    known, given = matrix(labels, scores)
    if kind is not None and kind not in KINDS:
        msg = f"kind is one of {', '.join(KINDS)} or None, got {kind!r}"
        raise EvaluationError(msg)
    wanted = tuple(MEASURES if measures is None else measures)
    if unknown := [name for name in wanted if name not in MEASURES]:
        msg = f"measures are {', '.join(MEASURES)}; got {', '.join(map(str, unknown))}"
        raise EvaluationError(msg)
    limits = np.full(len(names), np.nan)
    try:
        if thresholds is not None:
            limits = np.broadcast_to(np.asarray(thresholds, np.float64), len(names)).copy()
        fits = known.shape[1] == len(names)
    except ValueError:
        fits = False
    if not fits:
        msg = (
            f"{known.shape[1]} findings need as many names and one threshold or as many, got "
            f"{len(names)} names and thresholds of shape {np.asarray(thresholds).shape}"
        )
        raise EvaluationError(msg)
    why = {"operating-point": _NO_PROBABILITY, None: _UNKNOWN_KIND}.get(kind, "")
    chances = _probabilities(given) if kind == "logit" else given
    low, high = float(np.nanmin(chances, initial=0)), float(np.nanmax(chances, initial=1))
    if kind is not None and (low < 0 or high > 1):
        msg = f"scores of kind {kind} lie in [0, 1], got {low:g} to {high:g}; is the kind logit?"
        raise EvaluationError(msg)
    codes = patient_codes(patient_ids, len(known))
    return _Study(known, given, chances, tuple(names), codes, limits, wanted, why, level)


def _probabilities(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))), np.float64)


def performance_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    *,
    thresholds: ArrayLike | None = None,
    patient_ids: ArrayLike | None = None,
    kind: str | None = None,
    measures: Sequence[str] | None = None,
    prevalence: float | Mapping[str, float] | None = None,
    level: float = 0.95,
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
        thresholds: One per finding or one for all, on the scale of the scores; NaN or None for
            none.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        kind: What the scores are: ``"probability"``, ``"logit"`` (taken as probabilities of a
            logistic function), ``"operating-point"``, or None for anything else.
        measures: Some of them; None for all.
        prevalence: Share of a population that has the finding, for all or by finding: adds
            ``ppv_at_prevalence`` and ``npv_at_prevalence``.
        level: Confidence.

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
    study = _study(
        labels, scores, names, thresholds=thresholds, patient_ids=patient_ids, kind=kind,
        measures=measures, level=level,
    )  # fmt: skip
    return _table(study, study.estimates(), prevalence)


def _table(
    study: _Study,
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
                {**facts, "measure": measure, "threshold": limit} | _flat(estimate.interval)
            )
        share = prevalence if isinstance(prevalence, float | int) else (prevalence or {}).get(name)
        if share is not None:
            pair = shifted_predictive_values(estimates, float(share))
            for measure, interval in zip(_SHIFTED, pair, strict=True):
                extra = {"measure": measure, "threshold": study.limits[j], "prevalence": share}
                records.append({**facts, **extra} | _flat(interval))
    everyone = len(np.unique(codes[labelled.any(axis=1)]))
    for measure in study.measures:
        mean, count = _mean(known, found, measure, None if only is None else only[measure])
        facts = {"finding": MEAN, "measure": measure, "patients": everyone, "findings": count}
        records.append(facts | _flat(mean))
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
    thresholds: ArrayLike | None = None,
    patient_ids: ArrayLike | None = None,
    kind: str | None = None,
    measures: Sequence[str] | None = None,
    prevalence: float | Mapping[str, float] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """The table of `performance_table` within each subgroup.

    So that the means of an attribute's subgroups can be compared, they are over the findings that
    have the measure in all of them; rows whose value is unknown do not decide which.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        subgroups: Attribute to its value on each row, (N,), as `subgroups_by` gives them.
        thresholds: As in `performance_table`.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        kind: As in `performance_table`.
        measures: Some of them; None for all.
        prevalence: As in `performance_table`.
        level: Confidence.

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
    import pandas as pd

    study = _study(
        labels, scores, names, thresholds=thresholds, patient_ids=patient_ids, kind=kind,
        measures=measures, level=level,
    )  # fmt: skip
    parts = []
    for attribute, values in subgroups.items():
        members = _members(values, attribute, study)
        groups = {value: members == value for value in sorted(set(members))}
        found = {value: study.estimates(rows) for value, rows in groups.items()}
        shared = _shared(
            [found[value] for value in groups if value != UNKNOWN] or [*found.values()]
        )
        for value, rows in groups.items():
            table = _table(study, found[value], prevalence, rows, shared)
            table.insert(0, "subgroup", value)
            table.insert(0, "attribute", attribute)
            parts.append(table)
    if not parts:
        msg = "subgroups needs an attribute or more, got none"
        raise EvaluationError(msg)
    return pd.concat(parts, ignore_index=True)


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


def _flat(interval: Interval) -> dict[str, object]:
    return {
        "value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n,
        "positives": interval.positives, "reason": interval.reason,
    }  # fmt: skip


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
    unbounded = measure in _UNBOUNDED
    interval = combined(
        known[:, good], np.array([e.value for e in parts]), low, high,
        np.stack([e.influence for e in parts]), [e.interval.reason for e in parts],
        -math.inf if unbounded else 0.0, level, math.inf if unbounded else 1.0,
    )  # fmt: skip
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


def holm(p_values: ArrayLike) -> Floats:
    """P values corrected for their number, by Holm's step-down rule.

    Args:
        p_values: Shape (M,); NaN counts as a comparison that was not made.

    Returns:
        Corrected, shape (M,), in [0, 1]; those below 0.05 hold together with 95 % confidence.

    Example:
        >>> holm([0.01, 0.04, 0.03, float("nan")]).tolist()
        [0.03, 0.06, 0.06, nan]

    Source:
        Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of
        Statistics 6, 1979.
    """
    given = np.asarray(p_values, np.float64).reshape(-1)
    known = np.flatnonzero(~np.isnan(given))
    order = known[np.argsort(given[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(given.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return corrected


def difference_table(
    labels: ArrayLike,
    scores: ArrayLike,
    others: ArrayLike,
    names: Sequence[str],
    *,
    thresholds: ArrayLike | None = None,
    other_thresholds: ArrayLike | None = None,
    patient_ids: ArrayLike | None = None,
    kind: str | None = None,
    measures: Sequence[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Two models on the same rows: every measure of the first minus that of the second.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Of the first model, shape (N, P).
        others: Of the second model, shape (N, P).
        names: The P findings.
        thresholds: As in `performance_table`.
        other_thresholds: Of the second model; None for the same.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        kind: What the scores of both are, as in `performance_table`.
        measures: Some of them; None for all.
        level: Confidence of each interval, without correction.

    Returns:
        ``finding``, ``measure``, ``first``, ``second``, ``difference``, ``low``, ``high``, ``p``,
        ``p_holm`` (corrected over the findings of the measure; the mean is one comparison and is
        not corrected), ``n``, ``positives``, ``findings`` and ``reason``.

    Raises:
        EvaluationError: As in `performance_table`.

    Example:
        >>> labels = [[0], [1]] * 20
        >>> better, worse = [[0.2], [0.9]] * 20, [[0.2], [0.9], [0.9], [0.2]] * 10
        >>> table = difference_table(labels, better, worse, ["Mass"], measures=["auroc"])
        >>> table["difference"].tolist()
        [0.5, 0.5]
    """
    import pandas as pd

    options = {"patient_ids": patient_ids, "kind": kind, "measures": measures, "level": level}
    first = _study(labels, scores, names, thresholds=thresholds, **options)  # type: ignore[arg-type]
    limits = thresholds if other_thresholds is None else other_thresholds
    second = _study(labels, others, names, thresholds=limits, **options)  # type: ignore[arg-type]
    ours, theirs = first.estimates(), second.estimates()
    parts = [_differences(first, second, ours, theirs, measure) for measure in first.measures]
    return pd.concat(parts, ignore_index=True)


def _differences(
    first: _Study,
    second: _Study,
    ours: list[dict[str, Estimate]],
    theirs: list[dict[str, Estimate]],
    measure: str,
) -> pd.DataFrame:
    """One measure: the findings and their mean."""
    import pandas as pd

    pairs = [(a[measure], b[measure]) for a, b in zip(ours, theirs, strict=True)]
    bound = math.inf if measure in _UNBOUNDED else 1.0
    found = [difference(a, b, bound) for a, b in pairs]
    good = [j for j, d in enumerate(found) if not math.isnan(d.value)]
    known = first.known
    if measure == "auroc":  # the score interval of a difference holds better near 1
        for j in good:
            columns = (known[:, [j]], first.given[:, [j]], second.given[:, [j]])
            found[j] = paired_difference(*columns, first.codes, first.level)
    if good and measure == "auroc":
        columns = (known[:, good], first.given[:, good], second.given[:, good])
        mean = paired_difference(*columns, first.codes, first.level)
    elif good:
        moved = np.stack([pairs[j][0].influence - pairs[j][1].influence for j in good])
        ends = [difference(_shown(pairs[j][0]), _shown(pairs[j][1]), bound) for j in good]
        mean = combined(
            known[:, good], np.array([found[j].value for j in good]),
            np.array([d.low for d in ends]), np.array([d.high for d in ends]),
            moved, [found[j].reason for j in good], -bound, first.level, bound,
        )  # fmt: skip
    else:
        nan = math.nan
        reason = found[0].reason if found else "no finding has this measure"
        mean = Interval(nan, nan, nan, len(known), int((known == 1).sum()), first.level, reason)
    values = [[e.value for e in side] for side in zip(*pairs, strict=True)]
    averages = [float(np.mean([side[j] for j in good])) if good else math.nan for side in values]
    rows = [
        {"finding": name, "measure": measure, "first": a, "second": b, "findings": count}
        | _flat(interval)
        | {"p": p_value(interval)}
        for name, a, b, count, interval in zip(
            [*first.names, MEAN],
            [*values[0], averages[0]],
            [*values[1], averages[1]],
            [*(int(j in good) for j in range(len(found))), len(good)],
            [*found, mean],
            strict=True,
        )
    ]
    table = pd.DataFrame(rows).rename(columns={"value": "difference"})
    table["p_holm"] = [*holm(table["p"].to_numpy()[:-1]), table["p"].iloc[-1]]
    order = [
        "finding", "measure", "first", "second", "difference", "low", "high", "p", "p_holm", "n",
        "positives", "findings", "reason",
    ]  # fmt: skip
    return table.reindex(columns=order)


def _shown(part: Estimate) -> Estimate:
    """The estimate with the ends that are not shown for want of patients."""
    low, high = part.ends
    return replace(part, interval=replace(part.interval, low=low, high=high, reason=""))


def gap_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    subgroups: Mapping[str, ArrayLike],
    *,
    thresholds: ArrayLike | None = None,
    patient_ids: ArrayLike | None = None,
    kind: str | None = None,
    measures: Sequence[str] = ("auroc", "sensitivity", "specificity"),
    least: int = 20,
    level: float = 0.95,
) -> pd.DataFrame:
    """Every subgroup against the rest of the rows whose subgroup is known.

    The gap of ``sensitivity`` is that of equal opportunity; with that of ``specificity`` it is
    that of equalised odds. Of an attribute with two subgroups the first is compared with the
    second, once. A gap is a question: subgroups differ in how common and severe findings are.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Shape (N, P).
        names: The P findings.
        subgroups: Attribute to its value on each row, (N,), as `subgroups_by` gives them.
        thresholds: As in `performance_table`.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        kind: What the scores are, as in `performance_table`.
        measures: Of `performance_table`.
        least: Patients that both sides need; with fewer there is a reason instead of a gap.
        level: Confidence of each interval, without correction.

    Returns:
        ``attribute``, ``subgroup``, ``rest``, ``finding``, ``measure``, ``value`` in the subgroup,
        ``value_of_rest``, ``gap``, ``low``, ``high``, ``p``, ``p_holm`` (corrected over every gap
        of the measure in the table), ``n``, ``positives``, ``patients`` and ``reason``.

    Raises:
        EvaluationError: As in `performance_table`, or if a subgroup is not one value per row.

    Example:
        >>> labels, scores = [[0], [1]] * 40, [[0.2], [0.9]] * 40
        >>> table = gap_table(labels, scores, ["Mass"], {"sex": ["F", "F", "M", "M"] * 20})
        >>> table.query("measure == 'auroc'")[["subgroup", "rest", "gap"]].to_dict("list")
        {'subgroup': ['F'], 'rest': ['M'], 'gap': [0.0]}
    """
    import pandas as pd

    study = _study(
        labels, scores, names, thresholds=thresholds, patient_ids=patient_ids, kind=kind,
        measures=measures, level=level,
    )  # fmt: skip
    records = [
        record
        for attribute, values in subgroups.items()
        for record in _gaps(study, attribute, _members(values, attribute, study), least)
    ]
    columns = [
        "attribute", "subgroup", "rest", "finding", "measure", "value", "value_of_rest", "gap",
        "low", "high", "p", "p_holm", "n", "positives", "patients", "reason",
    ]  # fmt: skip
    table = pd.DataFrame(records).reindex(columns=columns)
    for measure in measures:
        rows = (table["measure"] == measure).to_numpy()
        table.loc[rows, "p_holm"] = holm(table.loc[rows, "p"].to_numpy(np.float64))
    return table


def _members(values: ArrayLike, attribute: str, study: _Study) -> NDArray[np.object_]:
    import pandas as pd

    members = named(pd.Series(np.asarray(values).reshape(-1)))
    if len(members) != len(study.known):
        msg = f"subgroups[{attribute!r}] has {len(members)} values for {len(study.known)} rows"
        raise EvaluationError(msg)
    return members


def _gaps(
    study: _Study, attribute: str, members: NDArray[np.object_], least: int
) -> list[dict[str, object]]:
    groups = sorted(set(members) - {UNKNOWN})
    if len(groups) < 2:
        return []
    known = members != UNKNOWN
    records: list[dict[str, object]] = []
    for group in groups[: 1 if len(groups) == 2 else None]:
        rows = members == group
        rest = known & ~rows
        others = groups[1] if len(groups) == 2 else "all others"
        small = min(len(np.unique(study.codes[side])) for side in (rows, rest))
        reason = too_few(f"{small} in the subgroup or the rest", least) if small < least else ""
        ours, theirs = study.estimates(rows), study.estimates(rest)
        for j, name in enumerate(study.names):
            labelled = rows & ~np.isnan(study.known[:, j])
            facts = {
                "attribute": attribute, "subgroup": group, "rest": others, "finding": name,
                "patients": len(np.unique(study.codes[labelled])),
            }  # fmt: skip
            for measure in study.measures:
                a, b = ours[j][measure], theirs[j][measure]
                gap = difference(a, b, math.inf if measure in _UNBOUNDED else 1.0)
                if reason:
                    gap = replace(gap, low=math.nan, high=math.nan, reason=reason)
                record = facts | _flat(gap) | {"measure": measure, "p": p_value(gap)}
                record |= {"gap": gap.value, "value": a.value, "value_of_rest": b.value}
                records.append(record)
    return records


def with_intersections(subgroups: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.object_]]:
    """The attributes, and the intersections of every two of them.

    Args:
        subgroups: Attribute to its value on each row, (N,).

    Returns:
        The same and ``"sex & view"`` with values such as ``"F & PA"``; ``unknown`` where either
        is.

    Example:
        >>> found = with_intersections({"sex": ["F", "M"], "view": ["PA", "unknown"]})
        >>> found["sex & view"].tolist()
        ['F & PA', 'unknown']
    """
    import pandas as pd

    found = {name: named(pd.Series(np.asarray(v).reshape(-1))) for name, v in subgroups.items()}
    for (first, a), (second, b) in itertools.combinations(list(found.items()), 2):
        both = np.array([f"{x} & {y}" for x, y in zip(a, b, strict=True)], dtype=object)
        both[(a == UNKNOWN) | (b == UNKNOWN)] = UNKNOWN
        found[f"{first} & {second}"] = both
    return found


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
        raise EvaluationError(_NO_PROBABILITY if kind == "operating-point" else _UNKNOWN_KIND)
    return given
