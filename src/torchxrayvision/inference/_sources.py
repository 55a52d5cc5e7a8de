"""From what a user names, files and folders, to the list of files to read."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Source", "expand"]

_log = logging.getLogger(__name__)

_IMAGE_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".dcm", ".dicom", ".dic", ".ima"}
)
# Content decides for the other files of a folder: DICOM archives use bare identifiers as names.
_SIGNATURES: Final = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"II*\0"), (0, b"MM\0*"))
_DICOM_SIGNATURE: Final = (128, b"DICM")


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Args:
        path: Where it is.
        given: How results name it: as the user gave it, or as found below a given folder.
    """

    path: Path
    given: str


def _looks_like_image(path: Path) -> bool:
    if path.suffix.lower() in _IMAGE_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return any(head[at : at + len(s)] == s for at, s in (*_SIGNATURES, _DICOM_SIGNATURE))


def _walk(folder: Path) -> Iterator[Path]:
    # os.walk rather than rglob: it does not follow links into cycles and lists each folder once.
    for root, folders, files in os.walk(folder, onerror=lambda e: _log.warning("%s", e)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if name.startswith("."):
                continue
            if _looks_like_image(path):
                yield path
            else:
                _log.info("%s is not an image, left out", path)


def expand(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Source]:
    """List the files that the paths stand for, in a stable order.

    A file that is named is taken whatever it is, so that a wrong one is reported. In a folder,
    files are taken whose name or first bytes say PNG, JPEG, TIFF or DICOM; hidden ones are not.

    Args:
        paths: Files and folders.

    Yields:
        One source a file; folders are walked in alphabetical order.
    """
    for given in paths:
        path = Path(given)
        if path.is_dir():
            for found in _walk(path):
                yield Source(found, str(found))
        else:
            yield Source(path, os.fspath(given))
