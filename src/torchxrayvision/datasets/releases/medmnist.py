"""ChestMNIST and PneumoniaMNIST: small copies of chest X-rays in NumPy archives."""

from __future__ import annotations

import logging
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.findings import FindingColumns
from torchxrayvision.datasets.images import ImageSource
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.datasets.spec import DatasetSpec
from torchxrayvision.errors import DatasetError
from torchxrayvision.facts import License, Reference
from torchxrayvision.files import FileState, sha256_of, write_atomically
from torchxrayvision.inputs import InputFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.release import Row, SourceContext

# What reading a member of a damaged or encrypted archive raises; some are RuntimeErrors.
_DAMAGED = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
_CHEST = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia"),
    *("Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening"),
    "Hernia",
)
_REFERENCE = Reference(
    authors="Yang J, Shi R, Wei D, et al.",
    title="MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification",
    year=2023,
    venue="Scientific Data",
    url="https://doi.org/10.1038/s41597-022-01721-8",
)
_LICENSE = License(
    name="CC BY 4.0", url="https://creativecommons.org/licenses/by/4.0/", commercial=True
)


@dataclass(frozen=True)
class _ArchiveImages(ImageSource):
    """Images in the arrays ``<split>_images`` of a NumPy archive.

    A compressed array cannot be read in the middle, so each is unpacked once into the cache folder
    and mapped from there: a sample costs one image, and all workers share the pages.
    """

    def _array(self, row: Row, context: SourceContext) -> NDArray[np.uint8]:
        member = f"{row['split']}_images"
        archive = self.place(context)
        slot = f"unpacked:{member}:{_state(archive)}"
        path = context.cache.get(slot)
        if path is None or not path.exists():
            path = context.cache[slot] = _unpacked(archive, member, context)
        try:
            array: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            msg = f"{context.dataset}: {member} of {archive} is damaged: {error}"
            raise DatasetError(msg) from error
        return array

    def exists(self, row: Row, context: SourceContext) -> bool:  # noqa: ARG002 - an image source
        """Whether the archive is there; its arrays were looked at when the dataset was made."""
        return self.place(context).is_file()

    def input_file(self, row: Row, context: SourceContext) -> InputFile:
        """The bytes of an image, for comparison."""
        data, place = self._array(row, context)[row["index"]].tobytes(), self.place(context)
        return InputFile(place, f"{place}/{self.name(row)}", data=data)

    def read(self, row: Row, context: SourceContext) -> NDArray[np.float32]:
        """Pixels of a row's image, float32 (1, H, W) in [-1024, 1024]."""
        from torchxrayvision import images

        image = np.array(self._array(row, context)[row["index"]])
        return images.normalize(image, 255, reshape=True)


def _state(archive: Path) -> str:
    """What changes when the archive does."""
    return "|".join(map(str, FileState.of(archive)))


