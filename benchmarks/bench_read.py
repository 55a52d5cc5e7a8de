"""How much faster is a file read, and a file read, cropped and resized, than in 1.5.7?

Smooth films with noise, 1024 x 1024 and 2500 x 2048: PNG and JPEG of eight bits by `load_image`,
DICOM of twelve bits (uncompressed) and of eight (JPEG Baseline) by `read_xray_dcm`; 1.5.7 under the
same names. "to 224" adds the centre crop and XRayResizer(224); here the pixels go to the resizer
as the file stores them, as in the inference pipeline.

    python benchmarks/bench_read.py --baseline-python PATH
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from _alternate import ONE_THREAD, Timings, main, timed

SHAPES = [(1024, 1024), (2500, 2048)]
REPEATS = 7


def film(shape: tuple[int, int], top: int) -> np.ndarray:
    """A smooth picture with noise; every worker makes the same one."""
    row, column = np.indices(shape) / 200
    noise = np.random.default_rng(0).normal(0, 0.02, shape)
    return np.clip((np.sin(row) * np.cos(column) + 1) / 2 + noise, 0, 1) * top


def files(folder: Path) -> list[Path]:
    """The films in each format, written once a worker."""
    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

    folder.mkdir(exist_ok=True)
    for shape in SHAPES:
        name = f"{shape[0]} x {shape[1]}"
        picture = Image.fromarray(film(shape, 255).astype(np.uint8))
        picture.save(folder / f"{name}.png")
        picture.save(folder / f"{name}.jpg", quality=95)
        twelve = film(shape, 4095).astype(np.uint16)
        write_dicom(
            folder / f"{name}, 12 bits.dcm", shape, 12, ExplicitVRLittleEndian, twelve.tobytes()
        )
        stream = encapsulate([(folder / f"{name}.jpg").read_bytes()])
        write_dicom(folder / f"{name}, JPEG.dcm", shape, 8, JPEGBaseline8Bit, stream)
    return sorted(folder.iterdir())


def write_dicom(path: Path, shape: tuple[int, int], bits: int, syntax: str, pixels: bytes) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset

    found = Dataset()
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.SOPClassUID, found.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "2.25.1"
    found.Rows, found.Columns, found.SamplesPerPixel = *shape, 1
    found.BitsAllocated, found.BitsStored, found.HighBit = (16 if bits > 8 else 8), bits, bits - 1
    found.PixelRepresentation, found.PhotometricInterpretation = 0, "MONOCHROME1"
    found.PixelData = pixels
    found["PixelData"].VR = "OW" if bits > 8 else "OB"
    found["PixelData"].is_undefined_length = syntax.is_encapsulated
    found.save_as(path, enforce_file_format=True)


def version_1(out: Path) -> Timings:
    from torchxrayvision.datasets import XRayCenterCrop, XRayResizer
    from torchxrayvision.utils import load_image, read_xray_dcm

    crop, resize = XRayCenterCrop(), XRayResizer(224)

    def read(path: Path) -> np.ndarray:
        return read_xray_dcm(str(path))[None] if path.suffix == ".dcm" else load_image(str(path))

    return measure(out, read, lambda path: resize(crop(read(path))))


def this_package(out: Path) -> Timings:
    from torchxrayvision.images import load_image, read_raster, read_xray_dcm
    from torchxrayvision.transforms.resampling import resize

    def read(path: Path) -> np.ndarray:
        return read_xray_dcm(path)[None] if path.suffix == ".dcm" else load_image(path)

    def to_224(path: Path) -> np.ndarray:
        raster = read_raster(path)
        height, width = raster.shape
        side = min(height, width)
        top, left = height // 2 - side // 2, width // 2 - side // 2
        square = raster.pixels[None, top : top + side, left : left + side]
        return resize(square, (224, 224), scale=raster.scale, offset=raster.offset)

    return measure(out, read, to_224)


def measure(out: Path, read, to_224) -> Timings:
    timings: Timings = {}
    for path in files(out / "films"):
        for name, function in (("read", read), ("to 224", to_224)):
            timings[f"{path.name}, {name}"] = timed(lambda f=function, p=path: f(p), REPEATS)
            np.save(out / f"{path.name}, {name}.npy", function(path))
    return timings


def check(theirs: Path, ours: Path) -> str:
    worst = {"read": 0.0, "to 224": 0.0}
    for path in sorted(theirs.glob("*.npy")):
        difference = np.abs(np.load(path) - np.load(ours / path.name)).max()
        kind = path.stem.rpartition(", ")[2]
        worst[kind] = max(worst[kind], float(difference))
    return "Largest difference of a value, range 2048: " + ", ".join(
        f"{kind} {value:.1e}" for kind, value in worst.items()
    )


if __name__ == "__main__":
    main(__doc__, version_1, this_package, settings={"one thread": ONE_THREAD}, check=check)
