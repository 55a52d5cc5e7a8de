"""What a place does to its films: exposure, processing, letters and borders; never anatomy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """Appearance of a film.

    Args:
        scatter: Scattered over primary quanta, behind the grid.
        scatter_width: How far they spread, mm.
        dose: Quanta for each square millimetre of an open beam.
        blur: Share that neighbouring pixels take of a pixel.
        grain: The same for noise.
        unsharp: Weight of unsharp masking.
        unsharp_width: Its width, mm.
        lung: Grey of the lungs, 0 to 1.
        steepness: Contrast of the grey scale about there.
        toe: Grey of the open beam.
        shoulder: Grey of the densest parts.
        grid_lines: Contrast of the lines of a grid.
        letter: Text of the marker.
        letter_box: Whether it stands on a plate.
        border: Width of a collimated border, mm; negative for a white one.
        tilt: Tilt of collimation, pixels a pixel.
    """

    scatter: float
    scatter_width: float
    dose: float
    blur: float
    grain: float
    unsharp: float
    unsharp_width: float
    lung: float
    steepness: float
    toe: float
    shoulder: float
    grid_lines: float
    letter: str
    letter_box: bool
    border: float
    tilt: float


_BASE = {
    "A": Look(0.16, 38, 2.2e4, 0.16, 0.10, 0.55, 7.0, 0.34, 1.0, 0.0, 0.93, 0.0, "L", False, 0.0, 0.0),
    "B": Look(0.28, 44, 0.9e4, 0.30, 0.34, 0.10, 9.0, 0.26, 1.28, 0.04, 0.97, 0.0, "R", True, 9.0, 0.012),
    "C": Look(0.36, 50, 0.5e4, 0.22, 0.04, 1.10, 4.0, 0.46, 0.78, 0.09, 0.88, 0.02, "L", False, -5.0, 0.004),
}  # fmt: skip


def choose(site: str, view: str, rng: np.random.Generator) -> Look:
    """Draw the appearance of one film.

    Args:
        site: One of `SITES`.
        view: AP films are taken with a portable unit: more scatter, less dose.
        rng: The film's stream of appearance.

    Returns:
        The site's look, varied from film to film.
    """
    lots = rng.normal(size=8)
    base = _BASE[site]
    portable = view == "AP"
    return replace(
        base,
        scatter=base.scatter * float(np.exp(0.20 * lots[0])) * (1.7 if portable else 1.0),
        dose=base.dose * float(np.exp(0.30 * lots[1])) * (0.55 if portable else 1.0),
        unsharp=base.unsharp * float(np.exp(0.20 * lots[2])),
        lung=float(np.clip(base.lung + 0.05 * lots[3] + 0.03 * portable, 0.12, 0.62)),
        steepness=base.steepness * float(np.exp(0.10 * lots[4])),
        shoulder=float(np.clip(base.shoulder + 0.02 * lots[5], 0.80, 0.99)),
        border=base.border * float(np.exp(0.4 * lots[6])),
        tilt=base.tilt * float(lots[7]),
    )


def grey(measured: Float32, lung: float, dense: float, look: Look) -> Float32:
    """Turn measured attenuation into grey, 0 to 1, by the sigmoid of film.

    Args:
        measured: float32 (H, W).
        lung: Attenuation of the middle of the lungs.
        dense: Attenuation of the dense parts.
        look: The site's appearance.

    Returns:
        float32 (H, W).
    """
    entries = 8192
    span = 9.0
    scale = np.arange(entries) / entries * span - 1.0
    # A sigmoid that has the lungs' grey at their attenuation and 0.93 at the dense parts'.
    level = np.log(look.lung / (1 - look.lung))
    rise = (2.6 - level) * look.steepness / max(dense - lung, 0.5)
    curve = 1 / (1 + np.exp(-(level + rise * (scale - lung))))
    table = (look.toe + (look.shoulder - look.toe) * curve).astype(np.float32)
    place = (measured + np.float32(1.0)) * np.float32(entries / span)
    return table[np.clip(place, 0, entries - 1).astype(np.int32)]
