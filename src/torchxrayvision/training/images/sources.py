"""What the images of a dataset are made of: which file each is, its state, and its content."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from torchxrayvision.datasets import Files, ImageSource, IndexedFiles, MergeDataset, SubsetDataset
from torchxrayvision.errors import DatasetError, ImageReadError
from torchxrayvision.files import FileState
from torchxrayvision.inputs import InputFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from torchxrayvision.inputs import Read

logger = logging.getLogger(__name__)

DIGEST: Final = "S32"
"""NumPy type of a content: 128 bits of SHA-256, as text, since NumPy drops zeros at the end of
bytes. Empty where it is not known."""
STAMP: Final = 4
"""Numbers that a state has: size, time of content, time of entry, inode."""

# A file that is written twice within a tick of the clock looks the same after both.
_TICK_NS: Final = 2_000_000_000
NO_STAMP: Final[tuple[int, ...]] = (0,) * STAMP
# The time of the entry cannot be set back, so a copy over the file is seen. Windows has none.
_CHANGED: Final = 2 if os.name == "posix" else 1
_ATTEMPTS: Final = 3


class Reading(NamedTuple):
    """The bytes of one image.

    Args:
        digest: Of the bytes; empty if there were none to read.
        stamp: State of the file while they were read; zeros if it cannot be relied on.
        decode: Makes float32 (1, H, W) in [-1024, 1024] of these very bytes, or raises
            `ImageReadError`; given the function that decodes, here or in a process of its own.
    """

    digest: bytes
    stamp: tuple[int, ...]
    decode: Callable[[Read], NDArray[np.float32]]


class Sources:
    """Where the images of a dataset come from, row by row.

    Args:
        dataset: A dataset of this package, or a container of such.

    Attributes:
        leaves: The datasets inside.
        common: For each of them all that its simulated images depend on; empty where it has files.

    Raises:
        DatasetError: If the dataset transforms its images, or is of an unknown kind.
    """

    def __init__(self, dataset: Any) -> None:
        self.leaves, self._leaf, self._positions = _flatten(dataset)
        self.common = [_computed(leaf) for leaf in self.leaves]

    def __len__(self) -> int:
        return len(self._positions)

    def states(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.bytes_]]:
        """Name and state of what each row is read from; no file is opened.

        Returns:
            Texts that name the files; int64 (N, 4), zeros where there is no file; and the contents
            of simulated images, which need no reading, (N,), empty for files.

        Raises:
            DatasetNotFoundError: If an image is missing.
        """
        names, stamps = [], np.zeros((len(self), STAMP), np.int64)
        digests = np.zeros(len(self), DIGEST)
        for row in range(len(self)):
            images, line, context, common = self._at(row)
            if common:
                names.append(f"{common} {images.name(line)}")
                digests[row] = _digest(common, images.name(line).encode())
                continue
            path, member = _file(images, line, context)
            names.append(f"{_reader(images)} {path.absolute()} {member}")
            stamps[row] = stamp_of(path)
        return names, stamps, digests

    def read(self, row: int) -> Reading:
        """The bytes of one image, not decoded yet.

        Raises:
            DatasetNotFoundError: If the file is missing.
        """
        images, line, context, common = self._at(row)
        if common:
            digest = _digest(common, images.name(line).encode())
            return Reading(digest, NO_STAMP, lambda _: images.read(line, context))
        try:
            data, name, stamp = _bytes(images, line, context)
        except ImageReadError as error:
            return Reading(b"", NO_STAMP, partial(_refuse, error))
        digest = _digest(_reader(images), data)
        if type(images).read is not ImageSource.read:  # an array, not a file of its own
            return Reading(digest, stamp, lambda _: images.read(line, context))
        if images.plain:
            file = InputFile(Path(name), name, data=data)
            return Reading(digest, stamp, lambda read: read(file).to_array())
        stream = io.BytesIO(data)
        stream.name = name  # for the message of an error
        return Reading(digest, stamp, lambda _: images.reader(stream))

    def name(self, row: int) -> str:
        """What a message calls a row's image."""
        images, line, _, _ = self._at(row)
        return str(images.name(line))

    def _at(self, row: int) -> tuple[Any, Any, Any, str]:
        number = int(self._leaf[row])
        leaf = self.leaves[number]
        line = leaf._row(int(self._positions[row]))
        return leaf.spec.images, line, leaf._context, self.common[number]


def _refuse(error: ImageReadError, _: Read) -> NDArray[np.float32]:
    raise error


def _flatten(dataset: Any) -> tuple[list[Any], NDArray[np.int64], NDArray[np.int64]]:
    """The datasets inside, and for each row its dataset and the position there."""
    if isinstance(dataset, SubsetDataset):
        leaves, leaf, positions = _flatten(dataset.dataset)
        return leaves, leaf[dataset.idxs], positions[dataset.idxs]
    if isinstance(dataset, MergeDataset):
        return _joined([_flatten(part) for part in dataset.datasets])
    name = type(dataset).__name__
    if getattr(dataset, "transform", None) or getattr(dataset, "data_aug", None):
        msg = f"{name} has a transform or data_aug; leave both out, images are prepared here"
        raise DatasetError(msg)
    if getattr(getattr(dataset, "spec", None), "images", None) is None:
        msg = f"{name} does not say where its images come from; give PreparedImages an array"
        raise DatasetError(msg)
    return [dataset], np.zeros(len(dataset), np.int64), np.arange(len(dataset))


