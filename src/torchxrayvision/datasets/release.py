"""What one dataset object knows about the release it was built from, and a row of its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.storage import LazyTable, pack_frame, unpack_frame
from torchxrayvision.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd


USE_INCLUDED_FILE = "USE_INCLUDED_FILE"
"""Value of a table argument that means the copy inside this package."""

SHARED_COLUMNS: Mapping[str, str] = {
    "patientid": "str",
    "offset_day_int": "number",
    "age_years": "float64",
    "sex_male": "bool",
    "sex_female": "bool",
}
"""Columns that every csv has where its source allows, and their types.

``offset_day_int`` is int64, or float64 with NaN where a source leaves some dates out.
"""

Rule = Callable[["pd.DataFrame", "SourceContext"], Any]
"""A function of the table and the release that returns one value per row."""


def need_columns(
    frame: pd.DataFrame, names: Iterable[str], context: SourceContext, argument: str = ""
) -> None:
    """Raise a `DatasetError` that names the columns which a table, that of an argument, lacks."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        which = f"the table {argument}" if argument else "the table"
        msg = (
            f"{context.dataset}: {which} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, frame.columns[:40]))}. Pass the csv of the release unchanged"
        )
        raise DatasetError(msg)


@dataclass
class SourceContext:
    """The context that every rule of a `DatasetSpec` receives.

    Args:
        dataset: Name of the dataset class, for messages.
        roots: Constructor argument to the folder or archive given for it, or None.
        tables: Constructor argument to the table read for it. After construction only the
            tables that masks or boxes declare are kept.
        arguments: Further constructor arguments by name, such as ``extension``.
        compat: Whether the caller asked for 1.5.7's results.
        packaged: Arguments of the tables that came from this package.
        cache: What an image or mask source computed once for this object. Everything in it
            must pickle.
    """

    dataset: str
    roots: dict[str, Path | None]
    tables: dict[str, pd.DataFrame]
    arguments: dict[str, Any] = field(default_factory=dict)
    compat: bool = False
    packaged: frozenset[str] = frozenset()
    cache: dict[str, Any] = field(default_factory=dict)

    def position(self, frame: pd.DataFrame | LazyTable, column: str, name: str) -> int | None:
        """The first row of a csv that has a name in a column, or None.

        Comparing every string takes as long as painting a mask, so positions are kept. The csv
        belongs to the user, who may have changed it since: what was kept is looked at again.
        """
        names, slot = frame[column], f"named:{column}"
        if slot not in self.cache:
            last = len(names) - 1
            self.cache[slot] = dict(zip(names[::-1].tolist(), range(last, -1, -1), strict=True))
        position: int | None = self.cache[slot].get(name)
        if position is not None and position < len(names) and names.iloc[position] == name:
            return position
        found = np.flatnonzero(names == name)
        return int(found[0]) if len(found) else None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["tables"] = {name: pack_frame(table) for name, table in self.tables.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.tables = {name: unpack_frame(table) for name, table in state["tables"].items()}


class Row(Mapping[str, Any]):
    """One row of a dataset's csv, read column by column when asked.

    Args:
        frame: The csv of the dataset, or its compact form.
        position: Which row, from 0.
        arguments: Constructor arguments, which stand behind the columns, so that a path
            template may say ``{patientId}{extension}``.

    Example:
        >>> import pandas as pd
        >>> row = Row(pd.DataFrame({"name": ["a"]}), 0, {"extension": ".png"})
        >>> "{name}{extension}".format_map(row)
        'a.png'
    """

    __slots__ = ("_arguments", "_frame", "position")

    def __init__(
        self,
        frame: pd.DataFrame | LazyTable,
        position: int,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._frame = frame
        self._arguments = arguments or {}
        self.position = position

    def __getitem__(self, name: str) -> Any:
        if name in self._frame.columns:
            return self._frame[name].array[self.position]  # a third of the time of iloc
        return self._arguments[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._frame.columns, *self._arguments])

    def __len__(self) -> int:
        return len(self._frame.columns) + len(self._arguments)
