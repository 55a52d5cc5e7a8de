"""Fit the numbers of `xrv check`: python tools/fit_check.py ../shared/data/nih-mini

Needs scikit-learn. Writes src/torchxrayvision/screening/data/check.npz and prints how well the
scores part the pictures of the fit. `tools/evaluate_check.py` judges them on others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from check_pictures import (
    DRAWN,
    FIT_SEED,
    films,
    for_fit,
    grey_of,
    part_of,
    photographs,
    simulated,
    square,
    varied,
)
from torchxrayvision.screening.pose import SIDE, features, poses
from torchxrayvision.transforms import prepare

OUT = Path(__file__).parent.parent / "src/torchxrayvision/screening/data/check.npz"
COMPONENTS = 40
FOLDS = 2
SIMULATED = 40  # of each of frontal and lateral
MISSED_FILMS = 0.008  # share of frontal films that may score as something else
MISSED_MIRRORS = 0.005


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    return prepare(np.ascontiguousarray(picture, np.float32), 1.0, 0.0, SIDE)[0]


def _eight(picture: np.ndarray) -> np.ndarray:
    return np.stack([features(image) for image in poses(_thumbnail(picture))])


def _pictures(folder: Path, photos: list[Path], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Eight feature vectors for each picture, shape (N, 8, F), by what it is."""
    paths = [path for path in films(folder) if for_fit(path)]
    real = [square(grey_of(path)) for path in paths]
    patients = np.array([int(path.name[:8]) for path in paths])
    phantoms = [*simulated(SIMULATED, FIT_SEED, ("PA", "AP"))] * 2
    laterals = [*simulated(SIMULATED, FIT_SEED, ("L",))] * 2
    other = [square(grey_of(p), rng) for p in photographs(photos)[0] for _ in range(12)]
    other += [draw(rng) for draw in DRAWN.values() for _ in range(60)]
    other += [part_of(real[i], rng) for i in rng.integers(0, len(real), 150)]
    return {
        "film": np.stack([_eight(film) for film in real]),
        "patient": patients,
        "varied": np.stack([_eight(varied(film, rng)) for film in real]),
        "phantom": np.stack([_eight(varied(film, rng)) for film in phantoms]),
        "lateral": np.stack([_eight(varied(film, rng)) for film in laterals]),
        "other": np.stack([_eight(picture) for picture in other]),
    }


def _logistic(x: np.ndarray, y: np.ndarray, c: float, *, intercept: bool = True) -> tuple:
    model = LogisticRegression(
        C=c, max_iter=150, class_weight="balanced", fit_intercept=intercept
    ).fit(x, y)
    return model.coef_[0], float(model.intercept_[0]) if intercept else 0.0


