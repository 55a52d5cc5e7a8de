"""Where the detector stands, and the cardiothoracic ratio that it will see.

Source:
    Danzer, The cardiothoracic ratio: an index of cardiac enlargement, Am J Med Sci 1919: the
    greatest width of the heart over the greatest inner width of the thorax, enlarged above 0.5.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.anatomy import outline
from torchxrayvision.phantom.body import SIDES
from torchxrayvision.phantom.rays import Projection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchxrayvision.phantom.anatomy import Cage
    from torchxrayvision.phantom.body import Change, Physique, Pose
    from torchxrayvision.phantom.solids import Ellipsoid, Paraboloid


def projection(body: Physique, pose: Pose, view: str, size: int) -> Projection:
    """Place focal spot and a square detector of so many rows, which the chest fills."""
    width = 136.0 * body.girth
    depth = 94.0 * body.barrel + body.fat
    field = 2.0 * max(width + 0.55 * body.fat, 168.0 * body.stature) + (
        62.0 if view != "AP" else 96.0
    )
    low = (12.0 if view != "AP" else 18.0) * body.stature
    detector = {"PA": depth + 14.0, "AP": depth + 34.0, "L": width + body.fat + 16.0}[view]
    return Projection(
        view=view,
        size=size,
        spacing=field / size,
        detector=detector,
        center=(0.0, low),
        focus=(0.0, low - (12.0 if view != "AP" else -10.0)),
        turn=pose.turn,
    )


def thorax_bounds(
    cage: Cage, domes: Mapping[int, Paraboloid], plan: Projection
) -> tuple[float, float]:
    """Find the outer edges of the lungs at their widest on a frontal image.

    Returns:
        First and last column of the shadow of both pleural cavities above the diaphragm, pixels.
    """
    edges: list[float] = []
    for side in SIDES:
        wall = side * (cage.offset + cage.radii[0])
        low = float(domes[side].level(np.array([[wall, 0.0, 0.0]]))[0])
        z = np.linspace(low + 4.0, cage.apex - 1.0, 160)
        scale = np.sqrt(cage.scale(z))
        angle = np.linspace(-0.5, 0.5, 41)[None, :]
        x = side * (cage.offset + cage.radii[0] * scale[:, None] * np.cos(angle))
        y = cage.back(z)[:, None] + cage.radii[1] * scale[:, None] * np.sin(angle)
        points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=-1)
        columns = plan.project(points)[0]
        edges.append(float(columns.max() if side > 0 else columns.min()))
    return min(edges), max(edges)


def heart_bounds(heart: Mapping[str, Ellipsoid], plan: Projection) -> tuple[float, float]:
    """Find the first and last column of the heart's shadow, pixels."""
    extents = [solid.extent(plan) for solid in heart.values()]
    return min(e[0] for e in extents), max(e[1] for e in extents)


def cardiothoracic_ratio(body: Physique, pose: Pose, change: Change, view: str) -> float:
    """Divide the width of the heart by that of the thorax, both as PA or AP projects them."""
    plan = projection(body, pose, view, 512)
    cage, domes, heart = outline(body, pose, change)
    left, right = heart_bounds(heart, plan)
    outer = thorax_bounds(cage, domes, plan)
    return (right - left) / (outer[1] - outer[0])


def heart_scale(body: Physique, pose: Pose, change: Change, wanted: float) -> Change:
    """Enlarge the heart until a PA image of this patient would show a wanted ratio."""
    plan = projection(body, pose, "PA", 512)
    cage, domes, _ = outline(body, pose, change)
    first, last = thorax_bounds(cage, domes, plan)  # the heart does not move these
    scale = 1.0
    for _ in range(4):
        change = replace(change, heart=scale)
        left, right = heart_bounds(outline(body, pose, change)[2], plan)
        scale *= wanted / ((right - left) / (last - first))
    return replace(change, heart=scale)
