"""Text in CSV tables: one row per record, no cell that a spreadsheet takes for a formula.

A cell of text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets an
apostrophe before it, which spreadsheets show as text; so does one that begins with apostrophes
before such a sign, so that `from_cell` gives back exactly what was written. Numbers are left as
they are. A cell with a carriage return is quoted, which `csv` alone does not do.

Source:
    OWASP. CSV injection. https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, TextIO

from torchxrayvision.files import write_atomically

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Callable, Iterable, Iterator

    import pandas as pd
    from _typeshed import WriteableBuffer

    from torchxrayvision.files import Provenance

__all__ = [
    "CsvFile",
    "check_parquet",
    "from_cell",
    "most_bytes",
    "open_table",
    "restored",
    "separator_of",
    "to_cell",
    "write_frame",
]

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_SEPARATOR: Final = re.compile(r'"?sep=(.)"?')  # spreadsheets read and write it
_ESCAPED: Final = re.compile(r"'+[=+\-@\t\r]")


def to_cell(value: object) -> str:
    """A value as the text of a cell; None is an empty one.

    Args:
        value: Text, which is escaped, or a number.

    Example:
        >>> to_cell("=1+1"), to_cell(-1.5), to_cell(None)
        ("'=1+1", '-1.5', '')
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    return str(value)


def from_cell(text: str) -> str:
    """What was written where `to_cell` gave this text.

    Args:
        text: Of a cell, without its quotes.

    Example:
        >>> from_cell("'=1+1"), from_cell("it's")
        ('=1+1', "it's")
    """
    return text[1:] if _ESCAPED.match(text) else text


def separator_of(line: str) -> tuple[str, bool]:
    """What separates the cells of a table: comma, semicolon or tab, or what its first line names.

    Args:
        line: The first one, without a byte-order mark.

    Returns:
        The sign, and whether the line is one such as ``sep=;``, which is no row of the table.

    Example:
        >>> separator_of("path;Mass"), separator_of("sep=|")
        ((';', False), ('|', True))
    """
    if named := _SEPARATOR.fullmatch(line.rstrip("\r\n")):
        return named[1], True
    return max(",;\t", key=line.count), False


class _Text(Protocol):
    def write(self, text: str, /) -> object:
        """As files that are open for text have it."""


class CsvFile:
    r"""Rows of a CSV table, each ended by a line feed.

    Args:
        file: Open for text, with ``newline=""``.

    Example:
        >>> import io
        >>> file = io.StringIO()
        >>> CsvFile(file).write(["a\rb", "@x", 0.5])
        >>> file.getvalue()
        '"a\rb",\'@x,0.5\n'
    """

    def __init__(self, file: _Text) -> None:
        # What ends a line is quoted inside of a cell: both signs, of which `_Ends` writes one.
        self._rows = csv.writer(_Ends(file), lineterminator="\r\n")

    def write(self, cells: Iterable[object]) -> None:
        """Write one row.

        Args:
            cells: Text or numbers; None for an empty cell.
        """
        self._rows.writerow([to_cell(cell) for cell in cells])


class _Ends:
    """Takes a row per call that ends in CR LF, and writes it with LF."""

    def __init__(self, file: _Text) -> None:
        self._file = file

    def write(self, row: str) -> object:
        return self._file.write(row[:-2] + "\n")


def write_frame(
    table: pd.DataFrame, target: Path | TextIO, provenance: Provenance | None = None
) -> None:
    """Write a table of pandas; missing values are empty cells.

    Args:
        table: Any table; its index is left out.
        target: The file, which is whole or absent, or one that is open for text.
        provenance: What made the table, for a file beside it.
    """
    if isinstance(target, Path):
        with write_atomically(target) as part:
            with part.open("w", newline="", encoding="utf-8") as file:
                write_frame(table, file)
            if provenance is not None:
                provenance.write_beside(part, target)
        return
    rows = CsvFile(target)
    rows.write(map(str, table.columns))
    for values in table.astype(object).where(table.notna(), None).itertuples(index=False):
        rows.write(values)


