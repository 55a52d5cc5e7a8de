"""Reading the tables of a release: packaged, from a path, or handed over as a DataFrame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.release import USE_INCLUDED_FILE
from torchxrayvision.datasets.storage import ordinary
from torchxrayvision.errors import DatasetError, DatasetNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from torchxrayvision.datasets.pipeline import SpecDataset
    from torchxrayvision.datasets.spec import DatasetSpec, Table


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """A csv (plain, gzip, zip, bz2, xz) or parquet table; `options` are those of `pandas.read_csv`.

    Numbers are numbers, anything else is text. A column in which a number would lose something,
    such as the zeros of 007 or the last of twenty digits, is text.
    """
    import pandas as pd

    from torchxrayvision.csvtext import check_parquet, open_table

    if path.suffix == ".parquet":
        check_parquet(path)
        return pd.read_parquet(path, page_checksum_verification=True)
    with open_table(path) as table:
        frame: pd.DataFrame = pd.read_csv(table, low_memory=False, **options)
    numeric = [str(name) for name in frame.columns if frame[name].dtype.kind in "iufb"]
    if numeric and isinstance(frame.index, pd.RangeIndex):
        written = read_as_text(path, numeric, **options)
        lossy = {name: written[name] for name in numeric if _loses_as_number(written[name])}
        return frame.assign(**lossy)
    return frame


def read_as_text(path: Path, columns: Iterable[str], **options: Any) -> pd.DataFrame:
    """Columns of a csv file as they are written there, stripped of space; blanks missing."""
    import pandas as pd

    from torchxrayvision.csvtext import open_table

    wanted = frozenset(columns)
    with open_table(path) as table:
        frame: pd.DataFrame = pd.read_csv(
            table,
            dtype=str,
            low_memory=False,  # else pandas asks a damaged stream for more without end
            keep_default_na=False,
            na_values=["", "nan", "NaN", "<NA>"],
            **{**options, "usecols": lambda name: name in wanted},
        )
    return frame.assign(**{str(name): frame[name].str.strip() for name in frame.columns})


def _loses_as_number(text: pd.Series[Any]) -> bool:
    """Whether some value is an identifier that a number cannot hold: 007, 12e4, 20 digits."""
    written = text.dropna().drop_duplicates()
    return bool(written.str.fullmatch(r"[+-]?0\d+|\d{17,}|\d+[eE]\d+").any())


def read_tables(
    spec: DatasetSpec,
    given: Mapping[str, Any],
    imgpath: Path | None,
    dataset: str,
    *,
    whole: bool = True,
) -> dict[str, pd.DataFrame]:
    """Every table of a spec by its argument; optional tables that were not given are left out.

    Args:
        spec: Declares the tables.
        given: Argument to what the caller passed: a path, a DataFrame, USE_INCLUDED_FILE or None.
        imgpath: Folder of the images, for tables that lie inside it.
        dataset: Name for messages.
        whole: Read the `deferred_columns`, too.

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
    if table.deferred_columns and not whole:
        later = set(table.deferred_columns) - set(needed)
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
    if table.path_below_imgpath is None or imgpath is None:
        return None
    path = imgpath / table.path_below_imgpath
    return None if table.optional and not path.exists() else path


def _from_path(table: Table, path: Path, dataset: str) -> pd.DataFrame:
    if not path.exists():
        raise DatasetNotFoundError(dataset, table.argument, path, table.description)
    if not (path.is_file() or path.is_dir()):  # reading a pipe may wait for ever
        msg = f"{dataset}: {table.argument}={str(path)!r} is not a regular file"
        raise DatasetError(msg)
    try:
        return (table.read or read_csv)(path)
    except DatasetError:
        raise
    except Exception as error:  # parsers of tables and of their packing raise what they like
        what = table.description or "a table"
        msg = f"{dataset}: {table.argument}={str(path)!r} cannot be read as {what}: {error}"
        if isinstance(error, UnicodeDecodeError):
            msg += "; in a spreadsheet save it as CSV UTF-8"
        raise DatasetError(msg) from error


def _not_given(table: Table, dataset: str) -> DatasetError:
    what = f", {table.description}" if table.description else ""
    return DatasetError(
        f"{dataset} needs {table.argument}{what}; it is not packaged, so pass the path of your copy"
    )


# ---- Tables of a release as they were read, for the attributes of 1.5.7 that hold them.


def release_table(dataset: SpecDataset, argument: str) -> pd.DataFrame:
    """A table of a release, with all its columns and the types that pandas gives a csv file.

    1.5.7 keeps these tables in memory. Here only those that masks need are kept; the others are
    read again when somebody looks.

    Raises:
        AttributeError: If the caller passed a DataFrame, which the caller still has.
    """
    context, name = dataset._context, type(dataset).__name__
    packaged = argument in context.packaged
    (table,) = (table for table in dataset.spec.tables if table.argument == argument)
    kept = context.tables.get(argument)
    if kept is None or (packaged and table.columns is not None):
        given: Any = dataset.__dict__.get(argument)
        if given is None and not packaged:
            msg = f"{name}: the DataFrame given as {argument} is not kept; use your own"
            raise AttributeError(msg)
        spec = replace(dataset.spec, tables=(replace(table, columns=None),))
        place = context.roots.get("imgpath")
        kept = read_tables(spec, {argument: given}, place, name)[argument]
    return ordinary(kept, frozenset(), packaged)
