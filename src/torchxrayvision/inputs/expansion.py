"""From what a user names to the images to read: files, folders, patterns, lists and archives."""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import glob
import io
import logging
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from torchxrayvision.inputs.source import HEAD, Source, looks_like_image, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    Names = Generator[str | None, None, None]
    Failed = Callable[[OSError], object]

__all__ = ["TABLES", "expand", "first_time", "in_lines", "is_container", "matches"]


# ---- Names of images in a text file or a table, one by one, whatever their number.

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


# ---- Patterns as those of `glob`, which say what they could not look at.


def first_time(folder: str, listed: set[tuple[int, int]]) -> bool:
    """Whether a folder is met for the first time, by whatever name: links may form circles.

    Args:
        folder: The folder.
        listed: Those that were met; this one is added.
    """
    try:
        status = os.stat(folder)  # noqa: PTH116 - its device and number, and nothing of its path
    except OSError:
        return True  # gone meanwhile, which whoever lists it finds out
    place = (status.st_dev, status.st_ino)
    known = place in listed
    listed.add(place)
    return not known or not status.st_ino  # file systems without numbers say 0 for all


def matches(pattern: str, failed: Failed) -> Iterator[str]:
    """What a pattern matches, named as `glob.iglob(pattern, recursive=True)` names it.

    The one difference: `**` goes into each folder once, whatever links there are to it.

    Args:
        pattern: With `*`, `?`, `[...]`, and `**` for any depth of folders.
        failed: Called with the error where a folder cannot be listed.
    """
    found = _found(pattern, failed, folders_only=False)
    return (name for name in found if name)  # a leading ** also matches no folder at all


def _found(pattern: str, failed: Failed, *, folders_only: bool) -> Iterator[str]:
    folder, last = os.path.split(pattern)
    folders: Iterator[str] = iter([folder])
    if folder != pattern and glob.has_magic(folder):
        folders = _found(folder, failed, folders_only=True)
    for each in folders:
        if last == "**":
            yield from _anywhere(each, failed, folders_only=folders_only)
        elif glob.has_magic(last):
            names = [name for name, _ in _entries(each, failed, folders_only=folders_only)]
            shown = [name for name in names if last[0] == "." or name[0] != "."]
            yield from (os.path.join(each, name) for name in fnmatch.filter(shown, last))  # noqa: PTH118
        elif _is_there(each, last, failed):
            yield os.path.join(each, last)  # noqa: PTH118


def _anywhere(folder: str, failed: Failed, *, folders_only: bool) -> Iterator[str]:
    """A folder and all below it that is not hidden."""
    if folder and not os.path.isdir(folder):  # noqa: PTH112
        return
    listed: set[tuple[int, int]] = set()
    waiting = [os.path.join(folder, "")]  # noqa: PTH118
    while waiting:
        here = waiting.pop()
        if not first_time(here or os.curdir, listed):
            continue
        yield here
        shown = [e for e in _entries(here, failed, folders_only=folders_only) if e[0][0] != "."]
        paths = [(os.path.join(here, name), is_folder) for name, is_folder in sorted(shown)]  # noqa: PTH118
        yield from (path for path, is_folder in paths if not is_folder)
        waiting += [path for path, is_folder in reversed(paths) if is_folder]


