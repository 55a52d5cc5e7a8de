"""Every image decoded once: a memory-mapped array that is keyed by what it was made of."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from torchxrayvision.datasets._split import patients
from torchxrayvision.errors import DatasetError, ImageReadError
from torchxrayvision.training._identity import identities
from torchxrayvision.training._prepared import PreparedImages, to_stored
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["ImageCache"]

logger = logging.getLogger(__name__)

# Changes whenever what lies in the array would be another for the same images.
_PREPARATION: Final = "1: centre square, anti-aliased linear resize, [-1024, 1024] over all levels"
_IMAGES: Final = "images.npy"
_CHECKS: Final = "checks.npy"
_INDEX: Final = "index.json"
_SMALL: Final = 64  # images for which starting processes costs more than it saves


class ImageCache(PreparedImages):
    """Prepared images of a dataset on disk; a map-style dataset of `(image, labels, index)`.

    The folder of an array is named by a hash of the identity of every image, their order, the
    size, the type and the version of the preparation. When a file or an argument changes, so does
    the name: a stale array can be left behind, never served. Labels are not kept; they are always
    those of the dataset.

    Use `build`, which opens what is there and makes what is missing.

    Attributes:
        folder: Where the array lies.
        unreadable: Row of the dataset to the reason, for images that were left out.
    """

    folder: Path
    unreadable: dict[int, str]
    digest: str

    @classmethod
    def build(
        cls,
        dataset: Any,
        size: int,
        *,
        folder: str | os.PathLike[str] | None = None,
        dtype: str = "uint8",
        workers: int | None = None,
        skip_unreadable: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImageCache:
        """Open the prepared images of a dataset, or prepare them.

        Processes that want the same images wait for the one that prepares them. One that is
        killed leaves what it had done to the next.

        Args:
            dataset: A dataset of this package or a container, without transforms.
            size: Side of the prepared images in pixels.
            folder: Where arrays are kept; None for the package's cache folder.
            dtype: `"uint8"`, or `"uint16"` for twice the bytes and 256 times the grey levels.
            workers: Processes that decode; None for one a processor, 0 for none beside this.
            skip_unreadable: Leave out images that cannot be read, and say so in `unreadable`.
            progress: Called with (done, total) now and then.

        Returns:
            The images, with labels, findings and patients of the dataset.

        Raises:
            ImageReadError: If an image cannot be read and `skip_unreadable` is not set.
            DatasetError: If the dataset transforms its images; or if an earlier preparation left
                images out and `skip_unreadable` is not set.

        Example:
            >>> import tempfile
            >>> from torchxrayvision.datasets import Phantom_Dataset
            >>> dataset = Phantom_Dataset(n=2, size=64)
            >>> cache = ImageCache.build(dataset, 32, folder=tempfile.mkdtemp())
            >>> cache[0][0].shape
            (1, 32, 32)
        """
        root = _root(folder)
        names = identities(dataset)
        digest = _digest(names, size, dtype)
        place = root / digest
        if not (place / _INDEX).exists():
            from filelock import FileLock

            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f"{digest}.lock"):
                if not (place / _INDEX).exists():
                    todo = _Prepare(dataset, size, dtype, skip_unreadable)
                    _make(todo, place, _workers(workers, len(names)), progress)
        cache = cls._open(place, dataset, digest, (len(names), size, dtype))
        if cache.unreadable and not skip_unreadable:
            row, reason = next(iter(cache.unreadable.items()))
            msg = f"{len(cache.unreadable)} images cannot be read, first row {row}: {reason}"
            raise DatasetError(f"{msg}; pass skip_unreadable=True to leave them out")
        return cache

    @classmethod
    def _open(
        cls, place: Path, dataset: Any, digest: str, expected: tuple[int, int, str]
    ) -> ImageCache:
        pixels = np.load(place / _IMAGES, mmap_mode="r", allow_pickle=False)
        count, size, dtype = expected
        if pixels.shape != (count, size, size) or pixels.dtype != dtype:
            msg = f"{place} holds {pixels.dtype} {pixels.shape} instead of {expected}; remove it"
            raise DatasetError(msg)
        index = json.loads((place / _INDEX).read_text("utf-8"))
        unreadable = {int(row): reason for row, reason in index["unreadable"].items()}
        rows = np.setdiff1d(np.arange(count), list(unreadable)).astype(np.int64)
        cache = cls(pixels, dataset.labels, dataset.pathologies, _patients(dataset), rows=rows)
        cache.folder, cache.unreadable, cache.digest = place, unreadable, digest
        return cache

    def verify(self) -> None:
        """Compare every image with the checksum from when it was prepared.

        Raises:
            DatasetError: If one differs; remove `folder` to prepare them again.
        """
        checks = np.load(self.folder / _CHECKS, allow_pickle=False)
        for row in self.rows:
            if _checksum(self._pixels[row]) != checks[row]:
                msg = f"{self.folder}: image {row} is not what was prepared; remove the folder"
                raise DatasetError(msg)

    def _digest_pixels(self, digest: Any) -> None:
        digest.update(self.digest.encode())
        digest.update(self.rows.tobytes())


def _root(folder: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        return Path(folder)
    from torchxrayvision.remote import cache_dir

    return Path(cache_dir()) / "training"


def _digest(names: list[str], size: int, dtype: str) -> str:
    digest = hashlib.sha256(json.dumps([_PREPARATION, size, dtype]).encode())
    for name in names:
        digest.update(json.dumps(name).encode())
    return digest.hexdigest()[:40]


def _workers(workers: int | None, count: int) -> int:
    if workers is not None:
        return workers
    return 0 if count < _SMALL else os.cpu_count() or 1


def _patients(dataset: Any) -> NDArray[Any] | None:
    try:
        return patients(dataset)
    except DatasetError:  # the source does not say; every image is then one of its own
        return None


class _Prepare(torch.utils.data.Dataset[tuple[int, Any, str]]):
    """Row to `(row, pixels, reason)`; the reason is empty unless the image cannot be read."""

    def __init__(self, dataset: Any, size: int, dtype: str, skip: bool) -> None:
        self.dataset, self.size, self.dtype, self.skip = dataset, size, dtype, skip
        self._crop, self._resize = XRayCenterCrop(), XRayResizer(size)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[int, Any, str]:
        try:
            image = self.dataset[row]["img"]
        except ImageReadError as error:
            if not self.skip:
                raise
            return row, np.zeros((self.size, self.size), self.dtype), str(error)
        return row, to_stored(self._resize(self._crop(image))[0], self.dtype), ""


def _make(
    todo: _Prepare, place: Path, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    """Prepare all images beside `place`, then give the folder its name."""
    part = place.with_name(f"{place.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    shape = (len(todo), todo.size, todo.size)
    pixels = _array(part / _IMAGES, shape, todo.dtype)
    checks = _array(part / _CHECKS, shape[:1], "uint32")
    # What an earlier process wrote counts where its checksum holds; order on disk is not promised.
    # A row of zeros has a checksum other than 0, so rows nobody wrote never hold.
    missing = [row for row in range(len(todo)) if _checksum(pixels[row]) != checks[row]]
    done, total = len(todo) - len(missing), len(todo)
    unreadable: dict[int, str] = {}
    loader = torch.utils.data.DataLoader(
        todo,
        batch_size=None,
        sampler=missing,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # torch's own stays as it is
    )
    for row, image, reason in loader:
        pixels[row] = image
        if reason:
            unreadable[row] = reason
            logger.warning("row %d is left out: %s", row, reason)
        else:
            checks[row] = _checksum(image)
        done += 1
        if progress is not None:
            progress(done, total)
    pixels.flush()
    checks.flush()
    index = {"preparation": _PREPARATION, "images": total, "unreadable": unreadable}
    (part / _INDEX).write_text(json.dumps(index), encoding="utf-8")
    _sync(part)
    if place.exists():  # without an index: somebody removed part of it
        shutil.rmtree(place)
    part.rename(place)


def _checksum(image: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(image).data)


def _as_it_is(item: Any) -> Any:
    return item


def _array(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    """A writable memory map: the one that an earlier process left, or a new one of zeros."""
    if path.exists():
        try:
            found = np.lib.format.open_memmap(path, mode="r+")
        except ValueError:  # killed while its header was written
            found = None
        if found is not None and found.shape == shape and found.dtype == dtype:
            return found
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
