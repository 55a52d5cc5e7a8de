"""Findings: each changes the scene in three dimensions and marks where it is seen.

Source:
    Hansell et al., Fleischner Society: glossary of terms for thoracic imaging, Radiology 2008;
    Woodring and Reed, Types and mechanisms of pulmonary atelectasis, J Thorac Imaging 1996.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom._body import SIDES
from torchxrayvision.phantom._detector import enlarge
from torchxrayvision.phantom._draw import CHRONIC, DETAIL, generator, patient_of
from torchxrayvision.phantom._scene import FLUID, LUNG, SOFT, bowl, collapsed
from torchxrayvision.phantom._solids import Ellipsoid, half_space
from torchxrayvision.phantom._tubes import Canvas, Tubes
from torchxrayvision.phantom._types import FINDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.phantom._scene import Scene

    Float32 = NDArray[np.float32]
    Mask = NDArray[np.bool_]
    Add = Callable[[Scene, float, np.random.Generator], None]

SEEN = 4.0
"""Thickness along the ray, mm, from which on a finding counts as seen."""


def stream(scene: Scene, finding: str) -> np.random.Generator:
    """Make the generator of the details of one finding: the film's own, or the patient's."""
    case, number = scene.case, FINDINGS.index(finding)
    if finding in CHRONIC:
        return generator(case.seed, patient_of(case.index)[0], DETAIL, number, 1)
    return generator(case.seed, case.index, DETAIL, number)


def mottle(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Float32:
    """Draw smooth noise of mean 0 and deviation of about 1, float32 of a shape."""
    total = np.zeros(shape, np.float32)
    for octave in range(3):
        count = cells * 2**octave
        coarse = rng.standard_normal((count, count)).astype(np.float32)
        total += enlarge(coarse, shape) * np.float32(0.75**octave)
    return total


def pleura(scene: Scene) -> None:
    """Fill the pleural cavities: lung, and where there are, air and fluid."""
    case = scene.case
    fluid, free = case.severity["Effusion"], case.severity["Pneumothorax"]
    for side in SIDES:
        half = scene.sides[side]
        wet = fluid if fluid > 0 and case.sides["Effusion"] in (0, side) else 0.0
        if free > 0 and case.sides["Pneumothorax"] == side:
            _pneumothorax(scene, side, free)
        whole = half.within(half.lung)
        if wet:
            share = 1.0 if case.sides["Effusion"] == side or side < 0 else 0.7
            whole = _effusion(scene, side, wet * share, whole)
        half.air = whole
        density = LUNG * (1 - 0.35 * case.severity["Emphysema"])
        rng = generator(case.physique.seed, 7, side + 1)
        uneven = 1 + 0.05 * mottle(rng, whole.shape, 36)  # lobules hold unlike shares of air
        scene.path[half.window] -= whole * np.float32(SOFT - density) + whole * (
            np.float32(density) * (1 - uneven)
        )


def _above_dome(scene: Scene, side: int, mask: Mask) -> Mask:
    """Leave out of a mask what the diaphragm hides on a frontal film."""
    return mask if scene.case.view == "L" else mask & ~scene.sides[side].below.hit()


def _effusion(scene: Scene, side: int, severity: float, whole: Float32) -> Float32:
    """Let fluid fill the cavity up to a meniscus; give what is left of the lung."""
    half, dome = scene.sides[side], scene.anatomy.domes[side]
    level = dome.top - 0.62 * dome.height + (16.0 + 88.0 * severity)
    above = bowl(scene.anatomy, side, level - 14.0 - 12.0 * severity, 18.0 + 30.0 * severity).span(
        half.rays
    )
    left: Float32 = np.minimum(half.within(half.lung & above), whole)
    wet = whole - left
    scene.path[half.window] += wet * np.float32(FLUID - SOFT)
    half.lung = half.lung & above
    scene.mark("Effusion", _above_dome(scene, side, wet > 1.5 * SEEN), half.window)
    return left


def _pneumothorax(scene: Scene, side: int, severity: float) -> None:
    """Draw the lung back from the wall, leave air, and line the lung with visceral pleura."""
    half = scene.sides[side]
    visceral = collapsed(scene.anatomy, side, severity)
    span = visceral.span(half.rays)
    whole, kept = half.within(half.lung), half.within(half.lung & span)
    free = np.maximum(whole - kept, np.float32(0))
    path = scene.path[half.window]
    path -= free * np.float32(SOFT)
    thin = replace(visceral, a=lambda z: visceral.a(z) - 0.9, b=lambda z: visceral.b(z) - 0.9).span(
        half.rays
    )
    line = np.maximum(kept - half.within(half.lung & thin), np.float32(0))
    path += np.minimum(line, np.float32(22)) * np.float32(0.6 * SOFT)
    # A lung that holds less air is denser.
    path += kept * np.float32(LUNG * 0.7 * severity)
    half.lung = half.lung & span
    scene.mark("Pneumothorax", _above_dome(scene, side, free > 2 * SEEN), half.window)


def _point(
    scene: Scene, side: int, height: float, across: float, deep: float
) -> tuple[float, float, float]:
    """Place a point in one lung by its height (0 dome, 1 apex) and its section (-1 to 1)."""
    cage, dome = scene.anatomy.cage, scene.anatomy.domes[side]
    low = dome.top
    z = low + height * (cage.apex - low)
    scale = float(np.sqrt(max(float(cage.scale(np.array([z]))[0]), 0.05)))
    x = side * (cage.offset + across * cage.radii[0] * scale)
    y = float(cage.back(np.array([z]))[0]) + deep * cage.radii[1] * scale
    return x, y, z


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
    height = 0.12 + 0.55 * rng.random()
    center = _point(scene, side, height, 0.35 * rng.normal(), -0.35 + 0.6 * rng.random())
    reach = 18.0 + 26.0 * severity
    solids = _cloud(rng, center, reach, 16, 0.62 * reach)
    half = scene.sides[side]
    thick = half.blobs(solids, scene.plan)
    patchy = 1 + 0.16 * mottle(rng, thick.shape, 16)
    thick *= np.clip(patchy, 0.3, 1.6)
    np.minimum(thick, half.air * np.float32(0.92), out=thick)
    scene.path[half.window] += thick * np.float32((SOFT - LUNG) * (0.45 + 0.25 * severity))
    scene.mark("Consolidation", thick > 2.5 * SEEN, half.window)
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
        across, deep = -0.2 + 0.7 * rng.random(), -0.5 + 0.9 * rng.random()
        x, y, z = _point(scene, side, 0.05 + 0.16 * rng.random(), across, deep)
        lean = side * float(rng.normal(-0.1, 0.18))
        plate = Ellipsoid.along((x, y, z), (1.0, 0.1, lean), (24 + 22 * severity, 34.0, 2.2))
        thick += half.blobs([plate], scene.plan)
    if severity > 0.3 and kind < 0.5:  # lower lobe, behind the heart
        x = side * (24.0 + 8.0 * severity)
        solid = Ellipsoid.along(
            (x, -48.0, dome.top + 10.0), (side * 0.55, 0.15, -0.8), (62, 34, 16 + 22 * severity)
        )
        thick += half.blobs([solid], scene.plan)
    elif severity > 0.3:  # upper lobe, with its fissure drawn up
        x, _, z = _point(scene, side, 0.74, -0.1, 0.0)
        edge = half_space(half.rays, (-0.45 * side, 0.0, 1.0), z - 0.45 * side * x - 26 * severity)
        inner = half_space(half.rays, (-side * 1.0, 0.0, 0.0), -(abs(x) + 6 + 14 * severity))
        lobe = half.within(half.lung & edge & inner)
        thick += np.minimum(lobe, half.air) * np.float32(0.5 + 0.3 * severity)
    np.minimum(thick, half.air, out=thick)
    scene.path[half.window] += thick * np.float32((SOFT - LUNG) * 0.85)
    scene.mark("Atelectasis", thick > SEEN, half.window)


def edema(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Veil the lungs from the hila outwards and thicken septa."""
    canvas = Canvas(scene.plan)
    for side in SIDES:
        cage, half = scene.anatomy.cage, scene.sides[side]
        thick = np.zeros(half.rays.shape, np.float32)
        noise = 1 + 0.22 * mottle(rng, thick.shape, 24)
        for scale, weight in ((1.0, 0.4), (0.72, 0.35), (0.45, 0.35)):
            solid = Ellipsoid.upright(
                (side * (30.0 + 16.0 * scale), -8.0, 0.0),
                (62.0 * scale, 70.0 * scale, 84.0 * scale * cage.stature),
            )
            thick += half.blobs([solid], scene.plan) * np.float32(weight)
        thick *= np.clip(noise, 0.2, 2.0)
        thick += half.air * np.float32(0.10 * severity)
        scene.path[half.window] += thick * np.float32((SOFT - LUNG) * (0.12 + 0.40 * severity))
        scene.mark("Edema", thick > 6 * SEEN, half.window)
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
    scene.mark(finding, thick > SEEN, half.window)


