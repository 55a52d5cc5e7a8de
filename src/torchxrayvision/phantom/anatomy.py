"""The chest in three dimensions: solids whose sizes follow the patient and the findings.

Heights and widths are those of the adult reference persons, scaled by stature, girth and sex; the
lungs of a man hold about 6 l and those of a woman 4.5 l at full inspiration.

Source:
    ICRP Publication 89 (2002), Basic anatomical and physiological data; ICRP Publication 110
    (2009), Adult reference computational phantoms; Gray's Anatomy, 41st edition (2015), part 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.body import LEFT, RIGHT, SIDES
from torchxrayvision.phantom.solids import Column, Ellipsoid, Paraboloid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from torchxrayvision.phantom.body import Change, Physique, Pose
    from torchxrayvision.phantom.solids import Profile

    Reals = NDArray[np.floating]

_APEX, _WIDEST = 152.0, -62.0  # of the lungs, z
_HEART = (16.0, 22.0, -30.0)  # the point about which a heart grows
_CHAMBERS = {  # of the reference man
    "left ventricle": Ellipsoid.along((35, 20, -34), (0.74, 0.32, -0.60), (62, 37, 36)),
    "right ventricle": Ellipsoid.along((14, 44, -44), (0.86, 0.10, -0.30), (58, 27, 31)),
    "right atrium": Ellipsoid.along((-14, 18, -24), (0.06, 0.10, 1.0), (46, 31, 29)),
    "left atrium": Ellipsoid.upright((5, -8, 2), (36, 22, 27)),
    "left appendage": Ellipsoid.along((27, 8, 5), (0.62, 0.1, -0.78), (40, 20, 19)),
}


@dataclass(frozen=True)
class Anatomy:
    """Solids of one chest.

    Args:
        lungs: Side to the pleural cavity, before heart, mediastinum and diaphragm are cut out.
        domes: Side to the half of the diaphragm.
        saddle: The middle of the diaphragm, under the heart.
        heart: Chamber to ellipsoid.
        aorta: Ascending part, arch and descending part.
        vessels: Pulmonary trunk, superior vena cava and the tissue about the hila.
        mediastinum: The tissue between the lungs, in front and behind.
        spine: Column of the vertebral bodies.
        gutter: Vertebral arches and muscles on both sides of them.
        torso: The skin from hip to neck.
        limbs: Arms and shoulders.
        breasts: Breasts, which may be empty.
        cage: Offsets and scales that place ribs and other bones.
    """

    lungs: Mapping[int, Column]
    domes: Mapping[int, Paraboloid]
    saddle: Paraboloid
    heart: Mapping[str, Ellipsoid]
    aorta: Mapping[str, Ellipsoid]
    vessels: Mapping[str, Ellipsoid]
    mediastinum: tuple[Column, Column]
    spine: Column
    gutter: Column
    torso: Column
    limbs: tuple[Ellipsoid, ...]
    breasts: tuple[Ellipsoid, ...]
    cage: Cage


@dataclass(frozen=True)
class Cage:
    """The inner wall of the chest, on which lungs and ribs lie.

    Args:
        stature: Scale of heights.
        offset: x of the centre of a lung's section, mm.
        radii: Half axes of a lung's widest section, mm.
        apex: Height of the apex, mm.
        lean: How far the upper spine leans forward, mm.
    """

    stature: float
    offset: float
    radii: tuple[float, float]
    apex: float
    lean: float

    def scale(self, z: Reals) -> Reals:
        """Squared scale of a lung's section at heights z."""
        widest = _WIDEST * self.stature
        up = np.maximum((z - widest) / (self.apex - widest), 0.0)
        down = np.maximum((widest - z) / (110.0 * self.stature), 0.0)
        squared: Reals = 1.0 - up**2 * np.sqrt(up) - 0.10 * down**2
        return squared

    def back(self, z: Reals) -> Reals:
        """Shift of the sections forward at heights z, which follows the spine, mm."""
        bend = z / (150.0 * self.stature)
        forward: Reals = self.lean * np.where(bend > 0, bend * bend, 0.45 * bend * bend)
        return forward


def _constant(value: float) -> Profile:
    return lambda z: np.full_like(z, value)


def _knots(heights: tuple[float, ...], values: tuple[float, ...], stature: float) -> Profile:
    """Interpolate between knots and round the corners off over 20 mm.

    A mean of shifted polylines is a polyline whose knots are all the shifted ones.
    """
    places = np.asarray(heights) * stature
    shifts = np.array([-20.0, -10.0, 0.0, 10.0, 20.0])[:, None]
    every = np.sort((places - shifts).reshape(-1))
    means = (np.interp(every + shifts, places, values) * [[1], [2], [3], [2], [1]]).sum(axis=0) / 9
    return lambda z: np.interp(z, every, means)


