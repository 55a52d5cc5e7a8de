"""From what a user names to the images to read: files, folders, patterns, lists and archives."""

from __future__ import annotations

import csv
import glob
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torchxrayvision.inference._archives import Member

__all__ = ["Source", "expand", "is_container", "looks_like_image"]

_log = logging.getLogger(__name__)

_IMAGE_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".dcm", ".dicom", ".dic", ".ima"}
)
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
# Content decides for the other files of a folder: DICOM archives use bare identifiers as names.
_SIGNATURES: Final = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"II*\0"), (0, b"MM\0*"))
_DICOM_SIGNATURE: Final = (128, b"DICM")
HEAD: Final = 132
_ROWS: Final = 4096  # of a table of paths, in memory at a time
_NO_PATHS: Final = "it needs a column of strings named path; it has {}"


@dataclass(frozen=True, slots=True)
class Source:
    """One image to read, or what stands for images that cannot be listed.

    Args:
        path: The file, or the archive that holds it.
        given: How results name it: as the user gave it, or as found below a given folder; the
            path of an archive, a slash and the name inside for its members.
        member: Where in the archive it is, or None for a file of its own.
        problem: Why there is nothing to read, such as a folder that may not be listed.
    """

    path: Path
    given: str
    member: Member | None = None
    problem: str = ""


def looks_like_image(name: str, head: bytes) -> bool:
    """Whether a file counts as an image, by the end of its name or its first bytes.

    Args:
        name: Its name.
        head: Its first `HEAD` bytes; may be empty where the name decides.
    """
    if os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES:  # noqa: PTH122 - no Path a file
        return True
    return any(head[at : at + len(s)] == s for at, s in (*_SIGNATURES, _DICOM_SIGNATURE))


def printable(name: str) -> str:
    r"""The name as text that every table format holds, bytes that are not UTF-8 as `\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_container(path: Path) -> bool:
    """Whether the name is that of an archive or a table of paths."""
    return path.name.lower().endswith((*_ARCHIVE_SUFFIXES, *_TABLES))


def _problem(path: Path, given: str, what: str, error: BaseException) -> Source:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = f"{what} ({reason or type(error).__name__})"
    _log.warning("%s: %s", path, text)
    return Source(path, printable(given), problem=text)


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
    # os.walk rather than rglob: it does not follow links into cycles and lists each folder once.
    for root, folders, files in os.walk(folder, onerror=failed.append):
        while failed:
            yield _unlisted(failed.pop(0))
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
    from torchxrayvision.inference._archives import ARCHIVE_ERRORS, list_members

    try:
        for name, member in list_members(path):
            yield Source(path, printable(f"{given}/{name}"), member)
    except ARCHIVE_ERRORS as error:
        yield _problem(path, given, "the archive cannot be listed to its end", error)


def _lines(path: Path, given: str) -> Iterator[Source]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            for line in file:
                name = line.rstrip("\r\n")
                if name:
                    yield from _one(name, lists=False)
    except OSError as error:
        yield _problem(path, given, "the list cannot be read", error)


def _table(path: Path, given: str) -> Iterator[Source]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            column = _path_column(file.schema_arrow, pa)
            for batch in file.iter_batches(_ROWS, columns=[column]):
                for name in batch.column(0).to_pylist():
                    if name:
                        yield from _one(name, lists=False)
                    else:
                        yield Source(path, printable(given), problem="a row without a path")
    except (OSError, ValueError, pa.ArrowException) as error:
        yield _problem(path, given, "the table of paths cannot be read", error)


def _path_column(schema: Any, pa: Any) -> str:
    """The column `path`, or the only one of strings."""
    texts = [
        f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
    ]
    if "path" in texts:
        return "path"
    if len(texts) == 1:
        return str(texts[0])
    raise ValueError(_NO_PATHS.format(", ".join(schema.names) or "none"))


def _csv(path: Path, given: str) -> Iterator[Source]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            header = list(rows.fieldnames or ())
            if "path" not in header:
                raise ValueError(_NO_PATHS.format(", ".join(header) or "none"))
            for row in rows:
                if row["path"]:
                    yield from _one(row["path"], lists=False)
                else:
                    yield Source(path, printable(given), problem="a row without a path")
    except (OSError, ValueError, csv.Error) as error:
        yield _problem(path, given, "the table of paths cannot be read", error)


_TABLES: Final = {".csv": _csv, ".parquet": _table}


def _pattern(pattern: str) -> Iterator[Source]:
    found = sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207 - a pattern, maybe absolute
    if not found:
        yield Source(Path(pattern), printable(pattern), problem="the pattern matches no file")
    for name in found:
        if "**" not in pattern or not os.path.isdir(name):  # noqa: PTH112 - ** names all folders
            yield from _one(name, lists=False, patterns=False)


def _one(given: str, *, lists: bool = True, patterns: bool = True) -> Iterator[Source]:
    """What one name stands for. Names in lists are no lists themselves, so none is endless."""
    path = Path(given)
    lower = given.lower()
    if lists and given.startswith("@"):
        target = Path(given[1:])
        yield from _TABLES.get(target.suffix.lower(), _lines)(target, given[1:])
    elif path.is_dir():
        yield from _walk(path)
    elif patterns and glob.has_magic(given) and not path.exists():
        yield from _pattern(given)
    elif lower.endswith(_ARCHIVE_SUFFIXES):
        yield from _archive(path, given)
    elif lists and path.suffix.lower() in _TABLES:
        yield from _TABLES[path.suffix.lower()](path, given)
    else:
        yield Source(path, printable(given))


def expand(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Source]:
    """List the images that the paths stand for, in a stable order.

    - A file that is named is taken whatever it is, so that a wrong one is reported.
    - A folder gives the files whose name or first bytes say PNG, JPEG, TIFF or DICOM, in
      alphabetical order, those of the folder itself first; hidden ones and archives are left out.
    - A pattern (`*`, `?`, `[...]`, `**`) gives what it matches, in alphabetical order.
    - `@list.txt` gives the names in a text file, one a line, relative to the current folder;
      `list.csv` and `list.parquet`, with or without the `@`, those in its column `path`.
    - `.zip` and `.tar`, also compressed with gzip, bzip2 or xz, give their images in the order of
      the archive; a zip in alphabetical order.

    What cannot be listed, such as a folder without permission, gives one source with a `problem`.

    Args:
        paths: Names of any of these kinds.

    Yields:
        One source an image.
    """
    for given in paths:
        yield from _one(os.fspath(given))
