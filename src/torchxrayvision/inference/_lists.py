"""Names of images in a text file or a table, one by one, whatever their number."""

from __future__ import annotations

import contextlib
import csv
import io
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    Names = Generator[str | None, None, None]

__all__ = ["TABLES", "in_lines"]

_ROWS: Final = 4096  # of a Parquet table, in memory at a time
_NO_PATHS: Final = "it needs a column of strings named path; it has {}"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_TEXTS: Final = ("string", "large_string", "string_view")


def in_lines(path: Path) -> Names:
    """The lines of a text file in UTF-8, but for empty ones.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is UTF-16.
    """
    with _opened(path, "\n") as file:
        for line in file:
            if name := line.rstrip("\r\n"):
                yield name


@contextlib.contextmanager
def _opened(path: Path, newline: str) -> Iterator[io.TextIOWrapper]:
    """A file as text, without the mark that editors and spreadsheets put before UTF-8."""
    with path.open("rb") as raw:
        # Looked at and not read: a list may come through a pipe, which nobody can wind back.
        if raw.peek(2)[:2] in _UTF16:
            raise ValueError("it is UTF-16; save it as UTF-8")
        # Bytes that are not UTF-8 may name a file on disk all the same: they stay what they are.
        with io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline) as text:
            yield text


def _in_csv(path: Path) -> Names:
    try:
        with _opened(path, "") as file:
            rows = csv.DictReader(file, strict=True)
            header = list(rows.fieldnames or ())
            if "path" not in header:
                raise ValueError(_NO_PATHS.format(", ".join(header) or "none"))
            for row in rows:
                yield row["path"]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _in_parquet(path: Path) -> Names:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            column = _path_column(file.schema_arrow)
            for batch in file.iter_batches(_ROWS, columns=[column]):
                yield from batch.column(0).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _path_column(schema: Any) -> str:
    """The column `path`, or the only one of strings."""
    texts = [field.name for field in schema if _is_text(field.type)]
    if "path" in texts:
        return "path"
    if "path" in schema.names:
        held = next(field.type for field in schema if field.name == "path")
        msg = f"its column path holds {held}, not strings"
        raise ValueError(msg)
    if len(texts) == 1:
        return str(texts[0])
    raise ValueError(_NO_PATHS.format(", ".join(schema.names) or "none"))


def _is_text(kind: Any) -> bool:
    from pyarrow.types import is_dictionary  # pandas calls it a category, R a factor

    # By name, as the oldest pyarrow that is supported has no function for some of them.
    return str(kind.value_type if is_dictionary(kind) else kind) in _TEXTS


TABLES: Final = {".csv": _in_csv, ".parquet": _in_parquet}
"""By the ending of a table: the values of its column of paths, None or empty where there is none.

They raise OSError if the file cannot be read, ValueError if it is no such table.
"""
