"""Text in CSV tables: one row per record, no cell that a spreadsheet takes for a formula.

A cell of text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets an
apostrophe before it, which spreadsheets show as text; so does one that begins with apostrophes
before such a sign, so that `from_cell` gives back exactly what was written. Numbers are left as
they are. A cell with a carriage return is quoted, which `csv` alone does not do.

Source:
    OWASP. CSV injection. https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from torchxrayvision.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from torchxrayvision.files import Provenance

__all__ = ["CsvFile", "from_cell", "restored", "to_cell", "write_frame"]

_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
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
