"""Segmentations as files: label maps, masks, a picture to look at, and a table of measures."""

from __future__ import annotations

import csv
import math
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import DependencyError, UnknownNameError
from torchxrayvision.measures import area, parts_of
from torchxrayvision.pictures import draw_outlines, palette
from torchxrayvision.segmentation.masks import MEASURES, Masks, Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = ["SegmentationWriter"]

_TABLE: Final = "measures.csv"
_LENGTHS: Final = ("heart_width", "thorax_width", "spine_heart_distance")
_FACTS: Final = (
    "path",
    "error",
    "folder",
    "height",
    "width",
    "turned_clockwise",
    "row_spacing_mm",
    "column_spacing_mm",
)
_MOST_SHOWN: Final = 24
# What a picture and a label map can hold of networks that know more structures than can be told
# apart in one.
_MAIN: Final = (
    "Left Lung",
    "Right Lung",
    "Heart",
    "Aorta",
    "Spine",
    "Clavicles",
    "Scapulas",
    "Trachea",
    "Left Hemidiaphragm",
    "Right Hemidiaphragm",
)


class SegmentationWriter:
    """Writes a folder for each file, and one table over all.

    A folder holds `labels.png` (indexed; where structures overlap the smaller one shows),
    `overlay.jpg` (outlines with names; upright where the network saw the film set upright) and
    `masks/<structure>.png` (white inside). `labels.csv` tells which structure an index is.
    `measures.csv` has one row a file, also for those that failed; it grows under the name
    `measures.csv.part` until the run is complete.

    Args:
        folder: Made if absent.
        names: Structures of the network.
        only: Structures to write, as a person would name them; None for all.
        nifti: Whether to write `labels.nii.gz` as well.

    Raises:
        UnknownNameError: If `only` names none of the structures.
        DependencyError: If NIfTI is asked for and nibabel is missing.
        OSError: If the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        *,
        only: Iterable[str] | None = None,
        nifti: bool = False,
    ) -> None:
        self.folder = folder
        chosen = {part for name in only for part in parts_of(name, names)} if only else set(names)
        self.names = [name for name in names if name in chosen]
        self._index = {name: index for index, name in enumerate(names, start=1)}
        self._palette = palette(len(names))
        self._shown = self.names if len(self.names) <= _MOST_SHOWN else _main(self.names)
        self._nifti = _nibabel() if nifti else None
        self._used: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._write_key()
        self._part = folder / f"{_TABLE}.part"
        self._file = self._part.open("w", newline="", encoding="utf-8")
        self._rows = csv.DictWriter(self._file, self._columns(), lineterminator="\n")
        self._rows.writeheader()

    def _columns(self) -> list[str]:
        measured = [f"{name}_px" if name in _LENGTHS else name for name in MEASURES]
        areas = [f"{name} {unit}" for name in self.names for unit in ("px", "mm2")]
        return [*_FACTS, *measured, *(f"{name}_mm" for name in _LENGTHS), *areas]

    def _write_key(self) -> None:
        with (self.folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["index", "structure", "red", "green", "blue"])
            for name in self._shown:
                rows.writerow([self._index[name], name, *self._colour(name)])

    def _colour(self, name: str) -> list[int]:
        colour: list[int] = self._palette[self._index[name] - 1].tolist()
        return colour

    def write(self, result: Segmentation) -> None:
        """Write the files and the row of one result.

        Raises:
            OSError: If a file cannot be written.
        """
        row: dict[str, Any] = {"path": result.path, "error": result.error}
        if result.masks is not None and result.picture is not None:
            folder = self.folder / self._name(result.path)
            (folder / "masks").mkdir(parents=True, exist_ok=True)
            row |= self._facts(result, folder.name)
            row |= self._save(result, result.masks, result.picture, folder)
        self._rows.writerow(row)
        self._file.flush()

    def _name(self, path: str) -> str:
        """A folder name for a file: its stem, numbered where other files had the same."""
        last = re.split(r"[\\/]", path)[-1]
        stem = re.sub(r"\.(png|jpe?g|tiff?|dcm|dicom)$", "", last, flags=re.IGNORECASE) or "file"
        count = self._used[stem] = self._used.get(stem, 0) + 1
        if count == 1:
            return stem
        self._used.setdefault(f"{stem}-{count}", 1)
        return f"{stem}-{count}"

    def _facts(self, result: Segmentation, folder: str) -> dict[str, Any]:
        assert result.picture is not None  # written only where there is one
        assert result.masks is not None
        height, width = result.picture.shape
        row: dict[str, Any] = {"folder": folder, "height": height, "width": width}
        row["turned_clockwise"] = 90 * result.turned
        spacing = result.pixel_spacing
        if spacing is not None:
            row["row_spacing_mm"], row["column_spacing_mm"] = spacing
        for name, value in result.measures().items():
            if math.isnan(value):
                continue
            if name not in _LENGTHS:
                row[name] = round(value, 4)
                continue
            row[f"{name}_px"] = round(value, 1)
            if spacing is not None:
                across = spacing[1 - result.masks.placement.turns % 2]  # of the upright film
                row[f"{name}_mm"] = round(value * across, 1)
        return row

    def _save(
        self,
        result: Segmentation,
        masks: Masks,
        picture: NDArray[np.uint8],
        folder: Path,
    ) -> dict[str, Any]:
        """Write everything but the row; returns the areas."""
        from PIL import Image

        row: dict[str, Any] = {}
        shown: dict[str, NDArray[np.bool_]] = {}
        for name in self.names:
            mask = masks[name]
            row[f"{name} px"] = round(area(mask))
            if result.pixel_spacing is not None:
                row[f"{name} mm2"] = round(area(mask, result.pixel_spacing), 1)
            Image.fromarray(mask).save(folder / "masks" / f"{_plain(name)}.png")
            if name in self._shown:
                shown[name] = mask
        labels = self._labels(shown, picture.shape)
        self._indexed(labels).save(folder / "labels.png")
        palette = [self._colour(name) for name in shown]
        upright = {name: result.upright(mask) for name, mask in shown.items()}
        measured = result.cardiothoracic()
        overlay = draw_outlines(result.upright(picture), upright, palette, measured)
        Image.fromarray(overlay).save(folder / "overlay.jpg", quality=92, subsampling=0)
        if self._nifti is not None:
            affine = _affine(result.pixel_spacing or (1.0, 1.0), masks.placement.turns)
            volume = self._nifti.Nifti1Image(labels.T[..., None], affine)
            self._nifti.save(volume, folder / "labels.nii.gz")
        return row

    def _labels(
        self, shown: Mapping[str, NDArray[np.bool_]], shape: tuple[int, ...]
    ) -> NDArray[np.uint8]:
        """One number a pixel; the smaller structure where several are."""
        labels = np.zeros(shape, np.uint8)
        for name in sorted(shown, key=lambda name: -int(shown[name].sum())):
            labels[shown[name]] = self._index[name]
        return labels

    def _indexed(self, labels: NDArray[np.uint8]) -> Any:
        from PIL import Image

        image = Image.fromarray(labels, "P")
        image.putpalette([0, 0, 0, *self._palette.ravel().tolist()])
        return image

    def close(self) -> None:
        """Close the table."""
        self._file.close()

    def __enter__(self) -> SegmentationWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if kind is None:
            self._part.replace(self.folder / _TABLE)


def _main(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in _MAIN:
        try:
            found += parts_of(name, names)
        except UnknownNameError:
            continue
    return found or list(names[:_MOST_SHOWN])


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)


def _affine(spacing: tuple[float, float], turns: int = 0) -> NDArray[np.float64]:
    """From (column, row, 0) to millimetres to the right, front and head of an upright patient.

    In an upright film columns run to the patient's left and rows to the feet. In others they do so
    after as many quarter turns counterclockwise.
    """
    rows, columns = spacing
    turn = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), turns % 4)
    affine = np.eye(4)[[0, 2, 1, 3]]
    affine[[0, 2], :2] = 0.0 - turn * (columns, rows)
    return affine


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise DependencyError("nibabel", "a label map as NIfTI", "nifti") from error
    return nibabel
