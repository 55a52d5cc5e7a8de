"""How well things that should not matter predict the labels, which labels look wrong, and drift.

Every measure is an AUROC with the interval of `evaluation.auroc_interval`, which takes patients
into account. What is fitted is fitted on other patients than those that it is measured on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation import auroc_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_FOLDS: Final = 5
_SMOOTH: Final = 5.0  # images of the whole that a value's rate is drawn towards
_MOST_VALUES: Final = 50
LEAST: Final = 30
"""Images that a subgroup needs to be looked at."""
CONFOUNDED: Final = 0.6
"""AUROC from which on, with its whole interval, an attribute is said to predict a label."""


def folds_of(people: NDArray[Any], seed: int = 0) -> NDArray[np.int64]:
    """The part of a cross-validation that each row is in; a patient is in one.

    Args:
        people: Patient of each row; rows without one are patients of their own.
        seed: Of the draw.

    Returns:
        int64 (N,), 0 to 4.
    """
    import pandas as pd

    names = [person or f"\0{row}" for row, person in enumerate(people.tolist())]
    codes, known = pd.factorize(np.array(names, dtype=object))
    drawn = np.random.default_rng(seed).permutation(len(known)) % _FOLDS
    return np.asarray(drawn[codes], np.int64)


def predicted_by(values: NDArray[Any], truth: Floats, folds: NDArray[np.int64]) -> Floats:
    """How likely a label is by the value of an attribute, on patients not counted.

    Args:
        values: Text of each row, (N,).
        truth: 1, 0 or NaN, (N,).
        folds: See `folds_of`.

    Returns:
        Rates less their mean, (N,).
    """
    import pandas as pd

    codes = pd.factorize(values)[0]
    codes = np.where(codes < 0, codes.max(initial=0) + 1, codes)
    rates = np.zeros(len(truth))
    for fold in range(_FOLDS):
        rest = (folds != fold) & ~np.isnan(truth)
        size = codes.max(initial=0) + 1
        positive = np.bincount(codes[rest], truth[rest], size)
        count = np.bincount(codes[rest], minlength=size)
        whole = truth[rest].mean() if rest.any() else 0.0
        # Without the mean: what a fold has more of, the others have less of, which would make
        # the rates of an attribute that says nothing point the wrong way.
        excess = (positive + _SMOOTH * whole) / (count + _SMOOTH) - whole
        rates[folds == fold] = excess[codes[folds == fold]]
    return rates


def confounding(
    attributes: Mapping[str, NDArray[Any]],
    labels: pd.DataFrame,
    people: NDArray[Any],
) -> pd.DataFrame:
    """How well each attribute alone predicts each label.

    Args:
        attributes: Name to text or number of each row.
        labels: Findings, and parts of a split, as 1, 0 or NaN.
        people: See `folds_of`.

    Returns:
        One row per attribute and label: ``attribute``, ``label``, ``n``, ``positives``, ``auroc``,
        ``low``, ``high``, ``flagged`` and ``reason`` where there is no interval.
    """
    import pandas as pd

    folds, rows = folds_of(people), []
    ids = np.array([p or f"\0{i}" for i, p in enumerate(people.tolist())], dtype=object)
    for name, values in attributes.items():
        numeric = np.issubdtype(np.asarray(values).dtype, np.number)
        kinds = len(set(values.tolist()))
        if kinds < 2 or (not numeric and kinds > _MOST_VALUES):
            continue
        for finding in labels:
            truth = labels[finding].to_numpy(float)
            score = np.asarray(values, float) if numeric else predicted_by(values, truth, folds)
            area = _area(truth, score, ids, 0.95)
            # Rates point the right way by themselves; a number may point either way.
            flagged = area["low"] > CONFOUNDED or (numeric and area["high"] < 1 - CONFOUNDED)
            rows.append({"attribute": name, "label": finding, **area, "flagged": flagged})
    columns = ["attribute", "label", "n", "positives", "auroc", "low", "high", "reason", "flagged"]
    return pd.DataFrame(rows, columns=columns).astype({"flagged": bool})


def _area(truth: Floats, score: Floats, ids: NDArray[Any], level: float) -> dict[str, Any]:
    known = ~np.isnan(truth) & ~np.isnan(score)
    facts = {"n": int(known.sum()), "positives": int((truth[known] == 1).sum())}
    try:
        found = auroc_interval(truth[known], score[known], ids[known], level)
    except EvaluationError as error:
        gone = float("nan")
        return {**facts, "auroc": gone, "low": gone, "high": gone, "reason": str(error)}
    return {
        **facts,
        "auroc": found.value,
        "low": found.low,
        "high": found.high,
        "reason": found.reason,
    }


def suspicious_labels(
    features: NDArray[np.float32], labels: pd.DataFrame, people: NDArray[Any], most: int = 20
) -> pd.DataFrame:
    """Labels that a probe on other patients' features contradicts most; none is changed.

    Args:
        features: (N, D), NaN where there is no image.
        labels: 1, 0 or NaN.
        people: See `folds_of`.
        most: Rows of each finding.

    Returns:
        ``row``, ``label``, ``said`` (what the table says), ``probability`` (that the probe gives
        the finding), most surprising first for each finding; nothing where a finding has fewer
        than 20 rows of a class.

    Raises:
        DependencyError: If scikit-learn is missing.
    """
    import pandas as pd

    from torchxrayvision.training import linear_probe

    folds, found = folds_of(people), []
    good = ~np.isnan(features).any(axis=1)
    for finding in labels:
        truth = labels[finding].to_numpy(float)
        known = good & (truth >= 0)
        if min((truth[known] == 1).sum(), (truth[known] == 0).sum()) < 20:
            continue
        chance = np.full(len(truth), np.nan)
        for fold in range(_FOLDS):
            rest, held = known & (folds != fold), known & (folds == fold)
            if held.any() and len(set(truth[rest].tolist())) == 2:
                probe = linear_probe(
                    features[rest], truth[rest, None], [str(finding)], strengths=(0.01,)
                )
                logits = probe.logits(features[held])[:, 0]
                chance[held] = 1 / (1 + np.exp(-logits))
        surprise = np.abs(truth - chance)
        order = np.argsort(-np.nan_to_num(surprise, nan=-1.0))[:most]
        found += [
            {"row": int(r), "label": finding, "said": truth[r], "probability": float(chance[r])}
            for r in order.tolist()
            if surprise[r] > 0.5
        ]
    return pd.DataFrame(found, columns=["row", "label", "said", "probability"])


def drift(
    here: Mapping[str, NDArray[Any]],
    there: Mapping[str, NDArray[Any]],
    people: Sequence[NDArray[Any]],
    subgroups: Sequence[Mapping[str, NDArray[Any]]] = ({}, {}),
    features: Sequence[NDArray[np.float32] | None] = (None, None),
) -> pd.DataFrame:
    """How well single measures, and all features together, tell a collection from a reference.

    0.5 means that they do not. The level of the intervals is corrected for their number
    (Bonferroni), so that the chance of any false alarm is 5 %.

    Args:
        here: Name to number or text of each row.
        there: The same of the reference.
        people: Patients of both.
        subgroups: Attribute to value of each row, of both.
        features: (N, D) of both; None for none.

    Returns:
        ``subgroup``, ``measure``, ``n`` here, ``reference`` (rows there), ``auroc``, ``low``,
        ``high``, ``level``, ``flagged``, ``reason``; the strongest first.
    """
    import pandas as pd

    ids = np.concatenate([_own(p, side) for side, p in enumerate(people)])
    side = np.r_[np.ones(len(people[0])), np.zeros(len(people[1]))]
    folds = folds_of(ids)
    scores = {
        name: _score(np.concatenate([here[name], there[name]]), side, folds)
        for name in here
        if name in there
    }
    if all(f is not None for f in features):
        scores["features of the network"] = _classified(
            np.concatenate([np.asarray(f) for f in features]), side, folds
        )
    parts = {"all": np.ones(len(side), bool)}
    for name in subgroups[0]:
        if name in subgroups[1]:
            both = np.concatenate([subgroups[0][name], subgroups[1][name]]).astype(str)
            for value in sorted(set(both)):
                inside = both == value
                if min((inside & (side == 1)).sum(), (inside & (side == 0)).sum()) >= LEAST:
                    parts[f"{name}: {value}"] = inside
    level = 1 - 0.05 / max(1, len(scores) * len(parts))
    rows = []
    for part, inside in parts.items():
        for name, score in scores.items():
            row = _area(side[inside], score[inside], ids[inside], level)
            row |= {"n": row.pop("positives"), "reference": row["n"] - int(side[inside].sum())}
            rows.append({"subgroup": part, "measure": name, **row, "level": level})
    columns = ["subgroup", "measure", "n", "reference", "auroc", "low", "high", "level", "reason"]
    table = pd.DataFrame(rows, columns=columns)
    low, high = table["low"].astype(float), table["high"].astype(float)
    table["flagged"] = (low > 0.5) | (high < 0.5)
    away = (table["auroc"].astype(float) - 0.5).abs()
    return (
        table.assign(_away=away)
        .sort_values("_away", ascending=False, kind="stable")
        .drop(columns="_away")
    )


def _own(people: NDArray[Any], side: int) -> NDArray[Any]:
    """Patients of two collections are not the same ones."""
    return np.array(
        [f"{side}/{p}" if p else f"{side}/\0{i}" for i, p in enumerate(people.tolist())],
        dtype=object,
    )


def _score(values: NDArray[Any], side: Floats, folds: NDArray[np.int64]) -> Floats:
    if np.issubdtype(values.dtype, np.number):
        return np.asarray(values, np.float64)
    return predicted_by(values, side, folds)


def _classified(features: NDArray[Any], side: Floats, folds: NDArray[np.int64]) -> Floats:
    """Log-odds of the side by a probe that was fitted on other patients."""
    from torchxrayvision.training import linear_probe

    good = ~np.isnan(features).any(axis=1)
    score = np.full(len(side), np.nan)
    for fold in range(_FOLDS):
        rest, held = good & (folds != fold), good & (folds == fold)
        if held.any() and len(set(side[rest].tolist())) == 2:
            probe = linear_probe(features[rest], side[rest, None], ["here"], strengths=(0.01,))
            score[held] = probe.logits(features[held])[:, 0]
    return score
