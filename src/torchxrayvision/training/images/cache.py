"""Every image decoded once: a memory-mapped array that is keyed by what it was made of."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from torchxrayvision.datasets import patients
from torchxrayvision.errors import DatasetError, ImageReadError
from torchxrayvision.training.images.origin import Known, Sources
from torchxrayvision.training.images.prepared import PreparedImages, to_stored
from torchxrayvision.training.images.store import Donors, Part, Shape, Store, content_key, set_aside
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["ImageCache"]

logger = logging.getLogger(__name__)

_SMALL: Final = 64  # images for which starting processes costs more than it saves


class ImageCache(PreparedImages):
    """Prepared images of a dataset on disk; a map-style dataset of `(image, labels, index)`.

    The folder of an array is named by a hash of the bytes of every file, their order, the size,
    the type and the version of the preparation, so a stale array can be left behind, never served.
    Files are not read again at each opening: what they held is remembered with their size, times
    and inode, and only those whose state changed are read. One that was only touched is the same
    as before; of those that changed, each is decoded again, and the other images are copied.

    An image is compared with its checksum when it is first looked at, so that damage of the disk
    does not reach a network.

    Labels are not kept; they are always those of the dataset.

    Use `build`, which opens what is there and makes what is missing.

    Attributes:
        folder: Where the array lies.
        unreadable: Row of the dataset to the reason, for images that were left out.
    """

    folder: Path
    unreadable: dict[int, str]
    digest: str
    _store: Store
    _sources: Sources
    _unseen: NDArray[np.bool_]

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
        verify: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImageCache:
        """Open the prepared images of a dataset, or prepare them.

        Processes that want the same images wait for the one that prepares them. One that is
        killed leaves what it had done to the next. An array that is damaged is prepared again.

        Args:
            dataset: A dataset of this package or a container, without transforms.
            size: Side of the prepared images in pixels.
            folder: Where arrays are kept; None for the package's cache folder.
            dtype: `"uint8"`, or `"uint16"` for twice the bytes and 256 times the grey levels.
            workers: Processes that decode; None for one a processor, 0 for none beside this.
            skip_unreadable: Leave out images that cannot be read, and say so in `unreadable`.
            verify: Rely on nothing: read every file, whatever its size and times say, and compare
                every image with its checksum. What differs is prepared again.
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
        sources = Sources(dataset)
        shape = (len(sources), size, dtype)
        workers = _workers(workers, len(sources))
        known = Known(root, sources)
        store = _found(root, known, shape, workers, verify)
        if store is None:
            todo = _Prepare(sources, shape, skip_unreadable)
            store = _made(root, todo, known, workers, progress)
        if store.unreadable and not skip_unreadable:
            row, reason = next(iter(store.unreadable.items()))
            msg = f"{len(store.unreadable)} images cannot be read, first row {row}: {reason}"
            raise DatasetError(f"{msg}; pass skip_unreadable=True to leave them out")
        return cls._over(store, sources, dataset)

    @classmethod
    def _over(cls, store: Store, sources: Sources, dataset: Any) -> ImageCache:
        count = len(sources)
        rows = np.setdiff1d(np.arange(count), list(store.unreadable)).astype(np.int64)
        groups = _patients(dataset)
        cache = cls(store.pixels, dataset.labels, dataset.pathologies, groups, rows=rows)
        cache.folder, cache.unreadable, cache.digest = (
            store.folder,
            store.unreadable,
            store.folder.name,
        )
        cache._store, cache._sources = store, sources
        cache._unseen = np.ones(count, dtype=bool)  # shared with every subset
        return cache

    def _take(self, rows: Any) -> NDArray[Any]:
        unseen = np.atleast_1d(rows)[self._unseen[np.atleast_1d(rows)]]
        if len(unseen):
            self._compare(unseen)
        return super()._take(rows)

    def _compare(self, rows: NDArray[np.int64]) -> None:
        damaged = self._store.damaged(rows)
        if damaged:
            msg = f"{self.folder}: image {damaged[0]} is not what was prepared"
            raise DatasetError(f"{msg}; ImageCache.build(..., verify=True) prepares it again")
        self._unseen[rows] = False

    def verify(self, *, sources: bool = False) -> None:
        """Compare every image with the checksum from when it was prepared.

        Args:
            sources: Also read every file and compare it with what was decoded. This finds what
                the times of a file hide, such as damage of its disk.

        Raises:
            DatasetError: If one differs; `build` with ``verify=True`` prepares it again.
        """
        self._compare(self.rows)
        for row in self.rows.tolist() if sources else ():
            if self._sources.content(row)[0] != self._store.digests[row]:
                msg = f"{self._sources.name(row)} is not what image {row} was made of"
                raise DatasetError(f"{msg}; ImageCache.build(..., verify=True) prepares it again")

    def _digest_pixels(self, digest: Any) -> None:
        digest.update(self.digest.encode())
        digest.update(self.rows.tobytes())


