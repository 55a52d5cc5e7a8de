"""One image that a caller named, and how a file is told to be one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    Listed = Generator[tuple[str, "Member | str"], None, None]

__all__ = ["Member", "Source", "looks_like_image"]

_IMAGE_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".dcm", ".dicom", ".dic", ".ima"}
)
# Content decides for the other files of a folder: DICOM archives use bare identifiers as names.
_SIGNATURES: Final = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"II*\0"), (0, b"MM\0*"))
_DICOM_SIGNATURE: Final = (128, b"DICM")
HEAD: Final = 132


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


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of an image are in its archive.

    Args:
        kind: `"tar"`, `"zip"`, or `"gz"`, `"bz2"`, `"xz"` for a tar within that compression.
        offset: Of the bytes in the (decompressed) tar, or of the local header in the zip.
        size: Bytes of the image.
        packed: Bytes in the zip.
        method: Compression in the zip, 0 or 8; anything else is refused when it is read.
        crc: CRC-32 of the image, zip only.
        stamp: Size and time of the archive when it was listed.
    """

    kind: str
    offset: int
    size: int
    packed: int = 0
    method: int = 0
    crc: int = 0
    stamp: tuple[int, int] = (0, 0)

    def to_list(self) -> list[int | str | list[int]]:
        """The fields, as JSON holds them."""
        return [
            self.kind, self.offset, self.size, self.packed, self.method, self.crc, [*self.stamp]
        ]  # fmt: skip

    @classmethod
    def from_list(cls, fields: list[Any]) -> Member:
        """The member that `to_list` described."""
        kind, offset, size, packed, method, crc, stamp = fields
        return cls(kind, offset, size, packed, method, crc, (stamp[0], stamp[1]))

    @property
    def sequential(self) -> bool:
        """Whether a reader has to pass over everything before it."""
        return self.kind in ("gz", "bz2", "xz")
