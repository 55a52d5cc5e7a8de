"""Files that are whole or absent, what made them, whether one has changed, and their hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from torchxrayvision import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "PROVENANCE_KEY",
    "PROVENANCE_SUFFIX",
    "FileState",
    "Provenance",
    "put_in_place",
    "sha256_of",
    "sync_folder",
    "write_atomically",
]

PROVENANCE_KEY: Final = "torchxrayvision"
"""Under which Parquet and PNG files, and HTML pages, hold their provenance."""
PROVENANCE_SUFFIX: Final = ".provenance.json"
"""What the name of a table is followed by in the name of the file that says what made it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What made a file. No time and no user: the same call writes the same bytes.

    Args:
        command: What wrote it, such as ``"xrv predict"``.
        weights: Name of the weights; None where no network took part.
        weights_sha256: Of the tensors, targets and operating points, see `runs.fingerprint`.
        output: What the numbers are: ``"logit"``, ``"probability"``, ``"operating-point"``.
        calibration: The calibration that was applied, if one was, with its hash.
        preprocessing: What happens to an image before the network sees it.
        options: Other options of the command that decide what the file holds.
        inputs: What was read: how many images, and the SHA-256 of their names or of a table.
        package: Name and version of what wrote it.

    Example:
        >>> Provenance(command="xrv predict", weights="demo", output="logit").to_dict()["weights"]
        'demo'
    """

    command: str
    weights: str | None = None
    weights_sha256: str | None = None
    output: str | None = None
    calibration: Mapping[str, Any] | None = None
    preprocessing: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    package: str = f"torchxrayvision {__version__}"

    def to_dict(self) -> dict[str, Any]:
        """What is known, for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value not in (None, {})}

    def to_json(self) -> str:
        """One line of ASCII, the same for the same provenance."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def write_beside(self, content: Path, target: Path) -> None:
        """Write ``<name>.provenance.json`` beside a table that has no place for it inside.

        It holds the SHA-256 of the table, so that it is not taken for that of another one, whatever
        happens between the two and whoever edits the table.

        Args:
            content: Where the finished table is now.
            target: What it will be called; may be the same.
        """
        record = {**self.to_dict(), "file_sha256": sha256_of(content)}
        beside = target.with_name(target.name + PROVENANCE_SUFFIX)
        with write_atomically(beside) as part:
            part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")


class FileState(NamedTuple):
    """What changes when somebody writes to a file.

    Args:
        size: Bytes.
        mtime_ns: Time of the content.
        ctime_ns: Time of the entry, which cannot be set back, so that a copy over the file shows.
        inode: Number of the file, another one after it was replaced.
        device: Of the file system.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     before = FileState.of(file.name)
        ...     file.write(b"more"), file.flush()
        ...     before == FileState.of(file.name), FileState.of(file.name).size
        (4, None)
        (False, 4)
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, file: str | os.PathLike[str] | int) -> FileState:
        """The state of a file now.

        Args:
            file: Its path, or the descriptor under which it is open.

        Raises:
            OSError: If there is none.
        """
        status = os.stat(file)  # noqa: PTH116 - a descriptor too
        times = status.st_mtime_ns, status.st_ctime_ns
        return cls(status.st_size, *times, status.st_ino, status.st_dev)

    @property
    def content(self) -> tuple[int, int]:
        """Size and time of the content, which copies on other machines share."""
        return self.size, self.mtime_ns


def sha256_of(source: str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]) -> str:
    """SHA-256 in hexadecimal.

    Args:
        source: Bytes, a path, or a file that is open for reading bytes.

    Raises:
        OSError: If it cannot be read.

    Example:
        >>> sha256_of(b"image")[:8]
        '6105d6cc'
    """
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    if isinstance(source, bytes | bytearray | memoryview):
        return hashlib.sha256(source).hexdigest()
    return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Write a file that is whole or, whatever stops the process, absent or as it was.

    Args:
        path: The file.
        durable: Whether a power cut leaves the old or the new one too; it takes milliseconds.

    Yields:
        The path to write to, in the same folder and with the same extension. It gets its name
        when the block ends well, and is removed when it does not.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_atomically(f"{folder}/a.txt") as part:
        ...         size = part.write_text("whole")
        ...     [(found.name, found.read_text()) for found in Path(folder).iterdir()]
        [('a.txt', 'whole')]
    """
    target = Path(path)
    name = f".{target.stem[:40]}.{uuid.uuid4().hex}.part{target.suffix[:20]}"
    part = target.with_name(name)
    try:
        yield part
        put_in_place(part, target, durable=durable)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def put_in_place(source: Path, target: Path, *, durable: bool = True) -> None:
    """Give a finished file its name; a power cut leaves the old file or the new one.

    Args:
        source: The file, on the same file system.
        target: Its name; replaced if it exists.
        durable: See `write_atomically`.
    """
    if durable:
        with source.open("rb+") as file:
            os.fsync(file.fileno())
    source.replace(target)
    if durable:
        sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; Windows and some network file systems refuse."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
