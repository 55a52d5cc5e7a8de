"""Tables of two models on the same patients, and of subgroups against the rest."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Unpack

import numpy as np

from torchxrayvision.evaluation.differences import gap, p_value, paired, paired_rates, same
from torchxrayvision.evaluation.discrimination import paired_difference
from torchxrayvision.evaluation.estimates import Estimate
from torchxrayvision.evaluation.intervals import MEAN, Interval, combined, too_few
from torchxrayvision.evaluation.performance import (
    UNBOUNDED,
    LabelledScores,
    MeasureOptions,
    flat,
    labelled_scores,
)
from torchxrayvision.evaluation.subgroups import UNKNOWN, members_of, named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation.intervals import Floats


GAPS: Final = ("auroc", "sensitivity", "specificity")
"""Measures of `gap_table` if none are given."""


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
    other_thresholds: ArrayLike | None = None,
    **options: Unpack[MeasureOptions],
) -> pd.DataFrame:
    """Two models on the same rows: every measure of the first minus that of the second.

    Args:
        labels: 1 present, 0 absent, NaN unknown, shape (N, P).
        scores: Of the first model, shape (N, P).
        others: Of the second model, shape (N, P).
        names: The P findings.
        other_thresholds: Of the second model; None for the same.
        **options: See `MeasureOptions`; intervals are without correction for their number.

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

    first = labelled_scores(labels, scores, names, options)
    if other_thresholds is not None:
        options["thresholds"] = other_thresholds
    second = labelled_scores(labels, others, names, options)
    ours, theirs = first.estimates(), second.estimates()
    parts = [_differences(first, second, ours, theirs, measure) for measure in first.measures]
    return pd.concat(parts, ignore_index=True)


def _differences(
    first: LabelledScores,
    second: LabelledScores,
    ours: list[dict[str, Estimate]],
    theirs: list[dict[str, Estimate]],
    measure: str,
) -> pd.DataFrame:
    """One measure: the findings and their mean."""
    import pandas as pd

    pairs = [(a[measure], b[measure]) for a, b in zip(ours, theirs, strict=True)]
    both = [_paired(first, second, j, measure, *pair) for j, pair in enumerate(pairs)]
    found = [estimate.interval for estimate in both]
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
        bound = _bound(measure)
        low, high = (np.array([both[j].ends[end] for j in good]) for end in (0, 1))
        mean = combined(
            known[:, good], np.array([found[j].value for j in good]), low, high,
            np.stack([both[j].influence for j in good]), [found[j].reason for j in good],
            -bound, first.level, bound,
        )  # fmt: skip
    else:
        nan = math.nan
        reason = found[0].reason if found else "no finding has this measure"
        mean = Interval(nan, nan, nan, len(known), int((known == 1).sum()), first.level, reason)
    values = [[e.value for e in side] for side in zip(*pairs, strict=True)]
    averages = [float(np.mean([side[j] for j in good])) if good else math.nan for side in values]
    rows = [
        {"finding": name, "measure": measure, "first": a, "second": b, "findings": count}
        | flat(interval)
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


def _bound(measure: str) -> float:
    """The largest difference there can be."""
    return math.inf if measure in UNBOUNDED else 1.0


_RATES: Final = {"sensitivity": 1.0, "specificity": 0.0}


def _paired(
    first: LabelledScores, second: LabelledScores, j: int, measure: str, a: Estimate, b: Estimate
) -> Estimate:
    """The difference of one measure of one finding."""
    undefined = math.isnan(a.value) or math.isnan(b.value)
    if undefined:
        nan, interval = math.nan, (a if math.isnan(a.value) else b).interval
        return Estimate(replace(interval, value=nan, low=nan, high=nan), (nan, nan), np.empty(0))
    if measure not in _RATES or same(a, b):
        return paired(a, b, measure, _bound(measure))
    called = [side.given[:, j] >= side.limits[j] for side in (first, second)]
    right = _RATES[measure]
    hits = [calls == bool(right) for calls in called]
    return paired_rates(a, b, (hits[0], hits[1]), first.known[:, j] == right, first.codes)


def gap_table(
    labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    subgroups: Mapping[str, ArrayLike],
    *,
    least: int = 20,
    **options: Unpack[MeasureOptions],
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
        least: Patients that both sides need; with fewer there is a reason instead of a gap.
        **options: See `MeasureOptions`; ``measures`` are AUROC, sensitivity and specificity if not
            given, and intervals are without correction for their number.

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

    options.setdefault("measures", GAPS)
    study = labelled_scores(labels, scores, names, options)
    records = [
        record
        for attribute, values in subgroups.items()
        for record in _gaps(
            study, attribute, members_of(values, attribute, len(study.known)), least
        )
    ]
    columns = [
        "attribute", "subgroup", "rest", "finding", "measure", "value", "value_of_rest", "gap",
        "low", "high", "p", "p_holm", "n", "positives", "patients", "reason",
    ]  # fmt: skip
    table = pd.DataFrame(records).reindex(columns=columns)
    for measure in study.measures:
        rows = (table["measure"] == measure).to_numpy()
        table.loc[rows, "p_holm"] = holm(table.loc[rows, "p"].to_numpy(np.float64))
    return table


def _gaps(
    study: LabelledScores, attribute: str, members: NDArray[np.object_], least: int
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
                apart = gap(a, b, _bound(measure))
                if reason:
                    apart = replace(apart, low=math.nan, high=math.nan, reason=reason)
                record = facts | flat(apart) | {"measure": measure, "p": p_value(apart)}
                record |= {"gap": apart.value, "value": a.value, "value_of_rest": b.value}
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
