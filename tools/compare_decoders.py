"""Does every DICOM file come out as pydicom, GDCM and DCMTK give it?

Each file is decoded by all four, as shares of its range of grey; padding is left out. The table has
one row per file that differs from what two of the three agree on, or that is refused although two
read it, then the counts. Reasons that are meant (colour is no radiograph) are listed apart.

    python tools/compare_decoders.py FOLDER ...

Without a folder: the files that pydicom ships, and those of the package pydicom-data where it is
installed. GDCM is the package python-gdcm; DCMTK's tools dcmj2pnm and dcml2pnm are used where they
are found.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from torchxrayvision.errors import ImageReadError
from torchxrayvision.images import read_raster

MEANT = {
    "colour DICOM file": "colour is no radiograph",
    "without a picture": "no picture",
    "floating point": "no whole numbers, no full scale",
    "one bit per pixel": "a segmentation",
    "DICOMDIR": "a table of contents",
}
# Files where two decoders agree on what is wrong, and how that is known.
REASONS = {
    "rtdose_expb.dcm": "GDCM and DCMTK swap bytes of 32-bit cells in pairs; rtdose.dcm shows it",
    "rtdose_expb_1frame.dcm": "the same; rtdose_1frame.dcm shows it",
}
LOSSLESS = 2e-4  # of the range: DCMTK gives 16 bits
LOSSY = 0.012  # decoders round the inverse transform differently
STRAY = 0.001  # share of pixels that may differ by more: clipped overshoots

Decoder = Callable[[Path], np.ndarray]


def share(stored: np.ndarray, bits: int, signed: bool, inverted: bool) -> np.ndarray:
    """Stored values as shares of the range of their bits, white as 1."""
    low = -(2 ** (bits - 1)) if signed else 0
    found = (stored.astype(float) - low) / (2**bits - 1)
    return 1 - found if inverted else found


def by_pydicom(path: Path) -> np.ndarray:
    found = pydicom.dcmread(path, force=True)
    stored = pydicom.pixels.pixel_array(found, index=0)
    inverted = found.PhotometricInterpretation == "MONOCHROME1"
    bits, signed = found.BitsStored, bool(found.PixelRepresentation)
    if "ModalityLUTSequence" in found:
        stored, signed = pydicom.pixels.apply_modality_lut(stored, found), False
        bits = min(bits, found.ModalityLUTSequence[0].LUTDescriptor[2])
    return share(stored, bits, signed, inverted)


def by_gdcm(path: Path) -> np.ndarray:
    """In a process of its own, which GDCM ends on some files."""
    if "ModalityLUTSequence" in pydicom.dcmread(path, force=True, stop_before_pixels=True):
        raise ValueError("it gives stored values, without the Modality LUT")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.npy"
        command = [sys.executable, __file__, "--gdcm", str(target), str(path)]
        subprocess.run(command, capture_output=True, check=True)
        return np.load(target)


def in_child(path: Path) -> np.ndarray:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise ValueError("GDCM cannot read it")
    image = reader.GetImage()
    form = image.GetPixelFormat()
    if form.GetSamplesPerPixel() != 1:
        raise ValueError("colour")
    kind = "i" if form.GetPixelRepresentation() else "u"
    data = image.GetBuffer().encode("utf-8", "surrogateescape")
    stored = np.frombuffer(data, f"<{kind}{form.GetBitsAllocated() // 8}")
    width, height = image.GetDimension(0), image.GetDimension(1)
    photometric = str(image.GetPhotometricInterpretation())
    stored = stored[: width * height].reshape(height, width)
    return share(stored, form.GetBitsStored(), kind == "i", "MONOCHROME1" in photometric)


def by_dcmtk(path: Path) -> np.ndarray:
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    plain = [] if "ModalityLUTSequence" in header else ["--no-modality"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.pgm"
        for tool in ("dcmj2pnm", "dcml2pnm"):
            command = [tool, *plain, "--no-windowing", "+F", "1", "+opw", path, target]
            done = subprocess.run(command, capture_output=True, check=False)
            if target.exists() and target.stat().st_size:
                break
        else:
            raise ValueError(done.stderr.decode(errors="replace").strip()[:80])
        lines = (line for line in target.read_text().splitlines() if not line.startswith("#"))
        words = " ".join(lines).split()
    if words[0] != "P2":
        raise ValueError("colour")
    width, height, peak = map(int, words[1:4])
    return np.array(words[4:], float).reshape(height, width) / peak


def by_this(path: Path) -> np.ndarray:
    raster = read_raster(path, frame=0)
    grey = (raster.to_array()[0].astype(float) + 1024) / 2048
    found = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    slope = float(found.get("RescaleSlope") or 1)
    return 1 - grey if slope < 0 and "ModalityLUTSequence" not in found else grey


def padding(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Which pixels are padding, which others show as it is stored."""
    try:
        found = pydicom.dcmread(path, force=True)
        first = int(found.PixelPaddingValue)
        last = int(found.get("PixelPaddingRangeLimit", first))
        stored = pydicom.pixels.pixel_array(found, index=0).astype(int)
    except Exception:  # noqa: BLE001 - there is none, or nothing to compare with
        return np.zeros(shape, bool)
    return (stored >= min(first, last)) & (stored <= max(first, last))