def _entries(folder: str, failed: Failed, *, folders_only: bool) -> Iterator[tuple[str, bool]]:
    """Names in a folder, and whether they are folders themselves."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            for entry in entries:
                is_folder = _is_folder(entry)
                if is_folder or not folders_only:
                    yield entry.name, is_folder
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return  # where no folder is, nothing matches
    except OSError as error:
        failed(OSError(error.errno, error.strerror, folder or os.curdir))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to where nobody may look
        return False


def _is_there(folder: str, name: str, failed: Failed) -> bool:
    """Whether a folder has a file of that name; with no name, whether it is a folder."""
    if not name:
        return os.path.isdir(folder)  # noqa: PTH112
    try:
        os.lstat(os.path.join(folder, name))  # noqa: PTH118
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        failed(OSError(error.errno, error.strerror, folder or os.curdir))
        return False
    return True


_log = logging.getLogger(__name__)
_ARCHIVE_SUFFIXES: Final = (
    ".zip",
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
)
_LIST_ERRORS: Final = (OSError, ValueError)
_Item = TypeVar("_Item")


def is_container(path: Path) -> bool:
    """Whether the name is that of an archive or a table of paths."""
    return path.name.lower().endswith((*_ARCHIVE_SUFFIXES, *TABLES))


def _problem(path: Path, given: str, what: str, error: BaseException) -> Source:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = printable(f"{what} ({reason or type(error).__name__})")
    _log.warning("%s: %s", printable(given), text)
    return Source(path, printable(given), problem=text)


def _until_error(
    items: Generator[_Item, None, None], errors: tuple[type[Exception], ...]
) -> Iterator[_Item | Exception]:
    """The items, and last the error that ends them, if one does; errors of the caller pass."""
    with closing(items):
        while True:
            try:
                item: _Item | Exception = next(items)
            except StopIteration:
                return
            except errors as error:
                item = error
            yield item
            if isinstance(item, Exception):
                return


def _image_file(path: Path) -> bool:
    if looks_like_image(path.name, b""):
        return True
    try:
        with path.open("rb") as file:
            return looks_like_image(path.name, file.read(HEAD))
    except OSError:
        return False


def _walk(folder: Path) -> Iterator[Source]:
    failed: list[OSError] = []
    listed: set[tuple[int, int]] = set()
    # os.walk rather than rglob, which says nothing of what it cannot list.
    for root, folders, files in os.walk(folder, onerror=failed.append, followlinks=True):
        while failed:
            yield _unlisted(failed.pop(0))
        if not first_time(root, listed):
            _log.info("%s is a link to a folder that is listed already", root)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if name.startswith("."):
                continue
            if _image_file(path):
                yield Source(path, printable(str(path)))
            else:
                _log.info("%s is not an image, left out", path)
    while failed:
        yield _unlisted(failed.pop(0))


def _unlisted(error: OSError) -> Source:
    """A row for a folder whose images nobody could count."""
    return _problem(Path(error.filename), str(error.filename), "the folder cannot be listed", error)


def _archive(path: Path, given: str) -> Iterator[Source]:
    from torchxrayvision.inputs.archives import ARCHIVE_ERRORS, list_members

    for item in _until_error(list_members(path), ARCHIVE_ERRORS):
        if isinstance(item, Exception):
            yield _problem(path, given, "the archive cannot be listed to its end", item)
            continue
        name, member = item
        named = printable(f"{given}/{name}")
        if isinstance(member, str):
            yield Source(path, named, problem=printable(member))
        else:
            yield Source(path, named, member)


def _listed(path: Path, given: str) -> Iterator[Source]:
    """What the names in a list or table stand for."""
    names = TABLES.get(path.suffix.lower(), in_lines)
    what = "the list" if names is in_lines else "the table of paths"
    for name in _until_error(names(path), _LIST_ERRORS):
        if isinstance(name, Exception):
            yield _problem(path, given, f"{what} cannot be read", name)
        elif name:
            yield from _one(name, lists=False)
        else:
            yield Source(path, printable(given), problem="a row without a path")


def _pattern(pattern: str) -> Iterator[Source]:
    failed: list[OSError] = []
    found: dict[str, OSError | None] = dict.fromkeys(matches(pattern, failed.append))
    found |= {error.filename: error for error in failed}
    if not found:
        yield Source(Path(pattern), printable(pattern), problem="the pattern matches no file")
    for name, error in sorted(found.items(), key=lambda item: item[0]):
        if error is not None:
            yield _unlisted(error)
        elif "**" not in pattern or not os.path.isdir(name):  # noqa: PTH112 - it names all folders
            yield from _one(name, lists=False, patterns=False)


def _one(given: str, *, lists: bool = True, patterns: bool = True) -> Iterator[Source]:
    """What one name stands for. Names in lists are no lists themselves, so none is endless."""
    path = Path(given)
    # Of os.path and not of Path, whose tests raise where a folder on the way may not be entered.
    if lists and given.startswith("@"):
        yield from _listed(Path(given[1:]), given[1:])
    elif os.path.isdir(path):  # noqa: PTH112
        yield from _walk(path)
    elif patterns and glob.has_magic(given) and not os.path.exists(path):  # noqa: PTH110
        yield from _pattern(given)
    elif given.lower().endswith(_ARCHIVE_SUFFIXES):
        yield from _archive(path, given)
    elif lists and path.suffix.lower() in TABLES:
        yield from _listed(path, given)
    else:
        yield Source(path, printable(given))


def expand(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Source]:
    """List the images that the paths stand for, in a stable order.

    - A file that is named is taken whatever it is, so that a wrong one is reported.
    - A folder gives the files whose name or first bytes say PNG, JPEG, TIFF or DICOM, in
      alphabetical order, those of the folder itself first; hidden ones and archives are left out.
      Links to folders are followed, each folder once.
    - A pattern (`*`, `?`, `[...]`, `**`) gives what it matches, in alphabetical order.
    - `@list.txt` gives the names in a text file in UTF-8, one a line, relative to the current
      folder; `list.csv` and `list.parquet`, with or without the `@`, those in its column `path`.
    - `.zip` and `.tar`, also compressed with gzip, bzip2 or xz, give their images in the order of
      the archive; a zip in alphabetical order.

    What cannot be listed, such as a folder without permission or the rest of a damaged archive,
    gives one source with a `problem`; so does a link inside an archive that cannot be followed.

    Args:
        paths: Names of any of these kinds.

    Yields:
        One source an image.
    """
    for given in paths:
        yield from _one(os.fspath(given))
