"""Prepared images on disk: arrays that say of each row what it was made of and how it must look.

A folder holds ``images.npy`` (N, S, S), ``sources.npy`` (what each row was made of, see
`_sources.DIGEST`), ``checks.npy`` (a checksum of both) and ``index.json``, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.training.images.origin import DIGEST, STAMP

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["PREPARATION", "Donors", "Part", "Shape", "Store", "check", "content_key", "set_aside"]

logger = logging.getLogger(__name__)

# Changes whenever what lies in the array would be another for the same files.
PREPARATION: Final = "1: centre square, anti-aliased linear resize, [-1024, 1024] over all levels"
Shape = tuple[int, int, str]
"""Number of images, side in pixels, type of the array."""

_IMAGES, _SOURCES, _CHECKS, _STAMPS = "images.npy", "sources.npy", "checks.npy", "stamps.npy"
_INDEX: Final = "index.json"
_DAMAGED: Final = ".damaged"
_UNUSABLE: Final = (OSError, ValueError, EOFError)  # what NumPy raises for files that are not whole


def content_key(digests: NDArray[np.bytes_], size: int, dtype: str) -> str:
    """Name of an array: a hash of all it is made of, in order, and of how it is prepared."""
    digest = hashlib.sha256(json.dumps([PREPARATION, size, dtype]).encode())
    digest.update(digests.tobytes())
    return digest.hexdigest()[:40]


def check(pixels: NDArray[Any], digest: bytes) -> int:
    """Checksum of one image, of what it was made of, and of how."""
    made_of = zlib.crc32(digest + PREPARATION.encode())
    return zlib.crc32(np.ascontiguousarray(pixels).data, made_of)


class Store:
    """A finished array, read-only.

    Args:
        folder: Where it lies; its name is that of `content_key`.
        shape: What must lie there.

    Attributes:
        pixels: A memory map (N, S, S).
        digests: What each row was made of.
        checks: Checksum of each row.
        unreadable: Row to the reason, for images that were left out.

    Raises:
        FileNotFoundError: If there is no finished array.
        ValueError: If it is not what its name says.
    """

    def __init__(self, folder: Path, shape: Shape) -> None:
        text = (folder / _INDEX).read_text("utf-8")
        try:
            index = json.loads(text)
            self.pixels, self.digests, self.checks = _opened(folder, shape)
            unreadable = {int(row): str(why) for row, why in index["unreadable"].items()}
        except (*_UNUSABLE, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder}: {error}") from error
        if content_key(self.digests, *shape[1:]) != folder.name:
            raise ValueError(f"{folder} says that it is made of something else than its name")
        self.folder, self.unreadable = folder, unreadable

    def damaged(self, rows: Iterable[int]) -> list[int]:
        """Those of some rows that are not what was prepared."""
        return [
            int(row)
            for row in rows
            if check(self.pixels[row], self.digests[row]) != self.checks[row]
        ]


def set_aside(folder: Path) -> None:
    """Take the name from a folder whose array is damaged, and keep what is in it."""
    away = folder.with_name(folder.name + _DAMAGED)
    shutil.rmtree(away, ignore_errors=True)
    try:
        folder.rename(away)
    except FileNotFoundError:  # another process was faster
        logger.debug("%s is away already", folder)


def _opened(folder: Path, shape: Shape) -> tuple[Any, NDArray[np.bytes_], NDArray[np.uint32]]:
    """The arrays of a folder, finished or not."""
    count, size, dtype = shape
    pixels = np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False)
    digests = np.load(folder / _SOURCES, allow_pickle=False)
    checks = np.load(folder / _CHECKS, allow_pickle=False)
    found = [(array.shape, str(array.dtype)) for array in (pixels, digests, checks)]
    wanted = [((count, size, size), dtype), ((count,), f"|{DIGEST}"), ((count,), "uint32")]
    if found != wanted:
        raise ValueError(f"{folder} holds {found} instead of {wanted}")
    return pixels, digests, checks


class Donors:
    """Every image that some array below a folder holds already, found by what it was made of.

    Args:
        root: Folder of arrays.
        size: Side in pixels.
        dtype: Type of the arrays.
        part: Folder of an unfinished array that counts too.
    """

    def __init__(self, root: Path, size: int, dtype: str, part: Path) -> None:
        self._folders: list[Path] = []
        self._maps: dict[int, Any] = {}
        digests, checks, places = [], [], []
        folders = [path.parent for path in sorted(root.glob(f"*/{_SOURCES}"))]
        for folder in folders:
            if folder.suffix == ".part" and folder != part:
                continue  # somebody is writing it
            count = _count(folder)
            try:
                _, digest, sums = _opened(folder, (count, size, dtype))
            except _UNUSABLE:
                continue  # of another shape, or damaged
            rows = np.flatnonzero((digest != b"") & (sums != 0))
            digests.append(digest[rows])
            checks.append(sums[rows])
            places.append(np.stack([np.full(len(rows), len(self._folders)), rows], axis=1))
            self._folders.append(folder)
        joined = np.concatenate([np.zeros(0, DIGEST), *digests])
        order = np.argsort(joined, kind="stable")
        self._digests = joined[order]
        self._checks = np.concatenate([np.zeros(0, np.uint32), *checks])[order]
        self._places = np.concatenate([np.zeros((0, 2), np.int64), *places])[order]

    def find(self, digest: bytes) -> NDArray[Any] | None:
        """A copy of the image that was made of something, if a whole one is there."""
        position = int(np.searchsorted(self._digests, digest))
        while position < len(self._digests) and self._digests[position] == digest:
            number, row = self._places[position].tolist()
            pixels = self._row(number, row)
            if pixels is not None and check(pixels, digest) == self._checks[position]:
                return pixels
            position += 1
        return None

    def _row(self, number: int, row: int) -> NDArray[Any] | None:
        if number not in self._maps:
            try:
                opened = np.load(self._folders[number] / _IMAGES, mmap_mode="r")
            except _UNUSABLE:  # removed meanwhile
                opened = None
            self._maps[number] = opened
        array = self._maps[number]
        return None if array is None else np.array(array[row])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a memory map would be pickled with all it maps


def _count(folder: Path) -> int:
    try:
        return len(np.load(folder / _SOURCES, mmap_mode="r", allow_pickle=False))
    except _UNUSABLE:
        return 0


class Part:
    """An array that is being filled, row by row; what is in it outlives the process.

    Args:
        folder: Where it lies.
        shape: Of the array.

    Attributes:
        digests: What each row was made of; empty where it is not there yet.
        stamps: State of the file of each row.
    """

    def __init__(self, folder: Path, shape: Shape) -> None:
        count, size, dtype = shape
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._shape = folder, shape
        self._pixels = _array(folder / _IMAGES, (count, size, size), dtype)
        self.digests = _array(folder / _SOURCES, (count,), DIGEST)
        self._checks = _array(folder / _CHECKS, (count,), "uint32")
        self.stamps = _array(folder / _STAMPS, (count, STAMP), "int64")

    def done(self, digests: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Which rows an earlier process finished, made of just these contents.

        Order on disk is not promised, so a row counts where its checksum holds. A row of zeros has
        another checksum than 0: rows that nobody wrote never count.
        """
        same = (self.digests == digests) & (digests != b"")
        rows = (
            int(row)
            for row in np.flatnonzero(same)
            if check(self._pixels[row], self.digests[row]) == self._checks[row]
        )
        done = np.zeros(len(digests), dtype=bool)
        done[list(rows)] = True
        return done

    def put(
        self, row: int, pixels: NDArray[Any], digest: bytes, stamp: tuple[int, ...], *, whole: bool
    ) -> None:
        """Write a row; one that is not whole stands for an image that cannot be read."""
        self._pixels[row], self.digests[row], self.stamps[row] = pixels, digest, stamp
        self._checks[row] = check(pixels, digest) if whole else 0

    def finish(self, unreadable: dict[int, str]) -> Path:
        """Give the folder its name, once everything in it is on the disk.

        Returns:
            The folder under its name.
        """
        for array in (self._pixels, self.digests, self._checks):
            array.flush()
        count, size, dtype = self._shape
        place = self.folder.with_name(content_key(np.array(self.digests), size, dtype))
        index = {"preparation": PREPARATION, "images": count, "unreadable": unreadable}
        (self.folder / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        (self.folder / _STAMPS).unlink()
        _sync(self.folder)
        if _is_whole(place, self._shape):  # the same images were prepared under other names
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            if place.exists():
                set_aside(place)
            self.folder.rename(place)
        shutil.rmtree(place.with_name(place.name + _DAMAGED), ignore_errors=True)
        return place


def _is_whole(folder: Path, shape: Shape) -> bool:
    try:
        Store(folder, shape)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _array(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    """A writable memory map: the one that an earlier process left, or a new one of zeros."""
    if path.exists():
        try:
            found = np.lib.format.open_memmap(path, mode="r+")
        except _UNUSABLE:  # killed while its header was written
            found = None
        if found is not None and found.shape == shape and found.dtype == dtype:
            return found
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
