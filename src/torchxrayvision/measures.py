"""What radiologists measure on a frontal radiograph, from the masks of its structures.

Masks are named as the segmentation networks name them, in any case and word order: `"Left Lung"`,
`"lung left"`. Left is the patient's left, at the right of the picture. Lengths and areas are in
pixels, or in millimetres where the spacing of the pixels is given.

Caution: the spacing of a radiograph is nearly always that at the detector. The heart lies some
way before it and is drawn larger, by about 5 % in a PA image at 180 cm and up to 20 % in an AP
image at the bedside, so its millimetres are upper bounds. Ratios of lengths in one picture remain.

Example:
    >>> masks = {name: np.zeros((10, 20), bool) for name in ("Left Lung", "Right Lung", "Heart")}
    >>> masks["Right Lung"][2:8, 2:8] = masks["Left Lung"][2:8, 12:18] = True
    >>> masks["Heart"][5:8, 8:14] = True
    >>> cardiothoracic(masks).ratio
    0.375
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.errors import ImageShapeError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Mask = NDArray[np.bool_]
    Spacing = tuple[float, float]

__all__ = [
    "Cardiothoracic",
    "area",
    "cardiothoracic",
    "cardiothoracic_ratio",
    "chosen_parts",
    "connected_boxes",
    "doubts",
    "lung_area_ratio",
    "main_parts",
    "parts_of",
    "spine_heart_distance",
    "structure",
]

_SIDES: Final = ("left", "right")
_SPECK: Final = 0.1  # of the largest part: smaller ones are not the organ
_AREA_RATIO: Final = (0.5, 2.0)  # left over right lung; heart and liver make it 0.7 to 1.1


def parts_of(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The masks that make up a structure: its own, or those of its two sides.

    Args:
        name: As a person would say it: `"heart"`, `"Left Lung"`, `"Lungs"`, `"clavicles"`.
        names: The masks that there are.

    Returns:
        One name, or the left and the right one.

    Raises:
        UnknownNameError: If there are neither.

    Example:
        >>> parts_of("Lungs", ["Heart", "Left Lung", "Right Lung"])
        ('Left Lung', 'Right Lung')
    """
    known = {_words(given): given for given in names}
    wanted = _words(name)
    if wanted in known:
        return (known[wanted],)
    sides = [known.get(wanted | {side}) for side in _SIDES]
    if any(side in wanted for side in _SIDES) or None in sides:
        raise UnknownNameError("structure", name, known.values())
    return tuple(side for side in sides if side is not None)


def chosen_parts(wanted: Iterable[str], names: Sequence[str]) -> list[str]:
    """The masks that make up several structures, in the order in which they are.

    Args:
        wanted: Structures, each as `parts_of` takes it.
        names: The masks that there are.

    Returns:
        Some of `names`.

    Raises:
        UnknownNameError: If there is none of that name.

    Example:
        >>> chosen_parts(["Lungs"], ["Left Lung", "Heart", "Right Lung"])
        ['Left Lung', 'Right Lung']
    """
    chosen = {part for name in wanted for part in parts_of(name, names)}
    return [name for name in names if name in chosen]


def _words(name: str) -> frozenset[str]:
    """The words of a name without case, order and plural."""
    words = name.lower().replace("_", " ").split()
    plural = {"lungs", "clavicles", "scapulas", "scapulae", "breasts", "hila"}
    one = {"scapulae": "scapula", "hila": "hilum"}
    return frozenset(one.get(w, w.removesuffix("s")) if w in plural else w for w in words)


def structure(masks: Mapping[str, ArrayLike], name: str) -> Mask:
    """The mask of a structure; of paired ones that of both sides together.

    Args:
        masks: Name to mask, all of shape (H, W).
        name: See `parts_of`.

    Returns:
        bool, shape (H, W).

    Raises:
        UnknownNameError: If there is no such structure.
        ImageShapeError: If the masks are not of one shape (H, W).
    """
    parts = [np.asarray(masks[part], bool) for part in parts_of(name, masks)]
    if parts[0].ndim != 2 or any(part.shape != parts[0].shape for part in parts):
        msg = f"masks of one shape (H, W) are needed, got {[part.shape for part in parts]}"
        raise ImageShapeError(msg)
    whole: Mask = np.logical_or.reduce(parts)
    return whole


def area(mask: ArrayLike, pixel_spacing: Spacing | None = None) -> float:
    """Area of a mask.

    Args:
        mask: Shape (H, W).
        pixel_spacing: Millimetres between rows and between columns.

    Returns:
        mm² with a spacing, else pixels.

    Example:
        >>> area(np.ones((2, 3)), (0.5, 0.5))
        1.5
    """
    rows, columns = pixel_spacing or (1.0, 1.0)
    return float(np.count_nonzero(mask)) * rows * columns


