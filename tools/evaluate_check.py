"""Judge `xrv check`: python tools/evaluate_check.py ../shared

Builds files of films whose patients had no part in the fit, of simulated radiographs of another
seed, and of other things, runs the check on the files, and prints a table of what was refused.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from check_pictures import (
    DRAWN,
    TEST_SEED,
    films,
    for_fit,
    grey_of,
    photographs,
    simulated,
    square,
)
from torchxrayvision.errors import XRVError
from torchxrayvision.images import read_raster
from torchxrayvision.screening import iter_checks

# A film of the evaluation part that is not what its release says, found by eye.
INVERTED = {"00017999_000"}  # air is bright
# Files in samples/dicom that show no chest: a panoramic film of the teeth, a lower leg.
NO_CHEST = ("CR-ModalitySequenceLUT", "RG3_")
EXPECTED = {
    "as it is": "",
    "inverted": "inverted",
    "turned 90": "rotated",
    "turned 180": "rotated",
    "turned 270": "rotated",
    "inverted and turned": "inverted",
    "mirrored": "mirrored",
    "with bars": "bars",
    "with text": "text",
    "dark 16 bits": "exposure",
}


def _written(picture: np.ndarray) -> np.ndarray:
    picture = picture.copy()
    image = Image.fromarray(picture)
    height, width = picture.shape
    font = ImageFont.load_default(max(12, height // 40))
    draw = ImageDraw.Draw(image)
    draw.text((width // 20, height // 20), "PORTABLE ERECT 14:25", fill=255, font=font)
    return np.asarray(image)


def _barred(picture: np.ndarray) -> np.ndarray:
    wide = [(side // 8, side // 10) for side in picture.shape]
    return np.pad(picture, wide, constant_values=255)


VARIANTS = {
    "as it is": lambda p: p,
    "inverted": lambda p: 255 - p,
    "turned 90": lambda p: np.rot90(p, -1),
    "turned 180": lambda p: np.rot90(p, 2),
    "turned 270": lambda p: np.rot90(p, 1),
    "inverted and turned": lambda p: np.rot90(255 - p, 1),
    "mirrored": lambda p: p[:, ::-1],
    "with bars": _barred,
    "with text": _written,
    "dark 16 bits": lambda p: p.astype(np.uint16) * 16,
}


def _bytes(picture: np.ndarray) -> np.ndarray:
    low, high = float(picture.min()), float(picture.max())
    return np.round((picture - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)


def _save(folder: Path, kind: str, name: str, picture: np.ndarray) -> None:
    place = folder / kind
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(picture)).save(place / f"{name}.png", compress_level=1)


def _write_films(out: Path, shared: Path, each: int) -> None:
    chosen = [path for path in films(shared / "data/nih-mini") if not for_fit(path)]
    for path in chosen:
        if path.stem not in INVERTED:
            _save(out, "film/as it is", path.stem, grey_of(path).astype(np.uint8))
    for index, (variant, change) in enumerate(VARIANTS.items()):
        if variant == "as it is":
            continue
        for path in chosen[index :: max(1, len(chosen) // each)]:
            if path.stem not in INVERTED:
                picture = change(grey_of(path).astype(np.uint8))
                _save(out, f"film/{variant}", path.stem, picture)
    for path in chosen:
        if path.stem in INVERTED:
            _save(out, "film/inverted", path.stem, grey_of(path).astype(np.uint8))


def _write_simulated(out: Path, each: int) -> None:
    frontal = simulated(each, TEST_SEED, ("PA", "AP"))
    for index, picture in enumerate(frontal):
        plain = _bytes(picture)
        for variant in ("as it is", "inverted", "turned 90", "turned 180"):
            _save(out, f"simulated/{variant}", str(index), VARIANTS[variant](plain))
    for index, picture in enumerate(simulated(each, TEST_SEED, ("L",))):
        _save(out, "simulated/lateral", str(index), _bytes(picture))


def _write_others(out: Path, photos: list[Path], each: int) -> None:
    rng = np.random.default_rng(TEST_SEED)
    for path in photographs(photos)[1]:
        picture = grey_of(path)
        _save(out, "other/photograph", path.stem, picture.astype(np.uint8))
        for part in range(2):
            _save(out, "other/photograph", f"{path.stem}-{part}", _bytes(square(picture, rng)))
    for kind, draw in DRAWN.items():
        for index in range(each // 4):
            _save(out, "other/drawn", f"{kind}-{index}", _bytes(draw(rng)))
    for grey in range(0, 256, 51):
        _save(out, "other/blank", str(grey), np.full((300, 260), grey, np.uint8))


def _samples(shared: Path) -> dict[str, list[Path]]:
    """Films of other sources, as they lie in shared/samples."""
    found: dict[str, list[Path]] = {"sample/chest": [], "sample/no chest": []}
    for path in sorted((shared / "samples").rglob("*")):
        if not path.is_file() or path.name == "Fake_MONOHR1.dcm":  # a header changed to be wrong
            continue
        try:
            read_raster(path)
        except XRVError:
            continue
        found["sample/" + ("no chest" if path.name.startswith(NO_CHEST) else "chest")].append(path)
    found["sample/wrong MONOCHROME1"] = list((shared / "samples").glob("Fake_MONOHR1.dcm"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="more folders")
    parser.add_argument("--each", type=int, default=40, help="files of each kind")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        _write_films(out, options.shared, options.each)
        _write_simulated(out, options.each // 2)
        _write_others(out, options.photos, options.each)
        kinds = defaultdict(list)
        for path in sorted(out.rglob("*.png")):
            kinds[f"{path.parent.parent.name}/{path.parent.name}"].append(path)
        kinds |= _samples(options.shared)
        _report(kinds)


def _report(kinds: dict[str, list[Path]]) -> None:
    print(f"{sum(map(len, kinds.values()))} files\n")
    print("| source | what was done | files | refused | found as expected | also noted |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind, paths in kinds.items():
        source, what = kind.split("/")
        refused, right, other = 0, 0, Counter()
        expected = EXPECTED.get(what, what)
        for result in iter_checks(paths):
            refused += result.verdict == "refused"
            codes = set(result.codes)
            right += not _grave(codes) if expected in ("", "chest") else bool(codes & _codes(what))
            other.update(codes - _codes(what))
            if source in ("film", "sample") and what in ("as it is", "chest") and _grave(codes):
                print(f"<!-- {result.path}: {result.codes} {result.pose} -->")
            if source == "other" and result.verdict != "refused":
                print(f"<!-- {Path(result.path).name}: {result.codes} {result.pose} -->")
        noted = ", ".join(f"{code} {count}" for code, count in other.most_common())
        share = f"{right} ({right / max(len(paths), 1):.1%})"
        print(f"| {source} | {what} | {len(paths)} | {refused} | {share} | {noted} |")


def _grave(codes: set[str]) -> bool:
    from torchxrayvision.screening.checks import REFUSED

    return bool(codes & set(REFUSED))


def _codes(what: str) -> set[str]:
    """The remarks that are right for a kind of file."""
    if what in ("photograph", "drawn", "blank", "no chest"):
        return {"not-chest", "blank", "lateral"}
    if what == "lateral":
        return {"lateral"}
    if what == "wrong MONOCHROME1":
        return {"inverted"}
    return {EXPECTED[what]} if EXPECTED.get(what) else set()


if __name__ == "__main__":
    main()
