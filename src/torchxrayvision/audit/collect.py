"""What an audit knows of each file: read once, in order, with bounded memory.

A row of facts per file, a thumbnail and the features of a network; the last two are in files that
are mapped into memory, so that 100,000 images take a gigabyte of disk and little memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.audit.fingerprints import SIDE, thumbnail
from torchxrayvision.audit.overlay import FINE_SIDE
from torchxrayvision.files import sha256_of
from torchxrayvision.inputs import (
    Readers,
    ReadOptions,
    Skipped,
    crop_and_resize,
    expand,
    read_bytes,
    read_file,
)
from torchxrayvision.screening import measure_frame, quick_check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.images import Raster
    from torchxrayvision.inputs import InputFile, Read
    from torchxrayvision.models import XRayClassifier

_BATCH: Final = 32
_SMALL: Final = 64  # side of the picture that grey values are measured on
_HEADER: Final = {
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "scanner",
    "StationName": "station",
    "ViewPosition": "view",
    "PatientSex": "sex",
    "PatientAge": "age",
}
_PATIENT: Final = "PatientID"
_TEXT: Final = ("path", "error", "check", "format", "bytes_sha256", "pixels_sha256", "patient")
_NUMBERS: Final = (
    *("height", "width", "bits", "letters", "bars", "contrast", "brightness"),
    *("mean", "spread"),
)


@dataclass(eq=False)
class Images:
    """The files of a collection, row by row.

    Attributes:
        table: ``path``, ``error`` (empty where it could be read), ``check`` (what the quick
            screening says), format, size, grey values, signs of text, hashes, and what a DICOM
            header says of scanner, view, sex and age. ``patient`` is a hash of Patient ID.
        thumbnails: uint8 (N, `SIDE`, `SIDE`), zeros where there is no image.
        features: float32 (N, D), NaN where there is no image; None without a network.
        files: What was read.
        skipped: What is no image in the folders, in one clause.
    """

    table: pd.DataFrame
    thumbnails: NDArray[np.uint8]
    features: NDArray[np.float32] | None
    files: list[InputFile] = field(repr=False)
    skipped: str = ""

    def larger(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Larger pictures of some rows, read again.

        Args:
            rows: Of images that could be read.

        Returns:
            uint8 (M, `FINE_SIDE`, `FINE_SIDE`); zeros where a file has gone meanwhile.
        """
        pictures = np.zeros((len(rows), FINE_SIDE, FINE_SIDE), np.uint8)
        for at, row in enumerate(rows):
            try:
                pictures[at] = thumbnail(read_file(self.files[row]).to_array()[0], FINE_SIDE)
            except (OSError, ValueError):
                continue
        return pictures


