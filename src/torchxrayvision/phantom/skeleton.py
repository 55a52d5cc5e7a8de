"""Bones as tubes and plates on the cage: ribs, clavicles, scapulae, humeri, sternum, processes.

Source:
    Ribs: Mohr et al., Geometry of human ribs pertinent to orthopedic chest-wall reconstruction,
    J Biomech 2007; cortical shells of about 1 mm around trabecular bone. Heights of vertebrae:
    Panjabi et al., Thoracic human vertebrae, Spine 1991.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.body import SIDE_NAMES, SIDES
from torchxrayvision.phantom.tubes import Tubes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from torchxrayvision.phantom.anatomy import Anatomy, Cage
    from torchxrayvision.phantom.body import Physique, Pose

    Reals = NDArray[np.floating]

CORTEX = 0.030  # excess over soft tissue, 1/mm
NAMED = ("Left Clavicle", "Right Clavicle", "Left Scapula", "Right Scapula")
"""Bones whose shadows are masks."""

# Height of the joint with the spine, fall to the front end, last angle (0 back, pi front), half
# height across: one value per rib.
_JOINT = (147, 131, 111, 90, 67, 43, 18, -8, -35, -63, -92, -121)
_FALL = (36, 58, 76, 88, 96, 102, 106, 108, 104, 92, 60, 36)
_END = (2.55, 2.72, 2.72, 2.66, 2.56, 2.44, 2.28, 2.12, 1.98, 1.85, 1.15, 0.55)
_HALF = (6.0, 5.6, 5.8, 6.0, 6.2, 6.4, 6.4, 6.3, 6.2, 6.0, 5.4, 4.4)
_START = -0.42
_BONE_POINTS = 48

CLAVICLE = -1
"""Stands for the clavicle where ribs are numbered."""

VERTEBRAE = 17
"""From the sixth cervical to the third lumbar vertebra."""


@dataclass(frozen=True)
class Break:
    """A broken rib or clavicle.

    Args:
        side: 1 for the left side, -1 for the right.
        rib: 0 to 11, or `CLAVICLE`.
        place: Angle of the break, radians; of a clavicle, share of its length from the sternum.
        step: Displacement of the front or outer part, mm.
        callus: New bone about it, 0 for a fresh fracture, to 1.
    """

    side: int
    rib: int
    place: float
    step: float
    callus: float = 0.0


def rib_paths(cage: Cage, side: int, points: int = 72) -> Reals:
    """Place the centres of the ribs of one side.

    Returns:
        float64 (12, points, 3), mm, from the spine to the front end.
    """
    t = np.linspace(0.0, 1.0, points)
    ends = np.asarray(_END)[:, None]
    angle = _START + (ends - _START) * t
    share = (angle - _START) / (np.pi - _START)
    fall = np.asarray(_FALL)[:, None] * cage.stature
    # Ribs leave the spine almost level and fall fastest at the side.
    steep = np.clip((angle - 0.45) / 2.1, 0.0, 1.0)
    course = 0.38 * share + 0.62 * steep * steep * (3 - 2 * steep)
    z = np.asarray(_JOINT)[:, None] * cage.stature - fall * course
    scale = np.sqrt(np.maximum(cage.scale(z), 0.10))
    x = cage.offset + (cage.radii[0] * scale + 4.5) * np.sin(angle)
    y = cage.back(z) - (cage.radii[1] * scale + 4.5) * np.cos(angle)
    return np.stack([side * x, y, z], axis=-1)


def _ribs(cage: Cage, body: Physique, side: int, breaks: tuple[Break, ...]) -> list[Tubes]:
    paths = rib_paths(cage, side)
    points = paths.shape[1]
    half = np.asarray(_HALF)[:, None] * np.ones(points)
    taper = 1 - 0.12 * np.linspace(0, 1, points)
    radii = np.stack([half * taper, 2.9 + 0 * half], axis=-1)
    # Area of an elliptic shell of cortex, 0.9 mm, and of the sponge inside.
    ring = np.pi * (radii[..., 0] + radii[..., 1]) * 0.9
    sponge = np.pi * radii[..., 0] * radii[..., 1] * 0.16
    fade = np.clip((1 - np.linspace(0, 1, points)) / 0.10, 0, 1)  # into cartilage
    mass = CORTEX * body.bone * (ring + sponge) * fade
    for broken in breaks:
        if broken.side == side and broken.rib != CLAVICLE:
            share = (broken.place - _START) / (_END[broken.rib] - _START)
            rib = broken.rib
            _displace(paths[rib], radii[rib], mass[rib], broken, round(share * (points - 1)))
    return [Tubes(paths, radii, mass, bore=0.86, core=0.14)]


def _displace(
    path: Reals, radii: Reals, mass: Reals, broken: Break, at: int, reach: float = 60.0
) -> None:
    """Move what lies beyond a break down, back to its course over some millimetres."""
    steps = np.sqrt((np.diff(path, axis=0) ** 2).sum(axis=1))
    along = np.concatenate([[0.0], np.cumsum(steps)])
    along -= 0.5 * (along[at - 1] + along[at])
    path[at:, 2] -= broken.step * np.maximum(1 - along[at:] / reach, 0.0)
    # Fragments override each other and part; later callus, a spindle of new bone, bridges the gap.
    bump = np.exp(-((along / 11.0) ** 2))
    radii *= 1 + (0.4 + 0.85 * broken.callus) * bump[:, None]
    mass *= 1 + 5.0 * bump
    if not broken.callus:
        mass[at - 1 : at + 1] = 0.0


def break_point(cage: Cage, pose: Pose, broken: Break) -> Reals:
    """Give the place of a break, float64 (3,), mm."""
    if broken.rib == CLAVICLE:
        path = smooth_path(_clavicle_knots(cage, pose, broken.side), _BONE_POINTS)
        share = broken.place
    else:
        path = rib_paths(cage, broken.side)[broken.rib]
        share = (broken.place - _START) / (_END[broken.rib] - _START)
    point: Reals = path[round(share * (len(path) - 1))]
    return point


def smooth_path(knots: Reals, points: int) -> Reals:
    """Draw a smooth path through knots (N, 3) by Catmull and Rom's rule."""
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    index, weights = _rule(len(knots), points)
    path: Reals = (padded[index] * weights[..., None]).sum(axis=0)
    return path


