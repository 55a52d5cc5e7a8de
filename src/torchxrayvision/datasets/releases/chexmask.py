"""CheXmask: masks of lungs and heart for the images of other datasets."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np

from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.errors import DatasetError, DatasetNotFoundError
from torchxrayvision.facts import License, Reference
from torchxrayvision.files import FileState, sha256_of, write_atomically
from torchxrayvision.transforms import SeedSource

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.release import Row, SourceContext

    Size = tuple[int, int]

logger = logging.getLogger(__name__)

STRUCTURES = ("Left Lung", "Right Lung", "Heart")
DICE = "Dice RCA (Mean)"
_SIZE = ("Height", "Width")
_LARGEST = 1 << 28  # pixels of a mask; no detector has as many
_ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_COLUMNS = {
    "dicom_id": ("dicom_id",),
    "Image Index": ("Image Index",),
    "Path": ("Path", "path_to_image"),
    "ImageID": ("ImageID", "SOPInstanceUID"),
    "image_id": ("image_id",),
}
"""Column of a CheXmask file that names the image, to the columns of datasets that do."""

Attached = TypeVar("Attached", bound=SpecDataset)


class CheXmask:
    """Masks of the lungs and the heart out of one file of CheXmask.

    657,566 masks of five datasets, made by HybridGNet, each with an estimate of its Dice
    coefficient by reverse classification accuracy (RCA); the authors advise to use those of 0.7
    and more. Masks are those of ``OriginalResolution``, and are
    resized where an image was read in another size.

    A file has gigabytes of run lengths. It is scanned once for the place of each image, which is
    kept in the cache folder (some MB, made again when the file changes); masks are read one at a
    time when a sample is. The object pickles small, for the workers of a DataLoader.

    Args:
        csvpath: A file of the folder ``OriginalResolution``, unpacked.
        min_dice: Masks with a lower estimate are left out.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If it is no such table.

    Verified: all columns, and the form of the run lengths (start and length along the rows, the
    first pixel is 1), in the code that writes them. The order of the columns may differ.

    Source:
        Gaggion et al., Scientific Data 2024, https://doi.org/10.1038/s41597-024-03358-1.
    """

    reference = Reference(
        authors="Gaggion N, Mosquera C, Mansilla L, et al.",
        title="CheXmask: a large-scale dataset of anatomical segmentation masks for multi-center "
        "chest x-ray images",
        year=2024,
        venue="Scientific Data",
        url="https://doi.org/10.1038/s41597-024-03358-1",
    )
    license = License(
        name="CC BY 4.0",
        url="https://physionet.org/content/chexmask-cxr-segmentation-data/",
        commercial=True,
        note="The images have terms of their own.",
    )

    def __init__(self, csvpath: str | os.PathLike[str], min_dice: float = 0.7) -> None:
        self.csvpath = Path(csvpath).expanduser()
        self.min_dice = float(min_dice)
        if not self.csvpath.is_file():
            advice = "pass a file of the folder OriginalResolution of CheXmask"
            raise DatasetNotFoundError("CheXmask", "csvpath", self.csvpath, advice)
        with self.csvpath.open("rb") as stream:
            self._header = _fields(next(_records(stream), (0, b""))[1])
        self.id_column = self._named()
        self._hashes, self._offsets, self._dice = self._index()

    def __len__(self) -> int:
        """Number of images in the file."""
        return len(self._hashes)

    def __repr__(self) -> str:
        return f"CheXmask {self.csvpath.name} num_images={len(self)} min_dice={self.min_dice}"

    def _named(self) -> str:
        """The column that names the image, after a look at the header."""
        known = [name for name in self._header if name in _COLUMNS]
        missing = [name for name in (DICE, *STRUCTURES, *_SIZE) if name not in self._header]
        if missing or not known:
            shown = ", ".join(map(repr, self._header[:12]))
            lacks = missing or [f"one of {list(_COLUMNS)}"]
            msg = (
                f"CheXmask: {self.csvpath} lacks {', '.join(lacks)}; its header is {shown[:300]}. "
                f"Pass an unpacked csv file of the folder OriginalResolution"
            )
            raise DatasetError(msg)
        return known[0]

    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.float32]]:
        """Hash of each name, sorted; place of its record; its estimated Dice coefficient."""
        place = _cached_index(self.csvpath)
        if place.is_file():
            try:
                with place.open("rb") as stream, np.load(stream) as kept:
                    return kept["hashes"], kept["offsets"], kept["dice"]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                logger.info("the index %s is made again: %s", place, error)
        index = self._scan()
        _keep_index(place, index)
        return index

    def _scan(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.float32]]:
        logger.info("looking through %s once; this takes a while", self.csvpath)
        name, dice = self._header.index(self.id_column), self._header.index(DICE)
        hashes, offsets, estimates = [], [], []
        with self.csvpath.open("rb") as stream:
            records = _records(stream)
            next(records)
            for offset, record in records:
                if not record.strip():
                    continue
                fields = _leading(record, max(name, dice) + 1)
                hashes.append(_hash(_key(fields[name])))
                offsets.append(offset)
                estimates.append(_number(fields[dice]))
        keys = np.array(hashes, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")  # of an image that is listed twice, the first
        places = np.array(offsets, dtype=np.int64)
        return keys[order], places[order], np.array(estimates, dtype=np.float32)[order]

    def _positions(self, names: Iterable[object]) -> NDArray[np.intp]:
        """Places in the index, -1 where an image is not in the file."""
        wanted = np.array([_hash(_key(str(name))) for name in names], dtype=np.uint64)
        if not len(self._hashes):
            return np.full(len(wanted), -1)
        found = np.searchsorted(self._hashes, wanted)
        found[found == len(self._hashes)] = 0
        return np.where(self._hashes[found] == wanted, found, -1)

    def _estimates(self, names: Iterable[object]) -> NDArray[np.float32]:
        found = self._positions(names)
        result = np.full(len(found), np.nan, dtype=np.float32)
        result[found >= 0] = self._dice[found[found >= 0]]
        return result

    def dice(self, dataset: SpecDataset, column: str | None = None) -> NDArray[np.float32]:
        """Estimated Dice coefficient of each image of a dataset.

        Args:
            dataset: Any dataset whose csv names the images.
            column: Column of its csv; None: the one that goes with the file.

        Returns:
            float32 (N,), NaN where the file lacks the image; for `SubsetDataset`.
        """
        return self._estimates(dataset.csv[self.column_in(dataset, column)])

    def column_in(self, dataset: SpecDataset, column: str | None = None) -> str:
        """The column of a dataset's csv that names the images as the file does.

        Raises:
            DatasetError: If there is none.
        """
        wanted = _COLUMNS[self.id_column] if column is None else (column,)
        found = next((name for name in wanted if name in dataset.csv), None)
        if found is None:
            msg = (
                f"CheXmask: {self.csvpath.name} names images by {self.id_column!r}, and the csv of "
                f"{type(dataset).__name__} has none of {list(wanted)}; pass the file of this "
                f"dataset, or column=<the column that names its images>"
            )
            raise DatasetError(msg)
        return found

    def read(self, name: str) -> dict[str, NDArray[np.bool_]]:
        """Masks of an image, at the size of the release.

        Args:
            name: As the file names it, such as "00000001_000.png".

        Returns:
            Structure to bool (H, W), only those that are not empty; none where the file lacks
            the image or the estimate is below `min_dice`.

        Raises:
            DatasetError: If the record is damaged.
        """
        from torchxrayvision import masks

        position = int(self._positions([name])[0])
        if position < 0 or not self._dice[position] >= self.min_dice:
            return {}
        with self.csvpath.open("rb") as stream:
            stream.seek(int(self._offsets[position]))
            _, record = next(_records(stream), (0, b""))
        fields = dict(zip(self._header, _fields(record), strict=False))
        if _key(fields.get(self.id_column, "")) != _key(name):
            msg = f"CheXmask: {self.csvpath} was changed while it was in use; make a new object"
            raise DatasetError(msg)
        try:
            height, width = (int(_number(fields.get(side, ""))) for side in _SIZE)
            if not 0 < height * width <= _LARGEST:
                raise ValueError(f"a mask of {height} x {width} pixels")
            size = height, width
            found = {part: masks.decode_rle(fields.get(part, ""), size) for part in STRUCTURES}
        except (ValueError, OverflowError) as error:
            msg = f"CheXmask: {self.csvpath} is damaged where it speaks of {name!r}: {error}"
            raise DatasetError(msg) from error
        return {part: mask for part, mask in found.items() if mask.any()}


class _Anatomy:
    """A CheXmask file as the engine's source of masks for one dataset."""

    tables: tuple[str, ...] = ()

    def __init__(self, source: CheXmask, column: str) -> None:
        self.source, self.column = source, column

    def present(self, frame: pd.DataFrame, context: SourceContext) -> NDArray[np.bool_]:  # noqa: ARG002
        """Which rows have masks that are good enough."""
        good: NDArray[np.bool_] = self.source._estimates(frame[self.column]) >= self.source.min_dice
        return good

    def masks(
        self,
        row: Row,
        shape: Size,
        context: SourceContext,  # noqa: ARG002
    ) -> dict[str, NDArray[np.bool_]]:
        """Structure to its mask at the shape of the image."""
        from torchxrayvision import masks

        found = self.source.read(str(row[self.column]))
        return {
            part: mask if mask.shape == shape else masks.resize_mask(mask, shape)
            for part, mask in found.items()
        }


