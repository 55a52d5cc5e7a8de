"""Result tables: CSV, Parquet and JSON, written row by row and put in place when complete."""

from __future__ import annotations

import abc
import contextlib
import json
import math
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from torchxrayvision.csvtext import CsvFile
from torchxrayvision.errors import UnknownNameError
from torchxrayvision.files import PROVENANCE_KEY, put_in_place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from torchxrayvision.files import Provenance

_VECTOR: Final = "vector"
# Kinds of columns, as Parquet calls what they hold.
_ARROW: Final = {"text": "string", "integer": "int64", "number": "double", "flag": "bool"}


class Table(abc.ABC):
    """A table that grows by one row at a time.

    The rows go to another file, which takes the final name only when the table is complete and
    on the disk. An interrupted run leaves that file behind.

    Args:
        path: Final name.
        columns: Name to kind: `"text"`, `"float32"`, `"number"`, `"integer"`, `"flag"`, or
            `"vector"` for arrays of float32, of which there is at most one, the last.
        part: The other file, on the same file system; None for `<name>.part`.
        file: An open text file to write to instead, such as standard output; not for Parquet.
        provenance: What makes the table: inside of Parquet, for others in a file beside it.
    """

    holds_provenance: ClassVar[bool] = False

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, str],
        part: Path | None = None,
        file: IO[str] | None = None,
        *,
        provenance: Provenance | None = None,
    ) -> None:
        self.path, self.provenance = path, provenance
        self.part = path.with_name(path.name + ".part") if part is None else part
        self.columns = dict(columns)
        self._given = file
        self._start()

    @abc.abstractmethod
    def _start(self) -> None:
        """Open the file."""

    @abc.abstractmethod
    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row.

        Args:
            row: Name of the column to value; absent or None for an empty cell.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is held back and close the file."""

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # What stopped the run matters more than what closing says, such as a full disk again.
            with contextlib.suppress(OSError):
                self.close()
            return
        self.close()
        if self.provenance is not None and not self.holds_provenance:
            self.provenance.write_beside(self.part, self.path)
        put_in_place(self.part, self.path)


class _TextTable(Table):
    """A table in an open text file."""

    def _start(self) -> None:
        self._file = self._given or self.part.open("w", newline="", encoding="utf-8")

    def _end(self) -> None:
        self._file.flush()
        if self._given is None:
            self._file.close()


class CsvTable(_TextTable):
    """Comma-separated, UTF-8, see `csvtext`; vectors as columns `embedding_0000`, ..."""

    def _start(self) -> None:
        super()._start()
        self._csv = CsvFile(self._file)
        self._plain = [name for name, kind in self.columns.items() if kind != _VECTOR]
        self._vector = next((n for n, kind in self.columns.items() if kind == _VECTOR), None)
        # The width of vectors is known with the first one; rows of errors before it wait.
        self._waiting: list[Mapping[str, Any]] = []
        self._width: int | None = None
        if self._vector is None:
            self._header(0)

    def _header(self, width: int) -> None:
        self._width = width
        self._csv.write([*self._plain, *(f"{self._vector}_{i:04d}" for i in range(width))])
        for earlier in self._waiting:
            self._row(earlier)
        self._waiting.clear()

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row; numbers with as many digits as float32 needs."""
        if self._width is None:
            vector = row.get(str(self._vector))
            if vector is None:
                self._waiting.append(row)
                return
            self._header(len(vector))
        self._row(row)

    def _row(self, row: Mapping[str, Any]) -> None:
        cells = [row.get(name) for name in self._plain]
        if self._width:
            vector = row.get(str(self._vector))
            cells += [None] * self._width if vector is None else list(vector)
        self._csv.write(cells)

    def close(self) -> None:
        """Write what is held back and close the file."""
        if self._width is None:
            self._header(0)
        self._end()


class JsonTable(_TextTable):
    """An array of objects, one per line; vectors as lists."""

    def _start(self) -> None:
        super()._start()
        self._separator = "[\n"

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one object."""
        entry = {name: _plain(row.get(name)) for name in self.columns}
        self._file.write(self._separator + json.dumps(entry, ensure_ascii=False, allow_nan=False))
        self._separator = ",\n"

    def close(self) -> None:
        """End the array and close the file."""
        self._file.write("\n]\n" if self._separator == ",\n" else "[]\n")
        self._end()


def _plain(value: Any) -> Any:
    """A value as JSON holds it: float32 with as many digits as it needs, null for NaN."""
    if isinstance(value, np.ndarray):
        return [float(str(each)) for each in value]
    if isinstance(value, np.floating):
        value = float(str(value))
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ParquetTable(Table):
    """Columns of their kinds, zstd; vectors as one column of lists."""

    ROWS: Final = 1024
    holds_provenance = True

    def _start(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {name: pa.type_for_alias(alias) for name, alias in _ARROW.items()}
        kinds |= {"float32": pa.float32(), _VECTOR: pa.list_(pa.float32())}
        told = self.provenance
        held = None if told is None else {PROVENANCE_KEY: told.to_json()}
        fields = [(name, kinds[kind]) for name, kind in self.columns.items()]
        self._schema = pa.schema(fields, metadata=held)
        self._table = pa.Table
        self._writer = pq.ParquetWriter(self.part, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row; a row group is written for every `ROWS`."""
        self._rows.append({name: row.get(name) for name in self.columns})
        if len(self._rows) == self.ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        """Write the last row group and close the file."""
        self._flush()
        self._writer.close()


_TABLES: Final[dict[str, type[Table]]] = {
    ".csv": CsvTable,
    ".json": JsonTable,
    ".parquet": ParquetTable,
}


def check_format(path: Path) -> None:
    """Refuse a name that says no format, before anything is computed.

    Args:
        path: Final name, ending in `.csv`, `.json` or `.parquet`.

    Raises:
        UnknownNameError: For any other ending.
    """
    if path.suffix.lower() not in _TABLES:
        raise UnknownNameError("output format", path.suffix or path.name, _TABLES)


def open_table(
    path: Path,
    columns: Mapping[str, str],
    part: Path | None = None,
    file: IO[str] | None = None,
    *,
    provenance: Provenance | None = None,
) -> Table:
    """A table in the format that the name ends with.

    Args:
        path: Final name, ending in `.csv`, `.json` or `.parquet`.
        columns: See `Table`.
        part: Where rows go until the table is complete; None for `<name>.part`.
        file: An open text file that gets CSV or JSON instead, such as standard output.
        provenance: What makes the table, see `Table`.

    Raises:
        UnknownNameError: For any other ending.
        OSError: If the file cannot be written.
    """
    check_format(path)
    kind = _TABLES[path.suffix.lower()]
    return kind(path, columns, part, file, provenance=None if file else provenance)
