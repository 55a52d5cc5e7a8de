"""Pleural cavities: lung, free air, fluid and thickened pleura.

Source:
    Hansell et al., Fleischner Society: glossary of terms for thoracic imaging, Radiology 2008.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.body import SIDES
from torchxrayvision.phantom.drawing import generator
from torchxrayvision.phantom.scene import FLUID, LUNG, SOFT, bowl, collapsed, drawn_back
from torchxrayvision.phantom.visibility import SEEN, smooth_noise, visible_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.phantom.scene import Scene
    from torchxrayvision.phantom.solids import Paraboloid

    Float32 = NDArray[np.float32]
    Mask = NDArray[np.bool_]

LIME = 0.012  # excess of calcified over fibrous pleura, less than half of cortical bone's, 1/mm


def fluid_level(dome: Paraboloid, severity: float) -> float:
    """Height of the lowest point of the upper surface of an effusion, mm."""
    return dome.top - 0.62 * dome.height + 2.0 + 76.0 * severity


def pleura(scene: Scene) -> None:
    """Fill the pleural cavities: lung, and where there are, air and fluid."""
    case = scene.case
    fluid, free = case.severity["Effusion"], case.severity["Pneumothorax"]
    for side in SIDES:
        half = scene.sides[side]
        wet = fluid if fluid > 0 and case.sides["Effusion"] in (0, side) else 0.0
        whole = half.free_length
        if free > 0 and case.sides["Pneumothorax"] == side:
            whole = _pneumothorax(scene, side, free)
        if wet:
            share = 1.0 if case.sides["Effusion"] == side or side < 0 else 0.7
            whole = _effusion(scene, side, wet * share, whole)
        half.air = whole
        density = LUNG * (1 - 0.45 * case.severity["Emphysema"])
        rng = generator(case.physique.seed, 7, side + 1)
        loss = smooth_noise(rng, whole.shape, 36)
        loss *= np.float32(-0.05 * density)  # lobules hold unlike shares of air
        loss += np.float32(SOFT - density)
        loss *= whole
        scene.path[half.window] -= loss


def _above_dome(scene: Scene, side: int, mask: Mask) -> Mask:
    """Leave out of a mask what the diaphragm hides on a frontal image."""
    return mask if scene.case.view == "L" else mask & ~scene.sides[side].dome.hull.hit()


def _effusion(scene: Scene, side: int, severity: float, whole: Float32) -> Float32:
    """Let fluid fill the cavity up to a meniscus; give what is left of the lung."""
    half, dome = scene.sides[side], scene.anatomy.domes[side]
    level = fluid_level(dome, severity)
    above = bowl(scene.anatomy, side, level, 18.0 + 30.0 * severity).span(half.rays)
    left: Float32 = np.minimum(half.within(half.lung & above), whole)
    wet = whole - left
    scene.path[half.window] += wet * np.float32(FLUID - SOFT)
    half.lung = half.lung & above
    # Seen from the side, a thin sheet of fluid over the dome is lost in the other half.
    limit = 6 * SEEN if scene.case.view == "L" else 1.5 * SEEN
    scene.mark("Effusion", _above_dome(scene, side, visible_mask(wet, limit)), half.window)
    return left


def _pneumothorax(scene: Scene, side: int, severity: float) -> Float32:
    """Draw the lung back from the wall, leave air, and line the lung; give what it keeps."""
    half = scene.sides[side]
    visceral = collapsed(scene.anatomy, side, severity)
    span = visceral.span(half.rays)
    kept = half.within(half.lung & span)
    free = np.maximum(half.free_length - kept, np.float32(0))
    path = scene.path[half.window]
    path -= free * np.float32(SOFT)
    thin = replace(visceral, a=lambda z: visceral.a(z) - 0.9, b=lambda z: visceral.b(z) - 0.9).span(
        half.rays
    )
    line = np.maximum(kept - half.within(half.lung & thin), np.float32(0))
    path += np.minimum(line, np.float32(26)) * np.float32(0.8 * SOFT)
    # A lung that holds less air is denser.
    path += kept * np.float32(LUNG * (0.3 + 0.7 * severity))
    half.lung = half.lung & span
    # Seen from the side, air beside the lung is everywhere; what shows is air before and behind.
    limit = 1.3 * drawn_back(severity)[0] if scene.case.view == "L" else 2 * SEEN
    scene.mark("Pneumothorax", _above_dome(scene, side, visible_mask(free, limit)), half.window)
    return kept


def pleural_thickening(scene: Scene, severity: float, rng: np.random.Generator) -> None:
    """Coat part of the inner wall: an apical cap or a lateral plaque."""
    side = scene.case.sides["Pleural_Thickening"]
    half, cage = scene.sides[side], scene.anatomy.cage
    coat = 6.0 + 12.0 * severity
    lung = scene.anatomy.lungs[side]
    apical, calcified = rng.random() < 0.25, rng.random() < 0.5
    center = side * (cage.offset - 0.5 * coat)
    lower = replace(cage, apex=cage.apex - (2.0 * coat if apical else 0.0))
    inner = replace(
        lung,
        cx=lambda z: np.full_like(z, center),
        cy=lambda z: cage.back(z) + 0.35 * coat,
        a=lambda z: np.full_like(z, cage.radii[0] - 0.5 * coat),
        b=lambda z: np.full_like(z, cage.radii[1] - 0.35 * coat),
        f=lower.scale,
    ).span(half.rays)
    # Where the lung has drawn back, the wall keeps its coat.
    free = scene.case.severity["Pneumothorax"] > 0 and scene.case.sides["Pneumothorax"] == side
    room = half.cavity if free else half.lung
    shell = np.maximum(half.within(room) - half.within(room & inner), np.float32(0))
    if not free:
        shell = np.minimum(shell, half.air)
    low = cage.apex - 78.0 if apical else float(-100 + 50 * rng.random())
    high = cage.apex + 40.0 if apical else low + 105.0 + 55.0 * severity
    uneven = smooth_noise(rng, half.rays.shape, 6)
    z = half.rays.z + np.float32(9) * uneven
    fade = np.clip((z - np.float32(low)) / 14, 0, 1) * np.clip((np.float32(high) - z) / 14, 0, 1)
    shell *= fade.astype(np.float32)
    excess = SOFT - (0.0 if free else LUNG)
    if calcified:  # plaques of asbestos or of an old empyema hold lime in patches
        patches = np.clip(np.float32(0.7) + uneven, 0, np.float32(1.6))
        scene.path[half.window] += np.minimum(shell, np.float32(40)) * patches * np.float32(LIME)
    scene.path[half.window] += shell * np.float32(excess)
    scene.mark("Pleural_Thickening", visible_mask(shell, 1.4 * coat), half.window)
