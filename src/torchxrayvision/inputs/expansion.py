"""From what a user names to the images to read: files, folders, patterns, lists and archives."""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import glob
import io
import itertools
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from torchxrayvision.csvtext import from_cell, separator_of
from torchxrayvision.images import HEAD
from torchxrayvision.inputs.archives import (
    ARCHIVE_ERRORS,
    InputFile,
    has_image_name,
    list_members,
    looks_like_image,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    Names = Generator[str | None, None, None]

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""What a user names: a file, folder, pattern, list or archive, or several."""

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")


# ---- Names of images in a text file or a table, one by one, whatever their number.

_ROWS: Final = 4096  # of a Parquet table, in memory at a time
_NO_PATHS: Final = "it needs a column of strings named path; it has {}"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_TEXTS: Final = ("string", "large_string", "string_view")


def in_lines(path: Path) -> Names:
    """The lines of a text file in UTF-8, but for empty ones.

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
            first = file.readline()  # a pipe cannot be wound back
            separator, named = separator_of(first)
            lines = file if named else itertools.chain([first], file)
            rows = csv.DictReader(lines, strict=True, delimiter=separator)
            header = list(rows.fieldnames or ())
            if "path" not in header:
                raise ValueError(_NO_PATHS.format(", ".join(header) or "none"))
            for row in rows:
                yield row["path"] and from_cell(row["path"])
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _in_parquet(path: Path) -> Names:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
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


# ---- Folders and patterns, and what in them is no image.

_ARCHIVE_SUFFIXES: Final = (
    ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz",
)  # fmt: skip
_LIST_ERRORS: Final = (OSError, ValueError)
_MOST_KINDS: Final = 6  # of files that are named in a summary
_OTHERS: Final = "not PNG, JPEG, JPEG 2000, TIFF, DICOM, BMP or WebP"


@dataclass(slots=True)
class Skipped:
    """Files of folders and archives that are no images, counted by the endings of their names.

    Args:
        kinds: Extension, in lower case, to the number of files; empty text for files without one.

    Example:
        >>> skipped = Skipped()
        >>> for name in ("a.txt", "b.TXT", "notes"):
        ...     skipped.add(name)
        >>> str(skipped)  # doctest: +ELLIPSIS
        '3 files are not PNG, JPEG, JPEG 2000, TIFF, DICOM, BMP or WebP: 2 .txt, 1 without an ...'
    """

    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, name: str) -> None:
        """Count a file."""
        base = os.path.basename(name)  # noqa: PTH119 - no Path per file
        if base.upper() == "DICOMDIR":
            kind = "DICOMDIR"
        else:
            kind = os.path.splitext(base)[1].lower() or "without an extension"  # noqa: PTH122
        self.kinds[printable(kind)] += 1

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def __str__(self) -> str:
        total = self.kinds.total()
        shown = [f"{count:,} {kind}" for kind, count in self.kinds.most_common(_MOST_KINDS)]
        if (rest := len(self.kinds) - _MOST_KINDS) > 0:
            shown.append(f"and {rest} other kinds")
        are = "file is" if total == 1 else "files are"
        return f"{total:,} {are} {_OTHERS}: {', '.join(shown)}" if total else ""


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a name has the extension of a zip or tar file, compressed ones too."""
    return os.fspath(path).lower().endswith(_ARCHIVE_SUFFIXES)


def is_container(path: Path) -> bool:
    """Whether a name has the extension of an archive or of a table of paths."""
    return is_archive(path) or path.suffix.lower() in TABLES


def _problem(path: Path, given: str, what: str, error: BaseException) -> InputFile:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = printable(f"{what} ({reason or type(error).__name__})")
    _log.info("%s: %s", printable(given), text)
    return InputFile(path, printable(given), problem=text)


def _unlisted(error: OSError, name: str = "") -> InputFile:
    """A row for a folder whose images nobody could count."""
    name = name or str(error.filename)
    return _problem(Path(name), name, "the folder cannot be listed", error)


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


def _walk(folder: str, failed: list[OSError]) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk`, in alphabetical order and into each folder once: links may form circles."""
    met: set[tuple[int, int]] = set()
    # os.walk rather than rglob, which says nothing of what it cannot list.
    for root, folders, files in os.walk(
        folder or os.curdir, onerror=failed.append, followlinks=True
    ):
        with contextlib.suppress(OSError):  # gone meanwhile, which listing it found out
            status = os.stat(root)  # noqa: PTH116 - its device and number, and nothing of its path
            place = (status.st_dev, status.st_ino)
            if place in met and status.st_ino:  # file systems without numbers say 0 for all
                _log.info("%s is a link to a folder that is listed already", root)
                folders.clear()
                continue
            met.add(place)
        folders.sort()
        yield root, folders, sorted(files)


