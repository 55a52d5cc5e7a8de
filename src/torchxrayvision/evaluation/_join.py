"""Tables of predictions and of labels that name the same films."""

from __future__ import annotations

import warnings
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import DataWarning, EvaluationError
from torchxrayvision.labels import LABEL_PREFIX

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["join_labels"]

_NAMES: Final = ("path", "Path", "file", "filename", "image", "Image Index", "imageid")


def join_labels(predictions: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Put the labels of each predicted film beside its predictions.

    Films are matched by their path as written, or by file name with some of the folders before it:
    by as many as find most of the films in both tables, and tell all of a table apart.

    Args:
        predictions: As `xrv predict` writes it: ``path``, ``error`` and one column a finding.
        labels: One row a film: ``path`` (or ``Path``, ``file``, ``filename``, ``image``, ``Image
            Index``, ``imageid``), findings as 1, 0 or nothing, and anything else such as
            ``patientid``. What `xrv.datasets.export_parquet` wrote will do: its ``label:Mass`` is
            Mass.

    Returns:
        The rows of predictions that have labels, columns of labels under their own names,
        predicted findings as ``predicted <finding>``, other columns that both have as ``<column>
        of the predictions`` too; and the findings that both have.

    Raises:
        EvaluationError: If no column names the films, no film or finding is in both, or names are
            not unique.

    Warns:
        DataWarning: If file names match and the folders that they lie in are others.

    Example:
        >>> import pandas as pd
        >>> predicted = pd.DataFrame({"path": ["in/a.png"], "error": [""], "Mass": [0.7]})
        >>> known = pd.DataFrame({"path": ["a.png"], "Mass": [1], "sex": ["F"]})
        >>> rows, findings = join_labels(predicted, known)
        >>> findings, rows[["Mass", "predicted Mass", "sex"]].values.tolist()
        (['Mass'], [[1, 0.7, 'F']])
    """
    from pandas.api.types import is_numeric_dtype

    key = next((name for name in _NAMES if name in labels), None)
    if "path" not in predictions or key is None:
        msg = (
            "predictions need a column path, and labels one of "
            f"{', '.join(_NAMES)}; got {list(predictions)[:5]} and {list(labels)[:5]}"
        )
        raise EvaluationError(msg)
    labels = _without_prefix(labels)
    findings = [
        name
        for name in predictions
        if name in labels and is_numeric_dtype(predictions[name]) and name not in ("path", "error")
    ]
    if not findings:
        msg = (
            "no finding is in both tables; predictions have "
            f"{list(predictions)[:8]}, labels {list(labels)[:8]}"
        )
        raise EvaluationError(msg)
    ours, theirs = _matching(predictions["path"].astype(str), labels[key].astype(str))
    renamed = predictions.drop(columns="path").rename(
        columns={name: f"predicted {name}" for name in findings}
    )
    rows = renamed.assign(_film=ours).merge(
        labels.assign(_film=theirs), on="_film", suffixes=(" of the predictions", "")
    )
    return rows.drop(columns="_film"), [str(name) for name in findings]


def _without_prefix(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels of a dataset's export under the names of findings; the publisher's own give way."""
    prefixed = [name for name in labels if str(name).startswith(LABEL_PREFIX)]
    findings = {name: str(name).removeprefix(LABEL_PREFIX) for name in prefixed}
    return labels.drop(columns=list(findings.values()), errors="ignore").rename(columns=findings)


def _matching(
    ours: pd.Series[str], theirs: pd.Series[str]
) -> tuple[pd.Series[str], pd.Series[str]]:
    """Names of films that are unique in both tables, by which most of them are in both."""
    split = [names.map(_components) for names in (ours, theirs)]
    deepest = max(map(len, split[0]), default=0)
    ends, best, twice, most = [ours, theirs], None, "", 0  # as written first
    for count in range(deepest + 1, 0, -1):
        if count <= deepest:
            ends = [parts.map(lambda p, n=count: "/".join(p[-n:])) for parts in split]
        common = int(ends[0].isin(ends[1]).sum())
        doubled = _doubled(ends[0], ends[1]) if common else ""
        twice = twice or doubled
        if common > most and not doubled:
            best, names_alone, most = ends, count == 1 <= deepest, common
        if most == len(ours):
            break  # no film is left that fewer folders could find
    if best is None:
        first = [names.iloc[0] if len(names) else "nothing" for names in (ours, theirs)]
        raise EvaluationError(
            twice or f"no film is in both tables: {first[0]!r} and {first[1]!r} are their first"
        )
    if names_alone:
        best[0] = _without_contradictions(best, split)
    return best[0], best[1]


def _without_contradictions(
    names: list[pd.Series[str]], split: list[pd.Series[Any]]
) -> pd.Series[str]:
    """File names alone match here: predictions without, or with doubts of, unlike folders."""
    folders = [
        dict(zip(ends, parts.map(lambda p: p[-2:-1]), strict=True))
        for ends, parts in zip(names, split, strict=True)
    ]
    known = {name: folders[1][name] for name in folders[0] if name in folders[1]}
    unlike = {n for n, folder in known.items() if folder and folders[0][n] not in ((), folder)}
    alike = any(folder and folders[0][n] == folder for n, folder in known.items())
    if unlike and alike:  # folders mean something, so these are other films
        return names[0].mask(names[0].isin(unlike))
    if unlike:
        name = min(unlike)
        warnings.warn(
            f"{len(unlike)} films are matched by file name though their folders differ, such as "
            f"{'/'.join((*folders[0][name], name))} and {'/'.join((*folders[1][name], name))}",
            DataWarning,
            stacklevel=4,
        )
    return names[0]


def _doubled(ours: pd.Series[str], theirs: pd.Series[str]) -> str:
    for which, names in (("predictions", ours), ("labels", theirs)):
        twice = names[names.duplicated()]
        if len(twice):
            return (
                f"{len(twice)} films of the {which} have the name of another, such as "
                f"{twice.iloc[0]}"
            )
    return ""


def _components(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.replace("\\", "/")).parts
