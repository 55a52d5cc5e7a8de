"""Tables of predictions and of labels that name the same films."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from torchxrayvision.errors import EvaluationError
from torchxrayvision.labels import LABEL_PREFIX

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["join_labels"]

_NAMES: Final = ("path", "Path", "file", "filename", "image", "Image Index", "imageid")


def join_labels(predictions: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Put the labels of each predicted film beside its predictions.

    Films are matched by their path as written, or, where that does not match, by file name, with
    as many folders before it as tell all films apart.

    Args:
        predictions: As `xrv predict` writes it: ``path``, ``error`` and one column a finding.
        labels: One row a film: ``path`` (or ``Path``, ``file``, ``filename``, ``image``, ``Image
            Index``, ``imageid``), findings as 1, 0 or nothing, and anything else such as
            ``patientid``. What `xrv.datasets.export_parquet` wrote will do: its ``label:Mass`` is
            Mass.

    Returns:
        The rows of predictions that have labels, columns of labels under their own names and
        predicted findings as ``predicted <finding>``, and the findings that both have.

    Raises:
        EvaluationError: If no column names the films, no film or finding is in both, or names are
            not unique.

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
    """What predictions and labels have in common of the names of films, unique in both."""
    twice, ends = "", [ours, theirs]  # as written first
    split = [names.map(_components) for names in ends]
    for count in range(1 + max(map(len, split[0]), default=0)):
        if count:
            ends = [parts.map(lambda p, n=count: "/".join(p[-n:])) for parts in split]
        doubled = _doubled(*ends)
        common = ends[0].isin(ends[1]).any()
        if common and not doubled:
            return ends[0], ends[1]
        if count and not common:
            break  # more folders make no more names equal
        twice = doubled or twice
    if not twice:
        first = [names.iloc[0] if len(names) else "nothing" for names in (ours, theirs)]
        twice = f"no film is in both tables: {first[0]!r} and {first[1]!r} are their first"
    raise EvaluationError(twice)


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
