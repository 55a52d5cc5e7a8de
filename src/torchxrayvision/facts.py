"""Value types for the facts that datasets and weights declare. No input or output happens here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = ["LIBRARY", "License", "OwnFile", "PackagedFile", "Reference", "RemoteFile"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A publication to cite.

    Args:
        authors: As the publication prints them, shortened with "et al." if many.
        title: Full title.
        year: Year of publication.
        venue: Journal, conference or archive.
        url: Permanent link, a DOI where there is one.
    """

    authors: str
    title: str
    year: int
    venue: str = ""
    url: str = ""

    def __str__(self) -> str:
        venue = f" {self.venue}," if self.venue else ""
        authors = self.authors.removesuffix(".")  # "et al." ends in the full stop already
        return f"{authors}. {self.title}.{venue} {self.year}. {self.url}".strip()


LIBRARY = Reference(
    authors="Joseph Paul Cohen et al.",
    title="TorchXRayVision: A library of chest X-ray datasets and models",
    year=2022,
    venue="Medical Imaging with Deep Learning",
    url="https://arxiv.org/abs/2111.00595",
)
"""What to cite for the system itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class License:
    """Terms under which data or weights may be used.

    Args:
        name: Name of the licence or agreement.
        url: Where its text stands.
        commercial: Whether commercial use is allowed; None where nobody says.
        note: What a user must know besides.
    """

    name: str
    url: str = ""
    commercial: bool | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file on the network, with what is known about its bytes.

    Args:
        url: Address, https.
        filename: Name in the cache.
        sha256: 64 hexadecimal digits, or None where nobody has published one.
        size: Bytes, or None where unknown.
        certainty: ``"certain"`` when independent sources agree, so that a difference is an
            error; ``"reported"`` when one source says so, so that a difference is a warning.
        copies: Other addresses that may hold the same bytes, asked after `url`. Only what has
            `sha256` is taken from there, so that they are of no use where none is known.

    Raises:
        ValueError: If a field is malformed.
    """

    url: str
    filename: str
    sha256: str | None = None
    size: int | None = None
    certainty: Literal["certain", "reported"] = "certain"
    copies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for url in (self.url, *self.copies):
            if not url.startswith("https://"):
                msg = f"url must start with https://, got {url!r}"
                raise ValueError(msg)
        if self.sha256 is not None:
            _check_sha256(self.sha256)
        _check_bare(self.filename)


@dataclass(frozen=True, kw_only=True, slots=True)
class _LocalFile:
    certainty: ClassVar[Literal["certain"]] = "certain"

    folder: str
    filename: str
    sha256: str
    size: int | None

    def __post_init__(self) -> None:
        _check_sha256(self.sha256)
        _check_bare(self.filename)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagedFile(_LocalFile):
    """A file that is installed with the package.

    Args:
        folder: Folder below that of `torchxrayvision`, with forward slashes.
        filename: Name in that folder.
        sha256: 64 hexadecimal digits.
        size: Bytes.

    Raises:
        ValueError: If a field is malformed.
    """

    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnFile(_LocalFile):
    """A file that a user added to the cache, with its hash of then.

    Args:
        folder: Where it lies, absolute.
        filename: Name in that folder.
        sha256: 64 hexadecimal digits.
        size: Bytes, or None where it is gone.

    Raises:
        ValueError: If a field is malformed.
    """


def _check_sha256(digits: str) -> None:
    if not _SHA256.fullmatch(digits):
        msg = f"sha256 must be 64 lower-case hexadecimal digits, got {digits!r}"
        raise ValueError(msg)


def _check_bare(filename: str) -> None:
    if not filename or "/" in filename or "\\" in filename:
        msg = f"filename must be a bare name, got {filename!r}"
        raise ValueError(msg)
