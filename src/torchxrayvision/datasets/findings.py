"""From the columns or the text of a table to labels.

Whole terms are matched, never parts of words: *pseudonodule* is no nodule, *pericardial
effusion* no pleural effusion. With ``compat="xrv-1.5"`` the same declarations follow 1.5.7, which
searched for substrings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.storage import pack_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.release import Rule, SourceContext

    Labels = tuple[tuple[str, ...], NDArray[Any]]
    """Names of the findings and their labels (N, P): float32, or int8 as `pack_labels` makes them,
    with -1 for NaN."""


@runtime_checkable
class Findings(Protocol):
    """Anything that turns a table into labels.

    One that has ``reads``, the columns it needs, lets the table drop them afterwards.
    """

    @property
    def names(self) -> tuple[str, ...] | None:
        """The findings in order; None where the table itself decides."""

    def encode(self, frame: pd.DataFrame, context: SourceContext) -> Labels:
        """Names and labels of shape (N, P)."""


def numbers(frame: pd.DataFrame, columns: Iterable[str]) -> NDArray[np.float32]:
    """Columns of numbers or numeric text as float32 (N, number of columns), blanks as NaN."""
    names = list(columns)
    result = np.empty((len(frame), len(names)), dtype=np.float32)
    for j, name in enumerate(names):
        column = as_numbers(frame[name])
        result[:, j] = column.to_numpy(dtype=np.float32, na_value=np.nan)
    return result


@dataclass(frozen=True)
class FindingColumns:
    """One column per finding.

    Args:
        columns: Finding to its raw column, in order.
        values: Raw value to label, for text such as YES and NO. None: the columns hold numbers,
            1 present, 0 absent, -1 (uncertain) and blank unknown.
        normal_column: Column whose 1 means that every finding is absent.
        unaffected_by_normal: Findings that `normal_column` leaves as they are.
        scores: The columns hold scores, which stay as they are.

    Example:
        >>> import pandas as pd
        >>> from torchxrayvision.datasets.release import SourceContext
        >>> columns = {"No Finding": [1.0, None], "Mass": [None, -1.0], "Edema": [0, 1.0]}
        >>> frame = pd.DataFrame(columns)
        >>> rule = FindingColumns({"Edema": "Edema", "Mass": "Mass"}, normal_column="No Finding")
        >>> rule.encode(frame, SourceContext("Tiny", {}, {}))[1].tolist()
        [[0, 0], [1, -1]]
    """

    columns: Mapping[str, str]
    values: Mapping[Any, float] | None = None
    normal_column: str | None = None
    unaffected_by_normal: tuple[str, ...] = ()
    scores: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The findings in order."""
        return tuple(self.columns)

    @property
    def reads(self) -> tuple[str, ...]:
        """Raw columns."""
        return (*self.columns.values(), *filter(None, [self.normal_column]))

    def encode(self, frame: pd.DataFrame, context: SourceContext) -> Labels:
        """Names and labels of shape (N, P), int8 unless they are scores."""
        need_columns(frame, self.reads, context)
        if self.scores:
            return self.names, numbers(frame, self.columns.values())
        raw = self.columns.values()
        coded = {name: _coded(frame[name], self.values) for name in dict.fromkeys(raw)}
        labels = np.stack([coded[name] for name in raw], axis=1)
        if self.normal_column is not None:
            rows = _coded(frame[self.normal_column], None) == 1
            cleared = [
                j for j, name in enumerate(self.names) if name not in self.unaffected_by_normal
            ]
            labels[np.ix_(np.flatnonzero(rows), np.array(cleared))] = 0
        return self.names, labels