def _cage(body: Physique, change: Change) -> Cage:
    female = body.sex == "F"
    radius_x = (84.0 if not female else 78.0) * body.girth * (1 + 0.03 * change.hyperinflation)
    radius_y = (94.0 if not female else 86.0) * body.barrel * (1 + 0.14 * change.hyperinflation)
    return Cage(
        stature=body.stature,
        offset=(52.0 if not female else 48.0) * body.girth,
        radii=(radius_x, radius_y),
        apex=_APEX * body.stature + 4 * change.hyperinflation,
        lean=body.kyphosis,
    )


def _domes(cage: Cage, pose: Pose, change: Change) -> dict[int, Paraboloid]:
    down = 34.0 * pose.inspiration + 26.0 * change.hyperinflation
    raised = change.raised or {}
    domes = {}
    for side in SIDES:
        top = (-50.0 if side == RIGHT else -61.0) * cage.stature - down + raised.get(side, 0.0)
        height = 50.0 * (1 - 0.68 * change.hyperinflation) + 0.3 * raised.get(side, 0.0)
        radii = (cage.radii[0] * 0.94, cage.radii[1] * 0.92)
        domes[side] = Paraboloid((side * cage.offset * 1.22, 14.0), top, radii, height)
    return domes


def _heart(body: Physique, domes: Mapping[int, Paraboloid], change: Change) -> dict[str, Ellipsoid]:
    girth = 0.5 * (body.girth + 1) * (0.93 if body.sex == "F" else 1.0)
    floor = 0.5 * (domes[LEFT].top + domes[RIGHT].top) - 20.0  # the heart rests on the diaphragm
    narrow = 1 - 0.06 * change.hyperinflation
    stretch = np.array([girth * narrow, 0.5 * (body.barrel + 1), body.stature])
    placed = {}
    for name, solid in _CHAMBERS.items():
        grown = solid.scaled(change.heart, _HEART)
        x, y, z = (float(c * s) for c, s in zip(grown.center, stretch, strict=True))
        placed[name] = Ellipsoid((x + change.shift, y, z), grown.axes * girth)
    low = min(float(p.center[2] - np.sqrt((p.axes[:, 2] ** 2).sum())) for p in placed.values())
    return {name: p.moved((0.0, 0.0, floor - low)) for name, p in placed.items()}


def _great_vessels(
    body: Physique, pose: Pose, change: Change
) -> tuple[dict[str, Ellipsoid], dict[str, Ellipsoid]]:
    unfold, shift, s = body.tortuosity, change.shift, body.stature
    drop = -10.0 * (pose.inspiration - 0.6) - 8.0 * change.hyperinflation
    wide = 1 + 0.25 * unfold
    aorta = {
        "ascending": Ellipsoid.upright(
            (-8 - 8 * unfold + shift, 18, 36 * s + drop), (18 * wide, 18 * wide, 48 * s)
        ),
        "arch": Ellipsoid.along(
            (8 + 9 * unfold + shift, -16, (66 + 5 * unfold) * s + drop),
            (0.42, -0.9, 0.0),
            (44 * wide, 18 * wide, 17 * wide),
        ),
        "descending": Ellipsoid.upright(
            (17 + 12 * unfold + 0.5 * shift, -44, -20 * s), (13.5 * wide, 13.5 * wide, 125 * s)
        ),
    }
    vessels = {
        "trunk": Ellipsoid.along((22 + shift, 16, 28 * s + drop), (0.30, -0.3, 0.75), (36, 19, 19)),
        "cava": Ellipsoid.along(
            (-18 + shift, 2, 60 * s + drop), (-0.06, 0.0, 1.0), (60 * s, 13, 12)
        ),
        "brachiocephalic": Ellipsoid.along(
            (-19 + 0.8 * shift, 4, 116 * s), (-0.22, -0.1, 1.0), (56 * s, 13, 11)
        ),
        "subclavian": Ellipsoid.along(
            (18 + 0.8 * shift, -6, 114 * s), (0.24, -0.15, 1.0), (56 * s, 12, 10)
        ),
        "hilum right": Ellipsoid.along(
            (-36 + shift, -6, 10 * s + drop), (-0.45, -0.1, -0.9), (27, 11, 12)
        ),
        "hilum left": Ellipsoid.along(
            (37 + shift, -10, 22 * s + drop), (0.55, -0.3, -0.6), (22, 11, 12)
        ),
    }
    return aorta, vessels


