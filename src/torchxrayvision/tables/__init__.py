"""Packaged metadata: one parquet file a table, and where each came from.

The tables are those that TorchXRayVision 1.5.7 packages as CSV, XML and PNG, row for row in the
order of their sources, without the free text of reports. ``tables.json`` beside them names the
source, its sha256, the publisher, the licence and what was left out; :func:`info` reads it.

In the tables of 20,000 rows and more, text that repeats is categorical with sorted categories, so
the table costs little memory and its codes sort as the text does. PadChest's ``PatientID`` is the
one exception: digits as text, in numeric order.

Example:
    >>> from torchxrayvision import tables
    >>> frame = tables.load("rsna", columns=["patientId", "Target"])
    >>> frame.shape
    (30227, 2)
    >>> tables.info("rsna").licence
    'RSNA Pneumonia Detection Challenge terms of use'
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import DatasetError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa

__all__ = ["TableInfo", "info", "list_tables", "load", "path"]

_FOLDER = Path(__file__).parent
_WORTH_RELEASING = 2**20  # bytes of a table


@dataclass(frozen=True, kw_only=True, slots=True)
class TableInfo:
    """What a packaged table is and where it came from.

    Args:
        name: Name that :func:`load` takes.
        title: What a row is.
        file: Name of the parquet file.
        rows: Number of rows.
        columns: Names of the columns, in order.
        left_out: Columns of the source that are not packaged, with the reason.
        note: How the table differs from the source besides.
        source: Name of the source file.
        source_sha256: SHA-256 of the source file.
        sha256: SHA-256 of the parquet file.
        publisher: Who published the original.
        url: Where the original stands.
        licence: Name of the licence or agreement.
        terms: What a user must know.
        taken: Date on which the source was taken, ISO 8601.
    """

    name: str
    title: str
    file: str
    rows: int
    columns: tuple[str, ...]
    left_out: Mapping[str, str]
    note: str
    source: str
    source_sha256: str
    sha256: str
    publisher: str
    url: str
    licence: str
    terms: str
    taken: str


@cache
def _index() -> dict[str, TableInfo]:
    record = json.loads((_FOLDER / "tables.json").read_text("utf-8"))["tables"]
    return {
        name: TableInfo(name=name, **{**facts, "columns": tuple(facts["columns"])})
        for name, facts in record.items()
    }


def list_tables() -> list[str]:
    """Name the packaged tables.

    Returns:
        Names that :func:`load` takes, in the order of ``tables.json``.

    Example:
        >>> "chexpert" in list_tables()
        True
    """
    return list(_index())


def info(name: str) -> TableInfo:
    """Say what a table is and where it came from.

    Args:
        name: One of :func:`list_tables`.

    Returns:
        Source, licence, rows and columns.

    Raises:
        UnknownNameError: If there is no such table.

    Example:
        >>> info("nih").rows
        112120
    """
    try:
        return _index()[name]
    except KeyError:
        raise UnknownNameError("table", name, list_tables()) from None


def path(name: str) -> Path:
    """Tell where the parquet file of a table is.

    Args:
        name: One of :func:`list_tables`.

    Returns:
        Path of the file inside the package.

    Raises:
        UnknownNameError: If there is no such table.

    Example:
        >>> path("nih").name
        'nih.parquet'
    """
    return _FOLDER / info(name).file


def load(name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table.

    Args:
        name: One of :func:`list_tables`.
        columns: Columns to read, returned in this order; all of them by default. Naming a few
            is much faster than reading all and dropping the rest.

    Returns:
        A frame of the caller's own with a ``RangeIndex``; rows in the order of the source. Text
        is ``str``, or categorical where it repeats in a large table; missing values are NaN.

    Raises:
        UnknownNameError: If there is no such table.
        DatasetError: If the table lacks a column.

    Example:
        >>> load("nih", columns=["Image Index", "View Position"]).iloc[0].to_list()
        ['00000001_000.png', 'PA']
    """
    known = info(name).columns
    wanted = list(known if columns is None else columns)
    missing = [c for c in wanted if c not in known]
    if missing:
        msg = f"table {name!r} has no columns {missing}; it has {', '.join(map(repr, known))}"
        raise DatasetError(msg)
    import pyarrow as pa
    from pyarrow import parquet

    # One thread: several decode a table of this size no faster, and each keeps memory of its own.
    with parquet.ParquetFile(path(name), page_checksum_verification=False) as file:
        table = file.read(columns=wanted, use_threads=False)
    frame = _to_pandas(table.select(wanted))
    # Arrow would keep what decoding needed besides, for the eight datasets together 40 MB. Giving
    # it back costs more time than reading a small table.
    if table.nbytes > _WORTH_RELEASING:
        pa.default_memory_pool().release_unused()
    return frame


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    """Convert; categoricals are built here, since Arrow would make an object a category."""
    import pandas as pd
    import pyarrow as pa

    coded = [f.name for f in table.schema if pa.types.is_dictionary(f.type)]
    frame = _plain(table.drop_columns(coded))
    if not coded:
        return frame
    parts: dict[str, Any] = {}
    for name in coded:
        column = table.column(name).combine_chunks()
        categories = _plain(pa.table({"values": column.dictionary}))["values"]
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        # A copy, because Arrow lends its memory read-only and the frame is the caller's.
        parts[name] = pd.Categorical.from_codes(
            codes.copy(), dtype=pd.CategoricalDtype(pd.Index(categories, name=None)), validate=False
        )
    joined: pd.DataFrame = pd.concat([frame, pd.DataFrame(parts)], axis=1)[table.column_names]
    return joined


def _plain(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    # pandas 3 reads text as `str`; earlier releases make a Python object of each cell unless told.
    kinds: dict[Any, Any] = {}
    if int(pd.__version__.partition(".")[0]) < 3:
        kinds[pa.string()] = pd.StringDtype("pyarrow_numpy")
    # One thread here, too: what others allocate cannot be given back by this one.
    frame: pd.DataFrame = table.to_pandas(types_mapper=kinds.get, use_threads=False)
    return frame