def decoders() -> dict[str, Decoder]:
    found: dict[str, Decoder] = {"pydicom": by_pydicom}
    if importlib.util.find_spec("gdcm"):
        found["GDCM"] = by_gdcm
    if shutil.which("dcmj2pnm") and shutil.which("dcml2pnm"):
        found["DCMTK"] = by_dcmtk
    return found


def attempt(decoder: Decoder, path: Path) -> np.ndarray | str:
    try:
        found = decoder(path)
    except Exception as error:  # noqa: BLE001 - a row for whatever it is
        return " ".join(f"{type(error).__name__}: {error}".split())[:150]
    return found if found.ndim == 2 else f"shape {found.shape}"


def alike(one: np.ndarray, other: np.ndarray, ignored: np.ndarray, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    used = max(float(np.ptp(one)), 0.01)  # a dark film must not pass for another one
    apart = (np.abs(one - other) > tolerance * max(used, 0.1)) & ~ignored
    return float(apart.mean()) <= STRAY


def compare(path: Path, others: dict[str, Decoder]) -> tuple[str, str]:
    """A verdict on one file, and its details."""
    if path.name in REASONS:
        return "meant", REASONS[path.name]
    found = {name: attempt(decoder, path) for name, decoder in others.items()}
    read: dict[str, Any] = {name: v for name, v in found.items() if isinstance(v, np.ndarray)}
    try:
        ours: Any = by_this(path)
    except ImageReadError as error:
        reason = f"{error.reason}"
        meant = next((why for words, why in MEANT.items() if words in reason), None)
        if meant:
            return "meant", f"{meant}: {reason}"
        return ("REFUSED" if len(read) > 1 else "refused, as by others"), f"{reason}; {list(read)}"
    syntax = read_raster(path, frame=0).info.transfer_syntax or ""
    lossless = syntax.split(".")[-1] in ("1", "2", "5", "57", "70", "80", "90", "99", "201", "202")
    tolerance = LOSSLESS if lossless else LOSSY
    ignored = padding(path, ours.shape)
    agreed = [
        (a, b)
        for a in read
        for b in read
        if a < b and read[a].shape == read[b].shape and alike(read[a], read[b], ignored, tolerance)
    ]
    equal = {
        n for n, v in read.items() if v.shape == ours.shape and alike(ours, v, ignored, tolerance)
    }
    if any({*pair} & equal for pair in agreed):
        return "as agreed", ""
    if agreed:
        return "DIFFERS", f"from {agreed}"
    if not read:
        return "read by this alone", "; ".join(f"{k}: {v}" for k, v in found.items())
    return (
        "as one of them" if equal else "unlike the one"
    ), f"{sorted(read)}, equal {sorted(equal)}"


def packaged() -> Iterator[Path]:
    """Files that pydicom ships, and those of pydicom-data where it is installed."""
    shipped = get_testdata_file("CT_small.dcm", download=False)
    yield from files(Path(str(shipped)).parent)
    more = importlib.util.find_spec("data_store")
    if more is not None and more.origin is not None:
        yield from files(Path(more.origin).parent / "data")


def files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.suffix == ".dcm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--all", action="store_true", help="a row for every file")
    parser.add_argument("--gdcm", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.gdcm:
        np.save(chosen.gdcm, in_child(chosen.folders[0]))
        return 0
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    paths = [p for folder in chosen.folders for p in files(folder)] or list(packaged())
    others, counts = decoders(), Counter[str]()
    for path in paths:
        verdict, details = compare(path, others)
        counts[verdict] += 1
        if chosen.all or verdict != "as agreed":
            sys.stdout.write(f"{verdict:22} {path.name:45} {details}\n")
    sys.stdout.write(f"\n{len(paths)} files; compared with {', '.join(others)}\n")
    for verdict, count in counts.most_common():
        sys.stdout.write(f"{count:5} {verdict}\n")
    return int(counts["DIFFERS"] + counts["REFUSED"] > 0)


if __name__ == "__main__":
    sys.exit(main())
