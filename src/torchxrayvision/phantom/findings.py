"""Findings: each changes the scene in three dimensions and marks where it is seen.

Source:
    Hansell et al., Fleischner Society: glossary of terms for thoracic imaging, Radiology 2008;
    Woodring and Reed, Types and mechanisms of pulmonary atelectasis, J Thorac Imaging 1996.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.body import SIDES
from torchxrayvision.phantom.pleura import fluid_level, pleural_thickening
from torchxrayvision.phantom.scene import LUNG, SOFT, collapsed, drawn_back
from torchxrayvision.phantom.skeleton import CLAVICLE, Break, break_point
from torchxrayvision.phantom.solids import Ellipsoid
from torchxrayvision.phantom.spans import half_space
from torchxrayvision.phantom.tubes import Canvas, Tubes
from torchxrayvision.phantom.visibility import SEEN, smooth_noise, stream, visible_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.phantom.scene import Scene

    Float32 = NDArray[np.float32]
    Add = Callable[[Scene, float, np.random.Generator], None]


def _point(
    scene: Scene, side: int, height: float, across: float, deep: float
) -> tuple[float, float, float]:
    """Place a point in one lung by its height (0 dome, 1 apex) and its section (-1 to 1)."""
    case, lung, top = scene.case, scene.anatomy.lungs[side], scene.anatomy.cage.apex
    free, wet = case.severity["Pneumothorax"], case.severity["Effusion"]
    low = scene.anatomy.domes[side].top
    if free > 0 and case.sides["Pneumothorax"] == side:
        lung = collapsed(scene.anatomy, side, free)
        top -= drawn_back(free)[1]
    if wet > 0 and case.sides["Effusion"] in (0, side):
        low = max(low, fluid_level(scene.anatomy.domes[side], wet))
    z = np.array([low + height * (top - low)])
    scale = float(np.sqrt(max(float(lung.f(z)[0]), 0.05)))
    x = float(lung.cx(z)[0]) + side * across * float(lung.a(z)[0]) * scale
    y = float(lung.cy(z)[0]) + deep * float(lung.b(z)[0]) * scale
    return x, y, float(z[0])


def _cloud(
    rng: np.random.Generator,
    center: tuple[float, float, float],
    reach: float,
    count: int,
    size: float,
) -> list[Ellipsoid]:
    """Scatter overlapping ellipsoids about a point."""
    solids = []
    for _ in range(count):
        shift = rng.normal(0, 0.42 * reach, 3)
        radii = size * (0.6 + 0.8 * rng.random(3))
        place = tuple(float(c + s) for c, s in zip(center, shift, strict=True))
        solids.append(Ellipsoid.upright(place, tuple(float(r) for r in radii)))  # type: ignore[arg-type]
    return solids


def consolidation(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Fill air spaces of a region with fluid, bronchi spared."""
    side = scene.case.sides["Consolidation"]
    height = 0.14 + 0.55 * rng.random()
    across = float(np.clip(0.1 + 0.3 * rng.normal(), -0.3, 0.6))
    center = _point(scene, side, height, across, -0.35 + 0.6 * rng.random())
    reach = 22.0 + 24.0 * severity
    solids = _cloud(rng, center, reach, 16, 0.62 * reach)
    half = scene.sides[side]
    thick = half.blobs(solids, scene.plan)
    patchy = 1 + 0.16 * smooth_noise(rng, thick.shape, 16)
    thick *= np.clip(patchy, 0.3, 1.6)
    np.minimum(thick, half.air * np.float32(0.92), out=thick)
    scene.path[half.window] += thick * np.float32((SOFT - LUNG) * (0.62 + 0.23 * severity))
    scene.mark("Consolidation", visible_mask(thick, 2.5 * SEEN), half.window)
    _bronchogram(scene, rng, side, center, reach, thick)


def _bronchogram(
    scene: Scene,
    rng: np.random.Generator,
    side: int,
    center: tuple[float, float, float],
    reach: float,
    thick: Float32,
) -> None:
    """Draw bronchi that hold air through consolidated lung."""
    hilum = np.array([side * 34.0 + scene.case.change.shift, -6.0, 12.0])
    middle = np.asarray(center)
    canvas = Canvas(scene.plan)
    ends = middle + rng.normal(0, 0.7 * reach, (5, 3))
    t = np.linspace(0.15, 1, 9)[None, :, None]
    points = (
        hilum * (1 - t) ** 2
        + 2 * (0.55 * middle + 0.45 * hilum) * t * (1 - t)
        + ends[:, None] * t**2
    )
    radius = np.broadcast_to(np.linspace(2.6, 1.0, 9), points.shape[:2])
    canvas.add(Tubes(points, np.stack([radius] * 2, -1), np.pi * radius**2 * SOFT * 0.9))
    window = scene.sides[side].window
    air = canvas.image()[window]
    scene.path[window] -= air * np.minimum(thick * np.float32(1 / 40), np.float32(1))


