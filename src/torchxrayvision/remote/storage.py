"""Files in the cache folder: partial transfers, atomic replacement, and errors of the disk."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Partial", "Resume", "remove_partials", "replace_file", "storage", "write_atomically"]

_NO_SPACE = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


@contextlib.contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Turn errors of the file system below `folder` into `DownloadError` with advice."""
    try:
        yield
    except DownloadError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_SPACE:
            msg = (
                f"no space left in {folder} ({reason}); free some and call again, the transfer "
                "goes on where it stopped, or set XRV_CACHE_DIR to another folder"
            )
        else:
            msg = (
                f"cannot write in {folder} ({reason}); "
                "make it writable or set XRV_CACHE_DIR to another folder"
            )
        raise DownloadError(msg) from error


@dataclass(frozen=True, slots=True)
class Resume:
    """How to go on with a partial file.

    Args:
        offset: Bytes that are there.
        length: Bytes of the whole object, or None where the server did not say.
        validator: The strong ETag or the date that names the object in ``If-Range``.
    """

    offset: int
    length: int | None
    validator: str


class Partial:
    """The bytes of an unfinished transfer, beside a record of the object they belong to.

    The name holds a hash of the address, so partial files of different objects cannot meet, nor
    can one meet a ``.part`` file that another program left. The record beside it keeps what the
    server said the object was; without a record nothing is resumed.

    Args:
        folder: The cache folder.
        filename: Name of the finished file.
        location: Address that the bytes come from.
    """

    def __init__(self, folder: Path, filename: str, location: str) -> None:
        key = hashlib.sha256(location.encode()).hexdigest()[:12]
        self.folder = folder
        self.location = location
        self.path = folder / f"{filename}.{key}.part"
        self.record = folder / f"{filename}.{key}.part.json"

    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def resume(self) -> Resume | None:
        """How to go on, or None where the transfer must start from zero."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.get("url") != self.location:
            return None
        validator = _validator(record)
        length = record.get("length")
        offset = self.size()
        known = length is None or (isinstance(length, int) and offset <= length)
        return Resume(offset, length, validator) if validator and offset and known else None

    def restart(self, headers: dict[str, str | None], length: int | None) -> None:
        """Empty the file and record which object its bytes will belong to.

        Args:
            headers: What the server said of it: ``etag`` and ``last_modified``.
            length: Its length in bytes.
        """
        with storage(self.folder):
            # The record goes first and the bytes last: a crash between leaves a record of an
            # absent file, never bytes under the record of another object.
            self.record.unlink(missing_ok=True)
            self.path.write_bytes(b"")
            record = {"url": self.location, "length": length, **headers}
            write_atomically(self.record, json.dumps(record, indent=1))

    def require(self, count: int) -> None:
        """Raise `DownloadError` if the disk has no room for `count` more bytes."""
        with storage(self.folder):
            free = shutil.disk_usage(self.folder).free
        if free < count:
            msg = (
                f"no space left in {self.folder}: {count:,} bytes are needed and {free:,} are "
                "free; free some or set XRV_CACHE_DIR to another folder"
            )
            raise DownloadError(msg)

    def discard(self) -> None:
        """Remove the bytes and their record."""
        with storage(self.folder):
            self.record.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)


def _validator(record: dict[str, Any]) -> str:
    # A weak ETag promises only equivalent content, so RFC 9110 13.1.5 bars it from If-Range.
    for key in ("etag", "last_modified"):
        value = record.get(key)
        if isinstance(value, str) and value and not value.startswith("W/"):
            return value
    return ""


def remove_partials(folder: Path, filename: str) -> None:
    """Remove every partial file of a finished one, whatever address it came from."""
    for path in folder.glob(f"{glob.escape(filename)}.{'[0-9a-f]' * 12}.part*"):
        with contextlib.suppress(OSError):
            path.unlink()


def replace_file(source: Path, target: Path) -> None:
    """Give a finished file its final name, so that a crash leaves the old state or the new one."""
    with storage(target.parent):
        with source.open("rb+") as handle:
            os.fsync(handle.fileno())
        source.replace(target)
        _sync_folder(target.parent)


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that a reader sees the old content or the new."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # The name is durable only once its folder is; Windows and some network file systems refuse.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
