"""From what a user names to the images to read: files, folders, patterns, lists and archives."""

from __future__ import annotations

import glob
import logging
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from torchxrayvision.inference._lists import TABLES, in_lines
from torchxrayvision.inference._patterns import first_time, matches

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

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
_LIST_ERRORS: Final = (OSError, ValueError)
_Item = TypeVar("_Item")


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
    from torchxrayvision.inference._archives import ARCHIVE_ERRORS, list_members

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