def with_chexmask(
    dataset: Attached,
    source: CheXmask | str | os.PathLike[str],
    *,
    min_dice: float = 0.7,
    column: str | None = None,
) -> Attached:
    """A dataset whose samples have the masks of CheXmask.

    Samples get ``semantic_masks`` with "Left Lung", "Right Lung" and "Heart", float32 (1, H, W)
    of 0 and 1 at the image's shape; transforms move them with the image. An image without
    masks, or with an estimate below `min_dice`, gets an empty dict.

    Args:
        dataset: NIH, CheXpert (and Plus), MIMIC-CXR (and MS-CXR, REFLACX), PadChest (and GR),
            VinDr-CXR, CANDID-PTX. It stays as it is.
        source: A file of CheXmask for that dataset, or a `CheXmask` to share.
        min_dice: Least estimated Dice coefficient; counts where `source` is a path.
        column: Column of the dataset's csv that names the images; None: found by its name.

    Returns:
        A dataset of the same class on the same table.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If the file is none of CheXmask, or not that of this dataset.

    Example:
        >>> from torchxrayvision.datasets import NIH_Dataset, with_chexmask
        >>> def load(imgpath, csvpath):
        ...     return with_chexmask(NIH_Dataset(imgpath), csvpath)  # ChestX-Ray8.csv

    Source:
        Gaggion et al., Scientific Data 2024, https://doi.org/10.1038/s41597-024-03358-1.
    """
    if not isinstance(dataset, SpecDataset):
        msg = (
            f"with_chexmask takes one dataset, got {type(dataset).__name__}; attach the masks to "
            f"the datasets inside a container before it is made"
        )
        raise DatasetError(msg)
    masks = source if isinstance(source, CheXmask) else CheXmask(source, min_dice)
    anatomy = _Anatomy(masks, masks.column_in(dataset, column))
    names = dataset.csv[anatomy.column]
    if not (masks._positions(names) >= 0).any():
        msg = (
            f"CheXmask: none of the {len(names):,} images of {type(dataset).__name__}, such as "
            f"{names.iloc[0]!r}, is in {masks.csvpath}; pass the file of this dataset"
        )
        raise DatasetError(msg)
    attached = object.__new__(type(dataset))
    attached.__dict__.update(dataset.__dict__)
    attached.anatomy, attached.semantic_masks = anatomy, True
    attached._seeds = SeedSource(dataset.seed)
    return attached


