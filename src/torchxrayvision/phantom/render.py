"""Render an image: solids, lungs, findings, vessels, bones, devices, detector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import DatasetError, UnknownNameError
from torchxrayvision.phantom import detector
from torchxrayvision.phantom.body import SIDE_NAMES, SIDES
from torchxrayvision.phantom.devices import add_devices
from torchxrayvision.phantom.drawing import APPEARANCE, draw, generator
from torchxrayvision.phantom.findings import ADD, add_fractures
from torchxrayvision.phantom.pleura import pleura
from torchxrayvision.phantom.records import OPACITIES, SITES, VIEWS, Simulation
from torchxrayvision.phantom.scene import LUNG, SOFT, build_scene, collapsed
from torchxrayvision.phantom.site import choose, expose, frame, grey, place_marker
from torchxrayvision.phantom.skeleton import CORTEX, NAMED, build_skeleton, vertebra_levels
from torchxrayvision.phantom.solids import Column, Ellipsoid
from torchxrayvision.phantom.tubes import Canvas, Tubes
from torchxrayvision.phantom.vessels import build_vessels, vessel_tubes
from torchxrayvision.phantom.visibility import stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.phantom.prevalence import Correlations
    from torchxrayvision.phantom.records import Case
    from torchxrayvision.phantom.scene import Scene
    from torchxrayvision.phantom.skeleton import Break

    Float32 = NDArray[np.float32]
    Mask = NDArray[np.bool_]


def _vessels(scene: Scene) -> Float32:
    case = scene.case
    laid = []
    vessels = build_vessels(
        scene.anatomy,
        case.physique.seed,
        shift=case.change.shift,
        upper=case.severity["Edema"],
        sparse=case.severity["Emphysema"],
    )
    for side, (branches, sizes) in vessels.items():
        lung = scene.anatomy.lungs[side]
        if case.severity["Pneumothorax"] > 0 and case.sides["Pneumothorax"] == side:
            lung = collapsed(scene.anatomy, side, case.severity["Pneumothorax"])
        inside = lung.contains(branches)
        inside &= branches[..., 2] > scene.anatomy.domes[side].level(branches)
        for solid in (*scene.anatomy.heart.values(), *scene.anatomy.aorta.values()):
            inside &= ~solid.contains(branches)
        laid.append(vessel_tubes(branches, sizes, inside * np.float32(SOFT - LUNG)))
    canvas = Canvas(scene.plan)
    canvas.add(*laid)
    return canvas.image()


def _spine(scene: Scene) -> None:
    """Add the vertebral bodies: sponge between dense end plates, discs without bone."""
    spine = scene.anatomy.spine
    found = scene.projected.span(spine)
    if not found:
        return
    place, thick = found[0], found[1].length()
    rays = scene.rays.window(place)
    depth = np.float32(rays.depth(*spine.depth))
    height = (rays.z + rays.dz * depth)[:, 0].astype(np.float64)
    levels = vertebra_levels(scene.anatomy.cage.stature)
    edges = np.concatenate([[levels[0] - 17], (levels[1:] + levels[:-1]) / 2, [levels[-1] + 10]])
    gap = np.abs(height[:, None] - edges[None, :]).min(axis=1)
    body = np.clip((gap - 2.0) / 1.2, 0, 1)
    plate = np.exp(-(((gap - 3.6) / 1.3) ** 2))
    profile = (0.085 * body + 0.11 * plate).astype(np.float32)[:, None]
    scene.path[place] += thick * (profile * np.float32(CORTEX * scene.case.physique.bone))


def _shoulders(scene: Scene) -> None:
    """Add the heads of the humeri: sponge in a thin shell."""
    cage, lift = scene.anatomy.cage, 12.0 * scene.case.pose.arms
    if scene.case.pose.overhead:
        return
    mineral = CORTEX * scene.case.physique.bone
    for side in SIDES:
        x = side * (cage.offset + cage.radii[0] + 46.0)
        center = (x, -14.0, 124.0 * cage.stature + 0.4 * lift)
        scene.carve(Ellipsoid.upright(center, (24.0, 23.0, 24.0)), mineral)
        scene.carve(Ellipsoid.upright(center, (22.8, 21.8, 22.8)), -0.86 * mineral)


def _airways(scene: Scene) -> Float32:
    """Trachea and main bronchi, as air in soft tissue."""
    s, shift = scene.anatomy.cage.stature, scene.case.change.shift
    cage = scene.anatomy.cage

    fork = 52.0 * s
    trachea = Column(
        cx=lambda z: np.interp(z, [fork, 130 * s, 200 * s], [4 + shift, 0.5 * shift, 0.0]),
        cy=lambda z: (
            np.interp(z, [fork, 130 * s, 215 * s], [-16.0, -4.0, 6.0]) + 0.7 * cage.back(z)
        ),
        a=lambda z: np.full_like(z, 8.0),
        b=lambda z: np.full_like(z, 8.6),
        f=lambda z: np.clip((z - fork) / 9.0, 0.0, 1.0),
        depth=(0.0, 0.0),
    )
    found = scene.projected.span(trachea)
    if found:
        place, air = found[0], found[1].length()
        scene.path[place] -= air * np.float32(0.95 * SOFT)
        scene.shadows["Weasand"] = np.zeros(scene.rays.shape, bool)
        scene.shadows["Weasand"][place] = air > 0
    right = [
        (2 + shift, -15.0, fork + 4),
        (-18 + shift, -14.0, fork - 24),
        (-34 + shift, -12.0, fork - 50),
    ]
    left = [
        (6 + shift, -15.0, fork + 4),
        (26 + shift, -16.0, fork - 18),
        (44 + shift, -18.0, fork - 36),
    ]
    canvas = Canvas(scene.plan)
    for path, radii in ((right, (7.0, 6.2, 4.2)), (left, (6.4, 5.6, 4.0))):
        t = np.linspace(0, 1, 14)
        knots = np.asarray(path, float)
        points = np.stack([np.interp(t, [0, 0.5, 1], knots[:, k]) for k in range(3)], axis=-1)
        radius = np.interp(t, [0, 0.5, 1], radii)
        both = np.stack([radius] * 2, -1)
        canvas.add(Tubes(points[None], both[None], (np.pi * radius**2 * SOFT)[None]))
    return canvas.image()


def _bowel(scene: Scene) -> None:
    """Gas in the stomach under the left dome, and in the colon."""
    rng = generator(scene.case.seed, scene.case.index, 3, 99)
    dome = scene.anatomy.domes[1]
    erect = scene.case.pose.erect
    size = 20.0 + 14.0 * float(rng.random())
    center = (52.0 + 14 * float(rng.random()), -8.0, dome.top - size * 0.9 - 9.0)
    filled = rng.random() < 0.75
    stomach = Ellipsoid.upright(center, (size * 1.35, size, size))
    up = (0.0, 0.0, 1.0) if erect else (0.0, 1.0, 0.0)
    offset = center[2] - 0.25 * size if erect else center[1] + 0.35 * size
    if filled:
        scene.carve(stomach, -0.9 * SOFT, (up, offset))
    for _ in range(int(rng.integers(1, 5))):
        radius = 9.0 + 9.0 * float(rng.random())
        x = 40.0 + 70.0 * float(rng.random())
        place = (x, 30.0, dome.top - 40.0 - 40.0 * float(rng.random()) - 0.3 * abs(x - 70))
        gas = Ellipsoid.upright(place, (radius * 1.3, radius, radius * 0.9))
        scene.carve(gas, -0.8 * SOFT)


def _surface(scene: Scene, side: int) -> Mask:
    """The upper 12 mm of the shadow of one half of the diaphragm."""
    half = scene.sides[side]
    shadow = half.dome.hull.hit() & half.cavity.hit()
    deep = max(round(12.0 / scene.plan.spacing), 1)
    lower = np.zeros_like(shadow)
    lower[deep:] = shadow[:-deep]
    whole = np.zeros(scene.rays.shape, bool)
    whole[half.window] = shadow & ~lower
    return whole


def _masks(scene: Scene) -> dict[str, Mask]:
    """Name the shadows of organs as ChestX-Det does."""
    masks = dict(scene.shadows)
    organs = masks["Heart"] | masks["Mediastinum"] | masks["Aorta"]
    lateral = scene.case.view == "L"
    for side in SIDES:
        half = scene.sides[side]
        field = half.free_length > 3.0
        if not lateral:
            field &= ~half.dome.hull.hit() & ~organs[half.window]
        whole = np.zeros_like(organs)
        whole[half.window] = field
        masks[f"{SIDE_NAMES[side]} Lung"] = whole
        masks["Facies Diaphragmatica"] = masks.get("Facies Diaphragmatica", False) | _surface(
            scene, side
        )
    return masks


def _bones(scene: Scene, breaks: tuple[Break, ...]) -> dict[str, Mask]:
    """Lay all bones down; give the shadows of clavicles and scapulae."""
    masks = {}
    rest: list[Tubes] = []
    skeleton = build_skeleton(scene.anatomy, scene.case.physique, scene.case.pose, breaks)
    for name, tubes in skeleton.items():
        if name not in NAMED:
            rest += tubes
            continue
        canvas = Canvas(scene.plan)
        canvas.add(*tubes)
        image = canvas.image()
        masks[name] = image > 0.012
        scene.path += image
    canvas = Canvas(scene.plan)
    canvas.add(*rest)
    scene.path += canvas.image()
    return masks


def simulate(
    index: int,
    *,
    seed: int = 0,
    size: int = 512,
    site: str = "A",
    views: Sequence[str] = VIEWS,
    findings: Mapping[str, float] | None = None,
    others: bool = True,
    correlations: Correlations | None = None,
) -> Simulation:
    """Simulate one radiograph.

    The same (seed, index) gives the same image on any number of workers and any machine. Patient,
    findings, view and appearance have random streams of their own: `site` changes how images look
    and nothing else, and forcing one finding leaves the patient and the other findings as they are.

    Args:
        index: Number of the image, from 0. Images in a row may be of one patient: see `patient_of`.
        seed: Seed of the collection.
        size: Rows and columns, 32 to 4096. Geometry and labels do not depend on it.
        site: Where it is taken, one of `SITES`.
        views: Views to draw from.
        findings: Finding to the severity that it is to have, 0 for absent. Lung Opacity above 0
            adds a consolidation unless there is another opacity.
        others: False leaves out the findings that are not forced.
        correlations: Prevalences and odds; None for the defaults.

    Returns:
        The image with labels, severities, masks and the patient.

    Raises:
        DatasetError: If a number is out of range.
        UnknownNameError: If a finding or site is not simulated.
        ViewError: If a view is not simulated.

    Example:
        >>> made = simulate(0, size=64, views=["PA"], findings={"Effusion": 0.6}, others=False)
        >>> made.image.shape, made.labels["Effusion"], sorted(made.masks)
        ((1, 64, 64), 1.0, ['Effusion'])
    """
    if site not in SITES:
        raise UnknownNameError("site", site, SITES)
    if not 32 <= size <= 4096:
        msg = f"size is 32 to 4096 pixels, got {size}"
        raise DatasetError(msg)
    case = draw(
        index, seed=seed, views=views, findings=findings, others=others, correlations=correlations
    )
    return render(case, size=size, site=site)


def render(case: Case, *, size: int, site: str) -> Simulation:
    """Render a case that `draw` drew, at so many rows and columns."""
    scene = build_scene(case, size)
    pleura(scene)
    for name, add in ADD.items():
        if case.severity[name] > 0:
            add(scene, case.severity[name], stream(scene, name))
    _bowel(scene)
    _shoulders(scene)
    breaks = add_fractures(scene)
    bones = _bones(scene, breaks)
    path = scene.path
    path += _vessels(scene)
    path -= _airways(scene)
    _spine(scene)
    add_devices(scene)
    anatomy = {**_masks(scene), **bones}
    if case.severity["Cardiomegaly"] > 0:
        scene.mark("Cardiomegaly", anatomy["Heart"])
    if case.severity["Emphysema"] > 0:
        scene.mark("Emphysema", anatomy["Left Lung"] | anatomy["Right Lung"])
    for name in OPACITIES:
        if case.severity[name] > 0:
            scene.mark("Lung Opacity", scene.masks[name])
    path *= scene.rays.obliquity()
    image = _picture(scene, np.maximum(path, np.float32(0)), site, anatomy)
    return Simulation(
        image=image[None],
        labels=case.labels,
        severity=case.severity,
        masks=scene.masks,
        anatomy=anatomy,
        patient=case.patient,
        view=case.view,
        site=site,
        cardiothoracic_ratio=case.cardiothoracic_ratio,
        pixel_spacing=scene.plan.spacing,
    )


def _quantile(values: Float32, share: float) -> float:
    """Value below which a share lies, without the rounding of means."""
    ordered = np.sort(values, axis=None)
    return float(ordered[int(share * (len(ordered) - 1))]) if len(ordered) else 2.0


def _picture(scene: Scene, path: Float32, site: str, anatomy: dict[str, Mask]) -> Float32:
    rng = generator(scene.case.seed, scene.case.index, APPEARANCE)
    look = choose(site, scene.case.view, rng)
    place_marker(path, look, rng)
    coarse = path[::4, ::4]
    lungs = (anatomy["Left Lung"] | anatomy["Right Lung"])[::4, ::4]
    lung = _quantile(coarse[lungs], 0.5)
    measured = expose(path, look, scene.plan.spacing, lung, rng)
    coarse = measured[::4, ::4]
    lung, dense = _quantile(coarse[lungs], 0.5), _quantile(coarse[coarse > 1.0], 0.9)
    if look.unsharp > 0:
        low = detector.smooth(measured, look.unsharp_width / scene.plan.spacing)
        low *= np.float32(-look.unsharp)
        measured *= np.float32(1 + look.unsharp)
        measured += low
    shade = grey(measured, lung, dense, look)
    frame(shade, look, scene.case.view)
    np.maximum(shade, np.float32(0), out=shade)
    np.minimum(shade, np.float32(1), out=shade)
    shade *= np.float32(4095)
    np.round(shade, out=shade)
    shade *= np.float32(2048 / 4095)
    shade -= np.float32(1024)
    return shade