def main_parts(mask: ArrayLike) -> Mask:
    """A mask without specks: its connected parts of at least a tenth of the largest one.

    Args:
        mask: Shape (H, W).

    Returns:
        bool, shape (H, W).

    Example:
        >>> main_parts([[1] * 11 + [0, 1]]).sum().item()
        11
    """
    array = np.asarray(mask, bool)
    runs = _runs(array)
    if len(runs) == 0:
        return array
    roots = _connected(runs)
    sizes = np.bincount(roots, runs[:, 2] - runs[:, 1])
    kept = sizes[roots] >= _SPECK * sizes.max()
    if kept.all():
        return array
    out = np.zeros(array.shape, bool)
    for row, start, stop in runs[kept]:
        out[row, start:stop] = True
    return out


def connected_boxes(mask: ArrayLike) -> NDArray[np.int64]:
    """Where the connected parts of a mask lie; parts that touch at a corner are one.

    Args:
        mask: Shape (H, W).

    Returns:
        Left, top, right, bottom (half open) and number of pixels of each part, shape (N, 5).

    Example:
        >>> connected_boxes([[1, 1, 0, 1], [0, 0, 0, 1]]).tolist()
        [[0, 0, 2, 1, 2], [3, 0, 4, 2, 2]]
    """
    runs = _runs(np.asarray(mask, bool))
    _, part = np.unique(_connected(runs), return_inverse=True)
    boxes = np.zeros((int(part.max()) + 1 if part.size else 0, 5), np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    np.minimum.at(boxes[:, 0], part, runs[:, 1])
    np.minimum.at(boxes[:, 1], part, runs[:, 0])
    np.maximum.at(boxes[:, 2], part, runs[:, 2])
    np.maximum.at(boxes[:, 3], part, runs[:, 0] + 1)
    np.add.at(boxes[:, 4], part, runs[:, 2] - runs[:, 1])
    return boxes


def _runs(mask: Mask) -> NDArray[np.int64]:
    """Row, start and stop of every run of set pixels, by rows."""
    height, width = mask.shape
    closed = np.zeros((height, width + 1), bool)  # so that a run ends with its row
    closed[:, :width] = mask
    flat = closed.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        edges = np.concatenate([[0], edges])
    rows, starts = np.divmod(edges[::2], width + 1)
    return np.stack([rows, starts, edges[1::2] - rows * (width + 1)], axis=1)


def _connected(runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each run the first one of its connected part; runs that touch at a corner belong."""
    parent = list(range(len(runs)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    listed = runs.tolist()
    above = 0  # first run of the row before that may still touch
    for run, (row, start, stop) in enumerate(listed):
        while (listed[above][0], listed[above][2]) < (row - 1, start):
            above += 1
        other = above
        while listed[other][0] == row - 1 and listed[other][1] <= stop:
            first, second = sorted((root(run), root(other)))
            parent[second] = first
            other += 1
    return np.array([root(run) for run in range(len(runs))])


@dataclass(frozen=True, slots=True)
class Cardiothoracic:
    """The distances behind the cardiothoracic ratio; in pixels, x rightwards and y downwards.

    Args:
        midline: x of the middle of the spine, or of the thorax where no spine was seen.
        heart_right: x and y of the border of the heart farthest to the patient's right.
        heart_left: The same to the left.
        thorax_right: x and y of the outer edge of the right lung where the thorax is widest, of
            the rows that both lungs are in.
        thorax_left: The same of the left lung, at the same height.
    """

    midline: float
    heart_right: tuple[float, float]
    heart_left: tuple[float, float]
    thorax_right: tuple[float, float]
    thorax_left: tuple[float, float]

    @property
    def heart_width(self) -> float:
        """Greatest distance right of the midline plus greatest distance left of it, pixels."""
        right = max(0.0, self.midline - self.heart_right[0])
        return right + max(0.0, self.heart_left[0] - self.midline)

    @property
    def thorax_width(self) -> float:
        """Greatest inner width of the thorax, pixels."""
        return self.thorax_left[0] - self.thorax_right[0]

    @property
    def ratio(self) -> float:
        """Width of the heart over that of the thorax; above 0.5 is enlarged in a PA image."""
        return self.heart_width / self.thorax_width


def cardiothoracic(masks: Mapping[str, ArrayLike]) -> Cardiothoracic | None:
    """Measure heart and thorax on a frontal radiograph.

    Args:
        masks: Name to mask of shape (H, W): heart, lungs, and spine if there is one.

    Returns:
        The distances, or None where the heart or a lung is empty, or no row has both lungs.

    Raises:
        UnknownNameError: If there are no masks of heart and lungs.

    Source:
        Danzer. The cardiothoracic ratio: an index of cardiac enlargement. Am J Med Sci 1919;157.
    """
    heart = main_parts(structure(masks, "Heart"))
    each = [main_parts(lung) for lung in _lungs(masks)]
    # Where only one lung is, its edges would pass for those of the thorax.
    both = np.all([lung.any(axis=1) for lung in each], axis=0)
    if not heart.any() or not both.any():
        return None
    outer = _edges(np.any(each, axis=0) & both[:, None])
    widest = outer[np.argmax(outer[:, 2] - outer[:, 1])]
    borders = _edges(heart)
    right, left = borders[np.argmin(borders[:, 1])], borders[np.argmax(borders[:, 2])]
    middle = _midline(masks)
    return Cardiothoracic(
        midline=float(widest[1] + widest[2]) / 2 if middle is None else middle,
        heart_right=(float(right[1]), float(right[0]) + 0.5),
        heart_left=(float(left[2]), float(left[0]) + 0.5),
        thorax_right=(float(widest[1]), float(widest[0]) + 0.5),
        thorax_left=(float(widest[2]), float(widest[0]) + 0.5),
    )


def _lungs(masks: Mapping[str, ArrayLike]) -> list[Mask]:
    """Each lung, or both in one where the masks do not part them."""
    try:
        return [structure(masks, f"{side} lung") for side in _SIDES]
    except UnknownNameError:
        return [structure(masks, "Lungs")]


def _edges(mask: Mask) -> NDArray[np.int64]:
    """Row, first column and column after the last, of every row that has pixels."""
    rows = np.flatnonzero(mask.any(axis=1))
    chosen = mask[rows]
    return np.stack(
        [rows, chosen.argmax(axis=1), mask.shape[1] - chosen[:, ::-1].argmax(axis=1)], axis=1
    )


def _midline(masks: Mapping[str, ArrayLike], rows: slice = slice(None)) -> float | None:
    """Where the middle of the spine is, or None if there is no mask of it or none in the rows."""
    try:
        spine = main_parts(structure(masks, "Spine"))[rows]
    except UnknownNameError:
        return None
    columns = np.nonzero(spine)[1]
    return float(columns.mean()) + 0.5 if columns.size else None


def cardiothoracic_ratio(masks: Mapping[str, ArrayLike]) -> float:
    """Width of the heart over the greatest inner width of the thorax.

    Args:
        masks: See `cardiothoracic`.

    Returns:
        The ratio, NaN where the heart or a lung is empty.

    Raises:
        UnknownNameError: If there are no masks of heart and lungs.
    """
    found = cardiothoracic(masks)
    return math.nan if found is None else found.ratio


def lung_area_ratio(masks: Mapping[str, ArrayLike]) -> float:
    """Area of the left lung over that of the right one.

    Args:
        masks: Name to mask, shape (H, W): the two lungs.

    Returns:
        The ratio, NaN where the right lung is empty.

    Raises:
        UnknownNameError: If there are no masks of the two lungs.
    """
    left, right = (area(structure(masks, f"{side} Lung")) for side in _SIDES)
    return left / right if right else math.nan


def spine_heart_distance(
    masks: Mapping[str, ArrayLike], pixel_spacing: Spacing | None = None
) -> float:
    """How far the middle of the heart lies to the patient's left of the spine.

    Args:
        masks: Name to mask, shape (H, W): heart and spine.
        pixel_spacing: Millimetres between rows and between columns.

    Returns:
        Millimetres with a spacing, else pixels, along the rows, from the middle of the spine
        beside the heart to the centroid of the heart; negative where the heart lies to the
        right, NaN where one of them is empty.

    Raises:
        UnknownNameError: If there are no masks of heart and spine.
    """
    parts_of("Spine", masks)
    heart = main_parts(structure(masks, "Heart"))
    rows, columns = np.nonzero(heart)
    if not rows.size:
        return math.nan
    middle = _midline(masks, slice(int(rows.min()), int(rows.max()) + 1))
    if middle is None:
        return math.nan
    return (float(columns.mean()) + 0.5 - middle) * (pixel_spacing[1] if pixel_spacing else 1.0)


def doubts(masks: Mapping[str, ArrayLike]) -> list[str]:
    """Why measures of these masks may be wrong.

    Args:
        masks: Name to mask, shape (H, W): heart and lungs, upright; those that there are.

    Returns:
        One clause per reason, empty for none: a heart that reaches beyond the lungs, lungs of very
        different areas, a structure in several parts.

    Example:
        >>> lung = np.zeros((8, 20), bool)
        >>> lung[1:7, 2:6] = True
        >>> heart = np.zeros((8, 20), bool)
        >>> heart[3:6, 0:15] = True
        >>> doubts({"Right Lung": lung, "Left Lung": lung[:, ::-1], "Heart": heart})
        ['the heart reaches beyond the lungs']
    """
    found = []
    try:
        measured = cardiothoracic(masks)
        if measured is not None and (
            measured.heart_right[0] < measured.thorax_right[0]
            or measured.heart_left[0] > measured.thorax_left[0]
        ):
            found.append("the heart reaches beyond the lungs")
        ratio = lung_area_ratio(masks)
        low, high = _AREA_RATIO
        if not math.isnan(ratio) and not low <= ratio <= high:
            found.append(f"the left lung has {ratio:.2g} times the area of the right one")
    except UnknownNameError:  # there are not all of them
        pass
    for name, mask in masks.items():
        parts = connected_boxes(main_parts(mask))
        if len(parts) > 1:
            found.append(f"{name} is in {len(parts)} parts")
    return found
