"""One chest in front of one detector: how far each ray runs through lung, fluid, air and tissue."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom._anatomy import Anatomy, build
from torchxrayvision.phantom._body import SIDES
from torchxrayvision.phantom._detector import enlarge
from torchxrayvision.phantom._measure import projection
from torchxrayvision.phantom._solids import Paraboloid, Span, Union, half_space, relative, window_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from torchxrayvision.phantom._rays import Projection, Rays
    from torchxrayvision.phantom._solids import Column, Ellipsoid, Window
    from torchxrayvision.phantom._types import Case

    Float32 = NDArray[np.float32]
    Mask = NDArray[np.bool_]
    Point = tuple[float, float, float]

# Attenuation in 1/mm at an effective energy of about 65 keV (120 kVp behind 3 mm of aluminium).
# Source: NIST XCOM and tables of Hubbell and Seltzer, NISTIR 5632: ICRU-44 soft tissue 1.06 g/cm3,
# adipose tissue 0.95 g/cm3, lung 0.26 g/cm3 when breathing out.
SOFT = 0.0205
FAT = 0.0180
LUNG = 0.0045
FLUID = 0.0203


@dataclass
class Side:
    """One half of the chest, within the window of its shadow.

    Args:
        window: Rows and columns of the picture that the arrays cover.
        rays: Their rays.
        cavity: The pleural cavity.
        lung: The part of it that the visceral pleura encloses.
        organs: Heart, mediastinum, spine and diaphragm, joined.
        below: The half of the diaphragm.
        air: Stretch in aerated lung, mm of w.
    """

    window: Window
    rays: Rays
    cavity: Span
    lung: Span
    organs: Union
    below: Span
    air: Float32

    def within(self, span: Span) -> Float32:
        """Stretch of a span in the cavity and outside the organs, mm of w."""
        part = span & self.cavity
        stretch = part.length()
        stretch -= self.organs.length_within(part)
        return np.maximum(stretch, np.float32(0), out=stretch)

    def blobs(self, solids: Iterable[Ellipsoid], plan: Projection) -> Float32:
        """Stretch of aerated lung in any of some ellipsoids, mm of w."""
        joined = Union(self.rays.shape)
        for solid in solids:
            place = window_of(solid.extent(plan), self.window)
            if place:
                here = relative(place, self.window)
                joined.add(solid.span(self.rays.window(here)), here, touching=True)
        stretch = self.within(self.lung & joined.hull)
        return np.minimum(stretch, self.air, out=stretch)


@dataclass
class Scene:
    """What findings and devices add to.

    Args:
        case: The film.
        plan: Where focal spot and detector are.
        anatomy: Solids of the chest.
        rays: The ray of each pixel.
        sides: Both halves of the chest.
        shadows: Organ to where it is seen.
        path: Attenuation along each ray, in w.
        masks: Finding to where it is seen.
    """

    case: Case
    plan: Projection
    anatomy: Anatomy
    rays: Rays
    sides: dict[int, Side]
    shadows: dict[str, Mask]
    path: Float32
    masks: dict[str, Mask] = field(default_factory=dict)

    @property
    def frame(self) -> Window:
        """The window of the whole picture."""
        return slice(0, self.plan.size), slice(0, self.plan.size)

    def mark(self, finding: str, mask: Mask, window: Window | None = None) -> None:
        """Add pixels to the mask of a finding."""
        size = self.plan.size
        whole = self.masks.setdefault(finding, np.zeros((size, size), bool))
        whole[window or self.frame] |= mask

    def carve(
        self, solid: Ellipsoid, attenuation: float, above: tuple[Point, float] | None = None
    ) -> None:
        """Change the path inside an ellipsoid.

        Args:
            solid: The ellipsoid.
            attenuation: Change for each millimetre.
            above: Normal and offset of a plane that cuts off what lies below it.
        """
        place = window_of(solid.extent(self.plan), self.frame)
        if place:
            rays = self.rays.window(place)
            span = solid.span(rays)
            if above is not None:
                span &= half_space(rays, *above)
            self.path[place] += span.length() * np.float32(attenuation)


def _body(case: Case, anatomy: Anatomy, plan: Projection) -> Float32:
    """Attenuation of all that is under the skin as if it were fat and soft tissue.

    It changes slowly, so every other row and column is enough.
    """
    coarse = replace(plan, size=plan.size // 2, spacing=plan.spacing * plan.size / (plan.size // 2))
    rays = coarse.rays()
    whole = (slice(0, coarse.size), slice(0, coarse.size))
    outer = Union(rays.shape)
    outer.add(anatomy.torso.span(rays))
    limbs = () if case.pose.overhead else anatomy.limbs
    for solid in limbs:
        place = window_of(solid.extent(coarse), whole)
        if place:
            outer.add(solid.span(rays.window(place)), place)
    layer, torso = 0.62 * case.physique.fat, anatomy.torso
    lean = replace(torso, a=lambda z: torso.a(z) - layer, b=lambda z: torso.b(z) - 0.7 * layer)
    path = outer.length() * np.float32(FAT)
    path += lean.span(rays).length() * np.float32(SOFT - FAT)
    for limb in limbs:
        place = window_of(limb.extent(coarse), whole)
        if place:
            muscle = limb.scaled(0.8, limb.center).span(rays.window(place))
            path[place] += muscle.length() * np.float32(SOFT - FAT)
    return enlarge(path, (plan.size, plan.size))


def _breasts(scene: Scene) -> None:
    """Add the breasts, which fade upwards into the chest wall."""
    weight = 0.94 if scene.case.view != "L" else 0.40  # raised arms draw them flat
    for solid in scene.anatomy.breasts:
        place = window_of(solid.extent(scene.plan), scene.frame)
        if not place:
            continue
        rays = scene.rays.window(place)
        chord = solid.span(rays).length()
        depth = np.float32(rays.depth(*solid.center[:2]))
        top = solid.center[2] + 0.95 * float(np.abs(solid.axes[:, 2]).max())
        fade = (np.float32(top) - (rays.z + rays.dz * depth)) / np.float32(
            1.2 * (top - solid.center[2])
        )
        scene.path[place] += chord * np.clip(fade, 0, 1) * np.float32(weight * FAT)


def _shadow(solids: Iterable[Ellipsoid | Column], scene: Scene) -> Mask:
    mask = np.zeros(scene.rays.shape, bool)
    for solid in solids:
        place = window_of(solid.extent(scene.plan), scene.frame)
        if place:
            mask[place] |= solid.span(scene.rays.window(place)).hit()
    return mask


def _shadows(scene: Scene) -> dict[str, Mask]:
    anatomy = scene.anatomy
    vessels = [v for name, v in anatomy.vessels.items() if "hilum" not in name]
    return {
        "Heart": _shadow(anatomy.heart.values(), scene),
        "Aorta": _shadow(anatomy.aorta.values(), scene),
        "Mediastinum": _shadow([*anatomy.mediastinum, *vessels], scene),
        "Spine": _shadow([anatomy.spine], scene),
        "Left Hilus Pulmonis": _shadow([anatomy.vessels["hilum left"]], scene),
        "Right Hilus Pulmonis": _shadow([anatomy.vessels["hilum right"]], scene),
    }


def _join(
    union: Union,
    solids: Iterable[Ellipsoid | Column],
    plan: Projection,
    window: Window,
    rays: Rays,
    within: Span | None = None,
) -> None:
    """Join solids: those that touch, or within a cavity those that need not."""
    for solid in solids:
        place = window_of(solid.extent(plan), window)
        if place:
            here = relative(place, window)
            span = solid.span(rays.window(here))
            span = span if within is None else span.clipped(within.part(here))
            union.add(span, here, touching=within is None)


def _side(anatomy: Anatomy, plan: Projection, rays: Rays, side: int) -> Side:
    whole = (slice(0, plan.size), slice(0, plan.size))
    lung = anatomy.lungs[side]
    window = window_of(lung.extent(plan), whole) or whole
    mine = rays.window(window)
    cavity = lung.span(mine) & half_space(mine, (side, 0, 0), 0.0)
    dome = Union(mine.shape)
    for solid in (anatomy.domes[side], anatomy.saddle):
        dome.add(solid.span(mine), touching=True)
    below = dome.hull
    front, back = anatomy.mediastinum
    center: list[Ellipsoid | Column] = [front, *anatomy.heart.values()]
    # From front to back, since a gap that a later solid filled would stay a gap.
    others: list[Ellipsoid | Column] = [*anatomy.vessels.values(), back, *anatomy.aorta.values()]
    others += [anatomy.spine, anatomy.gutter]
    middle, organs = Union(mine.shape), Union(mine.shape)
    _join(middle, center, plan, window, mine)
    organs.add(below.clipped(cavity))
    organs.add(middle.hull.clipped(cavity))
    _join(organs, others, plan, window, mine, within=cavity)
    return Side(window, mine, cavity, cavity, organs, below, np.zeros(mine.shape, np.float32))


def drawn_back(severity: float) -> tuple[float, float]:
    """How far a pneumothorax draws the lung from the side of the wall and from the apex, mm."""
    return 9.0 + 44.0 * severity**1.2, 14.0 + 62.0 * severity**1.2


def collapsed(anatomy: Anatomy, side: int, severity: float) -> Column:
    """Give the lung that a pneumothorax has drawn back from the wall."""
    cage = anatomy.cage
    gap, drop = drawn_back(severity)
    radius = cage.radii[0] - 0.5 * gap
    smaller = replace(cage, apex=cage.apex - drop)
    center = side * (cage.offset - 0.5 * gap)
    return replace(
        anatomy.lungs[side],
        cx=lambda z: np.full_like(z, center),
        a=lambda z: np.full_like(z, radius),
        b=lambda z: np.full_like(z, cage.radii[1] - 0.28 * gap),
        f=smaller.scale,
    )


def build_scene(case: Case, size: int) -> Scene:
    """Place the chest before the detector, healthy but for the shapes that findings change.

    Args:
        case: The film.
        size: Rows and columns.

    Returns:
        The scene, with pleural cavities still full of soft tissue.
    """
    anatomy = build(case.physique, case.pose, case.change)
    plan = projection(case.physique, case.pose, case.view, size)
    rays = plan.rays()
    scene = Scene(
        case=case,
        plan=plan,
        anatomy=anatomy,
        rays=rays,
        sides={side: _side(anatomy, plan, rays, side) for side in SIDES},
        shadows={},
        path=_body(case, anatomy, plan),
    )
    scene.shadows = _shadows(scene)
    _breasts(scene)
    return scene


def bowl(anatomy: Anatomy, side: int, level: float, rise: float) -> Paraboloid:
    """The upper surface of fluid, which creeps up the wall as a meniscus."""
    cage = anatomy.cage
    return Paraboloid(
        (side * cage.offset * 0.62, 0.0), level, (cage.radii[0], cage.radii[1]), rise, sign=-1.0
    )
