"""The images that a page shows: where they are, what is known of them, how much they take."""

from __future__ import annotations

import io
import secrets
import threading
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import ImageReadError, XRVError
from torchxrayvision.images import Limits
from torchxrayvision.inputs import (
    InputFile,
    ReadOptions,
    Skipped,
    expand,
    read_bytes,
    read_file,
    unpack_zip,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from torchxrayvision.images import Raster

_ZIP: Final = b"PK\x03\x04"
_SIDE: Final = 128  # of thumbnails
_MOST_IMAGES: Final = 200_000
_THUMBNAILS: Final = 20_000  # that are kept at most, of about 3 kB
_RASTERS: Final = 4  # decoded ones that are kept at most


class FullError(XRVError):
    """The memory that the page may take is used up."""


@dataclass(eq=False)
class Entry:
    """One image.

    Args:
        key: What stands for it in addresses; says nothing of it.
        file: Where it is.
        added: Whether a user gave it to the page, rather than the command.
        readings: Of each classifier, by its number.
        forced: Whether the user had it read although the screening refuses it.
        seen: What was computed for the viewer before: `facts`, `structures`.
    """

    key: str
    file: InputFile
    added: bool
    readings: dict[int, Any] = field(default_factory=dict)
    forced: bool = False
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the user knows it."""
        return self.file.given

    @property
    def size(self) -> int:
        """Bytes that it takes of the memory."""
        return len(self.file.data or b"")


class Budget:
    """Bytes that may be taken, counted before they are.

    Args:
        total: How many.
    """

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take some.

        Raises:
            FullError: If there are not so many left.
        """
        with self._lock:
            if self.used + count > self.total:
                left = max(0, self.total - self.used)
                msg = (
                    f"{count:,} more bytes do not fit: {left:,} of {self.total:,} are left; "
                    "remove images, or start xrv app with a larger --memory"
                )
                raise FullError(msg)
            self.used += count

    def give(self, count: int) -> None:
        """Give some back."""
        with self._lock:
            self.used -= count

    @contextmanager
    def taking(self) -> Iterator[Taken]:
        """Take bytes one after the other, which are given back at the end unless they are kept."""
        taken = Taken(self)
        try:
            yield taken
        finally:
            self.give(taken.count)


class Taken:
    """Bytes of a `Budget` that are taken for as long as something is done.

    Args:
        budget: Where from.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget, self.count = budget, 0

    def more(self, count: int) -> None:
        """Take some more; raises as `Budget.take`."""
        self._budget.take(count)
        self.count += count

    def keep(self, count: int) -> None:
        """Leave some taken for good."""
        self.count -= count


class Library:
    """Images by their keys, in the order in which they came.

    Args:
        folder: Listed in the background; None for none.
        memory: Bytes for images that are given to the page; half as many again may be decoded.
        largest: Most bytes of one file.
        pixels: Most pixels of one image.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        memory: int = 2**31,
        largest: int = 2**29,
        pixels: int = 100_000_000,
    ) -> None:
        self.budget = Budget(memory)
        self.largest = largest
        self.limits = Limits(pixels=pixels, file_bytes=largest)
        self.reading = ReadOptions(workers=2, limits=self.limits)
        self.listing = folder is not None
        self.skipped = Skipped()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._rasters: OrderedDict[str, Raster] = OrderedDict()
        self._decoding: dict[str, threading.Lock] = {}
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()
        self._changes = 0
        if folder is not None:
            threading.Thread(target=self._list, args=(folder,), daemon=True).start()

    def _list(self, folder: Path) -> None:
        root = f"{folder}/"
        try:
            for file in expand([folder], skipped=self.skipped):
                named = InputFile(
                    file.path, file.given.removeprefix(root), file.member, file.problem
                )
                with self._lock:
                    self._add(named, added=False)
                if len(self._entries) >= _MOST_IMAGES:
                    break
        finally:
            self.listing = False

    def _add(self, file: InputFile, *, added: bool) -> Entry:
        entry = Entry(secrets.token_hex(8), file, added)
        self._entries[entry.key] = entry
        self._changes += 1
        return entry

    @property
    def changes(self) -> int:
        """Grows whenever the list changes."""
        return self._changes

    def entries(self) -> list[Entry]:
        """All, in their order."""
        with self._lock:
            return list(self._entries.values())

    def __getitem__(self, key: str) -> Entry:
        with self._lock:
            return self._entries[key]

    def add(self, name: str, data: bytes, taken: Taken) -> list[Entry]:
        """Take in a file: an image, or a zip of images.

        Args:
            name: As the user knows it; folders in it are left out.
            data: The file.
            taken: Its bytes of the budget, of which an image keeps its own.

        Returns:
            What came of it. A zip gives one per image, with a `problem` where it cannot be read.

        Raises:
            ImageReadError: If a zip holds no image.
            FullError: If its images do not fit into the memory.
        """
        if not data.startswith(_ZIP):
            taken.keep(len(data))
            with self._lock:
                return [self._add(InputFile(Path(name), name, data=data), added=True)]
        entries: list[Entry] = []
        for file in unpack_zip(data, name, self.limits):
            self.budget.take(len(file.data or b""))
            with self._lock:
                entries.append(self._add(file, added=True))
        if not entries:
            raise ImageReadError(name, "no image in this zip", "choose one that holds images")
        return entries

    def remove(self, key: str) -> None:
        """Forget an image that a user gave to the page, or what is known of one of the folder."""
        with self._lock:
            entry = self._entries.pop(key, None)
            self._rasters.pop(key, None)
            self._decoding.pop(key, None)
            self._thumbnails.pop(key, None)
            self._changes += 1
        if entry is not None:
            self.budget.give(entry.size)

    def raster(self, entry: Entry) -> Raster:
        """The decoded image; the last few are kept.

        Raises:
            ImageReadError: If it cannot be read.
        """
        with self._lock:
            own = self._decoding.setdefault(entry.key, threading.Lock())
        with own:
            with self._lock:
                kept = self._rasters.get(entry.key)
                if kept is not None:
                    self._rasters.move_to_end(entry.key)
                    return kept
            raster = read_file(entry.file, self.reading)
            with self._lock:
                self._rasters[entry.key] = raster
                while len(self._rasters) > 1 and self._too_many():
                    self._rasters.popitem(last=False)
            return raster

    def _too_many(self) -> bool:
        taken = sum(raster.pixels.nbytes for raster in self._rasters.values())
        return len(self._rasters) > _RASTERS or taken > self.budget.total // 2

    def data(self, entry: Entry) -> bytes:
        """The bytes of the file, out of its archive.

        Raises:
            ImageReadError: If they cannot be read.
        """
        return read_bytes(entry.file, self.reading)

    def thumbnail(self, entry: Entry) -> bytes:
        """A small picture, JPEG.

        Raises:
            ImageReadError: If the image cannot be read.
        """
        with self._lock:
            small = self._thumbnails.get(entry.key)
            raster = self._rasters.get(entry.key)
        if small is None:
            small = _small(read_file(entry.file, self.reading) if raster is None else raster)
            with self._lock:
                self._thumbnails[entry.key] = small
                while len(self._thumbnails) > _THUMBNAILS:
                    self._thumbnails.popitem(last=False)
        return small


