"""Tables of predictions and of labels that name the same films."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from torchxrayvision.errors import EvaluationError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["join_labels"]

_NAMES: Final = ("path", "file", "filename", "image", "Image Index", "imageid")


def join_labels(predictions: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Put the labels of each predicted film beside its predictions.

    Films are matched by their path as written, or, where that does not match, by file name if no
    two films share one.

    Args:
        predictions: As `xrv predict` writes it: ``path``, ``error`` and one column a finding.
        labels: One row a film: ``path`` (or ``file``, ``filename``, ``image``, ``Image Index``,
            ``imageid``), findings as 1, 0 or nothing, and anything else such as ``patientid``.

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
    key = next((name for name in _NAMES if name in labels), None)
    if "path" not in predictions or key is None:
        msg = (
            "predictions need a column path, and labels one of "
            f"{', '.join(_NAMES)}; got {list(predictions)[:5]} and {list(labels)[:5]}"
        )
        raise EvaluationError(msg)
    findings = [name for name in predictions if name in labels and name not in ("path", "error")]
    if not findings:
        msg = (
            "no finding is in both tables; predictions have "
            f"{list(predictions)[:8]}, labels {list(labels)[:8]}"
        )
        raise EvaluationError(msg)
    ours, theirs = predictions["path"].astype(str), labels[key].astype(str)
    if not ours.isin(theirs).any():
        ours, theirs = ours.map(_name), theirs.map(_name)
    for which, names in (("predictions", ours), ("labels", theirs)):
        twice = names[names.duplicated()]
        if len(twice):
            msg = (
                f"{len(twice)} films of the {which} have the name of another, such as "
                f"{twice.iloc[0]}"
            )
            raise EvaluationError(msg)
    renamed = predictions.drop(columns="path").rename(
        columns={name: f"predicted {name}" for name in findings}
    )
    rows = renamed.assign(_film=ours).merge(labels.assign(_film=theirs), on="_film")
    if rows.empty:
        msg = f"no film is in both tables: {ours.iloc[0]!r} and {theirs.iloc[0]!r} are their first"
        raise EvaluationError(msg)
    return rows.drop(columns="_film"), [str(name) for name in findings]


def _name(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name
