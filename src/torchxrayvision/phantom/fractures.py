"""Fractures: several ribs beside each other, and often the clavicle.

Source:
    Talbot et al., Traumatic rib injury: patterns, imaging pitfalls, complications, and treatment,
    RadioGraphics 2017; Robinson, Fractures of the clavicle in the adult, J Bone Joint Surg 1998.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.seen import stream
from torchxrayvision.phantom.skeleton import CLAVICLE, Break, break_point

if TYPE_CHECKING:
    from torchxrayvision.phantom.scene import Scene


def add_fractures(scene: Scene) -> tuple[Break, ...]:
    """Draw the fractures of a film and mark them.

    Args:
        scene: The film.

    Returns:
        The breaks, none where the finding is absent, for `build_skeleton`.
    """
    severity, side = scene.case.severity["Fracture"], scene.case.sides["Fracture"]
    if severity <= 0:
        return ()
    rng = stream(scene, "Fracture")
    first = 2 + int(rng.integers(0, 4))
    place = 0.40 + 0.65 * float(rng.random())
    step = 10.0 + 9.0 * severity
    callus = float(rng.random() < 0.75) * (0.6 + 0.4 * float(rng.random()))
    ribs = 2 + int(2.99 * severity)
    breaks = [Break(side, first + k, place + 0.05 * k, step, callus) for k in range(ribs)]
    if rng.random() < 0.4:
        breaks.append(Break(side, CLAVICLE, 0.42 + 0.2 * float(rng.random()), step, callus))
    for broken in breaks:
        _mark(scene, broken)
    return tuple(breaks)


def _mark(scene: Scene, broken: Break) -> None:
    size = scene.plan.size
    rows, columns = np.ogrid[:size, :size]
    point = break_point(scene.anatomy.cage, scene.case.pose, broken)
    column, row, scale = scene.plan.project(point)
    radius = 14.0 * float(scale) / scene.plan.spacing
    scene.mark("Fracture", (rows - float(row)) ** 2 + (columns - float(column)) ** 2 < radius**2)
