"""Bones as tubes and plates on the cage: ribs, clavicles, scapulae, humeri, sternum, processes.

Source:
    Ribs: Mohr et al., Geometry of human ribs pertinent to orthopedic chest-wall reconstruction,
    J Biomech 2007; cortical shells of about 1 mm around trabecular bone. Heights of vertebrae:
    Panjabi et al., Thoracic human vertebrae, Spine 1991.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom._anatomy import SIDES
from torchxrayvision.phantom._tubes import Tubes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.phantom._anatomy import Anatomy, Cage, Physique

    Float64 = NDArray[np.float64]

CORTEX = 0.030  # excess over soft tissue, 1/mm
RIBS = 12

# Height of the joint with the spine, fall to the front end, last angle (0 back, pi front), half
# height across: one value a rib.
_JOINT = (147, 131, 111, 90, 67, 43, 18, -8, -35, -63, -92, -121)
_FALL = (36, 58, 76, 88, 96, 102, 106, 108, 104, 92, 60, 36)
_END = (2.55, 2.72, 2.72, 2.66, 2.56, 2.44, 2.28, 2.12, 1.98, 1.85, 1.15, 0.55)
_HALF = (6.0, 5.6, 5.8, 6.0, 6.2, 6.4, 6.4, 6.3, 6.2, 6.0, 5.4, 4.4)
_START = -0.42

VERTEBRAE = 17
"""From the sixth cervical to the third lumbar vertebra."""


@dataclass(frozen=True)
class Break:
    """A broken rib.

    Args:
        side: 1 for the left side, -1 for the right.
        rib: 0 to 11.
        place: Angle of the break, radians.
        step: Displacement of the front part, mm.
    """

    side: int
    rib: int
    place: float
    step: float


def rib_paths(cage: Cage, side: int, points: int = 72) -> Float64:
    """Place the centres of the ribs of one side.

    Args:
        cage: Inner wall of the chest.
        side: 1 for the left side, -1 for the right.
        points: Number of points on each.

    Returns:
        float64 (12, points, 3), mm, from the spine to the front end.
    """
    t = np.linspace(0.0, 1.0, points)
    ends = np.asarray(_END)[:, None]
    angle = _START + (ends - _START) * t
    share = (angle - _START) / (np.pi - _START)
    fall = np.asarray(_FALL)[:, None] * cage.stature
    # Ribs leave the spine almost level, fall fastest at the side, and turn up to the sternum.
    z = np.asarray(_JOINT)[:, None] * cage.stature - fall * share * (0.55 + 0.75 * share)
    scale = np.sqrt(np.maximum(cage.scale(z), 0.10))
    x = cage.offset + (cage.radii[0] * scale + 4.5) * np.sin(angle)
    y = cage.back(z) - (cage.radii[1] * scale + 4.5) * np.cos(angle)
    return np.stack([side * x, y, z], axis=-1)


def _ribs(cage: Cage, body: Physique, side: int, breaks: tuple[Break, ...]) -> list[Tubes]:
    paths = rib_paths(cage, side)
    count, points, _ = paths.shape
    half = np.asarray(_HALF)[:, None] * np.ones(points)
    taper = 1 - 0.12 * np.linspace(0, 1, points)
    radii = np.stack([half * taper, 2.9 + 0 * half], axis=-1)
    # Area of an elliptic shell of cortex, 0.9 mm, and of the sponge inside.
    ring = np.pi * (radii[..., 0] + radii[..., 1]) * 0.9
    sponge = np.pi * radii[..., 0] * radii[..., 1] * 0.16
    mass = CORTEX * body.bone * (ring + sponge)
    for broken in breaks:
        if broken.side == side:
            _displace(paths[broken.rib], mass[broken.rib], broken)
    return [Tubes(paths, radii, mass, shell=0.86, core=0.14)]


def _displace(path: Float64, mass: Float64, broken: Break) -> None:
    """Move the front part of a broken rib down, back to its course over the next 60 mm."""
    end = _END[broken.rib]
    share = (broken.place - _START) / (end - _START)
    at = int(round(share * (len(path) - 1)))
    steps = np.sqrt((np.diff(path[at:], axis=0) ** 2).sum(axis=1))
    distance = np.concatenate([[0.0], np.cumsum(steps)])
    fade = np.maximum(1 - distance / 60.0, 0.0)
    path[at:, 2] -= broken.step * fade
    mass[max(at - 1, 0) : at + 1] = 0.0


def break_point(cage: Cage, broken: Break) -> Float64:
    """Give the place of a break, float64 (3,), mm."""
    path = rib_paths(cage, broken.side)[broken.rib]
    share = (broken.place - _START) / (_END[broken.rib] - _START)
    return path[int(round(share * (len(path) - 1)))]


def _bezier(knots: Float64, points: int) -> Float64:
    """Draw a smooth path through knots (N, 3) by Catmull and Rom's rule."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, points)
    index = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - index)[:, None]
    p0, p1, p2, p3 = (padded[index + k] for k in range(4))
    path: Float64 = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )  # fmt: skip
    return path


