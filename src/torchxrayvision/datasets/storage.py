"""Small datasets: labels in one byte each, tables as compressed Arrow files.

A DataLoader that spawns its workers pickles the dataset for each of them. 1.5.7 sent 753 MB per
worker for NIH, CheXpert and PadChest merged.
"""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray


def align(labels: NDArray[Any], names: Sequence[str], wanted: Sequence[str]) -> NDArray[Any]:
    """Columns of labels in another order; NaN for findings that are not there.

    Args:
        labels: Shape (..., len(names)), numbers, or int8 as `pack_labels` makes them.
        names: Finding of each column.
        wanted: Findings of the result.

    Returns:
        float32 or int8, shape (..., len(wanted)); never the array that was given.
    """
    index = {name: j for j, name in enumerate(names)}
    packed = labels.dtype == np.int8
    blank, kind = (UNKNOWN, np.int8) if packed else (np.nan, np.float32)
    result = np.full((*labels.shape[:-1], len(wanted)), blank, dtype=kind)
    for j, name in enumerate(wanted):
        if name in index:
            result[..., j] = labels[..., index[name]]
    return result


logger = logging.getLogger(__name__)
UNKNOWN = np.int8(-1)
"""Stands for NaN where labels are int8."""


def release_unused() -> None:
    """Give back what decoding and joining needed, once nobody holds it: processes stay small."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def pack_frame(frame: bytes | pd.DataFrame) -> bytes | pd.DataFrame:
    """A table as a compressed Arrow file, or the table itself where Arrow cannot hold it.

    Args:
        frame: Any table, or one that is packed already. Columns of mixed Python objects are what
            Arrow may refuse.

    Returns:
        Something for `unpack_frame`.
    """
    if isinstance(frame, bytes):
        return frame
    import pyarrow as pa

    try:
        table = pa.Table.from_pandas(frame, preserve_index=None)
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        OverflowError,
    ) as error:
        logger.debug("a table goes to the worker unpacked: %s", error)
        return frame
    if any(pa.types.is_nested(kind) for kind in table.schema.types):
        return frame  # lists and dicts come back as other types
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack_frame(packed: bytes | pd.DataFrame) -> pd.DataFrame:
    """The table that `pack_frame` packed, with its dtypes."""
    if not isinstance(packed, bytes):
        return packed
    import pyarrow as pa

    with pa.ipc.open_file(packed, options=pa.ipc.IpcReadOptions(use_threads=False)) as file:
        frame: pd.DataFrame = file.read_pandas()
    release_unused()
    return frame


def pack_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as int8 where they are 0, 1 or NaN, else as they are.

    Args:
        labels: Shape (N, P), or int8 labels already.

    Returns:
        int8 with -1 for NaN, or `labels`.
    """
    if getattr(labels, "dtype", None) != np.float32:  # a caller's own may be a list or a table
        return labels
    present, unknown = labels == 1, np.isnan(labels)
    counted = sum(map(np.count_nonzero, (present, unknown, labels == 0)))
    if counted != labels.size:
        return labels
    packed: NDArray[np.int8] = present.view(np.int8) - unknown.view(np.int8)
    return packed


def unpack_labels(labels: NDArray[Any]) -> NDArray[np.float32]:
    """Float labels of the int8 labels that `pack_labels` made; others as they are."""
    if getattr(labels, "dtype", None) != np.int8:
        return labels
    unpacked = labels.astype(np.float32)
    unpacked[labels == UNKNOWN] = np.nan
    return unpacked


class LabelRow(np.ndarray[Any, Any]):
    """The labels of one image, float32 (P,), which give Python floats one by one, for json."""

    def __iter__(self) -> Any:
        return iter(self.tolist()) if self.ndim == 1 else super().__iter__()


def label_row(labels: NDArray[Any], position: int) -> NDArray[np.float32]:
    """The labels of one row, a copy.

    Args:
        labels: Shape (N, P), float, or int8 as `pack_labels` makes them.
        position: Row, from 0.

    Returns:
        Shape (P,).
    """
    row: NDArray[Any] = np.asarray(labels[position])  # a caller's own may be a tensor or a list
    packed = isinstance(labels, np.ndarray) and row.dtype == np.int8
    return (unpack_labels(row) if packed else row.copy()).view(LabelRow)


class LazyTable:
    """The table of a dataset, compact: columns of a packaged table are read again when asked for.

    They are on the disk of everybody who has the package, so a dataset keeps only what it made of
    them and the numbers of its rows. Text is categorical and numbers are narrow here; ``.csv``
    gives the whole table, with the types that pandas gives a csv file, when first looked at.

    Args:
        frame: What is kept, index 0 to N-1.
        packaged: Name of the packaged table.
        deferred: Which of its columns are read again.
        rows: From `row_numbers`: the row of the packaged table for each row.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        packaged: str = "",
        deferred: Sequence[str] = (),
        rows: range | NDArray[np.int32] = range(0),
    ) -> None:
        self._frame: bytes | pd.DataFrame = frame
        self.deferred = tuple(deferred)
        self._packaged, self._rows = packaged, rows
        self.columns = [*frame.columns, *self.deferred]
        self.read: dict[str, pd.Series[Any]] = {}

    def __getitem__(self, name: str) -> pd.Series[Any]:
        if name not in self.deferred:
            return self.frame[name]
        if name not in self.read:
            self.read[name] = self._read_again([name])[name]
            release_unused()
        return self.read[name]

    @property
    def frame(self) -> pd.DataFrame:
        """What is kept; in another process it is unpacked when first needed."""
        self._frame = unpack_frame(self._frame)
        return self._frame

    def _read_again(self, columns: Sequence[str]) -> pd.DataFrame:
        from torchxrayvision import tables

        frame = tables.load(self._packaged, columns=columns)
        if isinstance(self._rows, range):
            frame = frame.iloc[self._rows.start : self._rows.stop]
        else:
            frame = frame.take(self._rows)
        return frame.reset_index(drop=True)

    def whole(self) -> pd.DataFrame:
        """The table with all columns, those of the packaged table first, in its order."""
        if not self.deferred:
            return self.frame
        again = self._read_again(self.deferred)
        return again.assign(**{str(name): column for name, column in self.frame.items()})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_frame": pack_frame(self._frame), "read": {}}


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


def as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as text, or as categorical text where it is that without a blank."""
    if is_coded_text(column) and bool((column.cat.codes >= 0).all()):
        return column
    return plain_text(column)


def plain_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as text, blank where it was; pandas 2 would write "nan" there."""
    text, known = column.astype(str), column.notna()
    return text if bool(known.all()) else text.where(known)


def whole_numbers(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers that pandas made floats because of a blank, as whole ones: patient 7, not 7.0."""
    if column.dtype.kind != "f" or not bool((column.dropna() % 1 == 0).all()):
        return column
    return column.astype("Int64")


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
    return frame.assign(**changed)
