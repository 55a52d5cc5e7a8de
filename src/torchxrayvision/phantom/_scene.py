"""One chest in front of one detector: how far each ray runs through lung, fluid, air and tissue."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom._anatomy import SIDES, Anatomy, build
from torchxrayvision.phantom._measure import projection
from torchxrayvision.phantom._solids import Ellipsoid, Paraboloid, Span, Union, half_space

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.phantom._rays import Projection, Rays
    from torchxrayvision.phantom._types import Case

    Float32 = NDArray[np.float32]
    Mask = NDArray[np.bool_]

# Attenuation in 1/mm at an effective energy of about 65 keV (120 kVp behind 3 mm of aluminium).
# Source: NIST XCOM and tables of Hubbell and Seltzer, NISTIR 5632: ICRU-44 soft tissue 1.06 g/cm3,
# adipose tissue 0.95 g/cm3, lung 0.26 g/cm3 when breathing out.
SOFT = 0.0205
FAT = 0.0180
LUNG = 0.0045
FLUID = 0.0203


@dataclass
class Side:
    """One half of the chest.

    Args:
        cavity: The pleural cavity.
        lung: The part that the visceral pleura encloses.
        organs: Heart, mediastinum, spine and diaphragm, joined.
        below: The half of the diaphragm.
    """

    cavity: Span
    lung: Span
    organs: Union
    below: Span

    def within(self, span: Span) -> Float32:
        """Stretch of a span in the cavity and outside the organs, mm of w."""
        part = span & self.cavity
        return np.maximum(part.length() - self.organs.length_within(part), np.float32(0))


@dataclass
class Scene:
    """What findings and devices add to.

    Args:
        case: The film.
        plan: Where focal spot and detector are.
        anatomy: Solids of the chest.
        rays: The ray of each pixel.
        sides: Both halves of the chest.
        heart: Stretch in the heart, mm of w.
        air: Side to the stretch in aerated lung, mm of w.
        path: Attenuation of soft tissue, lung and fluid along each ray, in w.
        masks: Finding to where it is seen.
    """

    case: Case
    plan: Projection
    anatomy: Anatomy
    rays: Rays
    sides: dict[int, Side]
    shadows: dict[str, Mask]
    path: Float32
    air: dict[int, Float32] = field(default_factory=dict)
    masks: dict[str, Mask] = field(default_factory=dict)

    def mark(self, finding: str, mask: Mask) -> None:
        """Add pixels to the mask of a finding."""
        known = self.masks.get(finding)
        self.masks[finding] = mask.copy() if known is None else known | mask


def _body(anatomy: Anatomy, rays: Rays, fat: float) -> Float32:
    """Attenuation of everything under the skin as if it were soft tissue and fat."""
    skin = anatomy.torso.span(rays)
    outer = Union(skin)
    for limb in anatomy.limbs:
        outer.add(limb.span(rays))
    for breast in anatomy.breasts:
        outer.add(breast.span(rays))
    layer = 0.62 * fat
    torso = anatomy.torso
    lean = replace(
        torso, a=lambda z: torso.a(z) - layer, b=lambda z: torso.b(z) - 0.7 * layer
    ).span(rays)
    path = outer.length() * np.float32(FAT)
    path += lean.length() * np.float32(SOFT - FAT)
    return path


def _organs(anatomy: Anatomy, rays: Rays) -> tuple[list[Span], dict[str, Mask]]:
    """Spans of what displaces lung, and the shadows that have names."""
    heart = {name: solid.span(rays) for name, solid in anatomy.heart.items()}
    aorta = {name: solid.span(rays) for name, solid in anatomy.aorta.items()}
    others = [solid.span(rays) for solid in anatomy.vessels.values()]
    middle = anatomy.mediastinum.span(rays)
    spine = anatomy.spine.span(rays)
    shadows = {
        "Heart": np.logical_or.reduce([s.hit() for s in heart.values()]),
        "Aorta": np.logical_or.reduce([s.hit() for s in aorta.values()]),
        "Mediastinum": middle.hit() | np.logical_or.reduce([s.hit() for s in others]),
        "Spine": spine.hit(),
    }
    return [middle, *heart.values(), *others, *aorta.values(), spine], shadows


def collapsed(anatomy: Anatomy, side: int, severity: float) -> Anatomy:
    """Give the chest with one lung drawn back from the wall by a pneumothorax."""
    lung = anatomy.lungs[side]
    cage = anatomy.cage
    gap = 5.0 + 44.0 * severity**1.3
    drop = 10.0 + 62.0 * severity**1.2
    radius = cage.radii[0] - 0.5 * gap
    smaller = replace(cage, apex=cage.apex - drop)
    center = side * (cage.offset - 0.5 * gap)
    visceral = replace(
        lung,
        cx=lambda z: np.full_like(z, center),
        a=lambda z: np.full_like(z, radius),
        b=lambda z: np.full_like(z, cage.radii[1] - 0.12 * gap),
        f=smaller.scale,
    )
    return replace(anatomy, lungs={**anatomy.lungs, side: visceral})


def build_scene(case: Case, size: int) -> Scene:
    """Place the chest before the detector, healthy but for the shapes that findings change.

    Args:
        case: The film.
        size: Rows and columns.

    Returns:
        The scene, with air and path of lungs not yet drawn.
    """
    anatomy = build(case.physique, case.pose, case.change)
    plan = projection(case.physique, case.pose, case.view, size)
    rays = plan.rays()
    spans, shadows = _organs(anatomy, rays)
    sides = {}
    for side in SIDES:
        below = anatomy.domes[side].span(rays)
        organs = Union(spans[0])
        for span in spans[1:]:
            organs.add(span)
        organs.add(below)
        cavity = anatomy.lungs[side].span(rays) & half_space(rays, (side, 0, 0), 4.0)
        sides[side] = Side(cavity, cavity, organs, below)
    return Scene(
        case=case,
        plan=plan,
        anatomy=anatomy,
        rays=rays,
        sides=sides,
        shadows=shadows,
        path=_body(anatomy, rays, case.physique.fat),
    )


def bowl(anatomy: Anatomy, side: int, level: float, rise: float) -> Paraboloid:
    """The upper surface of fluid, which creeps up the wall as a meniscus."""
    cage = anatomy.cage
    return Paraboloid(
        (side * cage.offset * 0.9, 0.0), level, (cage.radii[0], cage.radii[1]), rise, sign=-1.0
    )


def blobs(
    scene: Scene, side: int, solids: list[Ellipsoid]
) -> Float32:
    """Stretch in any of some ellipsoids inside one lung, mm of w, float32 (H, W)."""
    total = np.zeros(scene.rays.shape, np.float32)
    size = scene.plan.size
    half = scene.sides[side]
    for solid in solids:
        left, right, top, bottom = solid.extent(scene.plan)
        rows = slice(max(int(top), 0), min(int(bottom) + 2, size))
        columns = slice(max(int(left), 0), min(int(right) + 2, size))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        window = (rows, columns)
        span = solid.span(scene.rays.window(window))
        lung = Span(half.lung.enter[window], half.lung.leave[window])
        total[window] += (span & lung).length()
    return np.minimum(total, scene.air[side])
