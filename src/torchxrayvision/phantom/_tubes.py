"""Thin structures as mass along lines: vessels, ribs, wires.

A tube is cut into short pieces; the mass of each is shared out over its width by the chord of its
section and laid on the four nearest pixels. Mass is kept, so a tube that runs along the rays shows
denser, as it does on film. A path is mass over the area of a pixel at the depth of the piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.phantom._rays import Projection

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]


_CLASSES = (0.0, 0.7, 1.1, 2.2, 4.5, 9.0, 18.0, 1e9)  # half widths in pixels, sampled alike
_COUNTS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512])
_BLOCK = 16384  # samples handled at a time


@dataclass(frozen=True)
class Tubes:
    """Polylines of one kind.

    Args:
        points: float64 (N, K, 3), mm.
        radii: Half width across and in depth, float64 (N, K, 2), mm; across is along z.
        mass: Attenuation times area of the section, float64 (N, K), mm: 1/mm x mm^2.
        bore: Scaled radius inside which the tube is spongy, 0 for solid tubes.
        core: Density inside relative to the shell.
        step: Distance of samples, pixels; a quarter more along thin tubes.
    """

    points: Float64
    radii: Float64
    mass: Float64
    bore: float = 0.0
    core: float = 0.0
    step: float = 1.0


@dataclass
class Canvas:
    """Collects mass on the pixels of one film.

    Args:
        projection: Where rays come from and go to.
    """

    projection: Projection
    total: Float32 = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.projection.size**2, np.float32)

    def add(self, *tubes: Tubes) -> None:
        """Lay tubes down.

        Args:
            tubes: What to lay; those of one section are laid together, which is faster.
        """
        sections: dict[tuple[float, float, float], list[_Pieces]] = {}
        for tube in tubes:
            pieces = _pieces(tube, self.projection)
            sections.setdefault((tube.bore, tube.core, tube.step), []).append(pieces)
        for section, parts in sections.items():
            self._add(_together(parts), *section)

    def _add(self, pieces: _Pieces, bore: float, core: float, step: float) -> None:
        """Lay pieces of one section down, in blocks of like width and length."""
        along = np.where(pieces.half < 1.5, 1.25 * step, step)
        wanted = np.maximum(np.ceil(pieces.length / along).astype(int), 1)
        counts = _COUNTS[np.minimum(np.searchsorted(_COUNTS, wanted), len(_COUNTS) - 1)]
        kinds = np.searchsorted(_CLASSES, pieces.half, side="right")
        groups = counts * 16 + kinds
        order = np.argsort(groups, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
            if not len(chosen):
                continue
            count = int(counts[chosen[0]])
            half = float(pieces.half[chosen].max())
            across = max(int(np.ceil(2 * half / step)), 1) if half >= 0.7 else 1
            offsets, shares = _profile(across, bore, core)
            at = ((np.arange(count) + 0.5) / count - 0.5).astype(np.float32)
            block = max(_BLOCK // (count * len(offsets)), 1)
            for first in range(0, len(chosen), block):
                self._lay(pieces, chosen[first : first + block], at, offsets, shares)

    def _lay(
        self,
        pieces: _Pieces,
        chosen: NDArray[np.intp],
        at: Float32,
        offsets: Float32,
        shares: Float32,
    ) -> None:
        """Sample pieces along and across; blocks are small enough for the processor's cache."""
        middle, delta = pieces.middle[:, chosen, None], pieces.delta[:, chosen, None]
        place = (middle + delta * at)[..., None]
        if len(offsets) > 1:
            reach = (pieces.half[chosen][:, None] * offsets)[:, None, :]
            normal = pieces.normal[:, chosen, None] + pieces.turn[:, chosen, None] * at
            place = place + normal[..., None] * reach
        weight = (pieces.mass[chosen] / np.float32(len(at)))[:, None, None] * shares
        self._deposit(place[0], place[1], np.broadcast_to(weight, place[0].shape))

    def _deposit(self, column: Float32, row: Float32, weight: Float32) -> None:
        size = self.projection.size
        column, row, weight = column.reshape(-1), row.reshape(-1), weight.reshape(-1)
        if not (column.min() > 0 and row.min() > 0 and max(column.max(), row.max()) < size - 1):
            inside = (column > 0) & (column < size - 1) & (row > 0) & (row < size - 1)
            column, row, weight = column[inside], row[inside], weight[inside]
        left, top = column.astype(np.int32), row.astype(np.int32)
        column -= left.astype(np.float32)
        row -= top.astype(np.float32)
        low = weight * row
        up = weight - low
        low_right, up_right = low * column, up * column
        low -= low_right
        up -= up_right
        start = (top * size + left).astype(np.intp)
        np.add.at(self.total, start, up)
        start += 1
        np.add.at(self.total, start, up_right)
        start += size - 1
        np.add.at(self.total, start, low)
        start += 1
        np.add.at(self.total, start, low_right)

    def image(self) -> Float32:
        """Attenuation along each ray, float32 (H, W)."""
        size = self.projection.size
        return self.total.reshape(size, size)