def restored(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose cells were read as text, with its text as `to_cell` was given it.

    Args:
        table: Columns of strings.
    """
    table = table.rename(columns=lambda name: from_cell(str(name)))
    for position in range(table.shape[1]):
        column = table.iloc[:, position]
        if column.str.startswith("'").any():
            table.isetitem(position, column.map(from_cell).to_list())
    return table


# Reading tables, plain or packed, and no more of them than is allowed: a table of a few kilobytes
# may unpack to as many gigabytes.

_VARIABLE: Final = "XRV_MAX_TABLE_BYTES"
_MOST: Final = 2 << 30  # bytes; the largest packed table of a release unpacks to a tenth of it
_CELL: Final = 8  # bytes that a value takes at least once it is read


def most_bytes() -> int:
    """What a packed table may unpack to: ``XRV_MAX_TABLE_BYTES``, or 2 GiB.

    Returns:
        Bytes.

    Raises:
        ValueError: If the variable is no whole number.

    Example:
        >>> import os, unittest.mock
        >>> with unittest.mock.patch.dict(os.environ, XRV_MAX_TABLE_BYTES="1000"):
        ...     most_bytes()
        1000
    """
    text = os.environ.get(_VARIABLE, "").strip()
    if text and not text.isdecimal():
        msg = f"{_VARIABLE}={text!r} is no number of bytes"
        raise ValueError(msg)
    return int(text) if text else _MOST


@contextlib.contextmanager
def open_table(path: str | os.PathLike[str]) -> Iterator[io.BufferedReader]:
    """Open a table of text, plain or packed (.gz, .bz2, .xz or .zip), for reading.

    Args:
        path: The file; its ending says how it is packed.

    Yields:
        Its bytes, unpacked.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is packed in another way, unpacks to more than `most_bytes`, or is a zip
            of several files.

    Example:
        >>> import gzip, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.csv.gz")
        ...     _ = path.write_bytes(gzip.compress(b"path,Mass"))
        ...     with open_table(path) as table:
        ...         table.read()
        b'path,Mass'
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind in {".tar", ".tgz", ".zst", ".7z", ".rar"}:
        msg = f"tables packed as {kind} are not read; unpack it, or pack it as .gz"
        raise ValueError(msg)
    unpack = _unpacker(kind)
    with path.open("rb") as raw:
        if kind == ".zip":
            import zipfile

            with zipfile.ZipFile(raw) as archive, archive.open(_only_member(archive)) as member:
                yield io.BufferedReader(_Bounded(member, most_bytes()))
        elif unpack is not None:
            with unpack(raw) as stream:
                yield io.BufferedReader(_Bounded(stream, most_bytes()))
        else:
            yield raw


def _only_member(archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        msg = f"the zip holds {len(names)} files, and not one table"
        raise ValueError(msg)
    return names[0]


def _unpacker(kind: str) -> Callable[[IO[bytes]], Any] | None:
    """What unpacks files of an ending; None for those that are not packed."""
    import bz2
    import gzip
    import lzma

    known: dict[str, Callable[[IO[bytes]], Any]] = {
        ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
        ".bz2": bz2.BZ2File,
        ".xz": lzma.LZMAFile,
    }
    return known.get(kind)


class _Bounded(io.RawIOBase):
    """A stream that ends with an error after so many bytes."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most, self._read = stream, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        got = self._stream.read(len(view))
        self._read += len(got)
        if self._read > self._most:
            raise ValueError(_too_large(self._most))
        view[: len(got)] = got
        return len(got)


def check_parquet(path: str | os.PathLike[str]) -> None:
    """Refuse a Parquet file that says itself that it unpacks to more than `most_bytes`.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is larger or no Parquet file.
    """
    import pyarrow.parquet as pq

    found = pq.read_metadata(path)
    groups = (found.row_group(at) for at in range(found.num_row_groups))
    held = sum(group.total_byte_size for group in groups)
    if max(held, found.num_rows * found.num_columns * _CELL) > most_bytes():
        raise ValueError(_too_large(most_bytes()))


def _too_large(most: int) -> str:
    return (
        f"it unpacks to more than {most:,} bytes, which a damaged or hostile table does; "
        f"if it is meant to, set {_VARIABLE} to a larger number, or unpack it"
    )