def _is_image(path: str) -> bool | None:
    """Whether a file holds an image by its content; None for what is no file, such as a pipe."""
    try:
        # Asked before it is opened: opening a pipe waits until somebody writes to it.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return None
        with open(path, "rb") as file:  # noqa: PTH123
            return looks_like_image(path, file.read(HEAD))
    except OSError:
        return True  # whoever reads it says why that cannot be done


class _Expansion:
    """What `expand` was asked for."""

    def __init__(self, skipped: Skipped, strict: bool, apart: Path | None) -> None:
        self._skipped = skipped
        self._strict = strict
        self._apart = None if apart is None else os.path.realpath(apart)

    def _is_apart(self, folder: str) -> bool:
        if self._apart is None or os.path.basename(folder) != os.path.basename(self._apart):  # noqa: PTH119
            return False
        return os.path.realpath(folder) == self._apart

    def one(self, given: str, *, lists: bool = True, patterns: bool = True) -> Iterator[InputFile]:
        """What one name stands for. Names in lists are no lists themselves, so none is endless."""
        path = Path(given)
        # Of os.path and not of Path, whose tests raise where a folder may not be entered.
        if lists and given.startswith("@"):
            yield from self._listed(Path(given[1:]), given[1:])
        elif os.path.isdir(path):  # noqa: PTH112
            yield from self._folder(str(path))
        elif patterns and glob.has_magic(given) and not os.path.exists(path):  # noqa: PTH110
            yield from self._pattern(given)
        elif is_archive(given):
            yield from self._archive(path, given)
        elif lists and path.suffix.lower() in TABLES:
            yield from self._listed(path, given)
        else:
            yield InputFile(path, printable(given))

    def _folder(self, folder: str) -> Iterator[InputFile]:
        failed: list[OSError] = []
        for root, folders, files in _walk(folder, failed):
            yield from map(_unlisted, failed)
            failed.clear()
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".") and not self._is_apart(os.path.join(root, name))  # noqa: PTH118
            ]
            for name in files:
                path = os.path.join(root, name)  # noqa: PTH118
                if name[0] == ".":
                    continue
                if has_image_name(name):
                    yield InputFile(Path(path), printable(path))
                else:
                    yield from self._found(path)
        yield from map(_unlisted, failed)

    def _found(self, path: str) -> Iterator[InputFile]:
        if is_archive(path):
            yield from self._archive(Path(path), path)
            return
        image = _is_image(path)
        if image:
            yield InputFile(Path(path), printable(path))
        else:
            reason = _OTHERS if image is not None else "not a regular file"
            yield from self._other(Path(path), path, reason)

    def _other(self, path: Path, given: str, reason: str) -> Iterator[InputFile]:
        """What is in a folder or an archive and is no image."""
        self._skipped.add(given)
        _log.info("%s is %s, left out", printable(given), reason)
        if self._strict:
            yield InputFile(path, printable(given), problem=reason)

    def _archive(self, path: Path, given: str) -> Iterator[InputFile]:
        if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
            yield InputFile(path, printable(given), problem="not a regular file")
            return
        for item in _until_error(list_members(path), ARCHIVE_ERRORS):
            if isinstance(item, Exception):
                yield _problem(path, given, "the archive cannot be listed to its end", item)
                continue
            name, member = item
            named = f"{given}/{name}"
            if member is None:
                yield from self._other(path, named, _OTHERS)
            elif isinstance(member, str):
                yield InputFile(path, printable(named), problem=printable(member))
            else:
                yield InputFile(path, printable(named), member)

    def _listed(self, path: Path, given: str) -> Iterator[InputFile]:
        """What the names in a list or table stand for."""
        names = TABLES.get(path.suffix.lower(), in_lines)
        what = "the list" if names is in_lines else "the table of paths"
        for name in _until_error(names(path), _LIST_ERRORS):
            if isinstance(name, Exception):
                yield _problem(path, given, f"{what} cannot be read", name)
            elif name:
                yield from self.one(name, lists=False)
            else:
                yield InputFile(path, printable(given), problem="a row without a path")

    def _pattern(self, pattern: str) -> Iterator[InputFile]:
        failed: list[OSError] = []
        found: dict[str, OSError | None] = dict.fromkeys(filter(None, _matches(pattern, failed)))
        here = "" if pattern.startswith(os.curdir) else os.path.join(os.curdir, "")  # noqa: PTH118
        found |= {error.filename.removeprefix(here): error for error in failed}
        if not found:
            problem = "the pattern matches no file"
            yield InputFile(Path(pattern), printable(pattern), problem=problem)
        for name, error in sorted(found.items(), key=lambda item: item[0]):
            if error is not None:
                yield _unlisted(error, name)
            elif "**" not in pattern or not os.path.isdir(name):  # noqa: PTH112 - it names all
                yield from self.one(name, lists=False, patterns=False)