def atelectasis(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Collapse part of a lung: plates over the dome, and a lower or an upper lobe."""
    side = scene.case.sides["Atelectasis"]
    dome = scene.anatomy.domes[side]
    kind = rng.random()
    half = scene.sides[side]
    thick = np.zeros(half.rays.shape, np.float32)
    for _ in range(2 + int(2 * rng.random())):
        across, deep = -0.1 + 0.6 * rng.random(), -0.5 + 0.9 * rng.random()
        x, y, z = _point(scene, side, 0.05 + 0.18 * rng.random(), across, deep)
        lean = side * float(rng.normal(-0.1, 0.18))
        plate = Ellipsoid.along((x, y, z), (1.0, 0.1, lean), (30 + 22 * severity, 36.0, 3.2))
        thick += half.blobs([plate], scene.plan)
    if severity > 0.2 and kind < 0.5:  # lower lobe, behind the heart
        x = side * (30.0 + 10.0 * severity)
        solid = Ellipsoid.along(
            (x, -46.0, dome.top + 14.0), (side * 0.55, 0.15, -0.8), (70, 38, 22 + 22 * severity)
        )
        thick += half.blobs([solid], scene.plan)
    elif severity > 0.2:  # upper lobe, with its fissure drawn up
        x, _, z = _point(scene, side, 0.70, -0.1, 0.0)
        edge = half_space(half.rays, (-0.45 * side, 0.0, 1.0), z - 0.45 * side * x - 26 * severity)
        inner = half_space(half.rays, (-side * 1.0, 0.0, 0.0), -(abs(x) + 10 + 14 * severity))
        lobe = half.within(half.lung & edge & inner)
        thick += np.minimum(lobe, half.air) * np.float32(0.6 + 0.25 * severity)
    np.minimum(thick, half.air, out=thick)
    scene.path[half.window] += thick * np.float32((SOFT - LUNG) * 0.85)
    scene.mark("Atelectasis", visible_mask(thick, SEEN), half.window)


def edema(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Veil the lungs from the hila outwards and thicken septa."""
    canvas = Canvas(scene.plan)
    for side in SIDES:
        cage, half = scene.anatomy.cage, scene.sides[side]
        thick = np.zeros(half.rays.shape, np.float32)
        noise = 1 + 0.22 * smooth_noise(rng, thick.shape, 24)
        for scale, weight in ((1.0, 0.4), (0.72, 0.35), (0.45, 0.35)):
            solid = Ellipsoid.upright(
                (side * (30.0 + 16.0 * scale), -8.0, 0.0),
                (62.0 * scale, 70.0 * scale, 84.0 * scale * cage.stature),
            )
            thick += half.blobs([solid], scene.plan) * np.float32(weight)
        thick *= np.clip(noise, 0.2, 2.0)
        thick += half.air * np.float32(0.10 * severity)
        scene.path[half.window] += thick * np.float32((SOFT - LUNG) * (0.12 + 0.40 * severity))
        scene.mark("Edema", visible_mask(thick, 6 * SEEN), half.window)
        canvas.add(_septa(scene, side, severity, rng))
    lines = canvas.image()
    scene.path += lines


def _septa(scene: Scene, side: int, severity: float, rng: np.random.Generator) -> Tubes:
    """Kerley's B lines: short and level, from the pleura at the base inwards."""
    count = int(8 + 16 * severity)
    cage, dome = scene.anatomy.cage, scene.anatomy.domes[side]
    z = dome.top - 18.0 + 62.0 * rng.random(count)
    scale = np.sqrt(np.maximum(cage.scale(z), 0.05))
    angle = rng.normal(0, 0.28, count)
    length = 9.0 + 9.0 * rng.random(count)
    t = np.linspace(0, 1, 4)[None, :]
    radius = (cage.radii[0] * scale - 1.0)[:, None] - length[:, None] * t
    x = side * (cage.offset + radius * np.cos(angle)[:, None])
    y = cage.back(z)[:, None] + radius * np.sin(angle)[:, None]
    points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape) + 2.0 * t], axis=-1)
    # A septum is a sheet seen on edge: flat and deep.
    radii = np.full((count, 4, 2), 0.5)
    return Tubes(points, radii, np.full((count, 4), 0.9 * 9.0 * SOFT * (0.4 + 0.6 * severity)))


