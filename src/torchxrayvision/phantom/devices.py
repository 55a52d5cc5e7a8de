"""Support devices: electrodes and wires, lines, tubes and pacemakers, as metal and plastic.

Source:
    Godoy et al., Chest radiography in the ICU, AJR 2012: courses and tips of lines and tubes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.drawing import DEVICE, generator
from torchxrayvision.phantom.skeleton import smooth_path
from torchxrayvision.phantom.tubes import Canvas, Tubes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.phantom.scene import Scene

    Float64 = NDArray[np.float64]
    Point = tuple[float, float, float]
    Device = Callable[[Scene, np.random.Generator], list[Tubes]]

# Excess over soft tissue in 1/mm at 65 keV, thinned to what a mixture of it and plastic absorbs.
_WIRE = 0.9
_PLASTIC = 0.045


def _line(points: list[Point], radius: float, excess: float, bore: float = 0.0) -> Tubes:
    path = smooth_path(np.asarray(points, float), 90)
    radii = np.full((1, 90, 2), radius)
    area = np.pi * radius**2 * (1 - bore**2)
    return Tubes(path[None], radii, np.full((1, 90), area * excess), bore=bore)


def _disc(center: Point, radius: float, excess: float, thick: float) -> Tubes:
    """A flat disc that faces the front, as short parallel rods."""
    rows = np.linspace(-0.97, 0.97, 24)
    half = radius * np.sqrt(1 - rows**2)
    t = np.linspace(-1, 1, 5)
    points = np.zeros((24, 5, 3)) + np.asarray(center)
    points[..., 0] += half[:, None] * t
    points[..., 2] += (radius * rows)[:, None]
    pitch = 2 * radius / 24
    return Tubes(points, np.full((24, 5, 2), pitch), np.full((24, 5), pitch * thick * excess))


def _skin(scene: Scene, x: float, z: float) -> float:
    """Place the skin of the front: its y at x and z."""
    torso = scene.anatomy.torso
    height = np.array([z])
    across = min(abs(x) / float(torso.a(height)[0]), 0.98)
    return float(torso.cy(height)[0] + torso.b(height)[0] * np.sqrt(1 - across**2))


def electrodes(scene: Scene, rng: np.random.Generator) -> list[Tubes]:
    """Electrodes on the skin with their wires."""
    s = scene.anatomy.cage.stature
    tubes: list[Tubes] = []
    end = (float(rng.choice([-1, 1])) * 190.0, 120.0, (-120.0 - 60.0 * float(rng.random())) * s)
    for x, z in ((-118.0, 96.0), (116.0, 92.0), (122.0, -70.0), (-112.0, -84.0))[
        : int(rng.integers(2, 5))
    ]:
        x, z = x + float(rng.normal(0, 14)), (z + float(rng.normal(0, 16))) * s
        y = _skin(scene, x, z) + 2.0
        tubes.append(_disc((x, y, z), 6.0, _WIRE, 0.9))
        tubes.append(_disc((x, y, z), 13.0, _PLASTIC, 2.4))
        bend = (0.5 * x + 0.5 * end[0] + float(rng.normal(0, 30)), y + 6, 0.5 * (z + end[2]) - 30.0)
        tubes.append(_line([(x, y, z), bend, end], 0.7, _WIRE))
    return tubes


def central_line(scene: Scene, rng: np.random.Generator) -> list[Tubes]:
    """A catheter from the neck or under the clavicle to the superior vena cava."""
    s, shift = scene.anatomy.cage.stature, scene.case.change.shift
    side = -1.0 if rng.random() < 0.65 else 1.0
    tip = (-20.0 + shift, 4.0, (28.0 + 20.0 * float(rng.random())) * s)
    cava = (-20.0 + shift, 2.0, 92.0 * s)
    if rng.random() < 0.5:
        start = [(side * 52.0, 20.0, 215.0 * s), (side * 40.0, 14.0, 150.0 * s)]
    else:
        start = [(side * 128.0, 58.0, 92.0 * s), (side * 84.0, 40.0, 128.0 * s)]
    return [_line([*start, (side * 18.0 - 6, 8.0, 116.0 * s), cava, tip], 1.4, 8 * _PLASTIC)]


def endotracheal_tube(scene: Scene, rng: np.random.Generator) -> list[Tubes]:
    """A tube in the trachea with its dense stripe, and often one to the stomach."""
    s, cage = scene.anatomy.cage.stature, scene.anatomy.cage
    tip = (84.0 + 18.0 * float(rng.random())) * s

    def course(z: float) -> float:
        return 0.7 * float(cage.back(np.array([z]))[0]) + 2.0

    points = [(1.0, course(z), z) for z in (240.0 * s, 180.0 * s, 130.0 * s, tip)]
    stripe = [(x + 4.5, y, z) for x, y, z in points]
    tubes = [_line(points, 5.0, 1.2 * _PLASTIC, 0.74), _line(stripe, 0.9, 12 * _PLASTIC)]
    if rng.random() < 0.6:
        dome = scene.anatomy.domes[1].top
        down = [(3.0, -20.0, 240.0 * s), (3.0, -30.0, 100.0 * s), (8.0, -38.0, 0.0)]
        down += [(16.0, -30.0, dome - 6.0), (58.0, 0.0, dome - 52.0)]
        tubes.append(_line(down, 2.4, 5 * _PLASTIC, 0.6))
    return tubes


def pacemaker(scene: Scene, rng: np.random.Generator) -> list[Tubes]:
    """A generator under the left clavicle with leads to the right heart."""
    s = scene.anatomy.cage.stature
    x, z = 104.0 + float(rng.normal(0, 8)), (88.0 + float(rng.normal(0, 8))) * s
    y = _skin(scene, x, z) - 8.0
    heart = scene.anatomy.heart
    right, atrium = heart["right ventricle"].center, heart["right atrium"].center
    start: list[Point] = [(x, y, z + 16), (x - 30, 44.0, 124.0 * s), (22.0, 18.0, 112.0 * s)]
    start += [(-16.0, 4.0, 86.0 * s), (-22.0, 6.0, 44.0 * s)]
    apex = (right[0] + 30.0, right[1] - 4, right[2] - 12)
    tubes = [
        _line([*start, (atrium[0] - 12, atrium[1], atrium[2] - 6), right, apex], 0.9, 0.55 * _WIRE)
    ]
    if rng.random() < 0.7:
        hook = [
            (atrium[0] - 6, atrium[1] + 8, atrium[2] + 8),
            (atrium[0] + 8, atrium[1] + 22, atrium[2] + 20),
        ]
        tubes.append(_line([*start, *hook], 0.9, 0.55 * _WIRE))
    tubes.append(_disc((x, y, z), 22.0, 0.35 * _WIRE, 5.0))
    tubes.append(_disc((x - 3, y, z + 5), 12.0, 0.35 * _WIRE, 5.0))
    return tubes


def chest_tube(scene: Scene, rng: np.random.Generator, side: int | None = None) -> list[Tubes]:
    """A drain from the side of the chest to the apex or the base."""
    cage = scene.anatomy.cage
    s, wall = cage.stature, cage.offset + cage.radii[0]
    side = side or (1 if rng.random() < 0.5 else -1)
    low = (-46.0 + 20.0 * float(rng.random())) * s
    top = (96.0 if rng.random() < 0.7 else -20.0) * s
    points = [
        (side * (wall + 60), -10.0, low - 22),
        (side * (wall + 4), -20.0, low),
        (side * (wall - 26), -34.0, low + 40 * s),
        (side * (0.55 * wall), -40.0, 0.6 * top + 0.4 * low + 18),
        (side * (0.48 * wall), -30.0, top),
    ]
    stripe = [(x + 2.5, y, z) for x, y, z in points]
    return [_line(points, 4.6, 1.8 * _PLASTIC, 0.68), _line(stripe, 1.0, 14 * _PLASTIC)]


DEVICES: tuple[Device, ...] = (electrodes, central_line, endotracheal_tube, pacemaker, chest_tube)
_WEIGHTS = {"PA": (0.2, 0.32, 0.0, 0.44, 0.2), "AP": (0.72, 0.5, 0.4, 0.14, 0.2)}


def add_devices(scene: Scene) -> None:
    """Lay the devices of an image over the scene and mark them."""
    case = scene.case
    if case.severity["Support Devices"] <= 0:
        return
    rng = generator(case.seed, case.index, DEVICE)
    chances = np.asarray(_WEIGHTS.get(case.view, _WEIGHTS["PA"]))
    chances = np.minimum(chances * (0.6 + 0.8 * case.severity["Support Devices"]), 0.95)
    draws = rng.random(len(DEVICES))
    chosen = draws < chances
    if not chosen.any():
        chosen[int(np.argmax(chances - draws))] = True
    canvas = Canvas(scene.plan)
    for device, present in zip(DEVICES, chosen, strict=True):
        if present:
            canvas.add(*device(scene, rng))
    image = canvas.image()
    scene.path += image
    scene.mark("Support Devices", image > 0.03)
