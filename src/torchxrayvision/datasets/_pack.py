"""Small datasets: labels in one byte each, tables as compressed Arrow files.

A DataLoader that spawns its workers pickles the dataset for each of them. 1.5.7 sent 753 MB a
worker for NIH, CheXpert and PadChest merged. A worker needs a few columns of the table (those that
name files and masks), so the table stays packed there and gives out single columns.
"""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "PackedFrame",
    "label_row",
    "pack_frame",
    "pack_labels",
    "release_unused",
    "unpack_frame",
    "unpack_labels",
]

logger = logging.getLogger(__name__)
UNKNOWN = np.int8(-1)
"""Stands for NaN where labels are int8."""


class PackedFrame:
    """A table as a compressed Arrow file in memory, read column by column when asked.

    Args:
        data: The file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._columns: dict[str, pd.Series[Any]] = {}
        self._names: list[str] | None = None

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        if self._names is None:
            import pyarrow as pa

            with pa.ipc.open_file(self._data) as file:
                self._names = list(file.schema.names)
        return self._names

    def __getitem__(self, name: str) -> pd.Series[Any]:
        if name not in self._columns:
            self._columns[name] = self._read([self.columns.index(name)])[name]
            release_unused()
        return self._columns[name]

    def frame(self) -> pd.DataFrame:
        """The whole table, with its dtypes."""
        frame = self._read(None)
        release_unused()
        return frame

    def _read(self, fields: list[int] | None) -> pd.DataFrame:
        import pyarrow as pa

        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        with pa.ipc.open_file(self._data, options=options) as file:
            frame: pd.DataFrame = file.read_pandas()
        return frame

    def __getstate__(self) -> bytes:
        return self._data

    def __setstate__(self, data: bytes) -> None:
        self.__init__(data)  # type: ignore[misc]


def release_unused() -> None:
    """Give back what decoding and joining needed, once nobody holds it: processes stay small."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def pack_frame(frame: pd.DataFrame | PackedFrame) -> PackedFrame | pd.DataFrame:
    """A table packed, or the table itself where Arrow cannot hold it.

    Args:
        frame: Any table. Columns of mixed Python objects are what Arrow may refuse.

    Returns:
        Something for `unpack_frame`.
    """
    if isinstance(frame, PackedFrame):
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
    return PackedFrame(sink.getvalue())


def unpack_frame(packed: PackedFrame | pd.DataFrame) -> pd.DataFrame:
    """The table that `pack_frame` packed, with its dtypes."""
    return packed.frame() if isinstance(packed, PackedFrame) else packed


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


def label_row(labels: NDArray[Any], position: int) -> NDArray[np.float32]:
    """The labels of one row, a copy.

    Args:
        labels: Shape (N, P), float, or int8 as `pack_labels` makes them.
        position: Row, from 0.

    Returns:
        Shape (P,).
    """
    row: NDArray[Any] = labels[position]
    return unpack_labels(row) if row.dtype == np.int8 else row.copy()
