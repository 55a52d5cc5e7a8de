"""Judge `xrv check --ood`: python tools/evaluate_reference.py ../shared [--photos FOLDER ...]

Scores radiographs whose patients had no part in the fit, the samples, simulated radiographs, and
photographs, drawn limbs and other things, and prints for each kind the AUROC of both scores
against the radiographs and the share that is refused as unfamiliar.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from check_pictures import (
    DRAWN,
    TEST_SEED,
    films,
    for_fit,
    grey_of,
    part_of,
    photographs,
    simulated,
    square,
)
from torchxrayvision.errors import XRVError
from torchxrayvision.evaluation import auroc, wilson_interval
from torchxrayvision.inputs import crop_and_resize, expand, read_file
from torchxrayvision.screening import load_reference
from torchxrayvision.transforms import prepare

INVERTED = {"00017999_000"}  # see tools/evaluate_check.py
NO_CHEST = {"CR-ModalitySequenceLUT": "teeth", "RG3_": "lower leg"}
WRONG = "Fake_MONOHR1"  # a header changed to be wrong


def scaled(picture: np.ndarray, side: int) -> np.ndarray:
    """Any picture as an 8-bit file of its whole range would be read, (1, side, side)."""
    low, high = float(picture.min()), float(picture.max())
    scale = 2048 / max(high - low, 1e-6)
    grey = np.ascontiguousarray(picture, np.float32)
    return prepare(grey, scale, -1024 - low * scale, side)


def of_others(photos: list[Path], side: int, each: int) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(TEST_SEED)
    found = {
        "photographs, drawings, screenshots": [
            scaled(cut, side)
            for path in [*photographs(photos)[0], *photographs(photos)[1]]
            for cut in (grey_of(path), *(square(grey_of(path), rng) for _ in range(5)))
        ],
        "blank": [np.full((1, side, side), g, np.float32) for g in np.linspace(-1024, 1024, 11)],
    }
    for kind, draw in DRAWN.items():
        found[f"drawn: {kind}"] = [scaled(draw(rng), side) for _ in range(each)]
    return found


def of_samples(folder: Path, side: int) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for file in expand(str(folder)):
        name = file.path.name
        try:
            picture = crop_and_resize(file, read_file(file), side)
        except XRVError:
            continue
        kind = next((k for begin, k in NO_CHEST.items() if name.startswith(begin)), "chest samples")
        if not name.startswith(WRONG):
            found.setdefault(kind, []).append(picture)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="more folders")
    parser.add_argument("--each", type=int, default=20, help="of each drawn kind")
    options = parser.parse_args()
    reference = load_reference()
    side = reference.side
    rng = np.random.default_rng(TEST_SEED)
    kept = [
        path
        for path in films(options.shared / "data/nih-mini")
        if not for_fit(path) and path.stem not in INVERTED
    ]
    grey = [grey_of(path) for path in kept]
    real = [prepare(np.ascontiguousarray(g), 2048 / 255, -1024.0, side) for g in grey]
    known = {"radiographs of other patients": real, **of_samples(options.shared / "samples", side)}
    known["simulated, frontal"] = [
        scaled(picture, side) for picture in simulated(100, TEST_SEED, ("PA", "AP"))
    ]
    others = of_others(options.photos, side, options.each)
    others |= {kind: known.pop(kind) for kind in NO_CHEST.values() if kind in known}
    others["little of a chest"] = [scaled(part_of(square(g), rng), side) for g in grey[:60]]
    others["upside down"] = [picture[:, ::-1].copy() for picture in real[::6]]
    others["rotated by 90 degrees"] = [np.rot90(p, 1, (1, 2)).copy() for p in real[::6]]
    others["inverted"] = [-picture for picture in real[::6]]
    rest = [p for kind, made in others.items() if is_other(kind) for p in made]
    others["photographs, lower leg and blank together"] = rest
    print("| images | number | AUROC, distance | AUROC, error | unfamiliar |")
    print("| --- | --- | --- | --- | --- |")
    inside = reference.scores(np.stack(real))
    for kind, pictures in {**known, **others}.items():
        scores = reference.scores(np.stack(pictures))
        refused = sum(bool(reference.reasons(score)) for score in scores)
        areas = ["", ""]
        if kind in others:
            labels = np.repeat([0.0, 1.0], [len(inside), len(scores)])
            areas = [
                f"{auroc(labels, np.array([getattr(s, name) for s in [*inside, *scores]])):.3f}"
                for name in ("distance", "error")
            ]
        share = f"{refused} ({refused / len(scores):.1%})"
        if kind == "radiographs of other patients":
            low, high = wilson_interval(refused, len(scores))
            share += f", 95 % interval {low:.1%} to {high:.1%}"
        print(f"| {kind} | {len(scores)} | {areas[0]} | {areas[1]} | {share} |")


def is_other(kind: str) -> bool:
    """Whether a kind is one of those that the two scores are held to."""
    return kind.startswith(("photographs", "blank", "lower leg"))


if __name__ == "__main__":
    main()
