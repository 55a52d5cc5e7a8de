"""Patterns as those of `glob`, which say what they could not look at."""

from __future__ import annotations

import fnmatch
import glob
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Failed = Callable[[OSError], object]

__all__ = ["first_time", "matches"]


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