def _unpacked(archive: Path, member: str, context: SourceContext) -> Path:
    """An array of the archive as a file of its own in the cache folder."""
    from torchxrayvision.remote import cache_dir, make_folder

    said = f"{archive.resolve()}|{_state(archive)}|{member}"
    folder = cache_dir() / "medmnist"
    path = folder / f"{archive.stem}-{member}-{sha256_of(said.encode())[:16]}.npy"
    if path.is_file() and not path.is_symlink():
        return path
    logger.info("unpacking %s of %s into %s once", member, archive, folder)
    try:
        make_folder(folder)
        with (
            zipfile.ZipFile(archive) as members,
            members.open(f"{member}.npy") as packed,
            write_atomically(path, durable=False) as part,
            part.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
    except _DAMAGED as error:
        msg = (
            f"{context.dataset}: {member} of {archive} cannot be unpacked into {folder}: {error}; "
            f"set XRV_CACHE_DIR to a folder with room for it"
        )
        raise DatasetError(msg) from error
    return path


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, from its header alone."""
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, kind = read(stream)
        return shape, kind


def _read_labels(findings: int) -> Callable[[SourceContext], pd.DataFrame]:
    """A rule that reads the labels of all splits; images are looked at by their headers alone."""

    def join(context: SourceContext) -> pd.DataFrame:
        import pandas as pd

        place = context.roots["npzpath"]
        source = _ArchiveImages("", argument="npzpath", layout="a .npz file of MedMNIST")
        path = source.place(context) if place is None or not place.is_file() else place
        try:
            with zipfile.ZipFile(path) as archive:
                parts = [_part(archive, split, findings, context) for split in SPLITS]
        except DatasetError:
            raise
        except Exception as error:  # the readers of headers raise what they like
            msg = (
                f"{context.dataset}: npzpath={str(path)!r} is no archive of MedMNIST with arrays "
                f"train_images, train_labels and so on: {error}"
            )
            raise DatasetError(msg) from error
        return pd.concat(parts, ignore_index=True)

    return join


def _part(
    archive: zipfile.ZipFile, split: str, findings: int, context: SourceContext
) -> pd.DataFrame:
    import pandas as pd

    shape, kind = _shape(archive, f"{split}_images")
    with archive.open(f"{split}_labels.npy") as stream:
        labels = np.lib.format.read_array(stream)
    if len(shape) != 3 or kind != np.uint8 or labels.shape != (shape[0], findings):
        msg = (
            f"{context.dataset}: {split} has images of shape {shape} and type {kind}, and "
            f"labels of shape {labels.shape}; expected uint8 (N, H, W) and (N, {findings}). "
            f"Pass the archive of this dataset"
        )
        raise DatasetError(msg)
    frame = pd.DataFrame(labels, columns=[f"label_{j}" for j in range(findings)])
    return frame.assign(split=split, index=np.arange(shape[0]))


def _images(row: Row) -> str:
    return f"{row['split']}_images[{row['index']}]"


def _spec(title: str, findings: tuple[str, ...], cohort: str = "") -> DatasetSpec:
    return DatasetSpec(
        title=title,
        reference=_REFERENCE,
        license=_LICENSE,
        homepage="https://medmnist.com/",
        join=_read_labels(len(findings)),
        images=_ArchiveImages(_images, argument="npzpath", layout="a .npz file of MedMNIST"),
        findings=FindingColumns({name: f"label_{j}" for j, name in enumerate(findings)}),
        cohort=cohort,
        split="split",
        verified="all arrays",
        parameters="npzpath=..., transform, data_aug, seed",
    )


class ChestMNIST_Dataset(SpecDataset):
    """ChestMNIST: the 112,120 images of NIH ChestX-ray14 at 28, 64, 128 or 224 pixels.

    The fourteen findings of ChestX-ray14, read out of the reports by a program, in MedMNIST's
    order. The split is MedMNIST's: 78,468 train, 11,219 val, 22,433 test (counts of
    the paper). Patients, views, ages and sexes are not in the archive.

    The archive is read without executing anything in it. The first image of a split unpacks that
    split's images into the cache folder (88 MB in all at 28 pixels, 5.6 GB at 224).

    Args:
        npzpath: chestmnist.npz, chestmnist_64.npz, chestmnist_128.npz or chestmnist_224.npz.

    Verified: names, types and shapes of the arrays and the order of the findings, in MedMNIST's
    own description.
    """

    spec = _spec("ChestMNIST", _CHEST, cohort="NIH ChestX-ray14")


class PneumoniaMNIST_Dataset(SpecDataset):
    """PneumoniaMNIST: 5,856 images of children in Guangzhou at 28, 64, 128 or 224 pixels.

    *Pneumonia* against normal; the images are those of Kermany et al. (2018), of children of one
    to five years. The split is MedMNIST's: 4,708 train, 524 val, 624 test (counts of the paper).
    Small copies are cropped to a square in the middle.

    The archive is read without executing anything in it. The first image of a split unpacks that
    split's images into the cache folder (5 MB in all at 28 pixels, 290 MB at 224).

    Args:
        npzpath: pneumoniamnist.npz, pneumoniamnist_64.npz, and so on.

    Verified: names, types and shapes of the arrays, in MedMNIST's own description.
    """

    spec = _spec("PneumoniaMNIST", ("Pneumonia",))
