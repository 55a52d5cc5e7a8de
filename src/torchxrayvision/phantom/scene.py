"""One chest in front of one detector: how far each ray runs through lung, fluid, air and tissue."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.anatomy import Anatomy, build
from torchxrayvision.phantom.body import SIDES
from torchxrayvision.phantom.cast import Cast
from torchxrayvision.phantom.detector import enlarge
from torchxrayvision.phantom.measure import projection
from torchxrayvision.phantom.sides import Side
from torchxrayvision.phantom.solids import Paraboloid
from torchxrayvision.phantom.spans import EVERYWHERE, Union, half_space

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from torchxrayvision.phantom.rays import Projection, Rays
    from torchxrayvision.phantom.records import Case
    from torchxrayvision.phantom.solids import Column, Ellipsoid, Solid
    from torchxrayvision.phantom.spans import Window

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
class Scene:
    """What findings and devices add to.

    Args:
        case: The film.
        plan: Where focal spot and detector are.
        anatomy: Solids of the chest.
        cast: What the rays meet of these.
        sides: Both halves of the chest.
        shadows: Organ to where it is seen.
        path: Attenuation along each ray, in w.
        masks: Finding to where it is seen.
    """

    case: Case
    plan: Projection
    anatomy: Anatomy
    cast: Cast
    sides: dict[int, Side]
    shadows: dict[str, Mask]
    path: Float32
    masks: dict[str, Mask] = field(default_factory=dict)

    @property
    def rays(self) -> Rays:
        """The ray of each pixel."""
        return self.cast.rays

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
        place = self.cast.window(solid)
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
    cast = Cast(coarse)
    outer = Union(cast.rays.shape)
    outer.add(anatomy.torso.span(cast.rays))
    limbs = () if case.pose.overhead else anatomy.limbs
    for place, span in cast.spans(limbs, cast.frame):
        outer.add(span, place)
    layer, torso = 0.62 * case.physique.fat, anatomy.torso
    lean = replace(torso, a=lambda z: torso.a(z) - layer, b=lambda z: torso.b(z) - 0.7 * layer)
    path = outer.length() * np.float32(FAT)
    path += lean.span(cast.rays).length() * np.float32(SOFT - FAT)
    for place, span in cast.spans([limb.scaled(0.8, limb.center) for limb in limbs], cast.frame):
        path[place] += span.length() * np.float32(SOFT - FAT)
    return enlarge(path, (plan.size, plan.size))


def _breasts(scene: Scene) -> None:
    """Add the breasts, which fade upwards into the chest wall."""
    weight = 0.94 if scene.case.view != "L" else 0.40  # raised arms draw them flat
    for solid in scene.anatomy.breasts:
        place = scene.cast.window(solid)
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


def _shadow(solids: Iterable[Solid], cast: Cast) -> Mask:
    mask = np.zeros(cast.rays.shape, bool)
    for place, span in cast.spans(solids, cast.frame):
        mask[place] |= span.hit()
    return mask


def _shadows(anatomy: Anatomy, cast: Cast) -> dict[str, Mask]:
    """Organ to where it is seen."""
    vessels = [v for name, v in anatomy.vessels.items() if "hilum" not in name]
    return {
        "Heart": _shadow(anatomy.heart.values(), cast),
        "Aorta": _shadow(anatomy.aorta.values(), cast),
        "Mediastinum": _shadow([*anatomy.mediastinum, *vessels], cast),
        "Spine": _shadow([anatomy.spine], cast),
        "Left Hilus Pulmonis": _shadow([anatomy.vessels["hilum left"]], cast),
        "Right Hilus Pulmonis": _shadow([anatomy.vessels["hilum right"]], cast),
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

    Args:
        case: The film.
        size: Rows and columns.

    Returns:
        The scene, with pleural cavities still full of soft tissue.
    """
    anatomy = build(case.physique, case.pose, case.change)
    plan = projection(case.physique, case.pose, case.view, size)
    cast = Cast(plan)
    scene = Scene(
        case=case,
        plan=plan,
        anatomy=anatomy,
        cast=cast,
        sides={side: Side(anatomy, cast, side) for side in SIDES},
        shadows=_shadows(anatomy, cast),
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