def _fit_chest(upright: np.ndarray, rest: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, scale, components and weights from upright frontal films and everything else."""
    mean, scale = upright.mean(0), upright.std(0) + 0.05
    z = (upright - mean) / scale
    basis = np.linalg.svd(z, full_matrices=False)[2][:COMPONENTS]
    both = np.concatenate([upright, rest])
    z = (both - mean) / scale
    far = np.log(np.maximum((z**2).sum(1) - ((z @ basis.T) ** 2).sum(1), 1e-3) / z.shape[1])
    y = np.repeat([1, 0], [len(upright), len(rest)])
    weights, offset = _logistic(np.column_stack([z, 5 * far]).astype(np.float32), y, 1e-2)
    return {
        "mean": mean,
        "scale": scale,
        "basis": basis,
        "chest": weights[:-1],
        "numbers": np.array([5 * weights[-1], offset]),
    }


def _chest_scores(fit: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    z = (x - fit["mean"]) / fit["scale"]
    far = np.log(
        np.maximum((z**2).sum(-1) - ((z @ fit["basis"].T) ** 2).sum(-1), 1e-3) / z.shape[-1]
    )
    return z @ fit["chest"] + fit["numbers"][0] * far + fit["numbers"][1]


def _parts(sets: dict[str, np.ndarray], keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features of upright frontal pictures, and of all else, of the chosen patients."""
    frontal = [sets["film"][keep], sets["varied"][keep], sets["phantom"]]
    upright = np.concatenate([part[:, 0] for part in frontal])
    # Of each picture some poses are enough: another one shows the others.
    lain = [
        part[start::7, 1 + (start + k) % 7]
        for part in frontal
        for start in range(7)
        for k in range(3)
    ]
    rest = [sets[name].reshape(-1, upright.shape[1]) for name in ("lateral", "other")]
    return upright, np.concatenate([*lain, *rest])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("films", type=Path, help="folder nih-mini")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="more folders")
    parser.add_argument("--keep", type=Path, help="keep features here, to fit again at once")
    options = parser.parse_args()
    if options.keep is not None and options.keep.exists():
        sets = dict(np.load(options.keep))
    else:
        sets = _pictures(options.films, options.photos, np.random.default_rng(FIT_SEED))
        if options.keep is not None:
            np.savez(options.keep, **sets)

    # Scores of films that a fit has not seen set the threshold.
    fold = sets["patient"] % 100 * FOLDS // 100
    unseen = []
    for index in range(FOLDS):
        fit = _fit_chest(*_parts(sets, fold != index))
        unseen.append(_chest_scores(fit, sets["film"][fold == index][:, 0]))
    threshold = float(np.quantile(np.concatenate(unseen), MISSED_FILMS))
    fit = _fit_chest(*_parts(sets, np.ones(len(fold), bool)))
    print(f"threshold {threshold:.2f}; films {np.quantile(np.concatenate(unseen), (0, 0.01, 0.5))}")
    other = _chest_scores(fit, sets["other"]).max(1)
    lateral = _chest_scores(fit, sets["lateral"]).max(1)
    print(
        f"above it: other {(other > threshold).mean():.4f}, lateral {(lateral > threshold).mean()}"
    )

    def standardised(x: np.ndarray) -> np.ndarray:
        return (x - fit["mean"]) / fit["scale"]

    size = sets["film"].shape[-1]
    no = np.concatenate(
        [sets["film"][:, 0], sets["varied"][:, 0], sets["phantom"][:, 0], sets["other"][:, 0]]
    )
    z = np.concatenate([standardised(sets["lateral"][:, 0]), standardised(no)])
    y = np.repeat([1, 0], [len(sets["lateral"]), len(no)])
    side, at_side = _logistic(z, y, 1e-3)

    mirror = standardised(sets["film"][:, 0]) - standardised(_mirrored(options.films))
    swapped, _ = _logistic(
        np.concatenate([-mirror, mirror]), np.repeat([1, 0], len(mirror)), 1e-2, intercept=False
    )
    margins = []
    for index in range(FOLDS):
        m, held = mirror[fold != index], mirror[fold == index]
        w, _ = _logistic(np.concatenate([-m, m]), np.repeat([1, 0], len(m)), 1e-2, intercept=False)
        margins.append(held @ w)
    at_mirror = -float(np.quantile(np.concatenate(margins), 1 - MISSED_MIRRORS))
    caught = (-np.concatenate(margins) + at_mirror > 0).mean()
    print(f"mirrored: {caught:.3f} found where {MISSED_MIRRORS} of the others are")

    numbers = np.array([fit["numbers"][0], fit["numbers"][1] - threshold, at_side, at_mirror])
    OUT.parent.mkdir(exist_ok=True)
    np.savez(
        OUT,
        **{name: fit[name].astype(np.float16) for name in ("mean", "scale", "basis", "chest")},
        lateral=side.astype(np.float16),
        mirrored=swapped.astype(np.float16),
        numbers=numbers.astype(np.float32),
    )
    print(f"{OUT}: {OUT.stat().st_size} bytes, {size} features")


def _mirrored(folder: Path) -> np.ndarray:
    """Features of the films of the fit, mirrored."""
    paths = [path for path in films(folder) if for_fit(path)]
    return np.stack(
        [features(poses(_thumbnail(square(grey_of(path))))[0][:, ::-1]) for path in paths]
    )


if __name__ == "__main__":
    main()