def _lesions(
    scene: Scene, finding: str, solids: list[Ellipsoid], side: int, density: float
) -> None:
    half = scene.sides[side]
    thick = half.blobs(solids, scene.plan)
    scene.path[half.window] += thick * np.float32((SOFT - LUNG) * density)
    scene.mark(finding, visible_mask(thick, SEEN), half.window)


def nodule(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Put one to four round lesions of 14 to 30 mm into a lung, with little or much lime."""
    side = scene.case.sides["Nodule"]
    calcified = rng.random() < 0.5
    count = 1 if rng.random() < 0.5 else 2 + int(3 * rng.random())
    solids: list[Ellipsoid] = []
    for k in range(count):
        radius = (8.0 + 7.0 * severity) * (1.0 if k == 0 else 0.7 + 0.3 * rng.random())
        center = _point(
            scene,
            side,
            0.22 + 0.58 * rng.random(),
            0.05 + 0.6 * rng.random(),
            -0.5 + rng.random(),
        )
        solids += _lobes(rng, center, radius * (0.85 if calcified else 1.0), 3)
    density = 2.1 + 0.8 * rng.random() if calcified else 1.45 + 0.35 * rng.random()
    _lesions(scene, "Nodule", solids, side, density)


def mass(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Put a lobed lesion of 32 to 76 mm into a lung."""
    side = scene.case.sides["Mass"]
    radius = 16.0 + 22.0 * severity
    center = _point(
        scene, side, 0.22 + 0.52 * rng.random(), 0.6 * rng.random(), -0.4 + 0.8 * rng.random()
    )
    solids = _lobes(rng, center, radius, 6)
    _lesions(scene, "Mass", solids, side, 1.05)


def _lobes(
    rng: np.random.Generator, center: tuple[float, float, float], radius: float, count: int
) -> list[Ellipsoid]:
    solids = [Ellipsoid.upright(center, (radius * 0.86, radius * 0.86, radius * 0.86))]
    for _ in range(count):
        x, y, z = (
            float(c + s) for c, s in zip(center, rng.normal(0, 0.34 * radius, 3), strict=True)
        )
        size = radius * float(0.42 + 0.25 * rng.random())
        solids.append(Ellipsoid.upright((x, y, z), (size, size, size * 1.1)))
    return solids


def hernia(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Put a part of the stomach behind the heart, with air over a level of fluid."""
    radius = 22.0 + 22.0 * severity
    dome = scene.anatomy.domes[1]
    z = dome.top + 4.0 + 0.6 * radius
    center = (6.0 + 22.0 * float(rng.random()), -24.0, z)
    pouch = Ellipsoid.upright(center, (radius * 1.1, radius * 0.78, radius))
    lumen = Ellipsoid.upright(center, (radius * 1.1 - 4, radius * 0.78 - 4, radius - 4))
    span = pouch.span(scene.rays)
    for side in SIDES:
        half = scene.sides[side]
        here = span.part(half.window)
        new = np.minimum(half.within(half.lung & here), half.air)
        scene.path[half.window] += new * np.float32(SOFT - LUNG)
    up = (0.0, 0.0, 1.0) if scene.case.pose.erect else (0.0, 1.0, 0.0)
    offset = z - 0.12 * radius if scene.case.pose.erect else center[1] - 0.45 * radius
    scene.carve(lumen, -SOFT, (up, offset))
    scene.mark("Hernia", span.length() > 2 * SEEN)


ADD: dict[str, Add] = {
    "Consolidation": consolidation,
    "Atelectasis": atelectasis,
    "Edema": edema,
    "Nodule": nodule,
    "Mass": mass,
    "Pleural_Thickening": pleural_thickening,
    "Hernia": hernia,
}
"""Findings that add to the lungs once these are filled, by name."""


def add_fractures(scene: Scene) -> tuple[Break, ...]:
    """Draw the fractures of an image and mark them; give the breaks for `build_skeleton`."""
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
