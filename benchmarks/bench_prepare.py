"""How much faster does a file become the input of a network, with the same numbers?

Read, crop to the centre square, resize to 224: `load_image` or `read_xray_dcm`, `XRayCenterCrop`
and `XRayResizer` in 1.5.7; `read_raster` and `prepare` here. On generated files of real size, and
on the radiographs of a folder that XRV_BENCH_FILMS names. What 1.5.7 does not read, or does not do,
is only timed here: JPEG 2000 in DICOM, whole and no further than the network needs (`fast`).

    XRV_BENCH_FILMS=FOLDER python benchmarks/bench_prepare.py --baseline-python PATH
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from _alternate import THREADS, Timings, main, timed

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.synthetic import film

SIZE = 224


def write_dicom(path: Path, pixels: np.ndarray, *, jpeg_2000: bool = False) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import (
        DigitalXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
        JPEG2000Lossless,
    )

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelRepresentation = 0
    header.PixelData = pixels.astype("<u2").tobytes()
    if jpeg_2000:
        header.compress(JPEG2000Lossless, generate_instance_uid=False)
    header.save_as(path, enforce_file_format=True)


def films(folder: Path) -> dict[str, Path]:
    """Case to file; generated once for both sides."""
    folder.mkdir(exist_ok=True)
    files = {
        "PNG 1024 x 1024": folder / "nih.png",
        "PNG 2500 x 2048": folder / "large.png",
        "JPEG 2828 x 2320": folder / "chexpert.jpg",
        "DICOM 12 bit 2500 x 2048": folder / "digital.dcm",
    }
    if not all(path.exists() for path in files.values()):
        Image.fromarray(film(1024, 1024)).save(files["PNG 1024 x 1024"])
        Image.fromarray(film(2500, 2048)).save(files["PNG 2500 x 2048"])
        Image.fromarray(film(2828, 2320)).save(files["JPEG 2828 x 2320"], quality=90)
        write_dicom(files["DICOM 12 bit 2500 x 2048"], film(2500, 2048, levels=4096))
    real = os.environ.get("XRV_BENCH_FILMS")
    for path in sorted(Path(real).glob("*.*")) if real else []:
        if path.suffix in (".png", ".jpg", ".dcm"):
            files[f"real: {path.name[:24]}{path.suffix if len(path.name) > 24 else ''}"] = path
    return files


def fast_films(folder: Path) -> dict[str, Path]:
    """Case to file of those that this package reads at a fraction of their resolution."""
    from _films import grey_film

    files = {
        "JPEG 2000 DICOM 12 bit 3000 x 2500": folder / "jpeg2000.dcm",
        "JPEG 2828 x 2320": folder / "chexpert.jpg",
    }
    path = next(iter(files.values()))
    if not path.exists():
        write_dicom(path, grey_film(1, (3000, 2500), bits=16) >> 4, jpeg_2000=True)
    return files


def version_1(out: Path) -> Timings:
    from torchxrayvision.datasets import XRayCenterCrop, XRayResizer
    from torchxrayvision.utils import load_image, read_xray_dcm

    crop, resize = XRayCenterCrop(), XRayResizer(SIZE)

    def prepare(path: Path) -> np.ndarray:
        dicom = path.suffix == ".dcm"
        pixels = read_xray_dcm(path)[None] if dicom else load_image(str(path))
        return resize(crop(pixels))

    timings: Timings = {}
    for name, path in films(out.parent / "films").items():
        timings[name] = timed(partial(prepare, path), 3)
        np.save(out / f"{path.stem}.npy", prepare(path))
    return timings


def this_package(out: Path) -> Timings:
    from torchxrayvision.images import read_raster
    from torchxrayvision.transforms import prepare

    def from_file(path: Path, least_side: int | None = None) -> np.ndarray:
        raster = read_raster(path, least_side=least_side)
        aspect, reduction = raster.info.aspect, raster.reduction
        return prepare(raster.pixels, raster.scale, raster.offset, SIZE, aspect, reduction)

    timings: Timings = {}
    for name, path in films(out.parent / "films").items():
        timings[name] = timed(partial(from_file, path), 5)
        np.save(out / f"{path.stem}.npy", from_file(path))
    for name, path in fast_films(out.parent / "films").items():
        if name not in timings:
            timings[name] = timed(partial(from_file, path), 3)
        timings[f"{name}, fast"] = timed(partial(from_file, path, SIZE), 5)
    return timings


def check(old: Path, new: Path) -> str:
    worst = max(
        float(np.abs(np.load(path) - np.load(new / path.name)).max()) for path in old.glob("*.npy")
    )
    return f"Largest difference of a pixel, on the range of 2048: {worst:.2g}"


if __name__ == "__main__":
    main(__doc__, version_1, this_package, settings=THREADS, check=check)
