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
        du, dv = np.diff(column), np.diff(row)
        along = np.sqrt(du * du + dv * dv)
        lengths = np.sqrt((np.diff(tubes.points, axis=1) ** 2).sum(axis=2))
        wide = (tubes.radii[:, :-1] + tubes.radii[:, 1:]) / 2
        norm = np.maximum(along, 1e-6)
        nu, nv = dv / norm, -du / norm
        half = np.sqrt((wide[..., 0] * nv) ** 2 + (wide[..., 1] * nu) ** 2) / pixel[:, :-1]
        mass = (tubes.mass[:, :-1] + tubes.mass[:, 1:]) / 2 * lengths / pixel[:, :-1] ** 2
        # A piece that points at the focal spot shows its round section, not a dash.
        steep = along < 0.5 * lengths / pixel[:, :-1]
        stretch = np.where(steep, np.sqrt(along**2 + (1.5 * half) ** 2) / norm, 1.0)
        tiny = along < 0.05
        du, dv = np.where(tiny, 0.05, du), np.where(tiny, 0.0, dv)
        stretch = np.where(tiny, 1.0 + 30.0 * half, stretch)
        along = along * stretch
        pieces = np.ceil(np.maximum(along, 0.3) / step)
        pieces = 2 ** np.ceil(np.log2(np.maximum(pieces, 1)))
        kinds = np.searchsorted(_CLASSES, half, side="right")
        lit = (mass != 0) & (column[:, 1:] > -20) & (column[:, 1:] < self.projection.size + 20)
        delta = np.stack([du * stretch, dv * stretch])
        first = np.stack([column[:, :-1] + column[:, 1:], row[:, :-1] + row[:, 1:]])
        first = (first - delta) / 2
        normal = np.stack([nu, nv])
        for count in np.unique(pieces[lit]):
            for kind in np.unique(kinds[lit & (pieces == count)]):
                chosen = lit & (pieces == count) & (kinds == kind)
                at = (np.arange(count) + 0.5) / count
                offsets, shares = _profile(float(half[chosen].max()), step, tubes)
                reach = half[chosen][:, None, None] * offsets
                place = [
                    (first[k][chosen][:, None] + delta[k][chosen][:, None] * at)[:, :, None]
                    + reach * normal[k][chosen][:, None, None]
                    for k in (0, 1)
                ]
                weight = np.broadcast_to(
                    (mass[chosen] / count)[:, None, None] * shares, place[0].shape
                )
                self._deposit(place[0], place[1], weight)

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
