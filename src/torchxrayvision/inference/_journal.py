"""Finished batches, appended to one file that survives being killed at any byte.

Each record is ``length, CRC-32`` (little-endian, 4 bytes each), then a JSON head, then the
numbers as raw float32. A record that a kill, a power cut or a full disk has cut short fails its
CRC; reading stops there and the next run cuts it off and computes that batch again.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Batch", "Journal", "replay"]

_FRAME: Final = struct.Struct("<II")
_LARGEST: Final = 1 << 30  # no batch is as large; a damaged length must not fill the memory
_NUMBERS: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What came of images that follow each other in the list.

    Args:
        first: Position of the first one.
        errors: One an image, empty where all went well.
        outputs: Shape (n, P) float32; NaN after an error.
        features: Shape (n, D) float32, or None if they were not asked for.
    """

    first: int
    errors: tuple[str, ...]
    outputs: NDArray[np.float32]
    features: NDArray[np.float32] | None = None


def _encode(batch: Batch) -> bytes:
    errors = {i: text for i, text in enumerate(batch.errors) if text}
    width = None if batch.features is None else batch.features.shape[1]
    head = {"first": batch.first, "shape": batch.outputs.shape, "features": width, "errors": errors}
    parts = [json.dumps(head, separators=(",", ":")).encode(), b"\n"]
    parts += [np.ascontiguousarray(batch.outputs, _NUMBERS).tobytes()]
    if batch.features is not None:
        parts += [np.ascontiguousarray(batch.features, _NUMBERS).tobytes()]
    return b"".join(parts)


def _decode(payload: bytes) -> Batch:
    line, _, raw = payload.partition(b"\n")
    head = json.loads(line)
    count, outputs = head["shape"]
    errors = tuple(head["errors"].get(str(i), "") for i in range(count))
    numbers = np.frombuffer(raw, _NUMBERS)
    split = count * outputs
    features = None
    if head["features"] is not None:
        features = numbers[split:].reshape(count, head["features"])
    return Batch(head["first"], errors, numbers[:split].reshape(count, outputs), features)


def _records(file: BinaryIO) -> Iterator[tuple[Batch, int]]:
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
        end += _FRAME.size + length
        yield _decode(payload), end


def replay(path: Path) -> Iterator[Batch]:
    """The whole records of a journal, in order.

    Args:
        path: The file; an absent one holds nothing.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for batch, _ in _records(file):
            yield batch


class Journal:
    """A journal to append to; what is not whole at its end is cut off.

    Args:
        path: The file, made if absent.
        first: Position of the first image of this run in the list.
        sync: Seconds after which finished batches are forced to the disk. A kill loses none of
            them, a power cut at most those of this time.

    Attributes:
        position: Position in the list after the last finished batch.
        failed: Images so far that ended in an error.
    """

    def __init__(self, path: Path, first: int, sync: float = 5.0) -> None:
        self.position = first
        self.failed = 0
        self._sync = sync
        self._file = path.open("a+b", buffering=0)
        self._file.seek(0)
        end = 0
        for batch, after in _records(self._file):
            if batch.first != self.position:
                break
            self._count(batch)
            end = after
        self._cut(end)
        self._synced = time.monotonic()

    def _count(self, batch: Batch) -> None:
        self.position = batch.first + len(batch.errors)
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
        payload = _encode(batch)
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
