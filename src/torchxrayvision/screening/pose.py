"""Which way up a chest radiograph is, and whether it is one at all, from a thumbnail.

One score answers "is this an upright frontal chest radiograph with dark lungs?". It is taken of
the picture in its eight poses, four quarter turns in both polarities. The best pose tells how the
picture lies, and where even that one scores low it shows something else. The score is linear in
directions of edges and in coarse brightness, less how far these lie from what they can be in
chest radiographs (the distance to their principal components), so that what no example of the
fit has shown is refused as well.

The numbers are fitted by `tools/fit_check.py` and lie in `data/check.npz`.

Source:
    Dalal, Triggs. Histograms of oriented gradients for human detection. CVPR 2005.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

__all__ = ["SIDE", "Pose", "PoseModel", "features", "is_surely_upright", "pose_of", "poses"]

SIDE: Final = 64
"""Rows and columns of the thumbnail."""

_LEVELS: Final = 256
_CELLS: Final = 8
_DIRECTIONS: Final = 8
_COARSE: Final = 16
# Of 200 frontal films all but one scored above this as they lie, and below -5 in any other pose.
_SURE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Pose:
    """How a picture lies.

    Args:
        chest: Score of the best pose; above 0 is a frontal chest radiograph.
        turns: Quarter turns counterclockwise that set it upright, 0 to 3.
        inverted: Whether its grey is inverted: air bright.
        lateral: Score of a lateral chest radiograph; above 0 is one, where `chest` is not.
        mirrored: Score of left and right exchanged, once upright; above 0 they probably are.
    """

    chest: float
    turns: int
    inverted: bool
    lateral: float
    mirrored: float


@dataclass(frozen=True, slots=True, eq=False)
class PoseModel:
    """The fitted numbers; F features, K principal components.

    Args:
        mean: Of the features of frontal chest radiographs, shape (F,).
        scale: Their standard deviation, shape (F,).
        basis: Principal components of the standardised features, shape (K, F).
        chest: Weights of the standardised features, shape (F,).
        lateral: The same for a lateral radiograph.
        mirrored: The same for the features less those of the mirror image.
        numbers: Weight of the logarithm of the distance, then three offsets, so that every score
            is above 0 where the answer is yes: shape (4,).
    """

    mean: Float32
    scale: Float32
    basis: Float32
    chest: Float32
    lateral: Float32
    mirrored: Float32
    numbers: Float32

    def standardised(self, values: Float32) -> Float32:
        """Features (..., F) with mean 0 and deviation 1 over chest radiographs."""
        return (values - self.mean) / self.scale

    def distance(self, z: Float32) -> Float32:
        """How far standardised features (..., F) lie from those of chest radiographs, (...)."""
        rest = (z**2).sum(-1) - ((z @ self.basis.T) ** 2).sum(-1)
        distance: Float32 = np.log(np.maximum(rest, 1e-3) / z.shape[-1])
        return distance


@lru_cache(maxsize=1)
def _model() -> PoseModel:
    source = resources.files("torchxrayvision.screening").joinpath("data/check.npz")
    with source.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return PoseModel(**{name: stored[name].astype(np.float32) for name in stored.files})


def pose_of(thumbnail: Float32, model: PoseModel | None = None) -> Pose:
    """Judge one picture.

    Args:
        thumbnail: Shape (SIDE, SIDE), any linear scale of grey.
        model: Fitted numbers; None for those of the package.

    Returns:
        How it lies.
    """
    fitted = _model() if model is None else model
    weight, at_chest, at_lateral, at_mirrored = (float(value) for value in fitted.numbers)
    z = fitted.standardised(np.stack([features(image) for image in poses(thumbnail)]))
    scores = z @ fitted.chest + weight * fitted.distance(z) + at_chest
    best = int(scores.argmax())
    turns, inverted = best % 4, best >= 4
    upright = poses(thumbnail)[best]
    reflected = fitted.standardised(features(upright[:, ::-1]))
    # A lateral film stands upright on its own account: of its two polarities, as it came.
    return Pose(
        chest=float(scores[best]),
        turns=turns,
        inverted=inverted,
        lateral=float((z[[0, 4]] @ fitted.lateral).max() + at_lateral),
        mirrored=float((z[best] - reflected) @ fitted.mirrored + at_mirrored),
    )


def is_surely_upright(thumbnail: Float32) -> bool:
    """Whether a picture is an upright frontal chest radiograph beyond doubt.

    An eighth of the work of `pose_of`, which is to be asked where the answer is no.

    Args:
        thumbnail: See `pose_of`.
    """
    model = _model()
    z = model.standardised(features(_ranks(thumbnail)))
    weight, at_chest = (float(value) for value in model.numbers[:2])
    return bool(z @ model.chest + weight * model.distance(z) + at_chest > _SURE)


def poses(thumbnail: Float32) -> list[Float32]:
    """The picture in eight poses, its grey replaced by ranks.

    Args:
        thumbnail: Shape (S, S).

    Returns:
        0 to 3 quarter turns counterclockwise, then the same with inverted grey.
    """
    ranks = _ranks(thumbnail)
    turned = [np.rot90(ranks, turns) for turns in range(4)]
    return turned + [1 - image for image in turned]


def _ranks(image: Float32) -> Float32:
    """Share of darker pixels: free of exposure, and inverting it inverts the picture."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return np.full(image.shape, 0.5, np.float32)
    steps = ((image - low) * ((_LEVELS - 1) / (high - low))).round().astype(np.intp)
    counts = np.bincount(steps.ravel(), minlength=_LEVELS)
    middle = (np.cumsum(counts) - counts / 2) / image.size
    return middle.astype(np.float32)[steps]


def features(ranks: Float32) -> Float32:
    """Directions of edges by cells, and coarse brightness.

    Args:
        ranks: Shape (SIDE, SIDE), one of `poses`.

    Returns:
        Shape (F,).
    """
    down, right = np.gradient(ranks)
    turn = np.arctan2(down, right) * (_DIRECTIONS / (2 * np.pi)) % _DIRECTIONS
    first = turn.astype(np.intp)
    share = turn - first
    cell = np.arange(ranks.shape[0]) * _CELLS // ranks.shape[0]
    bins = (cell[:, None] * _CELLS + cell) * _DIRECTIONS
    strength = np.hypot(down, right)
    histogram = np.zeros(_CELLS * _CELLS * _DIRECTIONS)
    for direction, part in ((first, 1 - share), (first + 1, share)):
        at = (bins + direction % _DIRECTIONS).ravel()
        histogram += np.bincount(at, (strength * part).ravel(), histogram.size)
    edges = np.sqrt(histogram)
    step = ranks.shape[0] // _COARSE
    coarse = ranks.reshape(_COARSE, step, _COARSE, step).mean((1, 3)).ravel()
    return np.concatenate(
        [
            edges * (10 / (np.linalg.norm(edges) + 1e-6)),
            (coarse - coarse.mean()) / (coarse.std() + 1e-3),
        ]
    ).astype(np.float32)
