"""Pulmonary arteries and veins: trees that fill the lungs.

End points are spread through a lung and joined by halving the set again and again; each branch
point lies between its parent and the middle of its set. Radii follow Murray's law, so a branch of
``n`` ends has a radius proportional to ``n ** (1 / 2.55)``.

Source:
    Murray, The physiological principle of minimum work, PNAS 1926; exponent 2.7 for lungs: Huang
    et al., Morphometry of the human pulmonary vasculature, J Appl Physiol 1996.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom._tubes import Tubes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.phantom._anatomy import Anatomy
    from torchxrayvision.phantom._solids import Column

    Float64 = NDArray[np.float64]

LEVELS = 10
ENDS = 2**LEVELS
_PIECES = 4
_REACH = (
    0.10,
    0.16,
    0.20,
    0.24,
    0.28,
    0.32,
    0.38,
    0.45,
    0.55,
    0.62,
)  # share of the way that each generation goes


def _fill(lung: Column, anatomy: Anatomy, side: int, rng: np.random.Generator) -> Float64:
    """Spread end points through one lung, float64 (ENDS, 3)."""
    cage, dome = anatomy.cage, anatomy.domes[side]
    low = dome.top - 70.0
    found: list[Float64] = []
    count = 0
    while count < ENDS:
        unit = rng.random((4 * ENDS, 3))
        x = side * (12.0 + unit[:, 0] * (cage.offset + cage.radii[0] - 12.0))
        y = (2 * unit[:, 1] - 1) * cage.radii[1]
        z = low + unit[:, 2] * (cage.apex - low)
        points = np.stack([x, y, z], axis=-1)
        inner = (points - np.array([side * cage.offset, 0, 0])) * 1.04
        kept = points[
            lung.contains(inner + np.array([side * cage.offset, 0, 0]))
            & (z > dome.level(points) + 3)
        ]
        found.append(kept)
        count += len(kept)
    return np.concatenate(found)[:ENDS]


def _split(points: Float64) -> Float64:
    """Halve each set (3, G, N) along its longest axis, to (3, 2G, N/2)."""
    spread = points.max(axis=2) - points.min(axis=2)
    sets = np.arange(points.shape[1])
    key = points[spread.argmax(axis=0), sets]
    order = key.argsort(axis=1, kind="stable")
    ordered = points[:, sets[:, None], order]
    return ordered.reshape(3, 2 * len(sets), -1)


def grow(
    ends: Float64, root: Float64, radius: float, rng: np.random.Generator
) -> tuple[Float64, Float64, Float64]:
    """Grow a tree from a root to its end points.

    Args:
        ends: float64 (2**k, 3), mm.
        root: float64 (3,), mm.
        radius: Radius at the root, mm.
        rng: Source of the bends.

    Returns:
        Curved branches (N, K, 3), mm, their radii (N, K), mm, and the level of each (N,), from 0.
    """
    sets, parents = np.ascontiguousarray(ends.T)[:, None], root[None]
    total = len(ends)
    paths, radii, levels = [], [], []
    level = 0
    while True:
        middle = sets.mean(axis=2).T
        last = sets.shape[2] == 1
        nodes = (
            sets[..., 0].T
            if last
            else parents + _REACH[min(level, len(_REACH) - 1)] * (middle - parents)
        )
        bend = rng.standard_normal((len(nodes), 3)) * 0.09
        length = np.sqrt(((nodes - parents) ** 2).sum(axis=1, keepdims=True))
        t = np.linspace(0, 1, _PIECES)[None, :, None]
        arch = (4 * t * (1 - t)) * (bend * length)[:, None]
        paths.append(parents[:, None] * (1 - t) + nodes[:, None] * t + arch)
        size = radius * (sets.shape[2] / total) ** (1 / 2.55)
        thin = size * (0.5 ** (1 / 2.55) if not last else 0.55)
        shrink = np.linspace(size, 0.5 * (size + thin), _PIECES)
        radii.append(np.broadcast_to(shrink, (len(nodes), _PIECES)))
        levels.append(np.full(len(nodes), level))
        if last:
            break
        sets, parents = _split(sets), np.repeat(nodes, 2, axis=0)
        level += 1
    return np.concatenate(paths), np.concatenate(radii), np.concatenate(levels)


def build_vessels(
    anatomy: Anatomy, side: int, seed: int, *, shift: float, upper: float, sparse: float
) -> tuple[Float64, Float64]:
    """Make arteries and veins of one lung.

    Args:
        anatomy: Solids of the chest.
        side: 1 for the left lung, -1 for the right.
        seed: Seed of the patient's small structures.
        shift: Shift of the mediastinum to the left, mm.
        upper: Widening of vessels above the hilum, 0 for an upright healthy person.
        sparse: Loss of vessels, 0 to 1.

    Returns:
        Branches (N, K, 3) and radii (N, K), mm.
    """
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 11, side + 1])))
    lung, s = anatomy.lungs[side], anatomy.cage.stature
    hilum_z = (14.0 if side < 0 else 24.0) * s
    paths, radii = [], []
    for x, y, z, radius in ((34.0, -6.0, hilum_z, 7.4), (28.0, 2.0, hilum_z - 18.0, 6.6)):
        ends = _fill(lung, anatomy, side, rng)
        root = np.array([side * x + shift, y, z])
        path, size, _ = grow(ends, root, radius, rng)
        paths.append(path)
        radii.append(size)
    branches, sizes = np.concatenate(paths), np.concatenate(radii)
    # Blood falls: lower vessels are wider upright, and the difference goes when pressure rises.
    height = (branches[..., 2] - hilum_z) / (100.0 * s)
    gravity = 1 - 0.22 * np.clip(height, -1, 1) * (1 - 1.6 * upper)
    sizes = sizes * gravity * (1 + 0.12 * upper)
    if sparse > 0:
        lost = rng.random(len(branches)) < 0.55 * sparse
        sizes = np.where(lost[:, None] & (sizes < 2.0), 0.0, sizes * (1 - 0.18 * sparse))
    return branches, sizes


def vessel_tubes(branches: Float64, sizes: Float64, excess: float) -> Tubes:
    """Make tubes of blood in air.

    Args:
        branches: (N, K, 3), mm.
        sizes: Radii (N, K), mm.
        excess: Attenuation of blood over that of lung, 1/mm.

    Returns:
        The tubes.
    """
    return Tubes(branches, np.stack([sizes, sizes], axis=-1), np.pi * sizes**2 * excess)
