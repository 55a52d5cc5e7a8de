"""Pulmonary arteries and veins: trees that fill the lungs.

End points are spread through a lung and joined by halving the set again and again; each branch
point lies between its parent and the middle of its set. Radii follow Murray's law, so a branch of
``n`` ends has a radius proportional to ``n ** (1 / 2.55)``. All trees grow together, which is fast.

Source:
    Murray, The physiological principle of minimum work, PNAS 1926; exponent 2.7 for lungs: Huang
    et al., Morphometry of the human pulmonary vasculature, J Appl Physiol 1996.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.body import SIDES
from torchxrayvision.phantom.tubes import Tubes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.phantom.anatomy import Anatomy
    from torchxrayvision.phantom.solids import Column

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

ENDS = 1024
_POINTS = 4  # on each branch
_MURRAY = 2.55
_REACH = (0.10, 0.16, 0.20, 0.24, 0.28, 0.32, 0.38, 0.45, 0.55, 0.62, 1.0)
"""Share of the way to the middle of its set that each generation goes."""


def _fill(lung: Column, anatomy: Anatomy, side: int, rng: np.random.Generator) -> Float64:
    """Spread end points through one lung, float64 (3, ENDS)."""
    cage, dome = anatomy.cage, anatomy.domes[side]
    low = dome.top - 70.0
    found: list[Float64] = []
    count = 0
    while count < ENDS:
        unit = rng.random((4 * ENDS, 3)).T
        x = side * (12.0 + unit[0] * (cage.offset + cage.radii[0] - 12.0))
        y = (2 * unit[1] - 1) * cage.radii[1]
        z = low + unit[2] * (cage.apex - low)
        points = np.stack([x, y, z])
        middle = np.array([[side * cage.offset], [0], [0]])
        inner = (points - middle) * 1.04 + middle
        kept = points[:, lung.contains(inner.T) & (z > dome.level(points.T) + 3)]
        found.append(kept)
        count += kept.shape[1]
    return np.concatenate(found, axis=1)[:, :ENDS]


def _split(points: Float64) -> Float64:
    """Halve each set (3, S, N) along its longest axis, to (3, 2S, N/2)."""
    sets, count = np.arange(points.shape[1]), points.shape[2]
    longest = (points.max(axis=2) - points.min(axis=2)).argmax(axis=0)
    order = points[longest, sets].argpartition(count // 2, axis=1) + sets[:, None] * count
    halves: Float64 = points.reshape(3, -1).take(order.reshape(-1), axis=1)
    return halves.reshape(3, 2 * len(sets), -1)


def grow(ends: Float64, roots: Float64, bends: Float64) -> Float32:
    """Grow trees from their roots to their end points.

    Args:
        ends: float64 (3, T, ENDS), mm.
        roots: float64 (3, T), mm.
        bends: How far each branch bends, as shares of its length, float64 (3, T, 2 ENDS - 1).

    Returns:
        Curved branches, from the roots on, float32 (3, T, 2 ENDS - 1, K), mm.
    """
    sets = ends
    while sets.shape[2] > 1:
        sets = _split(sets)
    sums: list[Float64] = [sets.reshape(ends.shape)]  # of each set, from the ends to the root
    while sums[-1].shape[2] > 1:
        sums.append(sums[-1][..., ::2] + sums[-1][..., 1::2])
    parents, first, last = roots[..., None], [], []
    for total, reach in zip(reversed(sums), _REACH, strict=True):
        nodes = parents + reach * (total * (total.shape[2] / ENDS) - parents)
        first.append(parents)
        last.append(nodes)
        parents = np.repeat(nodes, 2, axis=2)
    start = np.concatenate(first, axis=2).astype(np.float32)
    way = np.concatenate(last, axis=2).astype(np.float32) - start
    arch = bends.astype(np.float32) * np.sqrt((way**2).sum(axis=0))
    branches = np.empty((*start.shape, _POINTS), np.float32)
    for k in range(_POINTS):
        t = k / (_POINTS - 1)
        branches[..., k] = start + t * way + 4 * t * (1 - t) * arch
    return branches


@lru_cache(maxsize=1)
def _thinning() -> Float32:
    """Radii along all branches of a tree whose root has radius 1, float32 (2 ENDS - 1, K)."""
    last = len(_REACH) - 1
    # Powers of Python's floats are the same on every machine.
    begin = np.array([0.5 ** (level / _MURRAY) for level in range(last + 1)])
    end = np.append(0.5 * (begin[:-1] + begin[1:]), 0.5 * begin[-1] * (1 + 0.55))
    t = np.linspace(0, 1, _POINTS)
    radii = begin[:, None] * (1 - t) + end[:, None] * t
    return np.repeat(radii, 2 ** np.arange(last + 1), axis=0).astype(np.float32)


def build_vessels(
    anatomy: Anatomy, seed: int, *, shift: float, upper: float, sparse: float
) -> dict[int, tuple[Float32, Float32]]:
    """Make arteries and veins of both lungs.

    Args:
        anatomy: Solids of the chest.
        seed: Seed of the patient's small structures.
        shift: Shift of the mediastinum to the left, mm.
        upper: Widening of vessels above the hilum, 0 for an upright healthy person.
        sparse: Loss of vessels, 0 to 1.

    Returns:
        Side to branches (N, K, 3) and radii (N, K), mm, both float32.
    """
    s = anatomy.cage.stature
    hila = {side: (14.0 if side < 0 else 24.0) * s for side in SIDES}
    streams = {
        side: np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 11, side + 1])))
        for side in SIDES
    }
    ends, bends, roots = [], [], []
    for side, rng in streams.items():
        for x, y, drop in ((34.0, -6.0, 0.0), (28.0, 2.0, 18.0)):
            ends.append(_fill(anatomy.lungs[side], anatomy, side, rng))
            bends.append(rng.standard_normal((2 * ENDS - 1, 3)).T * 0.09)
            roots.append((side * x + shift, y, hila[side] - drop))
    trees = grow(np.stack(ends, axis=1), np.array(roots).T, np.stack(bends, axis=1))
    vessels = {}
    for k, (side, rng) in enumerate(streams.items()):
        branches = trees[:, 2 * k : 2 * k + 2].reshape(3, -1, _POINTS)
        sizes = np.concatenate([radius * _thinning() for radius in (7.4, 6.6)])
        # Blood falls: lower vessels are wider upright; that goes when pressure rises.
        height = (branches[2] - hila[side]) / (100.0 * s)
        sizes *= (1 - 0.22 * np.clip(height, -1, 1) * (1 - 1.6 * upper)) * (1 + 0.12 * upper)
        if sparse > 0:
            lost = rng.random(len(sizes)) < 0.55 * sparse
            thin = lost[:, None] & (sizes < 2.0)
            sizes = np.where(thin, 0.0, sizes * (1 - 0.18 * sparse))
        vessels[side] = np.moveaxis(branches, 0, -1), sizes
    return vessels


def vessel_tubes(branches: Float32, sizes: Float32, excess: Float32) -> Tubes:
    """Make tubes of blood in air.

    Args:
        branches: (N, K, 3), mm.
        sizes: Radii (N, K), mm.
        excess: Attenuation of blood over that of its surroundings, (N, K), 1/mm.
    """
    return Tubes(branches, np.stack([sizes, sizes], axis=-1), np.pi * sizes**2 * excess)