def nodule(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Put a round lesion of 10 to 29 mm into a lung."""
    side = scene.case.sides["Nodule"]
    radius = 5.0 + 9.5 * severity
    center = _point(
        scene, side, 0.18 + 0.66 * rng.random(), -0.1 + 0.75 * rng.random(), -0.5 + rng.random()
    )
    solids = _lobes(rng, center, radius, 3)
    _lesions(scene, "Nodule", solids, side, 1.0 + 0.7 * rng.random())


def mass(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Put a lobed lesion of 32 to 76 mm into a lung."""
    side = scene.case.sides["Mass"]
    radius = 16.0 + 22.0 * severity
    center = _point(
        scene, side, 0.2 + 0.55 * rng.random(), -0.2 + 0.6 * rng.random(), -0.4 + 0.8 * rng.random()
    )
    solids = _lobes(rng, center, radius, 6)
    _lesions(scene, "Mass", solids, side, 0.95)


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


def pleural_thickening(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Coat part of the inner wall: an apical cap or a lateral plaque."""
    side = scene.case.sides["Pleural_Thickening"]
    half, cage = scene.sides[side], scene.anatomy.cage
    coat = 3.0 + 9.0 * severity
    lung = scene.anatomy.lungs[side]
    apical = rng.random() < 0.3
    center = side * (cage.offset - 0.5 * coat)
    lower = replace(cage, apex=cage.apex - (2.2 * coat if apical else 0.0))
    inner = replace(
        lung,
        cx=lambda z: np.full_like(z, center),
        a=lambda z: np.full_like(z, cage.radii[0] - 0.5 * coat),
        f=lower.scale,
    ).span(half.rays)
    shell = np.maximum(half.within(half.lung) - half.within(half.lung & inner), np.float32(0))
    shell = np.minimum(shell, half.air)
    low = cage.apex - 62.0 if apical else float(-70 + 70 * rng.random())
    high = cage.apex + 40.0 if apical else low + 50.0 + 50.0 * severity
    z = half.rays.z + np.float32(18) * (mottle(rng, half.rays.shape, 6) * np.float32(0.5))
    fade = np.clip((z - np.float32(low)) / 14, 0, 1) * np.clip((np.float32(high) - z) / 14, 0, 1)
    shell *= fade.astype(np.float32)
    scene.path[half.window] += shell * np.float32((SOFT - LUNG) * 0.95)
    edge = 0.5 * coat if scene.case.view == "L" else 2.5 * SEEN
    scene.mark("Pleural_Thickening", shell > edge, half.window)


def hernia(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Put a part of the stomach behind the heart, with air over a level of fluid."""
    radius = 17.0 + 17.0 * severity
    dome = scene.anatomy.domes[1]
    z = dome.top + 2.0 + 0.55 * radius
    center = (8.0 + 10.0 * float(rng.random()), -34.0, z)
    pouch = Ellipsoid.upright(center, (radius * 1.15, radius * 0.9, radius))
    lumen = Ellipsoid.upright(center, (radius * 1.15 - 3, radius * 0.9 - 3, radius - 3))
    span = pouch.span(scene.rays)
    for side in SIDES:
        half = scene.sides[side]
        here = span.part(half.window)
        new = np.minimum(half.within(half.lung & here), half.air)
        scene.path[half.window] += new * np.float32(SOFT - LUNG)
    up = (0.0, 0.0, 1.0) if scene.case.pose.erect else (0.0, 1.0, 0.0)
    offset = z - 0.1 * radius if scene.case.pose.erect else -34.0 + 0.3 * radius
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
