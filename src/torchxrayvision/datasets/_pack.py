"""Small pickles: tables as compressed Arrow streams, labels as bytes.

A DataLoader that spawns its workers pickles the dataset for each of them. 1.5.7 sent 753 MB a
worker for NIH, CheXpert and PadChest merged.
"""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["pack_frame", "pack_labels", "unpack_frame", "unpack_labels"]

logger = logging.getLogger(__name__)
_UNKNOWN = -1  # stands for NaN among the labels 0 and 1


def pack_frame(frame: pd.DataFrame) -> bytes | pd.DataFrame:
    """A table as a compressed Arrow stream, or the table itself where Arrow cannot hold it.

    Args:
        frame: Any table. Columns of mixed Python objects are what Arrow may refuse.

    Returns:
        Bytes for `unpack_frame`, or `frame`.
    """
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
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack_frame(packed: bytes | pd.DataFrame) -> pd.DataFrame:
    """The table that `pack_frame` packed, with its dtypes."""
    if not isinstance(packed, bytes):
        return packed
    import pyarrow as pa

    with pa.ipc.open_stream(packed) as reader:
        frame: pd.DataFrame = reader.read_pandas()
    return frame


def pack_labels(labels: NDArray[np.float32]) -> tuple[str, Any]:
    """Labels as int8 where they are 0, 1 or NaN, else as they are.

    Args:
        labels: Shape (N, P).

    Returns:
        A pair for `unpack_labels`.
    """
    small = np.full(labels.shape, _UNKNOWN, dtype=np.int8)
    small[labels == 0] = 0
    small[labels == 1] = 1
    exact = bool(np.isnan(labels[small == _UNKNOWN]).all())
    if exact and labels.dtype == np.float32:
        return "int8", small
    return "raw", labels


def unpack_labels(packed: tuple[str, Any]) -> NDArray[np.float32]:
    """The labels that `pack_labels` packed."""
    kind, values = packed
    if kind == "raw":
        return values  # type: ignore[no-any-return]
    labels = np.asarray(values).astype(np.float32)
    labels[values == _UNKNOWN] = np.nan
    return labels
