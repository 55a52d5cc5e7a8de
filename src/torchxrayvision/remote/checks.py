"""Whether the bytes of a file are the right ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from torchxrayvision.facts import PackagedFile, RemoteFile
    from torchxrayvision.remote.pins import Pin

__all__ = ["Status", "Verification", "examine", "sha256_of"]

Status = Literal[
    "published",
    "reported",
    "pinned",
    "unknown",
    "contradicted",
    "different",
    "changed",
    "page",
    "missing",
]

_REJECTED = frozenset({"different", "changed", "page", "missing"})
# What servers, proxies and version control put in the place of a file. No checkpoint starts so.
_PAGES = {
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML answer",
    b"version https://git-lfs": "a Git LFS pointer",
}
_TEXT_SUFFIXES = (".html", ".htm", ".xml", ".svg")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What is known about the bytes of a file.

    Args:
        path: The file.
        status: One of

            - ``"published"``: the checksum that independent sources agree on;
            - ``"reported"``: the checksum that one source reports;
            - ``"pinned"``: unchanged since it was first trusted;
            - ``"unknown"``: nothing to compare with;
            - ``"contradicted"``: not what one source reports, and not pinned;
            - ``"different"``: not what is published;
            - ``"changed"``: not what was first trusted;
            - ``"page"``: a web page or a pointer in the place of the file;
            - ``"missing"``: no such file.
        reason: One clause for a reader.
        size: Bytes, or None if missing.
        sha256: Hash of the bytes, or None if missing.
        expected: Hash that was expected, or None where none is known.
    """

    path: Path
    status: Status
    reason: str
    size: int | None = None
    sha256: str | None = None
    expected: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the file may be used."""
        return self.status not in _REJECTED

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def examine(path: Path, file: RemoteFile | PackagedFile, pin: Pin | None) -> Verification:
    """Hash a file and compare it with what is published and with what was pinned.

    Args:
        path: The file, under whatever name.
        file: What is published about it.
        pin: What it was when it was first trusted, or None.

    Returns:
        The outcome.
    """
    try:
        size = path.stat().st_size
        page = _page(path, file.filename)
        digest = sha256_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return Verification(path=path, status="missing", reason="there is no such file")
    # A published checksum is right whatever the file looks like.
    if page and digest != file.sha256:
        status: Status = "page"
        reason = f"it is {page}, not the file"
    else:
        status, reason = _compare(file, size, digest, pin)
    expected = file.sha256 or (pin.sha256 if pin else None)
    return Verification(
        path=path, status=status, reason=reason, size=size, sha256=digest, expected=expected
    )


def _compare(
    file: RemoteFile | PackagedFile, size: int, digest: str, pin: Pin | None
) -> tuple[Status, str]:
    difference = _difference(file, size, digest)
    if file.certainty == "certain":
        if difference:
            return "different", difference
        if file.sha256:
            return "published", "its checksum is the published one"
    if not difference and file.sha256:
        return "reported", "its checksum is the one that a single source reports"
    if pin:
        if pin.sha256 == digest:
            return "pinned", f"it is unchanged since {pin.date}"
        return "changed", f"sha256 {digest} is not {pin.sha256}, which was trusted on {pin.date}"
    if difference:
        return "contradicted", difference
    return "unknown", "nobody has published its checksum"


def _difference(file: RemoteFile | PackagedFile, size: int, digest: str) -> str:
    if file.size is not None and size != file.size:
        return f"it has {size:,} bytes instead of {file.size:,}"
    if file.sha256 is not None and digest != file.sha256:
        return f"its sha256 is {digest} instead of {file.sha256}"
    return ""


def _page(path: Path, filename: str) -> str:
    if filename.lower().endswith(_TEXT_SUFFIXES):
        return ""
    with path.open("rb") as handle:
        head = handle.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((what for start, what in _PAGES.items() if head.startswith(start)), "")