@dataclass(frozen=True)
class _Pieces:
    """Straight pieces as they fall on the detector, in pixels, all float32 (N,) or (2, N)."""

    middle: Float32
    delta: Float32
    normal: Float32
    turn: Float32
    half: Float32
    length: Float32
    mass: Float32


def _together(parts: list[_Pieces]) -> _Pieces:
    if len(parts) == 1:
        return parts[0]
    joined = [
        np.concatenate([getattr(part, field.name) for part in parts], axis=-1)
        for field in fields(_Pieces)
    ]
    return _Pieces(*joined)


def _pieces(tubes: Tubes, projection: Projection) -> _Pieces:
    """Project the pieces of tubes that have mass and may fall on the detector."""
    column, row, scale = projection.project(tubes.points)
    pixel = (projection.spacing / scale)[:, :-1]
    du, dv = np.diff(column), np.diff(row)
    along = np.sqrt(du * du + dv * dv)
    lengths = np.sqrt((np.diff(tubes.points, axis=1) ** 2).sum(axis=2))
    wide = (tubes.radii[:, :-1] + tubes.radii[:, 1:]) / 2
    norm = np.maximum(along, 1e-6)
    nu, nv = dv / norm, -du / norm
    half = np.sqrt((wide[..., 0] * nv) ** 2 + (wide[..., 1] * nu) ** 2) / pixel
    mass = (tubes.mass[:, :-1] + tubes.mass[:, 1:]) / 2 * lengths / pixel**2
    # A piece that points at the focal spot shows its round section, not a dash.
    steep = along < 0.5 * lengths / pixel
    wanted = np.where(steep, np.sqrt(along**2 + (1.5 * half) ** 2), along)
    tiny = along < 0.05
    du = np.where(tiny, wanted, du * wanted / norm)
    dv = np.where(tiny, 0.0, dv * wanted / norm)
    first_u, last_u, first_v, last_v = _joints(nu, nv)
    u, v = (column[:, :-1] + column[:, 1:]) / 2, (row[:, :-1] + row[:, 1:]) / 2
    reach = half + wanted + 2
    lit = (mass > 0) & (u > -reach) & (u < projection.size + reach)
    lit &= (v > -reach) & (v < projection.size + reach)

    def single(*values: Float64) -> Float32:
        return np.stack([value[lit] for value in values]).astype(np.float32)

    return _Pieces(
        middle=single(u, v),
        delta=single(du, dv),
        normal=single((first_u + last_u) / 2, (first_v + last_v) / 2),
        turn=single(last_u - first_u, last_v - first_v),
        half=single(half)[0],
        length=single(wanted)[0],
        mass=single(mass)[0],
    )


def _joints(nu: Float64, nv: Float64) -> tuple[Float64, Float64, Float64, Float64]:
    """Normals at both ends of pieces, shared with the neighbour, so that bends leave no gaps."""
    smooth = nu[:, 1:] * nu[:, :-1] + nv[:, 1:] * nv[:, :-1] > 0.3
    ends = []
    for normal in (nu, nv):
        mean = (normal[:, 1:] + normal[:, :-1]) / 2
        first, last = normal.copy(), normal.copy()
        first[:, 1:] = np.where(smooth, mean, normal[:, 1:])
        last[:, :-1] = np.where(smooth, mean, normal[:, :-1])
        ends += [first, last]
    return ends[0], ends[1], ends[2], ends[3]


@lru_cache(maxsize=512)
def _profile(count: int, bore: float, core: float) -> tuple[Float32, Float32]:
    """Places across a tube, in half widths, and the share of its mass at each."""
    if count == 1:
        return np.zeros(1, np.float32), np.ones(1, np.float32)
    places = (np.arange(count) + 0.5) * 2 / count - 1
    chord = np.sqrt(1 - places**2)
    if bore:
        inner = np.sqrt(np.maximum(bore**2 - places**2, 0))
        chord = chord - (1 - core) * inner
    return places.astype(np.float32), (chord / chord.sum()).astype(np.float32)
