"""What a fake release says about itself, and writers of its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAN = float("nan")


@dataclass(kw_only=True)
class Fake:
    """A release on disk and what must come out of it.

    Images are named as ``dataset.image_path(i)`` names them.

    Attributes:
        kwargs: Constructor arguments that name files and folders; nothing else.
        labels: For every image of the release with all views and all images of each patient, in
            the order of the csv: finding to 1, 0 or NaN. Findings left out are 0.
        views: Image to view; empty where the source has no views.
        default: Images, in order, with the default arguments (views, one image a patient).
        patients: Image to patient; empty where the source does not say.
        ages: Image to age in years (NaN unknown); empty where the source does not say.
        sexes: Image to "M", "F" or ""; empty where the source does not say.
        days: Image to offset in days (NaN unknown); empty where the source does not say.
        masks: Image to finding to boolean array of the image's shape; images left out have none.
        semantic: The same for structures.
        boxes: Image to list of (x, y, width, height).
        mask_kwargs: Arguments that switch the masks on.
        semantic_kwargs: Arguments that switch the structures' masks on.
        splits: Official part to its images; empty where the release has none.
        required: Table arguments without which the constructor must raise DatasetError.
        all_kwargs: Arguments that select every image; the suite drops those a class lacks.
        scores: Whether labels are scores.
    """

    kwargs: dict[str, Any]
    labels: dict[str, dict[str, float]]
    default: list[str]
    views: dict[str, str] = field(default_factory=dict)
    patients: dict[str, str] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)
    sexes: dict[str, str] = field(default_factory=dict)
    days: dict[str, float] = field(default_factory=dict)
    masks: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    semantic: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    boxes: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    mask_kwargs: dict[str, Any] = field(default_factory=lambda: {"pathology_masks": True})
    semantic_kwargs: dict[str, Any] = field(default_factory=lambda: {"semantic_masks": True})
    splits: dict[str, list[str]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    all_kwargs: dict[str, Any] = field(
        default_factory=lambda: {"views": "*", "unique_patients": False}
    )
    scores: bool = False


Builder = Callable[[Path], Fake]


def pattern(shape: tuple[int, int], seed: int = 0, top: int = 255) -> np.ndarray:
    """A picture whose first pixel is black and whose last is white, (H, W) in [0, top].

    The suite looks at both corners: a wrong depth or an inverted film shows.
    """
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, top, shape, endpoint=True)
    picture[0, 0], picture[-1, -1] = 0, top
    return picture.astype(np.uint8 if top < 256 else np.uint16)


def write_image(
    path: Path, shape: tuple[int, int] = (64, 48), seed: int = 0, top: int = 255
) -> Path:
    """Write the pattern as PNG (8 or 16 bits) or JPEG, by the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pattern(shape, seed, top)
    if path.suffix in (".jpg", ".jpeg"):
        # JPEG is lossy: only large flat corners keep their values.
        picture = np.full(shape, 128, dtype=np.uint8)
        picture[: shape[0] // 2, : shape[1] // 2] = 0
        picture[shape[0] // 2 :, shape[1] // 2 :] = 255
        picture[0, -1] = seed % 256
        Image.fromarray(picture).save(path, quality=100)
    else:
        Image.fromarray(picture).save(path)
    return path


def write_dicom(
    path: Path,
    shape: tuple[int, int] = (64, 48),
    seed: int = 0,
    bits: int = 12,
    photometric: str = "MONOCHROME2",
) -> Path:
    """Write the pattern as DICOM; MONOCHROME1 is stored inverted, so that it reads the same."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    top = 2**bits - 1
    picture = pattern(shape, seed, top)
    stored = top - picture if photometric == "MONOCHROME1" else picture
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # digital X-ray, presentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 if bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = stored.astype(np.uint8 if bits <= 8 else "<u2").tobytes()
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write_text(path: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    """Write a table line by line, so that its header is the release's own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def area(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Boolean array with the union of boxes (x0, y0, x1, y1), half-open."""
    mask = np.zeros(shape, dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def random_constant(image: np.ndarray) -> np.ndarray:
    """A transform that shows its random number; here so that spawned workers can import it."""
    import random

    return image * 0 + random.random()