def collect(
    paths: Iterable[str | InputFile],
    folder: Path,
    model: XRayClassifier | None,
    *,
    reading: ReadOptions | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Images:
    """Read every file once.

    Args:
        paths: See `torchxrayvision.inputs.expand`.
        folder: Where thumbnails and features are kept while they are needed.
        model: Whose features are kept, in evaluation mode; None for none.
        reading: How files are read.
        on_progress: Called with the files done and to do.

    Returns:
        What is known of them.
    """
    import pandas as pd

    skipped, how = Skipped(), reading or ReadOptions()
    files = list(expand(list(paths), strict=how.strict, skipped=skipped))
    count = len(files)
    size = 0 if model is None else int(model.input_resolution)

    def facts(file: InputFile, read: Read) -> _Facts:
        return _facts(file, read(file), size)

    rows: list[dict[str, Any]] = []
    thumbnails = _mapped(folder / "thumbnails.u8", (count, SIDE, SIDE), np.uint8)
    features: NDArray[np.float32] | None = None
    waiting: list[tuple[int, NDArray[np.float32]]] = []
    with Readers(facts, how) as readers:
        for row, (file, found) in enumerate(readers.map(files, ahead=_BATCH)):
            if isinstance(found, str):
                rows.append({"path": file.given, "error": found})
            else:
                rows.append({"path": file.given, "error": "", **found.row})
                thumbnails[row] = found.thumbnail
                if found.square is not None:
                    waiting.append((row, found.square))
            if model is not None and waiting and (len(waiting) == _BATCH or row == count - 1):
                features = _embed(model, waiting, features, count, folder)
            if on_progress is not None:
                on_progress(row + 1, count)
        if model is not None and waiting:
            features = _embed(model, waiting, features, count, folder)
    columns = [*_TEXT, *_NUMBERS, *_HEADER.values()]
    table = pd.DataFrame(rows, columns=columns)
    texts = [*_TEXT, *_HEADER.values()]
    table[texts] = table[texts].astype(object).where(table[texts].notna(), "")
    return Images(table, thumbnails, features, files, str(skipped))


def _mapped(path: Path, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
    if not shape[0]:
        return np.zeros(shape, kind)
    return np.memmap(path, kind, "w+", shape=shape)


def _embed(
    model: XRayClassifier,
    waiting: list[tuple[int, NDArray[np.float32]]],
    features: NDArray[np.float32] | None,
    count: int,
    folder: Path,
) -> NDArray[np.float32]:
    """Put the features of a batch in their rows, and empty the batch."""
    import torch

    batch = torch.from_numpy(np.stack([square for _, square in waiting]))
    device = next(model.parameters()).device
    with torch.inference_mode():
        made = model.embed(batch.to(device)).float().cpu().numpy()
    if features is None:
        features = _mapped(folder / "features.f32", (count, made.shape[1]), np.float32)
        features[:] = np.nan
    features[[row for row, _ in waiting]] = made
    waiting.clear()
    return features


@dataclass(frozen=True, slots=True)
class _Facts:
    row: dict[str, Any]
    thumbnail: NDArray[np.uint8]
    square: NDArray[np.float32] | None


def _facts(file: InputFile, raster: Raster, size: int) -> _Facts:
    square = crop_and_resize(file, raster, size or _SMALL)
    grey = raster.to_array()[0]
    frame = measure_frame(raster)
    small = square[0, :: max(1, len(square[0]) // _SMALL), :: max(1, len(square[0]) // _SMALL)]
    row: dict[str, Any] = {
        "check": quick_check(file, raster, square),
        "format": raster.info.format,
        "height": raster.shape[0],
        "width": raster.shape[1],
        "bits": raster.info.bits,
        "letters": frame.letters,
        "bars": frame.bars,
        "contrast": frame.contrast,
        "brightness": frame.brightness,
        "mean": float(small.mean()),
        "spread": float(small.std()),
        "bytes_sha256": _bytes_hash(file),
        "pixels_sha256": _pixels_hash(grey),
    }
    if raster.info.format == "dicom":
        row |= _header(file)
    return _Facts(row, thumbnail(grey), square if size else None)


def _bytes_hash(file: InputFile) -> str:
    if file.member is None and file.data is None:
        return sha256_of(file.path)
    return sha256_of(read_bytes(file))


def _pixels_hash(grey: NDArray[np.float32]) -> str:
    digest = hashlib.sha256(f"{grey.shape}".encode())
    digest.update(np.ascontiguousarray(grey, "<f4").tobytes())
    return digest.hexdigest()


def _header(file: InputFile) -> dict[str, str]:
    """Elements of a DICOM header; who the patient is only as a hash."""
    import io

    from pydicom import dcmread

    try:
        header = dcmread(
            io.BytesIO(read_bytes(file)),
            force=True,
            stop_before_pixels=True,
            specific_tags=[*_HEADER, _PATIENT],
        )
        found = {ours: str(header.get(name) or "").strip(" \0") for name, ours in _HEADER.items()}
        patient = str(header.get(_PATIENT) or "").strip(" \0")
    except Exception:  # noqa: BLE001 - a damaged header raises what it likes, and says nothing
        return {}
    return found | {"patient": sha256_of(patient.encode())[:16] if patient else ""}
