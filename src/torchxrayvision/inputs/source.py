"""One image that a user named: where its bytes are, and how results call it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ImageReadError
from torchxrayvision.images import sniff

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["InputFile", "Member", "has_image_name", "looks_like_image", "printable"]

# These need not be opened to be listed; what they hold is found out when they are read.
_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".webp", ".dcm", ".dicom", ".dic",
     ".ima"}
)  # fmt: skip
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One image to read, or what stands for images that cannot be listed.

    Args:
        path: The file, or the archive that holds it.
        given: How results name it: as the user gave it, or as found below a given folder; the
            path of an archive, a slash and the name inside for its members.
        member: Where in the archive it is, or None for a file of its own.
        problem: Why there is nothing to read, such as a folder that may not be listed.
        data: Its bytes, where they were read already.
    """

    path: Path
    given: str
    member: Member | None = None
    problem: str = ""
    data: bytes | None = field(default=None, repr=False)


def has_image_name(name: str) -> bool:
    """Whether the name of a file ends like that of an image; packed with gzip or not."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - no Path per file
    suffix = suffix.lower()
    return suffix in _SUFFIXES or (suffix == ".gz" and has_image_name(stem))


def looks_like_image(name: str, head: bytes) -> bool:
    """Whether a file counts as an image, by the end of its name or its first bytes.

    Args:
        name: Its name.
        head: Its first `torchxrayvision.images.HEAD` bytes; may be empty where the name decides.

    Returns:
        Whether it is to be read.
    """
    try:
        return has_image_name(name) or bool(head and sniff(head, name))
    except ImageReadError:
        return False


def printable(name: str) -> str:
    r"""The name as text for tables and terminals.

    Bytes that are not UTF-8 are written as `\xNN`, and so are control characters, which a terminal
    would obey, and marks that turn the direction of writing.

    Args:
        name: Of a file, as the operating system gives it.

    Returns:
        The name, on one line.

    Example:
        >>> printable("a\x1b[2J.png")
        'a\\x1b[2J.png'
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of an image are in its archive.

    Args:
        kind: `"tar"`, `"zip"`, or `"gz"`, `"bz2"`, `"xz"` for a tar within that compression.
        offset: Of the bytes in the (decompressed) tar, or of the local header in the zip.
        size: Bytes of the image.
        stamp: Size and time of the archive when it was listed.
    """

    kind: str
    offset: int
    size: int
    stamp: tuple[int, int] = (0, 0)

    def to_list(self) -> list[int | str | list[int]]:
        """The fields, as JSON holds them."""
        return [self.kind, self.offset, self.size, [*self.stamp]]

    @classmethod
    def from_list(cls, fields: list[Any]) -> Member:
        """The member that `to_list` described."""
        kind, offset, size, stamp = fields
        return cls(kind, offset, size, (stamp[0], stamp[1]))

    @property
    def sequential(self) -> bool:
        """Whether a reader has to pass over everything before it."""
        return self.kind in ("gz", "bz2", "xz")