def _joined(parts: Iterable[Any]) -> tuple[list[Any], NDArray[np.int64], NDArray[np.int64]]:
    leaves: list[Any] = []
    numbers, positions = [], []
    for inner, number, position in parts:
        numbers.append(number + len(leaves))
        positions.append(position)
        leaves += inner
    return leaves, np.concatenate(numbers), np.concatenate(positions)


def _file(images: Any, line: Any, context: Any) -> tuple[Path, str]:
    """The file that holds an image, and its name inside where that is an archive."""
    if isinstance(images, Files | IndexedFiles):
        file = images.input_file(line, context)
        return file.path, "" if file.member is None else images.name(line)
    return images.place(context), images.name(line)


def _bytes(images: Any, line: Any, context: Any) -> tuple[bytes, str, tuple[int, ...]]:
    """All bytes of an image, its name, and the state of the file while they were read."""
    from torchxrayvision.images import DEFAULT_LIMITS, load

    path, member = _file(images, line, context)
    for _ in range(_ATTEMPTS):
        before, now = stamp_of(path), time.time_ns()
        data, name = load(images.open(line, context) if member else path, DEFAULT_LIMITS)
        if stamp_of(path) == before:
            settled = before[_CHANGED] < now - _TICK_NS
            return data, f"{path}/{member}" if member else name, before if settled else NO_STAMP
    raise ImageReadError(str(path), "it changed while it was read", "try again when it is written")


def stamp_of(path: Path) -> tuple[int, ...]:
    """The state of a file, of `STAMP` numbers."""
    return FileState.of(path)[:STAMP]


def _reader(images: Any) -> str:
    """The function that decodes: the same bytes are another image to another one."""
    reader = images.reader
    return f"{getattr(reader, '__module__', '')}.{getattr(reader, '__qualname__', repr(reader))}"


def _digest(what: str, data: bytes) -> bytes:
    digest = hashlib.sha256(what.encode() + b"\0")
    digest.update(data)
    return digest.hexdigest()[: np.dtype(DIGEST).itemsize].encode()


def _computed(dataset: Any) -> str:
    """All that simulated images depend on; empty where there are files."""
    images, context = dataset.spec.images, dataset._context
    if isinstance(images, Files | IndexedFiles) or images.place(context).is_file():
        return ""
    from torchxrayvision.phantom import SIMULATION_VERSION

    arguments = json.dumps(context.arguments, sort_keys=True, default=str)
    return f"{type(dataset).__name__} {arguments} {SIMULATION_VERSION}"


_COLUMNS: Final = "size, mtime_ns, ctime_ns, inode, digest"


class FileLedger:
    """What each file held when it was read, for as long as its state stays the same.

    It only saves reading: one that is lost, damaged or cannot be written costs time, not images.

    Args:
        path: The SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def digests(self, names: list[str], stamps: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """Contents of files that are in the state in which they were read.

        Args:
            names: Of N files, as `Sources.states` gives them.
            stamps: Their states now, int64 (N, 4).

        Returns:
            (N,) of `DIGEST`; empty for a file that must be read.
        """
        found = np.zeros(len(names), DIGEST)
        if not self._path.exists():
            return found
        query = f"SELECT {_COLUMNS} FROM files WHERE name = ?"
        try:
            with closing(sqlite3.connect(self._path)) as database:
                for row, (name, stamp) in enumerate(zip(names, stamps.tolist(), strict=True)):
                    kept = database.execute(query, (name,)).fetchone()
                    if kept is not None and list(kept[:STAMP]) == stamp:
                        found[row] = kept[STAMP]
        except sqlite3.Error as error:
            logger.warning("%s cannot be read, all files are read again: %s", self._path, error)
        return found

    def accept(
        self, names: list[str], stamps: NDArray[np.int64], digests: NDArray[np.bytes_]
    ) -> None:
        """Remember contents and the states in which they were read.

        Args:
            names: Of N files.
            stamps: int64 (N, 4); zeros where a state is not to be relied on.
            digests: (N,) of `DIGEST`.
        """
        kept = np.flatnonzero(stamps.any(axis=1) & (digests != b""))
        rows = [(names[row], *stamps[row].tolist(), digests[row].item()) for row in kept]
        try:
            try:
                self._write(rows)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # busy, or nowhere to write
                    raise
                self._path.unlink()
                self._write(rows)
        except (OSError, sqlite3.Error) as error:  # a cache that others fill may be read-only
            logger.info("%s is not written, files are read again next time: %s", self._path, error)

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        with closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            kinds = f"name PRIMARY KEY, {_COLUMNS}"
            database.execute(f"CREATE TABLE IF NOT EXISTS files ({kinds}) WITHOUT ROWID")
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
