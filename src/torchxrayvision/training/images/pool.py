"""Prepared images on disk: one growing array, and for each place in it what lies there.

A folder holds ``images.bin``, squares of one size and type one after another, and ``rows.bin``,
for each of them what it was made of, its checksum and whether it was seen to reach the disk.
Places are only ever added, so that the arrays that other processes look at never change.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.remote import make_folder, open_to_write
from torchxrayvision.training.images.sources import DIGEST

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

# Changes whenever what lies in the array would be another for the same files.
PREPARATION: Final = "1: centre square, anti-aliased linear resize, [-1024, 1024] over all levels"

_ROW: Final = np.dtype([("digest", DIGEST), ("checksum", "<u4"), ("on_disk", "u1")])
_AT_ONCE: Final = 256  # places that a process takes for itself at a time


def content_key(digests: NDArray[np.bytes_], size: int, dtype: str) -> str:
    """Name of some images: a hash of all they are made of, in order, and of how."""
    digest = hashlib.sha256(json.dumps([PREPARATION, size, dtype]).encode())
    digest.update(digests.tobytes())
    return digest.hexdigest()[:40]


def checksum(pixels: NDArray[Any], digest: bytes) -> int:
    """Checksum of one image, of what it was made of, and of how."""
    made_of = zlib.crc32(digest + PREPARATION.encode())
    return zlib.crc32(np.ascontiguousarray(pixels).data, made_of)


class Pool:
    """The prepared images of one size and type, by what they were made of.

    Args:
        root: Folder of the cache.
        size: Side of the images in pixels.
        dtype: `"uint8"` or `"uint16"`.
    """

    def __init__(self, root: Path, size: int, dtype: str) -> None:
        self.folder = root / f"{size}-{dtype}-{PREPARATION.split(':')[0]}"
        self.size, self.dtype = size, np.dtype(dtype)
        self._bytes = size * size * self.dtype.itemsize
        self._images, self._rows = self.folder / "images.bin", self.folder / "rows.bin"
        self._free = range(0)
        self.look()

    def look(self) -> None:
        """See what is there now; places of which a part is missing do not count."""
        there = self._rows.exists()
        records = np.fromfile(self._rows, _ROW) if there else np.zeros(0, _ROW)
        held = self._images.stat().st_size // self._bytes if self._images.exists() else 0
        if held != len(records):
            logger.warning("%s: a damaged array is prepared again from what is whole", self.folder)
        self._records = records[:held]
        self._order = np.argsort(self._records["digest"], kind="stable")
        self._sorted = self._records["digest"][self._order]
        self._map: Any = None

    @property
    def pixels(self) -> Any:
        """All places, (N, S, S): a memory map that cannot be written to."""
        if self._map is None:
            shape = (len(self._records), self.size, self.size)
            empty = not len(self._records)
            self._map = (
                np.zeros(shape, self.dtype)
                if empty
                else np.memmap(self._images, self.dtype, "r", shape=shape)
            )
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}  # it would be pickled with all it maps

    def find(self, digests: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Places of images that were made of something, int64 (N,); -1 where there is none.

        Args:
            digests: (N,) of `DIGEST`; empty ones are nowhere.
        """
        if not len(self._sorted):
            return np.full(len(digests), -1, np.int64)
        # The last of several is the newest: what was damaged is prepared again, elsewhere.
        at = (np.searchsorted(self._sorted, digests, side="right") - 1).clip(min=0)
        there = (self._sorted[at] == digests) & (digests != b"")
        return np.where(there, self._order[at], -1)

    def on_disk(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether images were seen to reach the disk; False for the place -1."""
        known = self._records["on_disk"].astype(bool)
        return np.append(known, False)[places]

    def damaged(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some places that do not hold what was prepared."""
        wrong = [
            place
            for place in places.tolist()
            if checksum(self.pixels[place], self._records["digest"][place])
            != self._records["checksum"][place]
        ]
        return np.array(wrong, np.int64)

    def add(self, pixels: NDArray[Any], digest: bytes) -> int:
        """Write an image (S, S) into a place that nobody else has, and give the place."""
        if not self._free:
            self._take_places()
        place, self._free = self._free[0], self._free[1:]
        _write(self._images, place * self._bytes, pixels.tobytes())
        record = np.array([(digest, checksum(pixels, digest), 0)], _ROW)
        _write(self._rows, place * _ROW.itemsize, record.tobytes())
        return place

    def _take_places(self) -> None:
        from filelock import FileLock

        make_folder(self.folder)
        with FileLock(self.folder / "places.lock"):
            for path in (self._images, self._rows):
                open_to_write(path, append=True).close()  # a planted link is no place to write
            count = -(-self._images.stat().st_size // self._bytes)
            count = max(count, self._rows.stat().st_size // _ROW.itemsize)
            os.truncate(self._images, (count + _AT_ONCE) * self._bytes)
            os.truncate(self._rows, (count + _AT_ONCE) * _ROW.itemsize)
        self._free = range(count, count + _AT_ONCE)

    def flush(self, places: NDArray[np.int64]) -> None:
        """Wait until images are on the disk, and write that down."""
        with self._images.open("rb+") as file:
            os.fsync(file.fileno())
        records = np.memmap(self._rows, _ROW, "r+")
        records["on_disk"][places] = 1
        records.flush()


def _write(path: Path, offset: int, data: bytes) -> None:
    with path.open("rb+", buffering=0) as file:
        file.seek(offset)
        file.write(data)