def bone(
    knots: list[tuple[float, float, float]], radii: list[float], body: Physique, cortex: float
) -> Tubes:
    """Make one tubular bone.

    Args:
        knots: Points on its axis, mm.
        radii: Radius at each, mm.
        body: The patient.
        cortex: Thickness of the shell, mm.

    Returns:
        One tube.
    """
    path = _bezier(np.asarray(knots, float), 48)
    at = np.linspace(0, len(knots) - 1, 48)
    radius = np.interp(at, np.arange(len(radii)), radii)
    ring = 2 * np.pi * radius * cortex
    sponge = np.pi * radius**2 * 0.16
    mass = CORTEX * body.bone * (ring + sponge)
    both = np.stack([radius, radius], axis=-1)
    mean = float(radius.mean())
    return Tubes(path[None], both[None], mass[None], shell=1 - cortex / mean, core=0.25)


def _shoulder(cage: Cage, body: Physique, arms: float, side: int) -> list[Tubes]:
    s = cage.stature
    wide = cage.offset + cage.radii[0]
    x, z = wide + 40.0, 128.0 * s
    lift = 12.0 * arms
    front = cage.radii[1] * 0.55
    clavicle = bone(
        [
            (side * 16.0, front + 6, 118 * s),
            (side * 60.0, front + 12, 130 * s + 0.4 * lift),
            (side * 110.0, front - 20, 137 * s + 0.8 * lift),
            (side * (x - 8), -8.0, 143 * s + lift),
        ],
        [9.0, 6.2, 5.8, 7.5],
        body,
        1.5,
    )
    out = 0.16 + 0.42 * arms
    humerus = bone(
        [
            (side * (x + 10), -14.0, z - 2 + 0.4 * lift),
            (side * (x + 15 + 12 * out), -13.0, z - 34),
            (side * (x + 22 + 62 * out), -12.0, z - 100),
            (side * (x + 26 + 200 * out), -12.0, z - 250),
        ],
        [20.0, 15.5, 11.0, 11.0],
        body,
        2.4,
    )
    return [clavicle, humerus, *_scapula(cage, body, arms, side, x, z + lift)]


def _scapula(
    cage: Cage, body: Physique, arms: float, side: int, x: float, z: float
) -> list[Tubes]:
    """The borders, the spine and the blade; raised arms swing it outwards."""
    s = cage.stature
    swing = 26.0 * arms
    back = -cage.radii[1]
    glenoid = (side * (x - 12), -26.0, z - 12)
    inferior = (side * (x - 52 + 1.5 * swing), back - 10, z - 140 * s)
    superior = (side * (x - 78 + 0.6 * swing), back + 12, z - 2)
    medial = (side * (x - 84 + swing), back - 4, z - 60 * s)
    middle = (side * (x - 28 + 0.8 * swing), 0.55 * back, z - 72 * s)
    coracoid = (side * (x - 30), 16.0, z - 4)
    acromion = (side * (x + 8), -24.0, z + 18)
    root = (side * (x - 76 + swing), back - 2, z - 22)
    blade = np.array([glenoid, superior, medial, inferior, middle])
    return [
        bone([glenoid, middle, inferior], [9.0, 4.6, 4.6], body, 1.9),
        bone([superior, medial, inferior], [2.4, 2.2, 3.4], body, 1.2),
        bone([superior, (side * (x - 36), -30.0, z + 2), glenoid], [2.2, 2.6, 8.0], body, 1.2),
        bone([root, (side * (x - 34), -58.0, z + 2), acromion], [3.0, 4.0, 7.5], body, 1.4),
        bone([glenoid, coracoid], [7.0, 5.0], body, 1.6),
        _plate(blade, body),
    ]