def _small(raster: Raster) -> bytes:
    """A picture of at most 128 pixels a side, its pixels square, its middle grey values spread."""
    from PIL import Image

    from torchxrayvision.pictures import grey

    height, width = raster.shape
    step = max(1, min(height, width) // (2 * _SIDE))
    values: NDArray[Any] = raster.pixels[::step, ::step].astype(np.float32)
    values = values * raster.scale + raster.offset
    low, high = np.quantile(values, (0.01, 0.99))
    spread = (values - low) * (2048 / max(high - low, 1e-6)) - 1024
    shape = width, height * raster.info.aspect
    scale = _SIDE / max(shape)
    size = tuple(max(1, round(side * scale)) for side in shape)
    small = Image.fromarray(grey(spread)).resize((size[0], size[1]), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()


_EXAMPLES: Final[tuple[tuple[str, dict[str, float]], ...]] = (
    ("simulated-effusion.dcm", {"Effusion": 0.75, "Cardiomegaly": 0.6}),
    ("simulated-pneumothorax.dcm", {"Pneumothorax": 0.8}),
    ("simulated-without-findings.dcm", {}),
)
_EXAMPLE_SIDE: Final = 1024


def simulated() -> Iterator[tuple[str, bytes]]:
    """A few simulated radiographs as DICOM files in memory, each with a name."""
    from pydicom import dcmwrite

    from torchxrayvision.phantom import simulate, write_dicom

    for number, (name, findings) in enumerate(_EXAMPLES):
        made = simulate(
            7 * number, seed=3, size=_EXAMPLE_SIDE, views=["PA"], findings=findings, others=False
        )
        # One as MONOCHROME1, in which 0 is white: the page shows it as any other.
        dataset = write_dicom(None, made, seed=3, number=number, inverted=number == 1)
        file = io.BytesIO()
        dcmwrite(file, dataset, enforce_file_format=True)
        yield name, file.getvalue()
