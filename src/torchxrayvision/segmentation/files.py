"""Segmentations as files: label maps, masks, a picture to look at, and a table of measures."""

from __future__ import annotations

import contextlib
import math
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from torchxrayvision.csvtext import CsvFile
from torchxrayvision.errors import UnknownNameError, needs_package
from torchxrayvision.inference import MaskGraph, fingerprint_of, ready
from torchxrayvision.inputs import ReadOptions
from torchxrayvision.measures import area, chosen_parts, parts_of
from torchxrayvision.pictures import annotate, draw_outlines, palette
from torchxrayvision.provenance import Provenance, jpeg_comment, png_text
from torchxrayvision.runs import (
    CsvTable,
    RunFolder,
    describe_inputs,
    in_batches,
    read_manifest,
    run_to_table,
    write_or_reason,
)
from torchxrayvision.segmentation.masks import (
    BATCH,
    MEASURES,
    Masks,
    Segmentation,
    Segmenting,
    check_spacing,
)
from torchxrayvision.segmentation.networks import named_or_given

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    import torch
    from numpy.typing import NDArray

    from torchxrayvision.inputs import Paths
    from torchxrayvision.models import Segmenter
    from torchxrayvision.runs import Batch, Record, Summary

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

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
_TEXTS: Final = frozenset({"path", "error", "folder", "doubt"})
_LONGEST_NAME: Final = 100  # characters, so that it has room in every file system
_IMAGE: Final = re.compile(
    r"\.(png|jpe?g|jp[2cfhx]|j2[ck]|tiff?|dcm|dicom)$", re.IGNORECASE
)  # fmt: skip
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


