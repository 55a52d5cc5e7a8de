"""The compact table of a dataset, and the ordinary one that ``.csv`` gives.

Packaged tables come with categorical text and narrow numbers, and some columns are of no use to
labels and images. Most programs never look at ``.csv``: it is made when first asked for, whole and
with the types that pandas gives a csv file, so that a caller can add, compare and join columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "Later",
    "as_text",
    "decoded",
    "is_among",
    "is_coded_text",
    "is_value",
    "ordinary",
    "row_numbers",
    "rows_of",
    "with_columns",
]


@dataclass(frozen=True)
class Later:
    """Columns of a packaged table that are read when ``.csv`` is first looked at.

    Args:
        packaged: Name of the table.
        columns: Which of its columns are missing in the compact table.
        positions: From `row_numbers`: row of the packaged table for each row of the dataset.
    """

    packaged: str
    columns: tuple[str, ...]
    positions: range | NDArray[np.int32]

    def added(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A compact table with the missing columns, in the order of the packaged table."""
        import pandas as pd

        from torchxrayvision import tables

        rest = tables.load(self.packaged, columns=self.columns)
        if isinstance(self.positions, range):
            rest = rest.iloc[self.positions.start : self.positions.stop]
        else:
            rest = rest.take(self.positions)
        rest.index = frame.index
        whole = pd.concat([frame, rest], axis=1)
        order = [name for name in tables.info(self.packaged).columns if name in whole.columns]
        return whole[[*order, *(name for name in frame.columns if name not in order)]]


def row_numbers(index: pd.Index[Any]) -> range | NDArray[np.int32]:
    """Numbers of the rows that a selection kept, int32 (N,).

    A range where none between the first and the last is missing: its pickle has a few bytes.
    """
    numbers = index.to_numpy(dtype=np.int32)
    if len(numbers) and bool((np.diff(numbers) == 1).all()):
        return range(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers


def is_coded_text(column: pd.Series[Any]) -> bool:
    """Whether a column is text kept as a categorical."""
    import pandas as pd

    return isinstance(column.dtype, pd.CategoricalDtype) and pd.api.types.is_string_dtype(
        column.cat.categories.dtype
    )


def decoded(column: pd.Series[Any]) -> pd.Series[Any]:
    """Categorical text as text, missing where it was; pandas' own astype is ten times slower."""
    import pandas as pd

    codes = column.cat.codes.to_numpy()
    values = column.cat.categories.array.take(codes, allow_fill=True)
    return pd.Series(values, index=column.index, name=column.name)


def is_among(column: pd.Series[Any], values: pd.Series[Any]) -> NDArray[np.bool_]:
    """Which elements are among some values, both of a table; pandas' isin is slow for text."""
    import pandas as pd

    if not isinstance(column.dtype, pd.StringDtype) or column.dtype != values.dtype:
        return column.isin(values).to_numpy(dtype=bool)
    return rows_of(column, values) >= 0


def is_value(column: pd.Series[Any], value: object) -> NDArray[np.bool_]:
    """Which elements equal a value; False where blank, whatever type the column has.

    The array is compared and not the series, which takes half the time in a small table.
    """
    equal = column.array == value
    if isinstance(equal, np.ndarray):
        return equal.astype(bool, copy=False)
    found: NDArray[np.bool_] = equal.to_numpy(dtype=bool, na_value=False)
    return found


def rows_of(column: pd.Series[Any], values: pd.Series[Any]) -> NDArray[np.intp]:
    """Where each text of a column stands first among some texts; -1 where it does not."""
    import pyarrow as pa
    import pyarrow.compute

    kind = pa.large_string()
    found = pa.compute.index_in(
        pa.array(column, kind), value_set=pa.array(values, kind), skip_nulls=True
    )
    return np.asarray(found.fill_null(-1)).astype(np.intp)


def with_columns(
    frame: pd.DataFrame, made: Mapping[str, Any], without: Collection[str] = ()
) -> pd.DataFrame:
    """A table with columns replaced, added or left out, in one step.

    pandas' assign adds one column after another, and drop makes a table of its own.
    """
    import pandas as pd

    whole: dict[Any, Any] = {name: column for name, column in frame.items() if name not in without}
    whole.update(made)
    return pd.DataFrame(whole, index=frame.index, copy=False)


def as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as text, or as categorical text where it is that without a blank."""
    if is_coded_text(column) and bool((column.cat.codes >= 0).all()):
        return column
    return column.astype(str)


def ordinary(frame: pd.DataFrame, made: frozenset[str], packaged: bool) -> pd.DataFrame:
    """A compact table with the types that pandas gives a csv file.

    Args:
        frame: Compact table.
        made: Columns that the pipeline made; their text is always decoded.
        packaged: Whether the others came from a packaged table. A caller's own table keeps its
            types.

    Returns:
        New table: text, int64, float64 and bool.
    """
    changed: dict[str, Any] = {}
    for name in frame.columns:
        if not packaged and name not in made:
            continue
        column = frame[name]
        if is_coded_text(column):
            changed[name] = decoded(column)
        elif column.dtype == np.int32:
            changed[name] = column.astype(np.int64)
        elif column.dtype == np.float32:
            changed[name] = column.astype(np.float64)
    return with_columns(frame, changed)
