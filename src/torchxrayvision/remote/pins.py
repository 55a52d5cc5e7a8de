"""The record of what the files in a cache folder were when they were first trusted."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import ChecksumError
from torchxrayvision.remote.storage import write_atomically

if TYPE_CHECKING:
    import os
    from pathlib import Path

__all__ = ["Pin", "Pins"]

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """What a file was when it was last hashed.

    Args:
        url: Where it is published.
        sha256: Its hash.
        size: Bytes.
        mtime_ns: Time of change then; with the size it tells whether to hash again.
        status: How far it is to be trusted, a `Verification.status`.
        date: When, UTC, ISO 8601.
    """

    url: str
    sha256: str
    size: int
    mtime_ns: int
    status: str
    date: str

    def is_current(self, stat: os.stat_result) -> bool:
        """Whether the file is as it was when it was hashed, by size and time of change."""
        return (self.size, self.mtime_ns) == (stat.st_size, stat.st_mtime_ns)


def now() -> str:
    """The date and time, UTC, as a pin records it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Pins:
    """The file ``pins.json`` of a cache folder: one `Pin` for each file name.

    Args:
        folder: The cache folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pins.json"

    def get(self, filename: str) -> Pin | None:
        """The pin of a file, or None.

        Raises:
            ChecksumError: If the record exists and cannot be read.
        """
        entry = self._read().get(filename)
        if entry is None:
            return None
        try:
            pin = Pin(**entry)
        except TypeError as error:
            raise self._damaged(f"entry {filename!r}: {error}") from error
        types = (pin.url, pin.sha256, pin.status, pin.date)
        if not all(isinstance(value, str) for value in types):
            raise self._damaged(f"entry {filename!r} holds a value of the wrong type")
        return pin

    def set(self, filename: str, pin: Pin | None) -> None:
        """Record a pin, or remove it with None.

        Raises:
            ChecksumError: If the record exists and cannot be read.
            OSError: If the folder cannot be written to.
        """
        import filelock

        lock = filelock.FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS)
        try:
            with lock:
                files = self._read()
                files.pop(filename, None)
                if pin is not None:
                    files[filename] = asdict(pin)
                text = json.dumps({"version": 1, "files": files}, indent=1, sort_keys=True)
                write_atomically(self.path, text + "\n")
        except NotImplementedError as error:  # a file system without locks
            raise OSError(str(error)) from error

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from error
        files = content.get("files") if isinstance(content, dict) else None
        if not isinstance(files, dict) or not all(isinstance(v, dict) for v in files.values()):
            raise self._damaged("it is not a table of files")
        return files

    def _damaged(self, reason: str) -> ChecksumError:
        return ChecksumError(
            f"{self.path} cannot be read ({reason}), so it is unknown which downloads were trusted "
            "before; restore it, or delete it to trust the files in that folder anew"
        )
