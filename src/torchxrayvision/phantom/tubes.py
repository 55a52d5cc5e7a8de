"""Thin structures as mass along lines: vessels, ribs, wires.

A tube is cut into short pieces; the mass of each is shared out over its width by the chord of its
section and laid on the four nearest pixels. Mass is kept, so a tube that runs along the rays shows
denser, as it does on film. A path is mass over the area of a pixel at the depth of the piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.phantom.rays import Projection

    Float32 = NDArray[np.float32]
    Reals = NDArray[np.floating]
    Samples = tuple[Float32, Float32, Float32]  # columns, rows and weights


_CLASSES = (0.7, 1.1, 2.2, 4.5, 9.0, 18.0)  # half widths in pixels, sampled alike; first a line
_COUNTS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512])
_BLOCK = 16384  # samples handled at a time, few enough for the processor's cache


@dataclass(frozen=True)
class Tubes:
    """Polylines of one kind.

    Args:
        points: Reals (N, K, 3), mm.
        radii: Half width across and in depth, floating (N, K, 2), mm; across is along z.
        mass: Attenuation times area of the section, floating (N, K), mm: 1/mm x mm^2.
        bore: Scaled radius inside which the tube is spongy, 0 for solid tubes.
        core: Density inside relative to the shell.
        step: Distance of samples, pixels; a quarter more along thin tubes.
    """

    points: Reals
    radii: Reals
    mass: Reals
    bore: float = 0.0
    core: float = 0.0
    step: float = 1.0


@dataclass
class Canvas:
    """Collects mass on the pixels of one image.

    Args:
        projection: Where rays come from and go to.
    """

    projection: Projection
    total: Float32 = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.projection.size**2, np.float32)

    def add(self, *tubes: Tubes) -> None:
        """Lay tubes down; all at once is faster."""
        waiting: list[Samples] = []
        for samples in _samples(_pieces(tubes, self.projection), tubes):
            waiting.append(samples)
            if sum(column.size for column, _, _ in waiting) >= _BLOCK:
                self._deposit(*_together(waiting))
                waiting = []
        if waiting:
            self._deposit(*_together(waiting))

    def _deposit(self, column: Float32, row: Float32, weight: Float32) -> None:
        """Share weights among the four nearest pixels."""
        size = self.projection.size
        if not (column.min() > 0 and row.min() > 0 and max(column.max(), row.max()) < size - 1):
            inside = (column > 0) & (column < size - 1) & (row > 0) & (row < size - 1)
            column, row, weight = column[inside], row[inside], weight[inside]
        left, top = np.floor(column), np.floor(row)
        right = column - left
        low = weight * (row - top)
        up = weight - low
        top *= np.float32(size)
        top += left
        start = top.astype(np.intp)  # exact: below 2**24
        low_right, up_right = low * right, up * right
        low -= low_right
        up -= up_right
        for shift, share in ((0, up), (1, up_right), (size, low), (size + 1, low_right)):
            np.add.at(self.total[shift:], start, share)

    def image(self) -> Float32:
        """Attenuation along each ray, float32 (H, W)."""
        size = self.projection.size
        return self.total.reshape(size, size)


@dataclass(frozen=True)
class _Pieces:
    """Straight pieces as they fall on the detector, in pixels.

    Args:
        table: float32 (10, N). Rows 0 and 1 are column and row of the middle; 2 and 3 the way from
            the first end to the last; 4 and 5 that from the axis to the side, mean of both ends;
            6 and 7 its change from the first end to the last; 8 is the half width; 9 the
            attenuation summed over pixels.
        tube: Number of the tubes that each is of, int (N,).
    """

    table: Float32
    tube: NDArray[np.intp]


def _together(parts: list[Samples]) -> Samples:
    if len(parts) == 1:
        return parts[0]
    column, row, weight = (np.concatenate(values) for values in zip(*parts, strict=True))
    return column, row, weight


def _samples(pieces: _Pieces, tubes: Sequence[Tubes]) -> Iterator[Samples]:
    """Sample pieces along and across, block by block."""
    sections = [(tube.bore, tube.core, tube.step) for tube in tubes]
    kinds = list(dict.fromkeys(sections))
    kind = np.array([kinds.index(section) for section in sections], np.intp)[pieces.tube]
    step = np.array([section[2] for section in kinds], np.float32)[kind]
    count, across = _counts(pieces.table, kind, step)
    pattern = kind * (across.max(initial=0) + 1) + across
    order = np.argsort(pattern, kind="stable")
    samples = np.cumsum((count * across)[order])
    for start, stop in _runs(samples // _BLOCK):
        some = order[start:stop]
        stations = _stations(pieces.table.take(some, axis=1), count[some])
        at = np.append(0, np.cumsum(count[some]))
        for first, end in _runs(pattern[some]):
            piece = some[first]
            offsets, shares = _profile(int(across[piece]), *kinds[kind[piece]][:2])
            u, v, right, down, mass = stations[:, at[first] : at[end]]
            # Stations run along the last axis, which is the longest: short inner loops are slow.
            column, row = u + right * offsets, v + down * offsets
            yield column.reshape(-1), row.reshape(-1), (mass * shares).reshape(-1)


def _runs(values: NDArray[np.intp]) -> Iterable[tuple[int, int]]:
    """Where runs of equal values start and stop."""
    if not len(values):
        return ()
    return pairwise([0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)])


def _counts(
    table: Float32, kind: NDArray[np.intp], step: Float32
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """How many samples each piece gets along and across: those of like size get the same."""
    half = table[8]
    wanted = np.ceil(
        np.sqrt(table[2] ** 2 + table[3] ** 2) / np.where(half < 1.5, 1.25 * step, step)
    )
    length = np.minimum(np.searchsorted(_COUNTS, wanted), len(_COUNTS) - 1)
    width = np.searchsorted(_CLASSES, half, side="right")
    like = (kind * len(_COUNTS) + length) * (len(_CLASSES) + 1) + width
    widest = np.zeros(like.max(initial=0) + 1, np.float32)
    np.maximum.at(widest, like, half)
    across = np.ceil(2 * widest[like] / step).astype(np.intp)
    return _COUNTS[length], np.where(width > 0, across, 1)


def _stations(table: Float32, count: NDArray[np.intp]) -> Float32:
    """Go along pieces.

    Args:
        table: Of the pieces, float32 (10, N); its last row is changed.
        count: How many stations each gets, int (N,).

    Returns:
        Column, row, and of the vector from the axis to the side both parts, and mass of each
        station, float32 (5, M).
    """
    share = (1 / count).astype(np.float32)
    table[9] *= share
    table = table.take(np.repeat(np.arange(len(count)), count), axis=1)
    step = np.arange(table.shape[1]) - np.repeat(np.cumsum(count) - count, count)
    at = (step.astype(np.float32) + np.float32(0.5)) * np.repeat(share, count) - np.float32(0.5)
    middle, delta, reach, turn = table[0:2], table[2:4], table[4:6], table[6:8]
    return np.concatenate([middle + delta * at, reach + turn * at, table[9:]])


def _pieces(tubes: Sequence[Tubes], projection: Projection) -> _Pieces:
    """Project the pieces of tubes that have mass and may fall on the detector."""
    columns = [
        *([tube.points[..., k] for tube in tubes] for k in range(3)),
        *([tube.radii[..., k] for tube in tubes] for k in range(2)),
        [tube.mass for tube in tubes],
    ]
    line = np.stack([
        np.concatenate([part.reshape(-1) for part in parts], dtype=np.float32) for parts in columns
    ])  # fmt: skip
    tube, joined = _courses(tubes)
    ends = np.append(np.flatnonzero(~joined) + 1, len(tube))
    cuts = ends[np.searchsorted(ends, np.arange(_BLOCK // 2, len(tube), _BLOCK // 2))].tolist()
    tables, chosen = [], []
    for first, end in pairwise(dict.fromkeys([0, *cuts, len(tube)])):
        table, lit = _projected(line[:, first:end], joined[first : end - 1], projection)
        kept = np.flatnonzero(lit)
        tables.append(table.take(kept, axis=1))
        chosen.append(tube[first + kept])
    return _Pieces(np.concatenate(tables, axis=1), np.concatenate(chosen))


def _projected(
    line: Float32, joined: NDArray[np.bool_], projection: Projection
) -> tuple[Float32, NDArray[np.bool_]]:
    """Project pieces.

    Args:
        line: Points, radii and mass along tubes, float32 (6, N + 1).
        joined: Whether each point and the next are of one tube, bool (N,).
        projection: Where rays come from and go to.

    Returns:
        The table of the pieces, float32 (10, N), and which of them are to be laid.
    """
    column, row, scale = projection.project(line[:3].T)
    zoom = scale[:-1] * np.float32(1 / projection.spacing)  # pixels per millimetre
    du, dv = column[1:] - column[:-1], row[1:] - row[:-1]
    along = np.sqrt(du * du + dv * dv)
    dx, dy, dz = line[:3, 1:] - line[:3, :-1]
    length = np.sqrt(dx * dx + dy * dy + dz * dz) * zoom
    wide, deep, mass = (line[3:, 1:] + line[3:, :-1]) * np.float32(0.5)
    norm = np.maximum(along, np.float32(1e-6))
    normal: Float32 = np.stack([dv, -du])
    normal /= norm
    half = np.sqrt((wide * normal[1]) ** 2 + (deep * normal[0]) ** 2) * zoom
    mass *= length * zoom
    # A piece that points at the focal spot shows its round section, not a dash.
    steep = np.flatnonzero(along < 0.5 * length)
    wanted = np.sqrt(along[steep] ** 2 + (1.5 * half[steep]) ** 2)
    tiny = along[steep] < 0.05
    du[steep] = np.where(tiny, wanted, du[steep] * wanted / norm[steep])
    dv[steep] = np.where(tiny, np.float32(0), dv[steep] * wanted / norm[steep])
    first, last = _joints(normal, joined)
    middle = (np.stack([column, row])[:, 1:] + np.stack([column, row])[:, :-1]) * np.float32(0.5)
    reach = half + (np.abs(du) + np.abs(dv) + 2)
    lit = joined & (mass > 0)
    for place in middle:
        lit &= (place > -reach) & (place < projection.size + reach)
    table = np.concatenate([
        middle, [du, dv], (first + last) * (half * np.float32(0.5)), (last - first) * half,
        [half, mass],
    ])  # fmt: skip
    return table, lit


def _courses(tubes: Sequence[Tubes]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Number of the tubes that each point is of, and whether it and the next are joined."""
    tube = np.repeat(np.arange(len(tubes)), [tube.mass.size for tube in tubes])
    joined = np.ones(len(tube), bool)
    first = 0
    for one in tubes:
        lines, points = one.mass.shape
        joined[first + points - 1 : first + lines * points : points] = False
        first += lines * points
    return tube, joined[:-1]


def _joints(normal: Float32, joined: NDArray[np.bool_]) -> tuple[Float32, Float32]:
    """Normals (2, N) at both ends, shared with the neighbour, so that bends leave no gaps."""
    before, after = normal[:, :-1], normal[:, 1:]
    smooth = joined[:-1] & joined[1:] & (before[0] * after[0] + before[1] * after[1] > 0.3)
    mean = (before + after) / 2
    first, last = normal.copy(), normal.copy()
    np.copyto(first[:, 1:], mean, where=smooth)
    np.copyto(last[:, :-1], mean, where=smooth)
    return first, last


@lru_cache(maxsize=512)
def _profile(count: int, bore: float, core: float) -> tuple[Float32, Float32]:
    """Places across a tube, in half widths, and the share of its mass at each, as columns."""
    places = (np.arange(count) + 0.5) * 2 / count - 1
    chord = np.sqrt(1 - places**2)
    if bore:
        inner = np.sqrt(np.maximum(bore**2 - places**2, 0))
        chord = chord - (1 - core) * inner
    return places.astype(np.float32)[:, None], (chord / chord.sum()).astype(np.float32)[:, None]
