"""Every image decoded once: a memory map, and what each image in it was made of."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from torchxrayvision.datasets import keys_of, patient_keys, same_numbering
from torchxrayvision.errors import DatasetError, ImageReadError, XRVError
from torchxrayvision.files import sha256_of
from torchxrayvision.inputs import ReadOptions, prefetch
from torchxrayvision.remote import make_folder
from torchxrayvision.training.images.pool import Pool, content_key
from torchxrayvision.training.images.prepared import PreparedImages, to_stored
from torchxrayvision.training.images.sources import (
    DIGEST,
    NO_STAMP,
    STAMP,
    FileLedger,
    Sources,
)
from torchxrayvision.transforms import XRayCenterCrop, XRayResizer

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from torchxrayvision.inputs import Read

logger = logging.getLogger(__name__)

_KEPT_AT_ONCE: Final = 1000  # files after which it is written down what they held


class ImageCache(PreparedImages):
    """Prepared images of a dataset on disk; a map-style dataset of `(image, labels, index)`.

    Images lie in one array per size and type, each known by the bytes of its file and the version
    of the preparation: a stale one can be left behind, never served, and datasets share what they
    have in common. Files are not read again at each opening: what they held is remembered with
    their size, times and inode, and only those whose state changed are read. Of these, one that
    was only touched is not decoded again.

    An image is compared with its checksum when it is first looked at, so that damage of the disk
    does not reach a network.

    Labels and patients are not kept; they are always those of the dataset. `patient_ids` are
    those of `datasets.patient_keys`, so they can be compared between caches.

    Use `build`, which opens what is there and makes what is missing.

    Attributes:
        folder: Where the array lies.
        digest: Names the images: a hash of the bytes of every file, their order, the size, the
            type and the version of the preparation.
        unreadable: Row of the dataset to the reason, for images that were left out.
    """

    folder: Path
    unreadable: dict[int, str]
    digest: str
    _pool: Pool
    _sources: Sources
    _digests: NDArray[np.bytes_]
    _places: NDArray[np.int64]
    _dataset: Any
    _told: bool
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
        reading: ReadOptions | None = None,
        skip_unreadable: bool = False,
        verify: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> ImageCache:
        """Open the prepared images of a dataset, or prepare them.

        Processes that want the same images wait for the one that prepares them. One that is
        killed leaves what it had done to the next. Images that are damaged as a whole, or were not
        yet on the disk when the machine stopped, are prepared again.

        Args:
            dataset: A dataset of this package or a container, without transforms.
            size: Side of the prepared images in pixels.
            folder: Where arrays are kept; None for the package's cache folder.
            dtype: `"uint8"`, or `"uint16"` for twice the bytes and 256 times the grey levels.
            workers: Threads that read and prepare; None for one per processor.
            reading: Limits for reading a file; its `workers`, if given, replace those above.
            skip_unreadable: Leave out images that cannot be read, and say so in `unreadable`.
            verify: Rely on nothing: read every file, whatever its size and times say, and compare
                every image with its checksum. What differs is prepared again.
            progress: Called with (done, total) now and then.

        Returns:
            The images, with labels, findings and patients of the dataset.

        Raises:
            ImageReadError: If an image cannot be read and `skip_unreadable` is not set.
            DatasetError: If the dataset transforms its images.

        Example:
            >>> import tempfile
            >>> from torchxrayvision.datasets import Phantom_Dataset
            >>> dataset = Phantom_Dataset(n=2, size=64)
            >>> cache = ImageCache.build(dataset, 32, folder=tempfile.mkdtemp())
            >>> cache[0][0].shape
            (1, 32, 32)
        """
        root, sources = cache_root(folder), Sources(dataset)
        work = _Work(root, sources, size, dtype, verify)
        if len(work.missing):
            with alone(root / f"{work.key}-{size}-{dtype}.lock"):
                work.look()  # somebody may have finished while this one waited
                options = reading or ReadOptions()
                options = replace(options, workers=options.workers or workers)
                work.do(options, skip_unreadable, progress)
        return cls._over(work, dataset)

    @classmethod
    def _over(cls, work: _Work, dataset: Any) -> ImageCache:
        pool, count = work.pool, len(work.places)
        # The array of the pool holds other images too, in an order of its own.
        shape_only = np.broadcast_to(np.zeros((), pool.dtype), (count, pool.size, pool.size))
        rows = np.flatnonzero(work.places >= 0)
        patient_ids = patients_of(dataset)
        told = patient_ids is not None
        if patient_ids is None:  # an image is then known by what is in it
            patient_ids = keys_of(f"image\0{one}" for one in work.digests.tolist())
        cache = cls(shape_only, dataset.labels, dataset.pathologies, patient_ids, rows=rows)
        cache.folder, cache.unreadable = pool.folder, work.unreadable
        cache.digest = content_key(work.digests, cache.size, str(pool.dtype))
        cache._pool, cache._pixels = pool, pool.pixels
        cache._sources, cache._digests, cache._places = work.sources, work.digests, work.places
        cache._unseen = np.ones(count, dtype=bool)  # shared with every subset
        cache._dataset, cache._told = dataset, told
        return cache

    @property
    def paths(self) -> list[str]:
        """Path of each image in its release."""
        return [self._sources.name(row) for row in self.rows.tolist()]

    def shared_patients(self, other: PreparedImages) -> int:
        """How many patients have images here and in other images; as far as both say whose.

        Args:
            other: Such as those to validate on.

        Returns:
            The count; the patients of one cohort are known in any of its releases.
        """
        if not isinstance(other, ImageCache):
            return super().shared_patients(other)
        if self._told and other._told and same_numbering(self._dataset, other._dataset):
            return super().shared_patients(other)
        # A source does not say whose its images are, or has numbers of its own for patients.
        return len(np.intersect1d(self._digests[self.rows], other._digests[other.rows]))

    def _take(self, rows: Any) -> NDArray[Any]:
        unseen = np.atleast_1d(rows)[self._unseen[np.atleast_1d(rows)]]
        if len(unseen):
            self._compare(unseen)
        return super()._take(self._places[rows])

    def _compare(self, rows: NDArray[np.int64]) -> None:
        damaged = self._pool.damaged(self._places[rows])
        if len(damaged):
            row = rows[np.isin(self._places[rows], damaged)][0]
            msg = f"{self.folder}: image {row} is not what was prepared"
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
            if self._sources.read(row).digest != self._digests[row]:
                msg = f"{self._sources.name(row)} is not what image {row} was made of"
                raise DatasetError(f"{msg}; ImageCache.build(..., verify=True) prepares it again")

    def _digest_pixels(self, digest: Any) -> None:
        digest.update(self.digest.encode())
        digest.update(self.rows.tobytes())


def cache_root(folder: str | os.PathLike[str] | None) -> Path:
    """The folder that is named, or that of the package's cache."""
    if folder is not None:
        return Path(folder)
    from torchxrayvision.remote import cache_dir

    return Path(cache_dir()) / "training"