def _limbs(body: Physique, pose: Pose, cage: Cage) -> tuple[Ellipsoid, ...]:
    s, reach = body.stature, (cage.offset + cage.radii[0])
    limbs: list[Ellipsoid] = []
    for side in SIDES:
        x = side * (reach + 34.0 + 0.5 * body.fat)
        limbs.append(
            Ellipsoid.along(
                (x * 0.95, -14.0, 112.0 * s), (side * 0.8, 0.0, -0.6), (70.0, 58.0, 52.0)
            )
        )
        # Latissimus and the folds of the armpit.
        limbs.append(
            Ellipsoid.along(
                (side * (reach + 4.0), -24.0, 20.0 * s),
                (side * 0.12, 0.0, 1.0),
                (135.0, 62.0, 30.0),
            )
        )
        out = side * (0.16 + 0.42 * pose.arms)
        center = (x + out * 110.0 + side * 13.0, -12.0, 0.0 * s)
        limbs.append(
            Ellipsoid.along(center, (-out, 0.0, 0.95), (185.0, 40.0 + 0.4 * body.fat, 44.0))
        )
    return tuple(limbs)


def _torso(body: Physique, cage: Cage) -> Column:
    side, back = cage.offset + cage.radii[0] + body.fat, cage.radii[1] + 0.8 * body.fat
    neck = (57.0 if body.sex == "M" else 50.0) + 0.25 * body.fat
    s = body.stature
    return Column(
        cx=_constant(0.0),
        cy=lambda z: 4.0 + 0.8 * cage.back(z),
        a=_knots(
            (-230, -120, 0, 92, 128, 150, 168, 186, 206, 260),
            (
                side + 6,
                side + 4,
                side,
                side - 4,
                side + 2,
                0.92 * side,
                0.64 * side,
                neck + 16,
                neck,
                neck,
            ),
            s,
        ),
        b=_knots(
            (-230, -150, -60, 60, 120, 150, 190, 260),
            (back + 12, back + 8, back + 4, back - 2, 0.88 * back, 0.76 * back, neck, neck),
            s,
        ),
        f=_constant(1.0),
        depth=(0.0, 4.0),
    )


def outline(
    body: Physique, pose: Pose, change: Change
) -> tuple[Cage, dict[int, Paraboloid], dict[str, Ellipsoid]]:
    """Cage, diaphragm and heart as in `build`: what the cardiothoracic ratio depends on."""
    cage = _cage(body, change)
    domes = _domes(cage, pose, change)
    return cage, domes, _heart(body, domes, change)


def build(body: Physique, pose: Pose, change: Change) -> Anatomy:
    """Place every solid, in the patient's frame."""
    cage, domes, heart = outline(body, pose, change)
    s = body.stature
    back = -cage.radii[1]
    lungs = {
        side: Column(
            cx=_constant(side * cage.offset),
            cy=cage.back,
            a=_constant(cage.radii[0]),
            b=_constant(cage.radii[1]),
            f=cage.scale,
            depth=(side * cage.offset, 0.0),
        )
        for side in SIDES
    }
    aorta, vessels = _great_vessels(body, pose, change)
    width = _knots((-200, -40, 20, 60, 95, 125, 150, 200), (12, 12, 13, 14, 15, 17, 24, 40), s)
    line = _knots((-160, 60, 150), (change.shift, change.shift, 0.0), s)

    def middle(scale: float, forward: float, deep: float) -> Column:
        return Column(
            cx=line,
            cy=lambda z: forward + cage.back(z),
            a=lambda z: scale * width(z),
            b=_constant(deep),
            f=_constant(1.0),
            depth=(0.0, forward),
        )

    spine = Column(
        cx=_constant(0.0),
        cy=lambda z: back + 27.0 + cage.back(z),
        a=_knots((-230, -100, 60, 150, 230), (23.5, 20, 16, 15.5, 13), s),
        b=_knots((-230, -100, 60, 150, 230), (18, 16.5, 14.5, 11, 9), s),
        f=_constant(1.0),
        depth=(0.0, back + 27.0),
    )
    gutter = Column(
        cx=_constant(0.0),
        cy=lambda z: back - 20.0 + cage.back(z),
        a=_constant(48.0),
        b=_constant(62.0),
        f=_constant(1.0),
        depth=(0.0, back),
    )
    breasts = tuple(
        Ellipsoid.upright(
            (
                side * (78.0 * body.girth + 0.2 * body.breast),
                cage.radii[1] + 0.6 * body.fat,
                (-44.0 - 0.42 * body.breast) * s,
            ),
            (1.05 * body.breast, 0.40 * body.breast, body.breast),
        )
        for side in SIDES
        if body.breast > 0
    )
    return Anatomy(
        lungs=lungs,
        domes=domes,
        saddle=Paraboloid(
            (12.0 + change.shift, 24.0),
            0.5 * (domes[LEFT].top + domes[RIGHT].top) - 9.0,
            (62.0 * body.girth, 0.9 * cage.radii[1]),
            34.0,
        ),
        heart=heart,
        aorta=aorta,
        vessels=vessels,
        mediastinum=(middle(0.8, 22.0, 22.0), middle(1.3, -31.0, 25.0)),
        spine=spine,
        gutter=gutter,
        torso=_torso(body, cage),
        limbs=_limbs(body, pose, cage),
        breasts=breasts,
        cage=cage,
    )