def _root(folder: str | os.PathLike[str] | None) -> Path:
    if folder is not None:
        return Path(folder)
    from torchxrayvision.remote import cache_dir

    return Path(cache_dir()) / "training"


def _workers(workers: int | None, count: int) -> int:
    if workers is not None:
        return workers
    return 0 if count < _SMALL else os.cpu_count() or 1


def _patients(dataset: Any) -> NDArray[Any] | None:
    try:
        return patients(dataset)
    except DatasetError:  # the source does not say; every image is then one of its own
        return None


def _found(
    root: Path, known: Known, shape: Shape, workers: int, verify: bool = False
) -> Store | None:
    """The array of a dataset as its files are now, if it is there."""
    if known.fresh:
        return None  # hashing is left to the preparation, which reads the files anyway
    if verify:
        known.doubt()
    known.read(workers)
    return _opened(root, known, shape, verify)


def _opened(root: Path, known: Known, shape: Shape, verify: bool) -> Store | None:
    place = root / content_key(known.digests, *shape[1:])
    try:
        store = Store(place, shape)
        rows = np.setdiff1d(np.arange(shape[0]), list(store.unreadable)) if verify else ()
        damaged = store.damaged(rows)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("a damaged array is prepared again: %s", error)
    else:
        if not damaged:
            return store
        logger.warning("%s: %d damaged images are prepared again", place, len(damaged))
    set_aside(place)
    return None


def _made(
    root: Path,
    todo: _Prepare,
    known: Known,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Store:
    """Prepare what is missing, in a folder that gets its name when it is whole."""
    from filelock import FileLock

    shape = (len(todo), todo.size, todo.dtype)
    name = f"{known.key}-{todo.size}-{todo.dtype}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{name}.lock"):
        if known.fresh:
            known = Known(root, todo.sources)  # somebody may have finished while this one waited
        store = _found(root, known, shape, workers)
        if store is not None:
            return store
        part = Part(root / f"{name}.part", shape)
        known.vouch(part.stamps, part.digests)
        todo.known, todo.donors = known, Donors(root, todo.size, todo.dtype, part.folder)
        unreadable = _fill(part, todo, workers, progress)
        known.save(part.stamps, part.digests)
        return Store(part.finish(unreadable), shape)


def _fill(
    part: Part, todo: _Prepare, workers: int, progress: Callable[[int, int], None] | None
) -> dict[int, str]:
    """Prepare the rows that an earlier process left, and say which cannot be read."""
    finished = part.done(todo.known.digests)
    done, total = int(finished.sum()), len(todo)
    loader = torch.utils.data.DataLoader(
        todo,
        batch_size=None,
        sampler=np.flatnonzero(~finished).tolist(),
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # torch's own stays as it is
    )
    unreadable: dict[int, str] = {}
    for row, pixels, digest, stamp, reason in loader:
        part.put(row, pixels, digest, stamp, whole=not reason)
        if reason:
            unreadable[row] = reason
            logger.warning("row %d is left out: %s", row, reason)
        done += 1
        if progress is not None:
            progress(done, total)
    return unreadable


_Prepared = tuple[int, "NDArray[Any]", bytes, tuple[int, ...], str]


class _Prepare(torch.utils.data.Dataset[_Prepared]):
    """Row to `(row, pixels, digest, stamp, reason)`; no reason unless it cannot be read."""

    known: Known
    donors: Donors

    def __init__(self, sources: Sources, shape: Shape, skip: bool) -> None:
        self.sources, self.skip = sources, skip
        _, self.size, self.dtype = shape
        self._crop, self._resize = XRayCenterCrop(), XRayResizer(self.size)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, row: int) -> _Prepared:
        digest = self.known.digest(row)
        if digest:
            pixels = self.donors.find(digest)
            if pixels is not None:
                return row, pixels, digest, self.known.stamp(row), ""
        digest, stamp, decode = self.sources.read(row)
        pixels = self.donors.find(digest)
        if pixels is not None:
            return row, pixels, digest, stamp, ""
        try:
            return row, self.prepared(decode()), digest, stamp, ""
        except ImageReadError as error:
            if not self.skip:
                raise
            pixels = np.zeros((self.size, self.size), self.dtype)
            return row, pixels, digest, stamp, str(error)

    def prepared(self, image: Any) -> NDArray[Any]:
        """The middle of an image at the size wanted, as whole numbers."""
        return to_stored(self._resize(self._crop(image))[0], self.dtype)


def _as_it_is(item: Any) -> Any:
    return item