def patients_of(dataset: Any) -> NDArray[np.int64] | None:
    """The patient of each image, or None where the source does not say."""
    try:
        return patient_keys(dataset)
    except DatasetError:  # the source does not say; every image is then one of its own
        return None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait for other processes that prepare the same images."""
    from filelock import FileLock

    lock = FileLock(path)
    with suppress(OSError):  # nothing can be added to a cache that is read-only, but it can be used
        make_folder(path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _Work:
    """The rows of a dataset, and which of them are to be prepared.

    Attributes:
        digests: What each row is made of; empty where that is not known yet.
        places: Where in the pool it lies; -1 if it does not.
        key: Names the files and their order; not what is in them.
    """

    def __init__(self, root: Path, sources: Sources, size: int, dtype: str, verify: bool) -> None:
        self.sources, self.pool = sources, Pool(root, size, dtype)
        self.unreadable: dict[int, str] = {}
        self._ledger, self._verify = FileLedger(root / "files.sqlite"), verify
        self._names, self._states, self._computed = sources.states()
        self.key = sha256_of(json.dumps(self._names).encode())[:40]
        self.look()

    def look(self) -> None:
        """See what is known of the files and what lies in the pool."""
        self.pool.look()
        self.digests = self._computed.copy()
        if not self._verify:
            files = self.digests == b""
            known = self._ledger.digests(self._names, self._states)
            self.digests[files] = known[files]
        places = self.pool.find(self.digests)
        # Places that were never seen to reach the disk may be empty: order there is not promised.
        doubted = (places >= 0) & (self._verify | ~self.pool.on_disk(places))
        damaged = self.pool.damaged(places[doubted])
        if len(damaged):
            logger.warning("%s: %d images are prepared again", self.pool.folder, len(damaged))
        self.places = np.where(np.isin(places, damaged), -1, places)

    @property
    def missing(self) -> NDArray[np.int64]:
        """Rows that are to be read."""
        return np.flatnonzero(self.places < 0)

    def do(
        self,
        options: ReadOptions,
        skip_unreadable: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Read what is missing, and prepare what is not in the pool; that outlives the process."""
        rows = self.missing.tolist()
        added: dict[bytes, int] = {}  # the same bytes may stand in several rows
        done, total = len(self.places) - len(rows), len(self.places)
        read: list[tuple[int, tuple[int, ...]]] = []
        make = _Prepare(self.sources, self.pool)
        try:
            for row, outcome in prefetch(rows, make, options):
                if isinstance(outcome, str):  # stuck, or stumbled over something unforeseen
                    outcome = _Prepared(ImageReadError(self.sources.name(row), outcome))
                self._take(row, outcome, added, skip_unreadable)
                read.append((row, outcome.stamp))
                done += 1
                if progress is not None:
                    progress(done, total)
                if len(read) == _KEPT_AT_ONCE:
                    self._keep(read)
        finally:
            self._keep(read)
        self.pool.look()
        places = self.places[self.places >= 0]
        late = places[~self.pool.on_disk(places)]
        if len(late):
            self.pool.flush(late)

    def _take(
        self, row: int, made: _Prepared, added: dict[bytes, int], skip_unreadable: bool
    ) -> None:
        self.digests[row] = made.digest
        if isinstance(made.result, XRVError):
            if not (skip_unreadable and isinstance(made.result, ImageReadError)):
                raise made.result
            self.unreadable[row] = str(made.result)
            logger.warning("row %d is left out: %s", row, made.result)
        elif isinstance(made.result, int):
            self.places[row] = made.result
        else:
            if made.digest not in added:
                added[made.digest] = self.pool.add(made.result, made.digest)
            self.places[row] = added[made.digest]

    def _keep(self, read: list[tuple[int, tuple[int, ...]]]) -> None:
        rows = [row for row, _ in read]
        stamps = np.array([stamp for _, stamp in read], np.int64).reshape(-1, STAMP)
        self._ledger.accept([self._names[row] for row in rows], stamps, self.digests[rows])
        read.clear()


class _Prepared(NamedTuple):
    """What became of one row: its pixels, their place in the pool, or an error."""

    result: NDArray[Any] | int | XRVError
    digest: bytes = b""
    stamp: tuple[int, ...] = NO_STAMP


class _Prepare:
    """Reads one row and prepares it, unless the pool has it."""

    def __init__(self, sources: Sources, pool: Pool) -> None:
        self._sources, self._pool = sources, pool
        self._crop, self._resize = XRayCenterCrop(), XRayResizer(pool.size)

    def __call__(self, row: int, read: Read) -> _Prepared:
        digest, stamp = b"", NO_STAMP
        try:
            digest, stamp, decode = self._sources.read(row)
            place = self._pool.find(np.array([digest], DIGEST))
            if place[0] >= 0 and not len(self._pool.damaged(place)):
                return _Prepared(int(place[0]), digest, stamp)
            return _Prepared(self.prepared(decode(read)), digest, stamp)
        except XRVError as error:
            return _Prepared(error, digest, stamp)

    def prepared(self, image: Any) -> NDArray[Any]:
        """The middle of an image at the size wanted, as whole numbers."""
        return to_stored(self._resize(self._crop(image))[0], str(self._pool.dtype))