def _matches(pattern: str, failed: list[OSError], *, folders_only: bool = False) -> Iterator[str]:
    """What a pattern matches, named as `glob.iglob(pattern, recursive=True)` names it.

    Two differences: `**` goes into each folder once, whatever links there are to it, and folders
    that cannot be listed are kept in `failed`.
    """
    folder, last = os.path.split(pattern)
    parents: Iterable[str] = [folder]
    if folder != pattern and glob.has_magic(folder):
        parents = _matches(folder, failed, folders_only=True)
    for parent in parents:
        if last == "**":
            yield from _below(parent, failed, folders_only=folders_only)
        elif glob.has_magic(last):
            for _, folders, files in itertools.islice(_listing(parent, failed), 1):
                names = fnmatch.filter(folders if folders_only else [*folders, *files], last)
                shown = [name for name in names if last[0] == "." or name[0] != "."]
                yield from (os.path.join(parent, name) for name in shown)  # noqa: PTH118
        elif _is_there(parent, last, failed):
            yield os.path.join(parent, last)  # noqa: PTH118


def _listing(parent: str, failed: list[OSError]) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `_walk`; where no folder is, nothing matches."""
    if "\0" in parent or not os.path.isdir(parent or "."):  # noqa: PTH112
        return iter(())
    return _walk(parent, failed)


def _below(parent: str, failed: list[OSError], *, folders_only: bool) -> Iterator[str]:
    """A folder and all below it that is not hidden."""
    top = os.path.join(parent, "")  # noqa: PTH118 - as glob names it
    for root, folders, files in _listing(top, failed):
        folders[:] = [name for name in folders if name[0] != "."]
        here = root if top else root.removeprefix(".").removeprefix(os.sep)
        yield here  # empty for the current folder
        if not folders_only:
            names = (name for name in files if name[0] != ".")
            yield from (os.path.join(here, name) for name in names)  # noqa: PTH118


def _is_there(folder: str, name: str, failed: list[OSError]) -> bool:
    """Whether a folder has a file of that name; with no name, whether it is a folder."""
    if not name:
        return os.path.isdir(folder)  # noqa: PTH112
    try:
        os.lstat(os.path.join(folder, name))  # noqa: PTH118
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        failed.append(OSError(error.errno, error.strerror, folder or os.curdir))
        return False
    return True


def expand(
    paths: Paths | InputFile | Iterable[str | os.PathLike[str] | InputFile],
    *,
    strict: bool = False,
    skipped: Skipped | None = None,
    apart: Path | None = None,
) -> Iterator[InputFile]:
    """List the images that the paths stand for, in a stable order.

    - A file that is named is taken whatever it is, so that a wrong one is reported.
    - A folder gives the files whose name or first bytes say PNG, JPEG, JPEG 2000, TIFF, DICOM, BMP
      or WebP, also within gzip, and those in its archives, in alphabetical order, those of the
      folder itself first; hidden ones and the table of contents of a disc are left out. Links to
      folders are followed, each folder once.
    - A pattern (`*`, `?`, `[...]`, `**`) gives what it matches, in alphabetical order.
    - `@list.txt` gives the names in a text file in UTF-8, one per line, relative to the current
      folder; `list.csv` and `list.parquet`, with or without the `@`, those in its column `path`.
    - `.zip` and `.tar`, also compressed with gzip, bzip2 or xz, give their images in the order of
      the archive; a zip in alphabetical order.

    What cannot be listed, such as a folder without permission or the rest of a damaged archive,
    gives one file with a `problem`; so does a link inside an archive that cannot be followed.

    An `InputFile` is given as it is, so that an image whose bytes are in memory already goes the
    way of all others.

    Args:
        paths: One or several names of any of these kinds.
        strict: Whether a file of a folder or an archive that is no image gives one with a
            `problem` too.
        skipped: Counts such files.
        apart: A folder that a run keeps its own state in; neither listed nor counted.

    Yields:
        One `InputFile` per image.
    """
    expansion = _Expansion(Skipped() if skipped is None else skipped, strict, apart)
    for given in [paths] if isinstance(paths, str | os.PathLike | InputFile) else paths:
        if isinstance(given, InputFile):
            yield given
        else:
            yield from expansion.one(os.fspath(given))