class SegmentationFiles:
    """Writes a folder per image.

    A folder holds `labels.png` (indexed; where structures overlap the smaller one shows),
    `overlay.jpg` (outlines with names; upright where the network saw the image upright) and
    `masks/<structure>.png` (white inside). `labels.csv` tells which structure an index is.

    Args:
        folder: Made if absent.
        names: Structures of the network.
        only: Structures to write, as a person would name them; None for all.
        nifti: Whether to write `labels.nii.gz` as well.
        provenance: What makes the masks and pictures, which they are to say.

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
        provenance: Provenance | None = None,
    ) -> None:
        self.folder, self._provenance = folder, provenance
        self.names = chosen_parts(only, names) if only else list(names)
        self._index = {name: index for index, name in enumerate(names, start=1)}
        self._palette = palette(len(names))
        self._shown = main_structures(self.names)
        self._nifti = _nibabel() if nifti else None
        self._used: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._write_key()

    @property
    def columns(self) -> dict[str, str]:
        """Columns of the table of measures and their kinds, see `Table`."""
        measured = [f"{name}_px" if name in _LENGTHS else name for name in MEASURES]
        areas = [f"{name} {unit}" for name in self.names for unit in ("px", "mm2")]
        names = [*_FACTS, *measured, *(f"{name}_mm" for name in _LENGTHS), *areas, "doubt"]
        return {name: "text" if name in _TEXTS else "number" for name in names}

    def remember(self, row: Mapping[str, Any]) -> None:
        """Leave its folder to an image that was written before, by what `save` gave."""
        if row.get("folder"):
            self._name(row["path"])

    def _write_key(self) -> None:
        with (self.folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            rows = CsvFile(file)
            rows.write(["index", "structure", "red", "green", "blue"])
            for name in self._shown:
                rows.write([self._index[name], name, *self._colour(name)])

    def _colour(self, name: str) -> list[int]:
        colour: list[int] = self._palette[self._index[name] - 1].tolist()
        return colour

    def save(self, result: Segmentation) -> dict[str, Any]:
        """Write the files of one result; its row of the table.

        Raises:
            OSError: If a file cannot be written.
        """
        row: dict[str, Any] = {"path": result.path, "error": result.error}
        if result.masks is not None and result.picture is not None:
            folder = self.folder / self._name(result.path)
            (folder / "masks").mkdir(parents=True, exist_ok=True)
            row |= self._facts(result, folder.name)
            row |= self._save(result, result.masks, result.picture, folder)
        return row

    def _name(self, path: str) -> str:
        """A folder name for a file: its stem, numbered where other files had the same."""
        last = re.split(r"[\\/]", path)[-1]
        stem = _IMAGE.sub("", last) or "file"
        stem = stem[:_LONGEST_NAME]
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
            row["row_spacing_mm"], row["column_spacing_mm"] = map(float, spacing)
        row["doubt"] = "; ".join(result.doubts())
        for name, value in result.measures().items():
            if math.isnan(value):
                continue
            if name not in _LENGTHS:
                row[name] = round(value, 4)
                continue
            row[f"{name}_px"] = round(value, 1)
            if spacing is not None:
                across = spacing[1 - result.masks.placement.turns % 2]  # of the upright image
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

        told = self._provenance
        text = {} if told is None else {"pnginfo": png_text(told)}
        row: dict[str, Any] = {}
        shown: dict[str, NDArray[np.bool_]] = {}
        for name in self.names:
            mask = masks[name]
            row[f"{name} px"] = round(area(mask))
            if result.pixel_spacing is not None:
                row[f"{name} mm2"] = round(area(mask, result.pixel_spacing), 1)
            Image.fromarray(mask).save(folder / "masks" / f"{_plain(name)}.png", **text)
            if name in self._shown:
                shown[name] = mask
        labels = self._labels(shown, picture.shape)
        self._indexed(labels).save(folder / "labels.png", **text)
        palette = [self._colour(name) for name in shown]
        upright = {name: result.upright(mask) for name, mask in shown.items()}
        measured = result.cardiothoracic()
        overlay = draw_outlines(result.upright(picture), upright, palette, measured)
        if doubts := result.doubts():
            overlay = annotate(overlay, "In doubt: " + "; ".join(doubts))
        options: dict[str, Any] = {} if told is None else {"comment": jpeg_comment(told)}
        Image.fromarray(overlay).save(folder / "overlay.jpg", quality=92, subsampling=0, **options)
        if self._nifti is not None:
            affine = _affine(result.pixel_spacing or (1.0, 1.0), masks.placement.turns)
            volume = self._nifti.Nifti1Image(labels.T[..., None], affine)
            self._nifti.save(volume, folder / "labels.nii.gz")
        return row

    def _labels(
        self, shown: Mapping[str, NDArray[np.bool_]], shape: tuple[int, ...]
    ) -> NDArray[np.uint8]:
        """One number per pixel; the smaller structure where several are."""
        labels = np.zeros(shape, np.uint8)
        for name in sorted(shown, key=lambda name: -np.count_nonzero(shown[name])):
            np.putmask(labels, shown[name], self._index[name])
        return labels

    def _indexed(self, labels: NDArray[np.uint8]) -> Any:
        from PIL import Image

        image = Image.fromarray(labels, "P")
        image.putpalette([0, 0, 0, *self._palette.ravel().tolist()])
        return image


class SegmentationWriter(SegmentationFiles):
    """The folders of `SegmentationFiles` and one table over all, `measures.csv`.

    The table has one row per file, also for those that failed; it grows under the name
    `measures.csv.part` until all is done. For a run that may be interrupted see
    `segment_to_folder`.

    The arguments are those of `SegmentationFiles`.
    """

    @cached_property
    def _table(self) -> CsvTable:
        return CsvTable(self.folder / _TABLE, self.columns, provenance=self._provenance)

    def write(self, result: Segmentation) -> None:
        """Write the files and the row of one result.

        Raises:
            OSError: If a file cannot be written.
        """
        self._table.write(self.save(result))

    def close(self) -> None:
        """Close the table."""
        self._table.close()

    def __enter__(self) -> SegmentationWriter:
        self._table.__enter__()
        return self

    def __exit__(self, *ended: Any) -> None:
        self._table.__exit__(*ended)


def segment_to_folder(
    paths: Paths,
    model: str | Segmenter | MaskGraph,
    folder: str | os.PathLike[str],
    *,
    only: Iterable[str] | None = None,
    nifti: bool = False,
    threshold: float = 0.5,
    pixel_spacing: tuple[float, float] | None = None,
    batch_size: int | None = None,
    device: str | torch.device | Sequence[str | torch.device] | None = None,
    engine: str = "torch",
    precision: str = "exact",
    upright: bool = False,
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    on_found: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Summary, int]:
    """Segment any number of radiographs into a folder; whatever stops it, the same call resumes.

    Args:
        paths: See `segment`.
        model: See `segment`.
        folder: Gets what `SegmentationWriter` describes.
        only: See `SegmentationFiles`.
        nifti: See `SegmentationFiles`.
        threshold: See `segment`.
        pixel_spacing: See `segment`.
        batch_size: See `segment`.
        device: See `segment`.
        engine: See `segment`.
        precision: See `segment`.
        upright: See `segment`.
        reading: How files are read.
        overwrite: See `torchxrayvision.inference.predict_to_file`.
        on_found: See `torchxrayvision.inference.predict_to_file`.
        on_progress: See `torchxrayvision.inference.predict_to_file`.

    Returns:
        What the run came to, and how many images seem to be rotated. With no image at all, no table
        is written.

    Raises:
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the table exists, the disk is full or it cannot be written.
        UnknownNameError: If there is no such network, structure, engine or precision.
        ValueError: If the spacing is not above 0.
        DependencyError: If the package of the engine, or nibabel, is missing.
    """
    from torchxrayvision.inference import device_names

    check_spacing(pixel_spacing)
    net, named = named_or_given(model, engine, precision, device)
    segmenting = Segmenting(
        net, threshold, pixel_spacing, upright, batch_size or BATCH, engine, precision,
        grows=batch_size is None, devices=device_names(device),
    )  # fmt: skip
    first = segmenting.devices[0] if segmenting.devices else None
    wanted = _checked(only, net.targets, nifti)
    place = Path(folder)
    how = reading or ReadOptions()
    options: dict[str, Any] = {
        "inputs": describe_inputs(paths, how), "model": fingerprint_of(net), "only": wanted,
        "nifti": nifti, "threshold": threshold, "pixel_spacing": pixel_spacing,
        "upright": upright, "batch_size": batch_size or BATCH,
        "engine": engine, "precision": precision,
    }  # fmt: skip
    turned = 0
    provenance = Provenance(
        command="xrv segment", weights=net.weights, weights_sha256=options["model"],
        output="mask", preprocessing={"crop": "centre square", "upright": upright},
        options={
            "threshold": threshold, "pixel_spacing": pixel_spacing, "precision": precision,
            "structures": wanted,
            "devices": list(segmenting.devices or [_device_of(net)]),
        },
    )  # fmt: skip

    def machine(images: int) -> dict[str, Any]:
        with ready(net, first):
            chosen = segmenting.choose(images)
            if chosen is not None:
                named.keep_card(segmenting.net)
            return {"engine": chosen}

    def compute(
        run: RunFolder, record: Record, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        files = SegmentationFiles(
            place, net.targets, only=wanted, nifti=nifti, provenance=provenance
        )
        for batch in run.batches(record):
            for row in batch.details:
                files.remember(row)

        def saved(result: Segmentation) -> tuple[str, dict[str, Any]]:
            row = write_or_reason(lambda: files.save(result))
            if isinstance(row, str):
                return row, {"path": result.path, "error": row}
            return result.error, row

        listed = read_manifest(run.sources, start, stop)
        with ready(net, first):
            segmenting.start(record.machine["engine"])
            with (
                contextlib.closing(segmenting.results(listed, how)) as results,
                contextlib.closing(_meanwhile(results, saved, record.batch_size)) as rows,
            ):
                yield from in_batches(rows, start, record.batch_size, lambda row: row)

    def write(part: Path, rows: Iterator[dict[str, Any]]) -> None:
        nonlocal turned
        columns = SegmentationFiles(place, net.targets, only=wanted).columns
        with CsvTable(place / _TABLE, columns, part, provenance=provenance) as table:
            for row in rows:
                turned += bool(row.get("turned_clockwise"))
                table.write(row)

    summary = run_to_table(
        RunFolder(place / _TABLE), options, compute, write, machine=machine, overwrite=overwrite,
        on_found=on_found, on_progress=on_progress,
    )  # fmt: skip
    return summary, turned


def _device_of(net: Segmenter | MaskGraph) -> str:
    return "cpu" if isinstance(net, MaskGraph) else str(next(net.parameters()).device)


def _meanwhile(
    items: Iterable[_Item], make: Callable[[_Item], _Made], most: int
) -> Generator[_Made, None, None]:
    """What is made of items, in order, on a thread of its own while the next ones are computed.

    Args:
        items: Computed where this is asked for the next one.
        make: Called with one item after the other.
        most: Items that may wait for it.
    """
    with ThreadPoolExecutor(1, "xrv-write") as pool:  # which ends what it began, whatever happens
        waiting: deque[Future[_Made]] = deque()
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _checked(only: Iterable[str] | None, names: Sequence[str], nifti: bool) -> list[str] | None:
    """The structures to write, refused before anything is computed where there are none such."""
    wanted = None if only is None else list(only)
    for name in wanted or ():
        parts_of(name, names)
    if nifti:
        _nibabel()
    return wanted


def main_structures(names: Sequence[str]) -> list[str]:
    """Choose the structures that can be told apart in one picture.

    Args:
        names: All structures.

    Returns:
        All of them, or the main ones of too many.
    """
    if len(names) <= _MOST_SHOWN:
        return list(names)
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

    In an upright image columns run to the patient's left and rows to the feet. In others they do so
    after as many quarter turns counterclockwise.
    """
    rows, columns = spacing
    turn = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), turns % 4)
    affine = np.eye(4)[[0, 2, 1, 3]]
    affine[[0, 2], :2] = 0.0 - turn * (columns, rows)
    return affine


def _nibabel() -> Any:
    with needs_package("nibabel", "a label map as NIfTI", "nifti"):
        import nibabel
    return nibabel
