"""Images that are ready for a network, one array of them, with their labels."""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.deprecation import with_former_names
from torchxrayvision.errors import DatasetError, ImageShapeError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LEVELS: Final = {"uint8": 255, "uint16": 65535}


def to_stored(image: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Values in [-1024, 1024] as whole numbers that use the whole range of a type.

    Args:
        image: Any shape; values outside are clipped.
        dtype: `"uint8"` or `"uint16"`.

    Returns:
        The same shape; off by at most half a level, 4 of 2048 grey values for uint8.

    Example:
        >>> to_stored(np.array([-1024.0, 0.0, 1024.0]), "uint8")
        array([  0, 128, 255], dtype=uint8)
    """
    levels = _LEVELS[dtype]
    scaled = (np.asarray(image, np.float32) + 1024.0) * (levels / 2048.0)
    stored: NDArray[Any] = np.clip(np.rint(scaled), 0, levels).astype(dtype)
    return stored


def from_stored(pixels: Any) -> Any:
    """The values in [-1024, 1024] of stored pixels.

    Args:
        pixels: Array or tensor of uint8, uint16 or floating point, which is taken as it is.

    Returns:
        float32, of the same kind and shape.

    Example:
        >>> from_stored(np.array([0, 255], np.uint8)).tolist()
        [-1024.0, 1024.0]
    """
    name = str(pixels.dtype).removeprefix("torch.")
    floats = pixels.astype(np.float32) if isinstance(pixels, np.ndarray) else pixels.float()
    return floats * (2048.0 / _LEVELS[name]) - 1024.0 if name in _LEVELS else floats


def checked_labels(labels: NDArray[Any], names: Sequence[str], *, soft: bool = False) -> None:
    """Refuse labels that are no probability: the loss of -1, "uncertain", has no lower bound.

    Args:
        labels: (N, P).
        names: The P findings.
        soft: Whether anything from 0 to 1 will do.

    Raises:
        DatasetError: For anything but 0, 1 and NaN.
    """
    for name, column in zip(names, np.asarray(labels).T, strict=True):
        known = column[~np.isnan(column)]
        good = (known >= 0) & (known <= 1) if soft else (known == 0) | (known == 1)
        if not good.all():
            found = np.unique(known[~good])[:5].tolist()
            msg = f"labels are 1, 0 or NaN for unknown, got {found} for {name}; make them NaN"
            raise DatasetError(msg)


def _keys(
    patient_ids: NDArray[Any] | Sequence[Any] | None, pixels: NDArray[Any], table: NDArray[Any]
) -> NDArray[np.int64]:
    """The patient of each image as a number that can be compared between arrays, (N,)."""
    import pandas as pd

    from torchxrayvision.datasets import keys_of

    given = np.full(len(pixels), None) if patient_ids is None else np.asarray(patient_ids)
    if given.dtype.kind in "iu":
        return np.asarray(given, np.int64).reshape(-1)
    codes, names = pd.Series(given.astype(object).reshape(-1)).factorize()
    keys: NDArray[np.int64] = np.array([*map(_key, names), 0], np.int64)[codes]
    blank = np.flatnonzero(codes < 0)
    if len(blank):
        # Nobody else: the array is known by its labels and by two of its images.
        digest = hashlib.sha256(repr((pixels.shape, str(pixels.dtype))).encode())
        for part in (table, pixels[0], pixels[-1]):
            digest.update(np.ascontiguousarray(part).tobytes())
        array = digest.hexdigest()
        keys[blank] = keys_of(f"image\0{array}\0{row}" for row in blank.tolist())
    return keys


def _key(name: Any) -> int:
    """One patient as a number: 7 and 7.0, as a table with blanks has it, are the same one."""
    from torchxrayvision.datasets import keys_of

    if isinstance(name, (int, float)) and float(name).is_integer():
        return int(name)
    return int(keys_of([f"patient\0{name}"])[0])


class PreparedImages:
    """A map-style dataset of `(image, labels, index)` over one array of square images.

    Args:
        images: (N, S, S) or (N, 1, S, S): uint8 or uint16 over the whole range of the type, or
            floating point in [-1024, 1024]. A memory map stays one.
        labels: (N, P): 1 present, 0 absent, NaN unknown; None for images without labels.
        names: The P findings.
        patient_ids: The patient of each image, (N,), of any type; None if every image is one of its
            own, as is one whose patient is None or NaN.
        rows: Which of the images make up this dataset, in order; None for all.

    Attributes:
        names: The findings.
        labels: float32 (N, P), of the chosen rows.
        patient_ids: int64 (N,), of the chosen rows: whole numbers as they were given, hashes of
            anything else, so that they can be compared between datasets.
        size: Side of the images in pixels.

    Raises:
        ImageShapeError: If the shapes do not fit each other.

    Example:
        >>> data = PreparedImages(np.zeros((3, 8, 8), np.uint8), np.zeros((3, 1)), ["Mass"])
        >>> image, labels, index = data[2]
        >>> image.shape, float(image.max()), labels.tolist(), index
        ((1, 8, 8), -1024.0, [0.0], 2)
        >>> data.batch([0, 2])[0].shape
        (2, 1, 8, 8)
    """

    @with_former_names
    def __init__(
        self,
        images: NDArray[Any],
        labels: NDArray[Any] | None = None,
        names: Sequence[str] = (),
        patient_ids: NDArray[Any] | Sequence[Any] | None = None,
        *,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        pixels = images[:, 0] if images.ndim == 4 and images.shape[1] == 1 else images
        if pixels.ndim != 3 or pixels.shape[1] != pixels.shape[2]:
            raise ImageShapeError(f"images must be of shape (N, S, S), got {images.shape}")
        none = np.zeros((len(pixels), 0), np.float32)
        table = np.asarray(none if labels is None else labels, dtype=np.float32)
        if table.shape != (len(pixels), len(names)):
            given = f"{counted(len(pixels), 'image')} and {counted(len(names), 'finding')}"
            shape = (len(pixels), len(names))
            raise ImageShapeError(f"{given} need labels of shape {shape}, got {table.shape}")
        if patient_ids is not None and len(patient_ids) != len(pixels):
            raise ImageShapeError(
                f"{len(patient_ids)} patient_ids for {counted(len(pixels), 'image')}; give one each"
            )
        if pixels.dtype.kind != "f" and str(pixels.dtype) not in _LEVELS:
            raise ImageShapeError(f"images must be uint8, uint16 or float, got {pixels.dtype}")
        self._pixels = pixels
        self.rows = np.arange(len(pixels)) if rows is None else np.asarray(rows, dtype=np.int64)
        self._table, self._keys = table, _keys(patient_ids, pixels, table)
        self.names = tuple(str(name) for name in names)
        self.size = int(pixels.shape[1])

    @property
    def labels(self) -> NDArray[np.float32]:
        """float32 (N, P): 1 present, 0 absent, NaN unknown."""
        chosen: NDArray[np.float32] = self._table[self.rows]
        return chosen

    @property
    def patient_ids(self) -> NDArray[np.int64]:
        """The patient of each image, as a number that is the same in other datasets; int64 (N,)."""
        chosen: NDArray[np.int64] = self._keys[self.rows]
        return chosen

    @property
    def groups(self) -> NDArray[np.int64]:
        """The former name of `patient_ids`."""
        message = "groups of prepared images is now patient_ids; the old name goes in release 3"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.patient_ids

    @property
    def paths(self) -> list[str]:
        """What tables call each image: its path in the release, else the number of its row."""
        return [str(row) for row in self.rows]

    def shared_patients(self, other: PreparedImages) -> int:
        """How many patients have images here and in other images; as far as both say whose.

        Args:
            other: Such as those to validate on.

        Returns:
            The count; an image without a patient is one of its own.
        """
        return len(np.intersect1d(self.patient_ids, other.patient_ids))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32], int]:
        """One image, float32 (1, S, S) in [-1024, 1024], its labels and its index."""
        row = int(self.rows[index])
        return from_stored(np.asarray(self._take(row)))[None], self._table[row].copy(), index

    def batch(
        self, indices: Sequence[int] | NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Several images at once, as they are stored.

        Args:
            indices: Positions in this dataset, B of them.

        Returns:
            Pixels (B, 1, S, S) of the stored type, for `from_stored`, and labels float32 (B, P).
        """
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        return self._take(rows)[:, None], self._table[rows]

    def _take(self, rows: Any) -> NDArray[Any]:
        """Stored pixels of a row of the array, or of several."""
        taken: NDArray[Any] = self._pixels[rows]
        return taken

    def subset(self, indices: Sequence[int] | NDArray[Any]) -> PreparedImages:
        """Some of the images, without a copy.

        Args:
            indices: Positions in this dataset, or a mask of its length.

        Returns:
            A dataset over the same array.
        """
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__)
        chosen = np.asarray(indices)
        part.rows = self.rows[chosen if chosen.dtype == bool else chosen.astype(np.int64)]
        return part

    def with_findings(self, names: Sequence[str]) -> PreparedImages:
        """The same images with other findings; those that are not there are NaN.

        Args:
            names: Findings wanted, in order; none for images without labels.

        Returns:
            A dataset over the same array.

        Raises:
            DatasetError: If some are wanted and none of them is there.
        """
        known = [name for name in names if name in self.names]
        if names and not known:
            msg = f"none of {', '.join(names)} is among the findings {', '.join(self.names)}"
            raise DatasetError(msg)
        table = np.full((len(self._table), len(names)), np.nan, dtype=np.float32)
        for column, name in enumerate(names):
            if name in self.names:
                table[:, column] = self._table[:, self.names.index(name)]
        part = self.subset(np.arange(len(self)))
        part.names, part._table = tuple(names), table
        return part

    def fingerprint(self) -> str:
        """A hash of images, labels and order, by which a run knows its data again.

        Returns:
            Hexadecimal digits.
        """
        digest = hashlib.sha256(repr((self.names, self.size, str(self._pixels.dtype))).encode())
        digest.update(np.ascontiguousarray(self.labels).tobytes())
        self._digest_pixels(digest)
        return digest.hexdigest()

    def _digest_pixels(self, digest: Any) -> None:
        for row in self.rows:
            digest.update(np.ascontiguousarray(self._take(row)).data)
