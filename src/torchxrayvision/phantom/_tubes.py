"""Thin structures as mass along lines: vessels, ribs, wires.

A tube is cut into short pieces; the mass of each is shared out over its width by the chord of its
section and laid on the four nearest pixels. Mass is kept, so a tube that runs along the rays shows
denser, as it does on film. A path is mass over the area of a pixel at the depth of the piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.phantom._rays import Projection

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


_CLASSES = (0.0, 0.55, 1.1, 2.2, 4.5, 9.0, 18.0, 1e9)  # half widths in pixels, sampled alike


@dataclass(frozen=True)
class Tubes:
    """Polylines of one kind.

    Args:
        points: float64 (N, K, 3), mm.
        radii: Half width across and in depth, float64 (N, K, 2), mm; across is along z.
        mass: Attenuation times area of the section, float64 (N, K), mm: 1/mm x mm^2.
        shell: Scaled radius inside which the tube is spongy, 0 for solid tubes.
        core: Density inside relative to the shell.
    """

    points: Float64
    radii: Float64
    mass: Float64
    shell: float = 0.0
    core: float = 0.0


@dataclass
class Canvas:
    """Collects mass on the pixels of one film.

    Args:
        projection: Where rays come from and go to.
    """

    projection: Projection
    total: Float64 = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.projection.size**2)

    def add(self, tubes: Tubes, step: float = 0.7) -> None:
        """Lay tubes down.

        Args:
            tubes: What to lay.
            step: Distance of samples, pixels.
        """
        column, row, scale = self.projection.project(tubes.points)
        pixel = self.projection.spacing / scale
        along = np.hypot(np.diff(column), np.diff(row))
        pieces = int(np.ceil(float(np.percentile(along, 90)) / step)) if along.size else 1
        pieces = min(max(pieces, 1), 400)
        steps = np.diff(tubes.points, axis=1)
        lengths = np.sqrt((steps**2).sum(axis=2))
        at = (np.arange(pieces) + 0.5) / pieces

        def spread(values: Float64) -> Float64:
            first, last = values[:, :-1, None], values[:, 1:, None]
            mixed: Float64 = first + (last - first) * at
            return mixed.reshape(-1)

        du = np.diff(column)
        dv = np.diff(row)
        norm = np.maximum(along, 1e-6)
        nu, nv = dv / norm, -du / norm
        wide = (tubes.radii[:, :-1] + tubes.radii[:, 1:]) / 2
        half = np.sqrt((wide[..., 0] * nv) ** 2 + (wide[..., 1] * nu) ** 2) / pixel[:, :-1]
        weight = spread(tubes.mass) * np.repeat(lengths / pieces, pieces, axis=1).reshape(-1)
        weight /= spread(pixel) ** 2
        across = np.repeat(half, pieces, axis=1).reshape(-1)
        columns, rows = spread(column), spread(row)
        normals = [np.repeat(n, pieces, axis=1).reshape(-1) for n in (nu, nv)]
        for low, high in pairwise(_CLASSES):
            chosen = np.flatnonzero((across >= low) & (across < high) & (weight != 0))
            if chosen.size:
                offsets, shares = _profile(min(high, float(across[chosen].max())), step, tubes)
                reach = across[chosen, None] * offsets
                self._deposit(
                    columns[chosen, None] + reach * normals[0][chosen, None],
                    rows[chosen, None] + reach * normals[1][chosen, None],
                    weight[chosen, None] * shares,
                )

    def points(self, points: Float64, mass: Float64) -> None:
        """Lay single masses down, 1/mm x mm^3 each.

        Args:
            points: float64 (N, 3), mm.
            mass: float64 (N,).
        """
        column, row, scale = self.projection.project(points)
        self._deposit(column, row, mass * (scale / self.projection.spacing) ** 2)

    def _deposit(self, column: Float64, row: Float64, weight: Float64) -> None:
        size = self.projection.size
        column, row, weight = column.reshape(-1), row.reshape(-1), weight.reshape(-1)
        inside = (column > 0) & (column < size - 1) & (row > 0) & (row < size - 1)
        if not inside.all():
            column, row, weight = column[inside], row[inside], weight[inside]
        left, top = column.astype(np.int64), row.astype(np.int64)
        right_share, low_share = column - left, row - top
        start = top * size + left
        low = weight * low_share
        up = weight - low
        if not start.size:
            return
        total, first = self.total, int(start.min())
        for index, share in (
            (start, up * (1 - right_share)),
            (start + 1, up * right_share),
            (start + size, low * (1 - right_share)),
            (start + size + 1, low * right_share),
        ):
            counts = np.bincount(index - first, share)
            total[first : first + counts.size] += counts

    def image(self) -> Float32:
        """Attenuation along each ray, float32 (H, W)."""
        size = self.projection.size
        return self.total.reshape(size, size).astype(np.float32)


def _profile(half: float, step: float, tubes: Tubes) -> tuple[Float64, Float64]:
    """Places across a tube, in half widths, and the share of its mass at each."""
    count = max(int(np.ceil(2 * half / step)), 1) if half >= 0.55 else 1
    if count == 1:
        return np.zeros(1), np.ones(1)
    places = (np.arange(count) + 0.5) * 2 / count - 1
    chord = np.sqrt(1 - places**2)
    if tubes.shell:
        inner = np.sqrt(np.maximum(tubes.shell**2 - places**2, 0))
        chord = chord - (1 - tubes.core) * inner
    return places, chord / chord.sum()
