"""One chest in front of one detector: how far each ray runs through lung, fluid, air and tissue."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.anatomy import Anatomy, build
from torchxrayvision.phantom.body import SIDES
from torchxrayvision.phantom.detector import enlarge
from torchxrayvision.phantom.measure import projection
from torchxrayvision.phantom.solids import Paraboloid
from torchxrayvision.phantom.spans import (
    EVERYWHERE,
    Shadows,
    Span,
    Union,
    around,
    half_space,
    relative,
    window_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from torchxrayvision.phantom.anatomy import Anatomy
    from torchxrayvision.phantom.rays import Projection, Rays
    from torchxrayvision.phantom.records import Case
    from torchxrayvision.phantom.solids import Column, Ellipsoid, Solid
    from torchxrayvision.phantom.spans import Window

    Float32 = NDArray[np.float32]
    Mask = NDArray[np.bool_]
    Point = tuple[float, float, float]


class Side:
    """One half of the chest, within the window of its shadow.

    Args:
        anatomy: Solids of the chest.
        projected: What the rays meet of these.
        side: 1 for the left half, -1 for the right.

    Attributes:
        window: Rows and columns of the picture that the arrays cover.
        rays: Their rays.
        cavity: The pleural cavity.
        organs: Heart, mediastinum, spine and diaphragm, joined.
        dome: The half of the diaphragm.
        free_length: Stretch in the cavity and outside the organs, mm of w.
        lung: The part of the cavity that the visceral pleura encloses; at first all.
        air: Stretch in aerated lung, mm of w; at first `free_length`.
    """

    def __init__(self, anatomy: Anatomy, projected: Shadows, side: int) -> None:
        lung = anatomy.lungs[side]
        self.window: Window = projected.window(lung) or projected.frame
        self.rays: Rays = projected.rays.window(self.window)
        self.cavity: Span = lung.span(self.rays) & half_space(self.rays, (side, 0, 0), 0.0)
        self.dome, self.organs = Union(self.rays.shape), Union(self.rays.shape)
        self._join(anatomy, projected, anatomy.domes[side])
        self.free_length: Float32 = self.within(self.cavity)
        self.lung, self.air = self.cavity, self.free_length

    def _join(self, anatomy: Anatomy, projected: Shadows, dome: Solid) -> None:
        """Join all that narrows the cavity."""
        front, back = anatomy.mediastinum
        middle = Union(self.rays.shape)
        for union, solids in (
            (self.dome, [dome, anatomy.saddle]),
            (middle, [front, *anatomy.heart.values()]),
        ):
            places = []
            for place, span in projected.spans(solids, self.window):
                union.add(span, place, touching=True)
                places.append(place)
            if places:
                box = around(places)
                self.organs.add(union.hull.part(box).clipped(self.cavity.part(box)), box)
        # From front to back, since a gap that a later solid filled would stay a gap.
        others: list[Solid] = [*anatomy.vessels.values(), back, *anatomy.aorta.values()]
        for place, span in projected.spans([*others, anatomy.spine, anatomy.gutter], self.window):
            self.organs.add(span.clipped(self.cavity.part(place)), place)

    def within(self, span: Span, window: Window = EVERYWHERE) -> Float32:
        """Stretch of a span in the cavity that lies outside the organs, mm of w."""
        stretch = span.length()
        stretch -= self.organs.length_within(span, window)
        return np.maximum(stretch, np.float32(0), out=stretch)

    def blobs(self, solids: Iterable[Ellipsoid], plan: Projection) -> Float32:
        """Stretch of aerated lung in any of some ellipsoids, mm of w."""
        thick = np.zeros(self.rays.shape, np.float32)
        windows = [(solid, window_of(solid.extent(plan), self.window)) for solid in solids]
        places = [(solid, relative(place, self.window)) for solid, place in windows if place]
        if not places:
            return thick
        box = around([place for _, place in places])
        joined = Union(self.rays.window(box).shape)
        for solid, place in places:
            joined.add(solid.span(self.rays.window(place)), relative(place, box), touching=True)
        stretch = self.within(self.lung.part(box) & joined.hull, box)
        np.minimum(stretch, self.air[box], out=thick[box])
        return thick


# Attenuation in 1/mm at an effective energy of about 65 keV (120 kVp behind 3 mm of aluminium).
# Source: NIST XCOM and tables of Hubbell and Seltzer, NISTIR 5632: ICRU-44 soft tissue 1.06 g/cm3,
# adipose tissue 0.95 g/cm3, lung 0.26 g/cm3 when breathing out.
SOFT = 0.0205
FAT = 0.0180
LUNG = 0.0045
FLUID = 0.0203


@dataclass
class Scene:
    """What findings and devices add to.

    Args:
        case: The image.
        plan: Where focal spot and detector are.
        anatomy: Solids of the chest.
        projected: What the rays meet of these.
        sides: Both halves of the chest.
        shadows: Organ to where it is seen.
        path: Attenuation along each ray, in w.
        masks: Finding to where it is seen.
    """

    case: Case
    plan: Projection
    anatomy: Anatomy
    projected: Shadows
    sides: dict[int, Side]
    shadows: dict[str, Mask]
    path: Float32
    masks: dict[str, Mask] = field(default_factory=dict)

    @property
    def rays(self) -> Rays:
        """The ray of each pixel."""
        return self.projected.rays

    def mark(self, finding: str, mask: Mask, window: Window | None = None) -> None:
        """Add pixels to the mask of a finding."""
        whole = self.masks.setdefault(finding, np.zeros(self.rays.shape, bool))
        whole[window or EVERYWHERE] |= mask

    def carve(
        self, solid: Ellipsoid, attenuation: float, above: tuple[Point, float] | None = None
    ) -> None:
        """Change the path inside an ellipsoid.

        Args:
            solid: The ellipsoid.
            attenuation: Change for each millimetre.
            above: Normal and offset of a plane that cuts off what lies below it.
        """
        place = self.projected.window(solid)
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
    projected = Shadows(coarse)
    outer = Union(projected.rays.shape)
    outer.add(anatomy.torso.span(projected.rays))
    limbs = () if case.pose.overhead else anatomy.limbs
    for place, span in projected.spans(limbs, projected.frame):
        outer.add(span, place)
    layer, torso = 0.62 * case.physique.fat, anatomy.torso
    lean = replace(torso, a=lambda z: torso.a(z) - layer, b=lambda z: torso.b(z) - 0.7 * layer)
    path = outer.length() * np.float32(FAT)
    path += lean.span(projected.rays).length() * np.float32(SOFT - FAT)
    for place, span in projected.spans(
        [limb.scaled(0.8, limb.center) for limb in limbs], projected.frame
    ):
        path[place] += span.length() * np.float32(SOFT - FAT)
    return enlarge(path, (plan.size, plan.size))


def _breasts(scene: Scene) -> None:
    """Add the breasts, which fade upwards into the chest wall."""
    weight = 0.94 if scene.case.view != "L" else 0.40  # raised arms draw them flat
    for solid in scene.anatomy.breasts:
        place = scene.projected.window(solid)
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


def _shadow(solids: Iterable[Solid], projected: Shadows) -> Mask:
    mask = np.zeros(projected.rays.shape, bool)
    for place, span in projected.spans(solids, projected.frame):
        mask[place] |= span.hit()
    return mask


def _shadows(anatomy: Anatomy, projected: Shadows) -> dict[str, Mask]:
    """Organ to where it is seen."""
    vessels = [v for name, v in anatomy.vessels.items() if "hilum" not in name]
    return {
        "Heart": _shadow(anatomy.heart.values(), projected),
        "Aorta": _shadow(anatomy.aorta.values(), projected),
        "Mediastinum": _shadow([*anatomy.mediastinum, *vessels], projected),
        "Spine": _shadow([anatomy.spine], projected),
        "Left Hilus Pulmonis": _shadow([anatomy.vessels["hilum left"]], projected),
        "Right Hilus Pulmonis": _shadow([anatomy.vessels["hilum right"]], projected),
    }


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

    The pleural cavities are still full of soft tissue.
    """
    anatomy = build(case.physique, case.pose, case.change)
    plan = projection(case.physique, case.pose, case.view, size)
    projected = Shadows(plan)
    scene = Scene(
        case=case,
        plan=plan,
        anatomy=anatomy,
        projected=projected,
        sides={side: Side(anatomy, projected, side) for side in SIDES},
        shadows=_shadows(anatomy, projected),
        path=_body(case, anatomy, plan),
    )
    _breasts(scene)
    return scene


def bowl(anatomy: Anatomy, side: int, level: float, rise: float) -> Paraboloid:
    """The upper surface of fluid, which creeps up the wall as a meniscus."""
    cage = anatomy.cage
    return Paraboloid(
        (side * cage.offset * 0.62, 0.0), level, (cage.radii[0], cage.radii[1]), rise, sign=-1.0
    )
