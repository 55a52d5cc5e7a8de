"""The bytes that the service holds: files with names of its own, durable before anyone is told.

::

    FOLDER/service.lock        held while the service runs
    FOLDER/queue.sqlite        records, see `queue`
    FOLDER/secret              with which instance UIDs are hashed
    FOLDER/in/ab/ab12...dcm    what was received
    FOLDER/out/ab/ab12.../     what was made of it, one folder per attempt

No name holds anything that a sender or a header says. Folders are readable by their owner only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import threading
import time
import uuid
from typing import TYPE_CHECKING, Final

from torchxrayvision.errors import OverloadError, ServiceError
from torchxrayvision.files import sync_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from torchxrayvision.service.config import Limits

_PRIVATE: Final = 0o700
_FREE_FOR: Final = 1.0  # seconds for which a look at the free space of the disk counts


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can read.

    Args:
        folder: Made if absent.

    Raises:
        ServiceError: If it belongs to somebody else.
    """
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    status = folder.stat()
    if hasattr(os, "geteuid") and status.st_uid not in (os.geteuid(),):
        msg = f"{folder} belongs to another user; the service keeps patients' images there"
        raise ServiceError(msg)
    if status.st_mode & 0o077:
        folder.chmod(_PRIVATE)


class Spool:
    """Files of received images and of what was made of them.

    Args:
        folder: Of the service.
        limits: When nothing more is taken.

    Raises:
        ServiceError: If the folder belongs to another user.
        OSError: If it cannot be written to.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self._limits = limits
        make_private(folder)
        for name in ("in", "out"):
            make_private(folder / name)
        self._secret = _secret(folder / "secret")
        self._lock = threading.Lock()
        self._free: tuple[float, int] = (0.0, 0)
        self.bytes = sum(f.stat().st_size for f in self._files())

    def _files(self) -> list[Path]:
        return [f for name in ("in", "out") for f in (self.folder / name).rglob("*") if f.is_file()]

    def key_of(self, instance_uid: str) -> bytes:
        """What the queue knows an instance by: a keyed hash, which tells nothing without the key.

        Args:
            instance_uid: SOP Instance UID.

        Returns:
            16 bytes.
        """
        return hmac.digest(self._secret, instance_uid.encode(), hashlib.sha256)[:16]

    def path(self, name: str) -> Path:
        """Where a file of the spool is.

        Args:
            name: As `store` gave it.
        """
        return self.folder / name

    def check_room(self, size: int) -> None:
        """Refuse what would fill the disk, before a byte is written.

        Args:
            size: Bytes.

        Raises:
            OverloadError: If it is too large, or the spool or the disk would be too full.
        """
        limits = self._limits
        if size > limits.object_bytes:
            msg = f"{size:,} bytes, at most {limits.object_bytes:,} are taken (limits.object_bytes)"
            raise OverloadError(msg)
        if self.bytes + size > limits.spool_bytes:
            msg = f"the spool holds {self.bytes:,} bytes (limits.spool_bytes)"
            raise OverloadError(msg)
        if self.free() - size < limits.free_bytes:
            msg = f"{self.free():,} bytes are free on the disk (limits.free_bytes)"
            raise OverloadError(msg)

    def free(self) -> int:
        """Bytes free on the disk, as of a second ago."""
        now = time.monotonic()
        if now - self._free[0] > _FREE_FOR or not self._free[0]:
            self._free = (now, shutil.disk_usage(self.folder).free)
        return self._free[1]

    def store(self, data: bytes) -> str:
        """Write received bytes; on return a power cut does not lose them.

        Args:
            data: A DICOM file.

        Returns:
            The name for `path`.

        Raises:
            OverloadError: See `check_room`, or if the disk refuses.
        """
        self.check_room(len(data))
        own = uuid.uuid4().hex
        name = f"in/{own[:2]}/{own}.dcm"
        target = self.folder / name
        try:
            if not target.parent.exists():
                make_private(target.parent)
                sync_folder(target.parent.parent)
            with write_atomically(target) as part:
                handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            msg = f"the spool cannot be written: {reason}"
            raise OverloadError(msg) from None
        self._count(len(data))
        return name

    def new_results(self) -> str:
        """A folder of its own for the results of one attempt.

        Returns:
            The name for `path`; the worker makes the folder.
        """
        own = uuid.uuid4().hex
        return f"out/{own[:2]}/{own}"

    def count_results(self, name: str) -> None:
        """Add what a worker wrote to the bytes of the spool.

        Args:
            name: As `new_results` gave it.
        """
        self._count(_size(self.folder / name))

    def remove(self, name: str) -> None:
        """Remove a file, or a folder of results; nothing happens where it is gone.

        Args:
            name: As `store` or `new_results` gave it.
        """
        path = self.folder / name
        size = _size(path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        self._count(-size)

    def sweep(self, known: Collection[str]) -> int:
        """Remove what a killed service left: files that no record names.

        Args:
            known: Names of files and folders of all records.

        Returns:
            How many were removed.
        """
        removed = 0
        for place in ("in", "out"):
            for shelf in (self.folder / place).iterdir():
                for path in shelf.iterdir() if shelf.is_dir() else ():
                    name = f"{place}/{shelf.name}/{path.name}"
                    if name not in known:
                        self.remove(name)
                        removed += 1
        return removed

    def _count(self, size: int) -> None:
        with self._lock:
            self.bytes = max(0, self.bytes + size)


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else (path,)
    return sum(f.stat().st_size for f in files if f.is_file())


def _secret(file: Path) -> bytes:
    """The key of the hashes, made once; without it every instance would count as new."""
    try:
        found = file.read_bytes()
    except FileNotFoundError:
        found = secrets.token_bytes(32)
        with write_atomically(file) as part:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as opened:
                opened.write(found)
    if len(found) != 32:
        msg = f"{file} is damaged: it holds {len(found)} bytes instead of 32"
        raise ServiceError(msg)
    return found
