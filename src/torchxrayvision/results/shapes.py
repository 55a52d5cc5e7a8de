"""Outlines of masks as polygons along the edges of pixels.

Coordinates are those of DICOM for regions and presentation states (PS3.3 C.18.6.1.2 and C.10.5):
(column, row) from the top left corner of the first pixel, whose centre is at (0.5, 0.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST: Final = 8000  # points of one polygon: FL values of one element fill at most 65,532 bytes
_STEPS: Final = ((1, 0), (0, 1), (-1, 0), (0, -1))  # east, south, west, north


def outlines(mask: NDArray[np.bool_], tolerance: float = 0.5) -> list[NDArray[np.float64]]:
    """The borders of a mask, holes too, the longest first.

    Args:
        mask: bool, shape (H, W).
        tolerance: How far a polygon may be from the border, in pixels; 0 follows every edge.

    Returns:
        Closed polygons, float64 (N, 2) of column and row, the last point equal to the first.

    Example:
        >>> outlines(np.ones((2, 3), bool))[0].tolist()
        [[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0], [0.0, 0.0]]
    """
    inside = np.asarray(mask, bool)
    rows, columns = np.nonzero(inside.any(axis=1))[0], np.nonzero(inside.any(axis=0))[0]
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    close = inside[top : rows[-1] + 1, left : columns[-1] + 1]
    rings = [np.add(_simplified(ring, tolerance), (left, top)) for ring in _rings(close)]
    return sorted(rings, key=lambda ring: -_length(ring))


def _rings(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Corners of the borders; the mask is on the right of each step."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    starts: dict[tuple[int, int], list[int]] = {}
    sides = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    for direction, (outside, shift) in enumerate(
        zip(sides, ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True)
    ):
        rows, columns = np.nonzero(inside & ~outside)
        for at in zip((columns + shift[0]).tolist(), (rows + shift[1]).tolist(), strict=True):
            starts.setdefault(at, []).append(direction)
    rings: list[NDArray[np.float64]] = []
    while starts:
        first = at = next(iter(starts))
        direction = starts[at][0]
        corners: list[tuple[int, int]] = []
        while at in starts:
            # Where two borders touch at a corner, the right turn keeps them apart.
            ways = starts[at]
            turn = min(ways, key=lambda way: (direction + 1 - way) % 4)
            ways.remove(turn)
            if not ways:
                del starts[at]
            if not corners or turn != direction:
                corners.append(at)
            direction = turn
            at = (at[0] + _STEPS[turn][0], at[1] + _STEPS[turn][1])
            if at == first:
                break
        rings.append(np.array([*corners, first], np.float64))
    return rings


def _simplified(ring: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Douglas and Peucker: no more points than the tolerance needs, and than an element holds."""
    while True:
        kept = _kept(ring, tolerance) if tolerance > 0 else np.ones(len(ring), bool)
        if kept.sum() <= _MOST:
            return ring[kept]
        tolerance = max(0.5, tolerance * 1.5)


def _kept(ring: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    kept = np.zeros(len(ring), bool)
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(1)))
    kept[[0, far, -1]] = True
    waiting = [(0, far), (far, len(ring) - 1)]
    while waiting:
        start, stop = waiting.pop()
        if stop - start < 2:
            continue
        line, points = ring[stop] - ring[start], ring[start + 1 : stop] - ring[start]
        share = np.clip(points @ line / max(line @ line, 1e-12), 0, 1)
        distances = ((points - share[:, None] * line) ** 2).sum(1)
        worst = int(distances.argmax())
        if distances[worst] > tolerance**2:
            middle = start + 1 + worst
            kept[middle] = True
            waiting += [(start, middle), (middle, stop)]
    return kept


def _length(ring: NDArray[np.float64]) -> float:
    return float(np.hypot(*np.diff(ring, axis=0).T).sum())
