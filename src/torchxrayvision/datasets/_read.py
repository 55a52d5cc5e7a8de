"""Reading the tables of a release: packaged, from a path, or handed over as a DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets._spec import USE_INCLUDED_FILE, DatasetSpec, Table
from torchxrayvision.errors import DatasetError, DatasetNotFoundError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pandas as pd

__all__ = ["as_place", "is_packaged", "read_csv", "read_tables"]


def as_place(path: str | os.PathLike[str] | None) -> Path | None:
    """A folder or archive argument as a path; nothing is checked before an image is read."""
    return None if path is None else Path(path).expanduser()


def read_csv(path: Path) -> pd.DataFrame:
    """A csv (plain, gzip, zip, bz2, xz) or parquet table.

    Args:
        path: Existing file.

    Returns:
        The table; numbers are numbers, anything else text.
    """
    import pandas as pd

    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, low_memory=False)


def read_tables(
    spec: DatasetSpec,
    given: Mapping[str, Any],
    imgpath: Path | None,
    dataset: str,
    *,
    whole: bool = True,
) -> dict[str, pd.DataFrame]:
    """Every table of a spec by its argument.

    Args:
        spec: Declares the tables.
        given: Argument to what the caller passed: a path, a DataFrame, USE_INCLUDED_FILE or None.
        imgpath: Folder of the images, for tables that lie inside it.
        dataset: Name for messages.
        whole: Read the columns, too, that a table names as `later`.

    Returns:
        Argument to table; optional tables that were not given are left out.

    Raises:
        DatasetNotFoundError: If a file is missing.
        DatasetError: If a table was not given, or cannot be read.
    """
    tables = {}
    for table in spec.tables:
        argument = given.get(table.argument)
        if is_packaged(table, argument):
            frame: pd.DataFrame | None = _packaged(
                table, getattr(spec.findings, "reads", ()), whole
            )
        else:
            frame = _read_table(table, argument, imgpath, dataset)
        if frame is not None:
            tables[table.argument] = frame
    return tables


def is_packaged(table: Table, given: Any) -> bool:
    """Whether the copy in this package is what a caller means by an argument."""
    unsaid = given is None or (isinstance(given, str) and given == USE_INCLUDED_FILE)
    return unsaid and table.packaged is not None


def _packaged(table: Table, needed: Sequence[str], whole: bool) -> pd.DataFrame:
    from torchxrayvision import tables

    name = str(table.packaged)
    columns = table.columns
    if table.later and not whole:
        later = set(table.later) - set(needed)
        known = columns or tables.info(name).columns
        columns = tuple(column for column in known if column not in later)
    return tables.load(name, columns=columns)


def _read_table(
    table: Table, given: Any, imgpath: Path | None, dataset: str
) -> pd.DataFrame | None:
    import pandas as pd

    if isinstance(given, pd.DataFrame):
        return given
    if given is None or (isinstance(given, str) and given == USE_INCLUDED_FILE):
        given = _inside(table, imgpath)
    if given is None and table.optional:
        return None
    if given is None:
        raise _not_given(table, dataset)
    return _from_path(table, Path(given).expanduser(), dataset)


def _inside(table: Table, imgpath: Path | None) -> Path | None:
    """Where a table lies below the folder of images, if it may lie there."""
    if table.inside is None or imgpath is None:
        return None
    path = imgpath / table.inside
    return None if table.optional and not path.exists() else path


def _from_path(table: Table, path: Path, dataset: str) -> pd.DataFrame:
    import pandas as pd

    if not path.exists():
        raise DatasetNotFoundError(dataset, table.argument, path, table.what)
    try:
        return (table.read or read_csv)(path)
    except (ValueError, KeyError, OSError, pd.errors.ParserError) as error:
        if isinstance(error, DatasetError):
            raise
        msg = (
            f"{dataset}: {table.argument}={str(path)!r} cannot be read as {table.what or 'a table'}"
        )
        raise DatasetError(f"{msg}: {error}") from error


def _not_given(table: Table, dataset: str) -> DatasetError:
    what = f", {table.what}" if table.what else ""
    return DatasetError(
        f"{dataset} needs {table.argument}{what}; it is not packaged, so pass the path of your copy"
    )
