"""The compact table of a dataset, and the ordinary one that ``.csv`` gives.

Packaged tables come with categorical text and narrow numbers. Their columns are on the disk of
everybody who has the package, so a dataset keeps only what it made of them and the numbers of its
rows. Most programs never look at ``.csv``: it is made when first asked for, whole and with the
types that pandas gives a csv file, so that a caller can add, compare and join columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets._pack import release_unused

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets._pack import PackedFrame


__all__ = [
    "Later",
    "Lines",
    "as_text",
    "decoded",
    "is_among",
    "is_coded_text",
    "is_value",
    "ordinary",
    "plain_text",
    "row_numbers",
    "rows_of",
    "with_columns",
]


@dataclass(frozen=True)
class Later:
    """Columns of a packaged table that are read when somebody looks at them.

    Args:
        packaged: Name of the table.
        columns: Which of its columns are missing in the compact table.
        positions: From `row_numbers`: row of the packaged table for each row of the dataset.
    """

    packaged: str
    columns: tuple[str, ...]
    positions: range | NDArray[np.int32]

    def read(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some of the columns, one row an image, index 0 to N-1."""
        from torchxrayvision import tables

        rest = tables.load(self.packaged, columns=columns)
        if isinstance(self.positions, range):
            rest = rest.iloc[self.positions.start : self.positions.stop]
        else:
            rest = rest.take(self.positions)
        return rest.reset_index(drop=True)

    def added(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A compact table with the missing columns, in the order of the packaged table."""
        import pandas as pd

        from torchxrayvision import tables

        whole = pd.concat([frame, self.read(self.columns)], axis=1)
        order = [name for name in tables.info(self.packaged).columns if name in whole.columns]
        return whole[[*order, *(name for name in frame.columns if name not in order)]]


class Lines:
    """A compact table and the columns that are read later, one by one, as items ask for them.

    Args:
        frame: The compact table.
        later: The other columns.
    """

    def __init__(self, frame: pd.DataFrame | PackedFrame, later: Later) -> None:
        self._frame, self._later = frame, later
        self.columns = [*frame.columns, *later.columns]
        self._read: dict[str, pd.Series[Any]] = {}

    def __getitem__(self, name: str) -> pd.Series[Any]:
        if name not in self._later.columns:
            return self._frame[name]
        if name not in self._read:
            self._read[name] = self._later.read([name])[name]
            release_unused()
        return self._read[name]


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
    return plain_text(column)


def plain_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as text, blank where it was; pandas 2 would write "nan" there."""
    text, known = column.astype(str), column.notna()
    return text if bool(known.all()) else text.where(known)


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
