"""Result tables: CSV, Parquet and JSON, written row by row and put in place when complete."""

from __future__ import annotations

import abc
import contextlib
import csv
import json
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.inference.runs.folder import put_in_place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CsvWriter", "Result", "Writer", "check_format", "columns_of", "open_writer"]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one file.

    Args:
        path: The file as the user named it.
        error: What went wrong, or an empty string.
        outputs: One number a target, shape (P,) float32, or None after an error.
        embedding: Features, shape (D,) float32, if they were asked for.
    """

    path: str
    error: str
    outputs: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None


class Writer(abc.ABC):
    """A table that grows by one result at a time.

    The rows go to another file, which takes the final name only when the table is complete and
    on the disk. An interrupted run leaves that file behind.

    Args:
        path: Final name.
        findings: Names of the value columns, with their positions in `Result.outputs`.
        embeddings: Whether results carry embeddings.
        part: The other file, on the same file system; None for `<name>.part`.
    """

    def __init__(
        self, path: Path, findings: dict[str, int], embeddings: bool, part: Path | None = None
    ) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part") if part is None else part
        self.findings = findings
        self.embeddings = embeddings

    @abc.abstractmethod
    def write(self, result: Result) -> None:
        """Add one row."""

    @abc.abstractmethod
    def close(self) -> None:
        """Write what is held back and close the file."""

    def record(self, result: Result) -> dict[str, Any]:
        """The row as plain values: path, error, one number a finding, None after an error."""
        values = result.outputs
        row: dict[str, Any] = {"path": result.path, "error": result.error}
        for name, index in self.findings.items():
            row[name] = None if values is None else values[index]
        return row

    def __enter__(self) -> Writer:
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
        put_in_place(self.part, self.path)


class CsvWriter(Writer):
    """Comma-separated, UTF-8; embeddings as columns `embedding_0000`, ...

    Args:
        path: Final name.
        findings: See `Writer`.
        embeddings: See `Writer`.
        part: See `Writer`.
        file: An open text file to write to instead, such as standard output.
    """

    def __init__(
        self,
        path: Path,
        findings: dict[str, int],
        embeddings: bool,
        part: Path | None = None,
        file: IO[str] | None = None,
    ) -> None:
        super().__init__(path, findings, embeddings, part)
        self._own = file is None
        self._file = self.part.open("w", newline="", encoding="utf-8") if file is None else file
        self._csv = csv.writer(self._file, lineterminator="\n")
        # The width of embeddings is known with the first one; rows of errors before it wait.
        self._waiting: list[Result] = []
        self._width: int | None = None
        if not embeddings:
            self._header(0)

    def _header(self, width: int) -> None:
        self._width = width
        names = [f"embedding_{i:04d}" for i in range(width)]
        self._csv.writerow(["path", "error", *self.findings, *names])

    def write(self, result: Result) -> None:
        """Add one row; numbers with as many digits as float32 needs."""
        if self._width is None:
            if result.embedding is None:
                self._waiting.append(result)
                return
            self._flush_waiting(len(result.embedding))
        self._row(result)

    def _flush_waiting(self, width: int) -> None:
        self._header(width)
        for earlier in self._waiting:
            self._row(earlier)
        self._waiting.clear()

    def _row(self, result: Result) -> None:
        cells = ["" if v is None else str(v) for v in self.record(result).values()]
        if self._width:
            vector = result.embedding
            cells += [""] * self._width if vector is None else [str(v) for v in vector]
        self._csv.writerow(cells)

    def close(self) -> None:
        """Write what is held back and close the file."""
        if self._width is None:
            self._flush_waiting(0)
        self._file.flush()
        if self._own:
            self._file.close()


class JsonWriter(Writer):
    """An array of objects, one a line; embeddings as lists."""

    def __init__(
        self, path: Path, findings: dict[str, int], embeddings: bool, part: Path | None = None
    ) -> None:
        super().__init__(path, findings, embeddings, part)
        self._file = self.part.open("w", encoding="utf-8")
        self._separator = "[\n"

    def write(self, result: Result) -> None:
        """Add one object."""
        row: dict[str, object] = {
            k: v if v is None or isinstance(v, str) else float(str(v))
            for k, v in self.record(result).items()
        }
        if self.embeddings:
            vector = result.embedding
            row["embedding"] = None if vector is None else [float(str(v)) for v in vector]
        self._file.write(self._separator + json.dumps(row, ensure_ascii=False, allow_nan=False))
        self._separator = ",\n"

    def close(self) -> None:
        """End the array and close the file."""
        self._file.write("\n]\n" if self._separator == ",\n" else "[]\n")
        self._file.close()


class ParquetWriter(Writer):
    """Columns of float32, zstd; embeddings as one column of lists."""

    ROWS: Final = 1024

    def __init__(
        self, path: Path, findings: dict[str, int], embeddings: bool, part: Path | None = None
    ) -> None:
        super().__init__(path, findings, embeddings, part)
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [("path", pa.string()), ("error", pa.string())]
        fields += [(name, pa.float32()) for name in findings]
        if embeddings:
            fields.append(("embedding", pa.list_(pa.float32())))
        self._schema = pa.schema(fields)
        self._table = pa.Table
        self._writer = pq.ParquetWriter(self.part, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def write(self, result: Result) -> None:
        """Add one row; a row group is written for every `ROWS`."""
        row = self.record(result)
        if self.embeddings:
            row["embedding"] = result.embedding
        self._rows.append(row)
        if len(self._rows) == self.ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        """Write the last row group and close the file."""
        self._flush()
        self._writer.close()


_WRITERS: Final[dict[str, type[Writer]]] = {
    ".csv": CsvWriter,
    ".json": JsonWriter,
    ".parquet": ParquetWriter,
}


def check_format(path: Path) -> None:
    """Refuse a name that says no format, before anything is computed.

    Args:
        path: Final name, ending in `.csv`, `.json` or `.parquet`.

    Raises:
        UnknownNameError: For any other ending.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UnknownNameError("output format", path.suffix or path.name, _WRITERS)


def open_writer(
    path: Path, findings: dict[str, int], embeddings: bool, part: Path | None = None
) -> Writer:
    """A writer for the format that the name ends with.

    Args:
        path: Final name, ending in `.csv`, `.json` or `.parquet`.
        findings: See `columns_of`.
        embeddings: Whether rows carry embeddings.
        part: Where rows go until the table is complete; None for `<name>.part`.

    Raises:
        UnknownNameError: For any other ending.
        OSError: If the file cannot be written.
    """
    check_format(path)
    return _WRITERS[path.suffix.lower()](path, findings, embeddings, part)


def columns_of(findings: Sequence[str], kept: Sequence[bool]) -> dict[str, int]:
    """Name to position of the outputs that get a column.

    Args:
        findings: Names of all outputs.
        kept: For each output, whether it gets one; untrained outputs do not.
    """
    return {n: i for i, (n, keep) in enumerate(zip(findings, kept, strict=True)) if keep}