def _plate(corners: Float64, body: Physique) -> Tubes:
    """Fill a fan of triangles with lines, as a plate 2.4 mm thick."""
    lines = 26
    share = (np.arange(lines) + 0.5) / lines
    outline = _bezier(corners[1:], lines)
    first = np.broadcast_to(corners[0], outline.shape)
    t = np.linspace(0.06, 0.97, 12)[None, :, None]
    points = first[:, None] * (1 - t) + outline[:, None] * t
    gap = np.sqrt((np.diff(outline, axis=0) ** 2).sum(axis=1))
    gap = np.append(gap, gap[-1])[:, None] * np.linspace(0.06, 0.97, 12)[None, :]
    radii = np.stack([gap, gap], axis=-1)  # twice the gap wide, so that neighbours overlap
    mass = CORTEX * body.bone * 1.3 * gap * (1 - 0.5 * np.abs(share - 0.5))[:, None]
    return Tubes(points, radii, mass)


def vertebra_levels(stature: float) -> Float64:
    """Heights of the middles of the vertebral bodies, from below, float64 (17,), mm."""
    heights = np.linspace(34.0, 18.5, VERTEBRAE) * stature
    tops = -205.0 * stature + np.cumsum(heights)
    return tops - heights / 2


def _processes(anatomy: Anatomy, body: Physique) -> list[Tubes]:
    """Pedicles, transverse and spinous processes of every vertebra."""
    cage, spine = anatomy.cage, anatomy.spine
    levels = vertebra_levels(cage.stature)
    wide, deep, middle = spine.a(levels), spine.b(levels), spine.cy(levels)
    zero = np.zeros_like(levels)

    def tube(points: list[tuple[Float64, Float64, Float64]], radius: float, mass: float) -> Tubes:
        path = np.stack([np.stack(p, axis=-1) for p in points], axis=1)
        radii = np.full((*path.shape[:2], 2), radius)
        return Tubes(path, radii, np.full(path.shape[:2], mass * body.bone * CORTEX), 0.7, 0.3)

    tubes = []
    for side in SIDES:
        at = side * wide * 0.66
        tubes.append(
            tube([(at, middle - deep, levels + 3), (at * 1.05, middle - deep - 14, levels + 4)], 5, 34)
        )
        tip = side * (wide + 17)
        tubes.append(
            tube([(at, middle - deep - 10, levels + 2), (tip, middle - deep - 22, levels + 5)], 4.2, 16)
        )
    tubes.append(
        tube(
            [(zero, middle - deep - 20, levels - 2), (zero, middle - deep - 46, levels - 20)], 3.6, 22
        )
    )
    return tubes


def _sternum(cage: Cage, body: Physique) -> list[Tubes]:
    s, front = cage.stature, cage.radii[1]
    path = [
        (0.0, 0.56 * front, 116 * s),
        (0.0, 0.76 * front, 84 * s),
        (0.0, 0.98 * front, 10 * s),
        (0.0, 1.03 * front, -48 * s),
    ]
    tubes = []
    for x in (-11.0, 0.0, 11.0):
        shifted = [(x, y, z) for _, y, z in path]
        tubes.append(bone(shifted, [5.5, 5.0, 4.8, 4.0], body, 0.8))
    return tubes


def build_skeleton(
    anatomy: Anatomy, body: Physique, arms: float, breaks: tuple[Break, ...] = ()
) -> list[Tubes]:
    """Make all bones but the vertebral bodies.

    Args:
        anatomy: Solids of the chest.
        body: The patient.
        arms: Abduction of the arms, 0 to 1.
        breaks: Broken ribs.

    Returns:
        Tubes with the excess of bone over soft tissue.
    """
    cage = anatomy.cage
    bones: list[Tubes] = []
    for side in SIDES:
        bones += _ribs(cage, body, side, breaks)
        bones += _shoulder(cage, body, arms, side)
    return bones + _processes(anatomy, body) + _sternum(cage, body)
