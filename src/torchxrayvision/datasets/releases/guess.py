"""Which column of somebody's own table is which; used by `CSV_Dataset`."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.columns import plausible_age
from torchxrayvision.errors import DatasetError, DataWarning, caller_stacklevel
from torchxrayvision.inputs import has_image_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.findings import Labels
    from torchxrayvision.datasets.release import Row, SourceContext

logger = logging.getLogger(__name__)

AUTO = "auto"
"""Value of an argument that means: find the column by its name or its values."""

USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "path": (
        *("path", "imagepath", "imgpath", "filepath", "relativepath", "dicompath", "pngpath"),
        *("filename", "file", "image", "img", "imagefile", "imagename", "imageindex", "imageid"),
    ),
    "patient": ("patientid", "patient", "subjectid", "subject"),
    "view": ("view", "viewposition", "projection"),
    "age": ("age", "ageyears", "patientage"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "split": ("split",),
}
"""Role to the names that usually mean it, without case, spaces and underscores."""

_NEVER_LABELS = ("id", "idx", "index", "row", "fold", "followup", "followup#")
_VIEWS = {
    "pa": "PA",
    "posteroanterior": "PA",
    "postero-anterior": "PA",
    "ap": "AP",
    "anteroposterior": "AP",
    "antero-posterior": "AP",
    "apsupine": "AP Supine",
    "aperect": "AP Erect",
    "lateral": "L",
    "lat": "L",
    "l": "L",
    "ll": "LL",
    "rl": "RL",
}
_SEXES = {"M": ("m", "male", "man"), "F": ("f", "female", "woman", "w")}
_AGE_UNITS = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}


def _plain(name: object) -> str:
    """A name without case, spaces, underscores and hyphens."""
    return re.sub(r"[\s_\-]", "", str(name)).casefold()


def named_column(table: pd.DataFrame, argument: str, given: str, dataset: str) -> str:
    """The column that an argument names; a `DatasetError` where there is none of that name."""
    if given not in table.columns:
        shown = ", ".join(map(repr, table.columns[:40]))
        msg = f"{dataset}: {argument}={given!r} is no column of the table; it has {shown}"
        raise DatasetError(msg)
    return given


def find_column(table: pd.DataFrame, role: str, given: str | None, dataset: str) -> str | None:
    """The column of a role.

    Args:
        table: Somebody's table.
        role: A key of `USUAL_NAMES`; also the name of the argument.
        given: Name of a column, `AUTO` to look for a usual name, None for no such column.
        dataset: Name for messages.

    Returns:
        The column, or None where there is none.

    Raises:
        DatasetError: If the named column is not there.

    Example:
        >>> import pandas as pd
        >>> find_column(pd.DataFrame({"Patient ID": ["a"]}), "patient", AUTO, "Tiny")
        'Patient ID'
    """
    if given is None:
        return None
    if given != AUTO:
        return named_column(table, role, given, dataset)
    plain = {_plain(column): str(column) for column in reversed(table.columns)}
    found = [plain[name] for name in USUAL_NAMES[role] if name in plain]
    if found:
        logger.info("%s: column %r is taken as %s", dataset, found[0], role)
    return found[0] if found else None


def find_path(table: pd.DataFrame, given: str, dataset: str) -> str:
    """The column that names the image files.

    Args:
        table: Somebody's table.
        given: Name of a column, or `AUTO` to look for a usual name, then for values that end
            like the names of images.
        dataset: Name for messages.

    Returns:
        The column.

    Raises:
        DatasetError: If there is none.

    Example:
        >>> import pandas as pd
        >>> find_path(pd.DataFrame({"x": ["a.png"], "y": [1]}), AUTO, "Tiny")
        'x'
    """
    if given != AUTO:
        return named_column(table, "path", given, dataset)
    by_name = find_column(table, "path", AUTO, dataset)
    if by_name is not None and (len(table) == 0 or _names_images(table[by_name])):
        return by_name
    by_value = [str(name) for name in table.columns if _names_images(table[name])]
    if len(by_value) == 1:
        return by_value[0]
    if by_name is not None and not by_value:
        return by_name  # names without an ending, such as the UIDs of DICOM files
    raise DatasetError(_no_path(table, by_value, dataset))


def _no_path(table: pd.DataFrame, candidates: Sequence[str], dataset: str) -> str:
    shown = ", ".join(map(repr, table.columns[:40]))
    if candidates:
        found = " and ".join(map(repr, candidates))
        return f"{dataset}: {found} could all name the image files; pass path=<one of them>"
    advice = "pass path=<the column that names the image files>"
    if len(table.columns) == 1 and re.search(r"[|:]", str(table.columns[0])):
        advice = (
            "it is not separated by commas, semicolons or tabs; pass a DataFrame, such as "
            "pandas.read_csv(path, sep='|')"
        )
    return f"{dataset}: no column names image files; the table has {shown}; {advice}"


def _names_images(column: pd.Series[Any]) -> bool:
    some = column.dropna().head(100)
    return len(some) > 0 and all(
        isinstance(text, str) and has_image_name(text.strip()) for text in some
    )


def find_labels(table: pd.DataFrame, others: Sequence[str | None], dataset: str) -> dict[str, str]:
    """The columns that look like labels: 0, 1, -1 and blank only, and at least one 0 or 1.

    Args:
        table: Somebody's table.
        others: Columns that have another role.
        dataset: Name for messages.

    Returns:
        Finding to column, in the order of the table.

    Warns:
        DataWarning: If there is none although the table has further columns.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"age": [40, 50], "Mass": [0, 1], "Edema": [None, -1.0]})
        >>> find_labels(table, [], "Tiny")
        {'Mass': 'Mass'}
    """
    found = {}
    for column in table.columns:
        name = str(column)
        if name in others or _plain(name) in _NEVER_LABELS or name.startswith("Unnamed:"):
            continue
        if _looks_like_labels(table[column]):
            found[name] = name
    logger.info("%s: label columns found: %s", dataset, ", ".join(found) or "none")
    rest = [str(column) for column in table.columns if str(column) not in others]
    if not found and rest and len(table):
        msg = (
            f"{dataset}: no column holds 0, 1, -1 and blank alone, so there are no findings; the "
            f"table also has {', '.join(map(repr, rest[:20]))}. Pass terms=<a column of text that "
            f"lists findings>, labels=[...], or labels=None"
        )
        warnings.warn(msg, DataWarning, stacklevel=caller_stacklevel())
    return found


def _looks_like_labels(column: pd.Series[Any]) -> bool:
    if column.dtype.kind not in "biuf":
        return False
    values = set(column.dropna().unique().tolist())
    return values <= {-1, 0, 1} and bool(values & {0, 1})


@dataclass(frozen=True)
class PathColumn:
    """Path template: the text of a column, with an ending.

    Args:
        column: Column that names the files.
        extension: Added to each name.
    """

    column: str
    extension: str = ""

    def __call__(self, row: Row) -> str:
        """The path of a row, with forward slashes."""
        name = str(row[self.column]).strip()
        if "/" not in name:
            name = name.replace("\\", "/")  # tables made on Windows
        return name + self.extension


@dataclass(frozen=True)
class ViewColumn:
    """Rule: the view, common spellings as this package writes them.

    Args:
        column: Raw column.
    """

    column: str

    def __call__(self, frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG002 - a rule
        """One view per row."""
        raw = frame[self.column]
        known = {
            text: _VIEWS.get(_plain(text), str(text).strip()) for text in raw.dropna().unique()
        }
        return raw.map(known)


@dataclass(frozen=True)
class SexColumn:
    """Rule: whether the sex is the one asked for; blank and other values are False.

    Args:
        column: Raw column.
        sex: "M" or "F".
    """

    column: str
    sex: str

    def __call__(self, frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG002 - a rule
        """One bool per row."""
        text = frame[self.column].astype(str).str.strip().str.casefold()
        return text.isin(_SEXES[self.sex]).to_numpy(dtype=bool)


@dataclass(frozen=True)
class AgeColumn:
    """Rule: the age in years, from numbers or DICOM's age strings such as 045Y and 006M.

    Args:
        column: Raw column.

    Source:
        DICOM PS3.5 section 6.2, value representation AS.
    """

    column: str

    def __call__(self, frame: pd.DataFrame, context: SourceContext) -> Any:  # noqa: ARG002 - a rule
        """One float per row; NaN where blank or above 120."""
        raw = frame[self.column]
        parts = raw.astype(str).str.extract(r"^\s*(\d+(?:\.\d*)?)\s*([YMWDymwd]?)\s*$")
        unit = parts[1].str.upper().map(_AGE_UNITS).fillna(1.0).astype(float)
        return plausible_age(parts[0].astype(float) / unit)


@dataclass(frozen=True)
class LabelColumns:
    """Findings: one column each, 1 present, 0 absent, blank unknown, -1 uncertain.

    Args:
        columns: Finding to its column, in order.
        uncertain: Label of -1.
    """

    columns: Mapping[str, str]
    uncertain: float = float("nan")

    @property
    def names(self) -> tuple[str, ...]:
        """The findings in order."""
        return tuple(self.columns)

    def encode(self, frame: pd.DataFrame, context: SourceContext) -> Labels:
        """Names and labels of shape (N, P)."""
        labels = np.empty((len(frame), len(self.columns)), dtype=np.float32)
        for j, column in enumerate(self.columns.values()):
            labels[:, j] = self._encoded(frame[column], context)
        return self.names, labels

    def _encoded(self, column: pd.Series[Any], context: SourceContext) -> NDArray[np.float32]:
        import pandas as pd

        values = pd.to_numeric(column, errors="coerce").astype(np.float32).to_numpy(copy=True)
        blank = column.isna() | (column.astype(str).str.strip() == "")
        odd = ~blank.to_numpy() & ~np.isin(values, (-1, 0, 1))
        if odd.any():
            row = int(np.flatnonzero(odd)[0])
            msg = (
                f"{context.dataset}: column {column.name!r} holds {column.iloc[row]!r} in row "
                f"{row}; labels are 1, 0, -1 or blank. Translate it first, such as "
                f"table[{column.name!r}].map({{'yes': 1, 'no': 0}}), and pass the DataFrame"
            )
            raise DatasetError(msg)
        values[values == -1] = self.uncertain
        return values


@dataclass(frozen=True)
class TermColumn:
    """Findings: every term that a column of text lists; sorted.

    Args:
        column: Column of text.
        separator: Between the terms of one image.
        healthy: Terms, in any case, that mean that every finding is absent.
    """

    column: str
    separator: str = "|"
    healthy: tuple[str, ...] = ()

    @property
    def names(self) -> None:
        """None: the table itself decides."""
        return

    def encode(self, frame: pd.DataFrame, context: SourceContext) -> Labels:  # noqa: ARG002
        """Names and labels of shape (N, P); a blank text is unknown."""
        codes, texts = frame[self.column].factorize()
        listed = [[term.strip() for term in str(text).split(self.separator)] for text in texts]
        none = {term.casefold() for term in self.healthy}
        names = sorted({t for terms in listed for t in terms if t and t.casefold() not in none})
        index = {name: j for j, name in enumerate(names)}
        table = np.zeros((len(texts) + 1, len(names)), dtype=np.float32)
        for i, terms in enumerate(listed):
            table[i, [index[term] for term in terms if term in index]] = 1
            if not any(terms):
                table[i] = np.nan
        table[-1] = np.nan  # factorize codes blanks as -1
        return tuple(names), table[codes]