def _records(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Place and bytes of each record; quoted fields may hold line ends."""
    offset = stream.tell()
    while record := stream.readline():
        while record.count(b'"') % 2 and (more := stream.readline()):
            record += more
        yield offset, record
        offset += len(record)


def _fields(record: bytes) -> list[str]:
    """Fields of a record; unlike Python's csv reader it has no limit of their length."""
    pieces = record.decode("utf-8-sig", "replace").rstrip("\r\n").split('"')
    pieces[1::2] = [inside.replace(",", "\0") for inside in pieces[1::2]]
    return [field.replace("\0", ",").strip() for field in "".join(pieces).split(",")]


def _leading(record: bytes, number: int) -> list[str]:
    """The first fields of a record, without a look at the rest where that is possible."""
    first = record.split(b",", number)[:number]
    if any(b'"' in field for field in first) or len(first) < number:
        fields = _fields(record)
        return fields + [""] * (number - len(fields))
    return [field.decode("utf-8-sig", "replace").strip() for field in first]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _key(name: str) -> str:
    """What stays the same of an image's name: no ending, no name of the release before the path."""
    text = name.strip().replace("\\", "/")
    for ending in _ENDINGS:
        if text.lower().endswith(ending):
            text = text[: -len(ending)]
    return "/".join(text.split("/")[-4:])  # train/patient00001/study1/view1_frontal


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _cached_index(csvpath: Path) -> Path:
    """Where the index of a file is kept; another after each change of the file."""
    from torchxrayvision.remote import cache_dir

    said = f"1|{csvpath.resolve()}|{FileState.of(csvpath).content}"
    return cache_dir() / "chexmask" / f"{sha256_of(said.encode())[:24]}.npz"


def _keep_index(place: Path, index: tuple[NDArray[Any], ...]) -> None:
    """Write the index for the next time; where that cannot be, go without."""
    from torchxrayvision.remote import make_folder

    try:
        make_folder(place.parent)
        with write_atomically(place, durable=False) as part:
            np.savez(part, hashes=index[0], offsets=index[1], dice=index[2])
    except OSError as error:
        logger.info("the index of CheXmask is not kept: %s", error)