@lru_cache(maxsize=32)
def _rule(knots: int, points: int) -> tuple[NDArray[np.intp], Reals]:
    """Which four knots each point depends on, int (4, N), and their weights, float64 (4, N)."""
    at = np.linspace(0, knots - 1, points)
    index = np.minimum(at.astype(np.intp), knots - 2)
    t = at - index
    weights = np.stack([
        -t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2,
    ])  # fmt: skip
    return index + np.arange(4)[:, None], weights / 2


def bone(
    knots: list[tuple[float, float, float]] | Reals,
    radii: list[float],
    body: Physique,
    cortex: float,
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
    path = smooth_path(np.asarray(knots, float), _BONE_POINTS)
    at = np.linspace(0, len(knots) - 1, _BONE_POINTS)
    radius = np.interp(at, np.arange(len(radii)), radii)
    ring = 2 * np.pi * radius * cortex
    sponge = np.pi * radius**2 * 0.16
    mass = CORTEX * body.bone * (ring + sponge)
    # Rounded ends.
    index = np.arange(_BONE_POINTS)
    ends = np.minimum(index + 0.3, index[::-1] + 0.3) / 3.5
    cap = np.sqrt(1 - (1 - np.minimum(ends, 1)) ** 2)
    radius, mass = radius * cap, mass * cap
    both = np.stack([radius, radius], axis=-1)
    mean = float(radius.mean())
    return Tubes(path[None], both[None], mass[None], bore=round(1 - cortex / mean, 1), core=0.25)


def _joint(cage: Cage) -> tuple[float, float]:
    """Distance of the shoulder joint from the middle, and its height, mm."""
    return cage.offset + cage.radii[0] + 40.0, 128.0 * cage.stature


def _clavicle_knots(cage: Cage, pose: Pose, side: int) -> Reals:
    s, x = cage.stature, _joint(cage)[0]
    lift, front = 12.0 * pose.arms, cage.radii[1] * 0.55
    return np.array(
        [
            (side * 14.0, front + 6, 112 * s),
            (side * 30.0, front + 12, 117 * s),
            (side * 66.0, front + 14, 130 * s + 0.4 * lift),
            (side * 112.0, front - 8, 146 * s + 0.8 * lift),
            (side * 145.0, 16.0, 149 * s + lift),
            (side * (x - 8), -8.0, 147 * s + lift),
        ]
    )


def _clavicle(
    cage: Cage, body: Physique, pose: Pose, side: int, breaks: tuple[Break, ...]
) -> Tubes:
    tube = bone(_clavicle_knots(cage, pose, side), [9.5, 7.6, 5.8, 5.4, 6.2, 6.6], body, 1.5)
    for broken in breaks:
        if broken.side == side and broken.rib == CLAVICLE:
            at = round(broken.place * (_BONE_POINTS - 1))
            _displace(tube.points[0], tube.radii[0], tube.mass[0], broken, at, reach=120.0)
    return tube


def _humerus(cage: Cage, body: Physique, arms: float, side: int) -> Tubes:
    (x, z), out = _joint(cage), 0.16 + 0.42 * arms
    return bone(
        [
            (side * (x + 9 + 4 * out), -13.0, z - 26),
            (side * (x + 15 + 18 * out), -12.0, z - 55),
            (side * (x + 20 + 62 * out), -12.0, z - 110),
            (side * (x + 24 + 200 * out), -12.0, z - 260),
        ],
        [17.0, 13.5, 11.0, 11.0],
        body,
        2.4,
    )


def _scapula(cage: Cage, body: Physique, arms: float, side: int) -> list[Tubes]:
    """The borders, the spine and the blade; raised arms swing it outwards."""
    s, (x, z) = cage.stature, _joint(cage)
    z += 12.0 * arms
    swing = 26.0 * arms
    back = -cage.radii[1]
    glenoid = (side * (x - 12), -26.0, z - 12)
    inferior = (side * (x - 52 + 1.5 * swing), back - 10, z - 140 * s)
    superior = (side * (x - 78 + 0.6 * swing), back + 12, z - 2)
    medial = (side * (x - 84 + swing), back - 4, z - 60 * s)
    middle = (side * (x - 28 + 0.8 * swing), 0.55 * back, z - 72 * s)
    coracoid = (side * (x - 30), 16.0, z - 4)
    acromion = (side * (x + 8), -24.0, z + 18)
    root = (side * (x - 76 + swing), back - 2, z - 30)
    blade = np.array([glenoid, superior, medial, inferior, middle])
    return [
        bone([glenoid, middle, inferior], [6.0, 3.6, 3.8], body, 1.1),
        bone([superior, medial, inferior], [2.2, 2.0, 3.0], body, 0.8),
        bone([superior, (side * (x - 36), -30.0, z + 2), coracoid], [2.0, 2.2, 3.5], body, 0.6),
        bone([root, (side * (x - 34), -58.0, z - 4), acromion], [2.4, 3.2, 5.0], body, 0.6),
        *_plate(blade, body),
    ]


def _plate(corners: Reals, body: Physique) -> list[Tubes]:
    """Fill a fan of triangles with overlapping lines, as a plate 2 mm thick."""
    lines, steps = 40, 10
    outline = smooth_path(corners[1:], lines)
    t = np.linspace(0.05, 0.97, steps)[None, :, None]
    points = corners[0] * (1 - t) + outline[:, None] * t
    gap = np.sqrt((np.diff(outline, axis=0) ** 2).sum(axis=1))
    gap = np.append(gap, gap[-1])[:, None] * t[..., 0]
    radii = np.stack([gap, gap], axis=-1)
    # Lines that overlap threefold fill the gaps between each other's samples.
    return [Tubes(points, 1.6 * radii, CORTEX * body.bone * 1.1 * gap, step=1.6)]


def vertebra_levels(stature: float) -> Reals:
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

    def tube(points: Sequence[tuple[Reals, Reals, Reals]], radius: float, mass: float) -> Tubes:
        path = np.stack([np.stack(p, axis=-1) for p in points], axis=1)
        radii = np.full((*path.shape[:2], 2), radius)
        return Tubes(path, radii, np.full(path.shape[:2], mass * body.bone * CORTEX), 0.7, 0.3)

    tubes = []
    for side in SIDES:
        at = side * wide * 0.66
        turn = np.linspace(0, 2 * np.pi, 9)
        eye = [
            (at + 4.2 * np.cos(t), middle - deep - 6, levels + 3 + 5.2 * np.sin(t)) for t in turn
        ]
        tubes.append(tube(eye, 1.1, 2.2))
        tip = side * (wide + 17)
        tubes.append(
            tube(
                [(at, middle - deep - 10, levels + 2), (tip, middle - deep - 22, levels + 5)],
                4.6,
                6,
            )
        )
    tubes.append(
        tube(
            [(zero, middle - deep - 20, levels - 2), (zero, middle - deep - 46, levels - 20)],
            4.0,
            9,
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
    anatomy: Anatomy, body: Physique, pose: Pose, breaks: tuple[Break, ...] = ()
) -> dict[str, list[Tubes]]:
    """Make all bones but the vertebral bodies.

    Returns:
        Name to tubes with the excess of bone over soft tissue.
    """
    cage = anatomy.cage
    bones = {"Spine": _processes(anatomy, body) + _sternum(cage, body)}
    for side in SIDES:
        name = SIDE_NAMES[side]
        bones[f"{name} Ribs"] = _ribs(cage, body, side, breaks)
        bones[f"{name} Clavicle"] = [_clavicle(cage, body, pose, side, breaks)]
        bones[f"{name} Scapula"] = _scapula(cage, body, pose.arms, side)
        if not pose.overhead:
            bones[f"{name} Humerus"] = [_humerus(cage, body, pose.arms, side)]
    return bones