def as_numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers, NaN for anything else."""
    import pandas as pd

    return pd.to_numeric(column, errors="coerce")


def _coded(column: pd.Series[Any], values: Mapping[Any, float] | None) -> NDArray[np.int8]:
    """The int8 labels of one raw column; `values` as in `FindingColumns`."""
    if values is None:
        number = as_numbers(column).to_numpy(dtype=np.float32, na_value=np.nan)
        present = number == 1
        unknown = ~(present | (number == 0))
        numeric: NDArray[np.int8] = present.view(np.int8) - unknown.view(np.int8)
        return numeric
    codes, raw = column.factorize()
    labels = [values.get(value, np.nan) for value in raw]
    # The last one is for blanks, which factorize codes as -1.
    table: NDArray[np.int8] = pack_labels(np.array([*labels, np.nan], dtype=np.float32))
    text: NDArray[np.int8] = table[codes]
    return text


def separated(separator: str) -> Callable[[str], list[str]]:
    """A splitter of text into terms at a separator; terms are stripped of space.

    Example:
        >>> separated("|")("Mass| Nodule")
        ['Mass', 'Nodule']
    """
    return lambda text: [term.strip() for term in text.split(separator)]


@dataclass(frozen=True)
class FindingText:
    """Findings out of a column of text that lists terms.

    Args:
        column: Raw column.
        terms: Finding to the whole terms that mean it, in order. Case does not matter.
        split: Text to its terms.
        blank: Label of every finding where the text is blank.
        substrings: Finding to the substrings that 1.5.7 looked for; None: `terms`.
        compat_blank: What 1.5.7 makes of a blank text.

    Example:
        >>> import pandas as pd
        >>> from torchxrayvision.datasets.release import SourceContext
        >>> frame = pd.DataFrame({"text": ["pseudonodule|mass", "nodule", None]})
        >>> rule = FindingText("text", {"Nodule": ("nodule",)}, separated("|"))
        >>> rule.encode(frame, SourceContext("Tiny", {}, {}))[1].ravel().tolist()
        [0, 1, -1]
        >>> rule.encode(frame, SourceContext("Tiny", {}, {}, compat=True))[1].ravel().tolist()
        [1, 1, 0]
    """

    column: str
    terms: Mapping[str, tuple[str, ...]]
    split: Callable[[str], list[str]]
    blank: float = float("nan")
    substrings: Mapping[str, tuple[str, ...]] | None = None
    compat_blank: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """The findings in order."""
        return tuple(self.terms)

    @property
    def reads(self) -> tuple[str, ...]:
        """Raw columns."""
        return (self.column,)

    def encode(self, frame: pd.DataFrame, context: SourceContext) -> Labels:
        """Names and labels of shape (N, P), int8."""
        need_columns(frame, [self.column], context)
        # Releases repeat their texts: 112,120 NIH rows have 836 texts. Each is read once.
        codes, texts = frame[self.column].factorize()
        read = self._by_substring if context.compat else self._by_term
        table = np.empty((len(texts) + 1, len(self.terms)), dtype=np.float32)
        table[:-1] = read([str(text) for text in np.asarray(texts, dtype=object)])
        table[-1] = self.compat_blank if context.compat else self.blank  # factorize codes NaN as -1
        return self.names, pack_labels(table)[codes]

    def _by_term(self, texts: list[str]) -> NDArray[np.float32]:
        index: dict[str, list[int]] = {}
        for j, wanted in enumerate(self.terms.values()):
            for term in wanted:
                index.setdefault(term.casefold(), []).append(j)
        rows: list[int] = []
        columns: list[int] = []
        blank: list[int] = []
        folded: dict[str, list[int]] = {}  # terms repeat: PadChest has 350 in all
        for i, text in enumerate(texts):
            terms = self.split(text)
            if not any(terms):
                blank.append(i)
            for term in terms:
                if term not in folded:
                    folded[term] = index.get(term.casefold(), [])
                for j in folded[term]:
                    rows.append(i)
                    columns.append(j)
        labels = np.zeros((len(texts), len(self.terms)), dtype=np.float32)
        labels[blank] = self.blank
        labels[rows, columns] = 1
        return labels

    def _by_substring(self, texts: list[str]) -> NDArray[np.float32]:
        lowered = [text.lower() for text in texts]
        labels = np.zeros((len(texts), len(self.terms)), dtype=np.float32)
        for j, parts in enumerate((self.substrings or self.terms).values()):
            lowered_parts = [part.lower() for part in parts]
            labels[:, j] = [any(part in text for part in lowered_parts) for text in lowered]
        return labels


@dataclass(frozen=True)
class FindingRules:
    """Findings by one function each, for what neither columns nor text can say.

    Args:
        rules: Finding to a rule that returns its label in every row.
    """

    rules: Mapping[str, Rule] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The findings in order."""
        return tuple(self.rules)

    def encode(self, frame: pd.DataFrame, context: SourceContext) -> Labels:
        """Names and labels of shape (N, P)."""
        labels = np.empty((len(frame), len(self.rules)), dtype=np.float32)
        for j, rule in enumerate(self.rules.values()):
            labels[:, j] = np.asarray(rule(frame, context), dtype=np.float32)
        return self.names, labels


@dataclass(frozen=True)
class FindingFunction:
    """Findings by one function, for what columns, text and rules cannot say.

    Args:
        encode: Table and release to the names of the findings and their labels (N, P).
        names: The findings in order; None where the tables decide.
    """

    encode: Callable[[pd.DataFrame, SourceContext], Labels]
    names: tuple[str, ...] | None = None
