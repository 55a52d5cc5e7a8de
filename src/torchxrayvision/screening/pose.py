"""Which way up a chest radiograph is, and whether it is one at all, from a thumbnail.

One score answers "is this an upright frontal chest radiograph with dark lungs?". It is taken of
the image in its eight poses, four quarter turns in both polarities. The best pose tells how the
image lies, and where even that one scores low it shows something else. The score is linear in
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
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.measures import connected_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    from torchxrayvision.images import Raster

_LONGEST: Final = 1024  # pixels of the longer side that are looked at
_PLAIN: Final = 0.02  # of the grey range: a bar may vary so much, from lossy compression
_STRAY: Final = 0.02  # of the pixels of a line: letters may lie on a bar
_STROKE: Final = 0.35  # of the grey range: how far letters stand out
_GLYPH: Final = (0.007, 0.05)  # of the longer side: heights of letters
_LETTERS: Final = 4  # a line of so many is text; side markers have fewer


@dataclass(frozen=True, slots=True)
class FrameMeasures:
    """Measures of one image.

    Args:
        bars: Share of the image that bars of one grey along its edges take, 0 to 1.
        letters: Signs in lines of at least four, outside the bars or on them.
        black: Share of pixels at the lowest value that the file can hold.
        white: The same at the highest.
        contrast: Between the 2nd and the 98th percentile, as a share of what the file can hold.
        brightness: Median, from 0, black, to 1, white.
        levels: Different values among the pixels that were looked at.
        inside: First and last row and column, half open, of the image inside the bars.
    """

    bars: float
    letters: int
    black: float
    white: float
    contrast: float
    brightness: float
    levels: int
    inside: tuple[int, int, int, int]


def measure_frame(raster: Raster) -> FrameMeasures:
    """Measure one picture.

    Args:
        raster: As read; every few pixels are looked at.

    Returns:
        Its measures.
    """
    grey, step = _seen(raster, _LONGEST)
    rows, columns = _without_bars(grey)
    inner = grey[rows, columns]
    shown = inner if inner.size else grey
    low, middle, high = np.quantile(shown, (0.02, 0.5, 0.98))
    return FrameMeasures(
        bars=1 - inner.size / grey.size,
        letters=_letters(grey),
        black=float((shown <= 0.001).mean()),
        white=float((shown >= 0.999).mean()),
        contrast=float(high - low),
        brightness=float(middle),
        levels=levels_of(raster),
        inside=(rows.start * step, rows.stop * step, columns.start * step, columns.stop * step),
    )


def levels_of(raster: Raster) -> int:
    """Different values among the pixels that are looked at."""
    step = max(1, max(raster.shape) // _LONGEST)
    return int(np.unique(raster.pixels[::step, ::step]).size)


def inside_bars(raster: Raster) -> tuple[tuple[int, int, int, int], float]:
    """`FrameMeasures.inside` and `FrameMeasures.bars` alone, from fewer pixels."""
    grey, step = _seen(raster, _LONGEST // 4)
    rows, columns = _without_bars(grey)
    inside = (rows.start * step, rows.stop * step, columns.start * step, columns.stop * step)
    return inside, 1 - grey[rows, columns].size / grey.size


def _seen(raster: Raster, longest: int) -> tuple[Float32, int]:
    """Every few pixels, from 0 to 1 by the range that the file declares."""
    step = max(1, max(raster.shape) // longest)
    stored = raster.pixels[::step, ::step]
    grey: Float32 = stored.astype(np.float32) * np.float32(raster.scale / 2048)
    grey += np.float32((raster.offset + 1024) / 2048)
    return grey, step


def _without_bars(grey: Float32) -> tuple[slice, slice]:
    """The part of an image inside the bars of one grey along its edges."""
    span = float(grey.max() - grey.min())
    if span <= 0:
        return slice(0, 0), slice(0, 0)
    rows = _inside(grey, span)
    if rows.start == rows.stop:
        return slice(0, 0), slice(0, 0)
    return rows, _inside(grey[rows].T, span)


def _inside(grey: Float32, span: float) -> slice:
    """Rows inside those of one grey at the top and at the bottom."""
    middle = np.median(grey, axis=1)
    stray = (np.abs(grey - middle[:, None]) > _PLAIN * span).mean(axis=1)
    kept = np.flatnonzero(stray > _STRAY)
    return slice(int(kept[0]), int(kept[-1]) + 1) if kept.size else slice(0, 0)


def _letters(grey: Float32) -> int:
    """Signs of equal height that stand in a line, bright or dark."""
    low, high = np.quantile(grey, (0.005, 0.995))
    span = float(high - low)
    if span <= 0:
        return 0
    size = max(grey.shape)
    local = _box_mean(grey, max(2, round(size * 0.02)))
    return max(
        _in_lines(connected_boxes(sign * (grey - local) > _STROKE * span), size) for sign in (1, -1)
    )


def _box_mean(grey: Float32, radius: int) -> Float32:
    """Mean over a square around each pixel, cut off at the edges."""
    out: Any = grey
    for axis in (0, 1):
        sums = np.cumsum(np.moveaxis(out, axis, 0), axis=0, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums[:1]), sums])
        count = sums.shape[0] - 1
        first = np.clip(np.arange(count) - radius, 0, count)
        last = np.clip(np.arange(count) + radius + 1, 0, count)
        mean = (sums[last] - sums[first]) / (last - first).reshape(-1, 1)
        out = np.moveaxis(mean, 0, axis)
    return np.asarray(out, np.float32)


def _in_lines(boxes: NDArray[np.int64], size: int) -> int:
    """How many boxes (left, top, right, bottom, pixels) are letters in a line of some."""
    left, top, right, bottom, pixels = boxes.T
    height, width = bottom - top, right - left
    least, most = (share * size for share in _GLYPH)
    ink = pixels / np.maximum(height * width, 1)
    fits = (height >= max(5, least)) & (height <= most) & (width <= 1.6 * height)
    letters = boxes[fits & (ink > 0.15) & (ink < 0.95)]
    found = 0
    taken = np.zeros(len(letters), bool)
    for index in range(len(letters)):
        line = _line(letters, index, taken)
        if len(line) >= _LETTERS:
            found += len(line)
            taken[line] = True
    return found


def _line(letters: NDArray[np.int64], first: int, taken: NDArray[np.bool_]) -> list[int]:
    """The letters to the right of one that continue its line."""
    if taken[first]:
        return []
    line, (_, top, right, bottom, _) = [first], letters[first]
    height = bottom - top
    while True:
        gaps = letters[:, 0] - right
        same = (np.abs(letters[:, 1] - top) <= 0.25 * height) & (
            np.abs(letters[:, 3] - bottom) <= 0.25 * height
        )
        following = np.flatnonzero(same & ~taken & (gaps >= 0) & (gaps <= 1.5 * height))
        if not following.size:
            return line
        line.append(int(following[np.argmin(gaps[following])]))
        right = letters[line[-1], 2]


SIDE: Final = 64
"""Rows and columns of the thumbnail."""

_LEVELS: Final = 256
_CELLS: Final = 8
_DIRECTIONS: Final = 8
_COARSE: Final = 16
# Of 200 frontal images all but one scored above this as they lie, and below -5 in any other pose.
_SURE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Pose:
    """How an image lies.

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
    """Judge one image.

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
    # A lateral image stands upright on its own account: of its two polarities, as it came.
    return Pose(
        chest=float(scores[best]),
        turns=turns,
        inverted=inverted,
        lateral=float((z[[0, 4]] @ fitted.lateral).max() + at_lateral),
        mirrored=float((z[best] - reflected) @ fitted.mirrored + at_mirrored),
    )


def appearance(thumbnail: Float32) -> Float32:
    """What an image shows where, whatever its exposure: to find it again, or images like it.

    Directions of edges and coarse brightness of the ranks of grey values, as differences from what
    chest radiographs have in common, each relative to how much these vary.

    Args:
        thumbnail: Shape (SIDE, SIDE), any linear scale of grey.

    Returns:
        Shape (768,).

    Example:
        >>> appearance(np.eye(SIDE, dtype=np.float32)).shape
        (768,)
    """
    return _model().standardised(features(ranks_of(thumbnail)))


def is_surely_upright(thumbnail: Float32) -> bool:
    """Whether a thumbnail is an upright frontal chest radiograph beyond doubt.

    An eighth of the work of `pose_of`, which is to be asked where the answer is no.
    """
    model = _model()
    z = model.standardised(features(ranks_of(thumbnail)))
    weight, at_chest = (float(value) for value in model.numbers[:2])
    return bool(z @ model.chest + weight * model.distance(z) + at_chest > _SURE)


def poses(thumbnail: Float32) -> list[Float32]:
    """A thumbnail in eight poses, its grey replaced by ranks.

    Returns:
        0 to 3 quarter turns counterclockwise, then the same with inverted grey.
    """
    ranks = ranks_of(thumbnail)
    turned = [np.rot90(ranks, turns) for turns in range(4)]
    return turned + [1 - image for image in turned]


def ranks_of(image: Float32) -> Float32:
    """Share of darker pixels: free of exposure, and inverting it inverts the image."""
    low, high = float(image.min()), float(image.max())
    if high <= low:
        return np.full(image.shape, 0.5, np.float32)
    steps = ((image - low) * ((_LEVELS - 1) / (high - low))).round().astype(np.intp)
    counts = np.bincount(steps.ravel(), minlength=_LEVELS)
    middle = (np.cumsum(counts) - counts / 2) / image.size
    return middle.astype(np.float32)[steps]


def features(ranks: Float32) -> Float32:
    """Directions of edges by cells, and coarse brightness, shape (F,), of one of `poses`."""
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
