"""Finished batches of a run, appended to one file that survives being killed at any byte.

Each record is ``length, CRC-32`` (little-endian, 4 bytes each), then a JSON head, then the numbers
as raw float32. A record that a kill, a power cut or a full disk has cut short fails its CRC;
reading stops there, and the next run cuts it off and computes that batch again. Each head names
the run, so that a journal that was copied from another one is not taken for this one's.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import numpy as np

from torchxrayvision.errors import OutputError, ResumeError, XRVError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_Made = TypeVar("_Made")
_FRAME: Final = struct.Struct("<II")
_LARGEST: Final = 1 << 30  # no batch is as large; a damaged length must not fill the memory
_NUMBERS: Final = np.dtype("<f4")
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What came of images that follow each other in the list.

    Args:
        first: Position of the first one.
        errors: One per image, empty where all went well.
        outputs: Shape (n, P) float32, NaN after an error; None where no network gave numbers.
        features: Shape (n, D) float32, or None if they were not asked for.
        details: What else the table says of each image, as JSON holds it; empty for nothing.
    """

    first: int
    errors: tuple[str, ...]
    outputs: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None
    details: tuple[Any, ...] = ()

    @property
    def stop(self) -> int:
        """Position after the last image."""
        return self.first + len(self.errors)


def _encode(batch: Batch, run: str) -> bytes:
    arrays = [batch.outputs, batch.features]
    head = {
        "run": run,
        "first": batch.first,
        "count": len(batch.errors),
        "widths": [None if array is None else array.shape[1] for array in arrays],
        "errors": {i: text for i, text in enumerate(batch.errors) if text},
        "details": batch.details,
    }
    parts = [json.dumps(head, separators=(",", ":")).encode(), b"\n"]
    parts += [np.ascontiguousarray(a, _NUMBERS).tobytes() for a in arrays if a is not None]
    return b"".join(parts)


def _decode(payload: bytes, run: str) -> Batch:
    line, _, raw = payload.partition(b"\n")
    head = json.loads(line)
    if run and head["run"] != run:
        msg = "it belongs to another run; put the right one back, or give --restart"
        raise ResumeError(msg)
    count, numbers = head["count"], np.frombuffer(raw, _NUMBERS)
    arrays: list[NDArray[np.float32] | None] = []
    for width in head["widths"]:
        size = 0 if width is None else count * width
        arrays.append(None if width is None else numbers[:size].reshape(count, width))
        numbers = numbers[size:]
    outputs, features = arrays
    errors = tuple(head["errors"].get(str(i), "") for i in range(count))
    return Batch(head["first"], errors, outputs, features, tuple(head["details"]))


def _records(file: BinaryIO, run: str) -> Iterator[tuple[Batch, int]]:
    """Whole records and the position after each, up to the first that is not whole."""
    end = 0
    while True:
        frame = file.read(_FRAME.size)
        if len(frame) < _FRAME.size:
            return
        length, crc = _FRAME.unpack(frame)
        # A file that grew without its bytes reaching the disk reads as zeros: no record is empty.
        if not 0 < length <= _LARGEST:
            return
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload) != crc:
            return
        try:
            batch = _decode(payload, run)
        except XRVError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # its CRC is right and nothing else: not written by this package
        end += _FRAME.size + length
        yield batch, end


def replay(path: Path, first: int = 0, run: str = "") -> Iterator[Batch]:
    """The whole records of a journal, in order, each beginning where the one before ends.

    Args:
        path: The file; an absent one holds nothing.
        first: Position of the first image of the run in the list.
        run: Name of the run, which each record must bear; empty for any.

    Raises:
        ResumeError: If it belongs to another run or cannot be read.
    """
    position = first
    try:
        with path.open("rb") as file:
            for batch, _ in _records(file, run):
                if batch.first != position:
                    return
                position = batch.stop
                yield batch
    except FileNotFoundError:
        return
    except (OSError, ResumeError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> ResumeError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ResumeError(f"{path} cannot be used: {reason}")


class Journal:
    """A journal to append to; what is not whole at its end is cut off.

    Args:
        path: The file, made if absent.
        first: Position of the first image of this run in the list.
        run: Name of the run, which each record bears.
        sync: Seconds after which finished batches are forced to the disk. A kill loses none of
            them, a power cut at most those of this time.

    Attributes:
        position: Position in the list after the last finished batch.
        failed: Images so far that ended in an error.

    Raises:
        ResumeError: If the file belongs to another run.
    """

    def __init__(self, path: Path, first: int, run: str = "", sync: float = 5.0) -> None:
        self.position = first
        self.failed = 0
        self._run = run
        self._sync = sync
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        end = 0
        try:
            for batch, after in _records(self._file, run):
                if batch.first != self.position:
                    break
                self._count(batch)
                end = after
        except ResumeError as error:
            self._file.close()
            raise _unusable(path, error) from error
        self._cut(end)
        self._synced = time.monotonic()

    def _count(self, batch: Batch) -> None:
        self.position = batch.stop
        self.failed += sum(map(bool, batch.errors))

    def _cut(self, end: int) -> None:
        self._end = end
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, batch: Batch) -> None:
        """Add a batch.

        Raises:
            OSError: If it cannot be written whole; the journal is as before then.
        """
        payload = _encode(batch, self._run)
        record = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        view = memoryview(record)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._cut(self._end)
            raise
        self._end += len(record)
        self._count(batch)
        if time.monotonic() - self._synced >= self._sync:
            self.sync()

    def sync(self) -> None:
        """Force what was added to the disk."""
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Force everything to the disk and close the file."""
        try:
            self.sync()
        finally:
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(OSError):  # what stopped the run matters more
            self.close()


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn errors of the file system into one that says what is kept and how to resume.

    Args:
        place: What is written.

    Raises:
        OutputError: For any `OSError` inside that is not one of this package.
    """
    try:
        yield
    except XRVError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        what = "no space left" if error.errno in _NO_SPACE else "cannot be written"
        cure = "free some" if error.errno in _NO_SPACE else "fix that"
        msg = (
            f"{place}: {what} ({reason}); {cure} and run the same command again, which resumes "
            "after the last finished batch"
        )
        raise OutputError(msg) from error


def write_or_reason(write: Callable[[], _Made]) -> _Made | str:
    """What a function that writes the files of one result gives, or why they cannot be written.

    Args:
        write: Called once.

    Raises:
        OSError: If the disk is full or gone, as the files of the next result would fail too.
    """
    try:
        return write()
    except OSError as error:
        if error.errno in _NO_SPACE | {errno.EROFS, errno.EIO}:
            raise
        return f"its files cannot be written ({error.strerror or error})"
