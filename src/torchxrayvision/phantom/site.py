"""What a place does to its images: exposure, processing, letters and borders; never anatomy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.detector import bands, blend, negative_log, smooth, transmitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]
    Mask = NDArray[np.bool_]


def expose(
    attenuation: Float32,
    look: SiteAppearance,
    spacing: float,
    lung: float,
    rng: np.random.Generator,
) -> Float32:
    """Let the quanta through and count them.

    Args:
        attenuation: float32 (H, W), of the primary rays.
        look: The site's appearance.
        spacing: Distance of pixels, mm.
        lung: Attenuation of the lungs, at which the exposure is cut off.
        rng: Source of the noise.

    Returns:
        Attenuation as measured, float32 (H, W): with scatter, blur and noise.
    """
    primary = transmitted(attenuation)
    signal = smooth(primary - primary * primary, look.scatter_width / spacing)
    signal *= np.float32(look.scatter)
    signal += np.float32(2e-4)
    signal += primary
    blend(signal, look.blur)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    blend(noise, look.grain)
    dose = np.float32(look.dose * spacing**2 * np.exp(lung))
    for rows in bands(signal.shape):
        counted = noise[rows]
        counted *= np.sqrt(signal[rows] * np.float32(1 / dose))
        counted += signal[rows]
        counted[:] = negative_log(np.maximum(counted, np.float32(1e-5), out=counted))
    return noise


@dataclass(frozen=True)
class SiteAppearance:
    """Appearance of an image.

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
        tilt: Tilt of collimation, pixels per pixel.
        portable_text: Whether the machine writes PORTABLE on AP images.
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
    portable_text: bool = False


_BASE = {
    # A digital room: little scatter, fine noise, moderate processing.
    "A": SiteAppearance(
        scatter=0.16, scatter_width=38, dose=2.2e4, blur=0.16, grain=0.10,
        unsharp=0.55, unsharp_width=7.0,
        lung=0.34, steepness=1.0, toe=0.0, shoulder=0.93,
        grid_lines=0.0, letter="L", letter_box=False, border=0.0, tilt=0.0,
    ),
    # Screen and film, scanned: steep, unsharp, in a dark frame.
    "B": SiteAppearance(
        scatter=0.28, scatter_width=44, dose=0.9e4, blur=0.30, grain=0.34,
        unsharp=0.10, unsharp_width=9.0,
        lung=0.26, steepness=1.28, toe=0.04, shoulder=0.97,
        grid_lines=0.0, letter="R", letter_box=True, border=9.0, tilt=0.012,
    ),
    # Storage phosphor plates: flat, noisy, strongly sharpened, with lines of a grid.
    "C": SiteAppearance(
        scatter=0.36, scatter_width=50, dose=0.5e4, blur=0.22, grain=0.04,
        unsharp=1.10, unsharp_width=4.0,
        lung=0.46, steepness=0.78, toe=0.09, shoulder=0.88,
        grid_lines=0.02, letter="L", letter_box=False, border=-5.0, tilt=0.004,
        portable_text=True,
    ),
}  # fmt: skip


def choose(site: str, view: str, rng: np.random.Generator) -> SiteAppearance:
    """Draw the site's appearance of one image.

    AP images are taken with a portable unit: more scatter, less dose.
    """
    draws = rng.normal(size=8)
    base = _BASE[site]
    portable, lateral = view == "AP", view == "L"
    return replace(
        base,
        scatter=base.scatter * float(np.exp(0.20 * draws[0])) * (1.7 if portable else 1.0),
        dose=base.dose * float(np.exp(0.30 * draws[1])) * (0.55 if portable else 1.0),
        unsharp=base.unsharp * float(np.exp(0.20 * draws[2])),
        lung=float(
            np.clip(base.lung + 0.05 * draws[3] + 0.03 * portable + 0.10 * lateral, 0.12, 0.62)
        ),
        steepness=base.steepness * float(np.exp(0.10 * draws[4])),
        shoulder=float(np.clip(base.shoulder + 0.02 * draws[5], 0.80, 0.99)),
        border=base.border * float(np.exp(0.4 * draws[6])),
        tilt=base.tilt * float(draws[7]),
    )


_GLYPHS = {  # five columns by seven rows, one number per row
    "L": (16, 16, 16, 16, 16, 16, 31),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "A": (14, 17, 17, 31, 17, 17, 17),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "E": (31, 16, 16, 30, 16, 16, 31),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


def write(text: str, scale: float) -> Mask:
    """Set text in a bitmap font of so many pixels per dot; bool (H, W)."""
    cells = []
    for letter in text:
        bits = [[row >> (4 - k) & 1 for k in range(5)] + [0] for row in _GLYPHS[letter]]
        cells.append(np.array(bits, bool))
    dots = np.concatenate(cells, axis=1)[:, :-1]
    rows = (np.arange(max(int(7 * scale), 7)) * 7 // max(int(7 * scale), 7)).astype(int)
    count = max(int(dots.shape[1] * scale), dots.shape[1])
    columns = np.arange(count) * dots.shape[1] // count
    drawn: Mask = dots[rows][:, columns]
    return drawn


def place_marker(path: Float32, look: SiteAppearance, rng: np.random.Generator) -> None:
    """Lay the marker of lead on the detector, in place: R at the patient's right, L at the left."""
    size = path.shape[0]
    draws = rng.random(3)
    letter = write(look.letter, size / 512 * (2.6 + 1.6 * draws[0]))
    height, width = letter.shape
    top = int(size * (0.05 + 0.09 * draws[1]))
    inset = int(size * (0.05 + 0.07 * draws[2]))
    left = size - inset - width if look.letter == "L" else inset
    if look.letter_box:
        margin = max(size // 128, 1)
        path[top - margin : top + height + margin, left - margin : left + width + margin] += 0.5
    path[top : top + height, left : left + width] += letter * np.float32(2.6)


def frame(shade: Float32, look: SiteAppearance, view: str) -> None:
    """Add, in place, what lies around the picture: shutters, grid lines, text of the machine."""
    size = shade.shape[0]
    if look.grid_lines > 0:
        wave = np.zeros(size, np.float32)
        wave[:: max(size // 170, 2)] = look.grid_lines
        shade += wave[None, :] * shade
    if look.border:
        width = abs(look.border) * size / 400
        lean = look.tilt * (np.arange(size) - size / 2)
        far = np.arange(size)
        edge = np.minimum(far, size - 1 - far)
        outside = (edge[:, None] < width + lean[None, :]) | (edge[None, :] < width - lean[:, None])
        shade[outside] = 0.0 if look.border > 0 else 0.97
    if look.portable_text and view == "AP":
        text = write("PORTABLE", size / 512 * 1.3)
        height, columns = text.shape
        if columns < size // 2:
            corner = shade[size // 40 : size // 40 + height, size // 30 : size // 30 + columns]
            corner[text] = 1.0


def grey(measured: Float32, lung: float, dense: float, look: SiteAppearance) -> Float32:
    """Turn measured attenuation into grey, 0 to 1, by the sigmoid of film.

    Args:
        measured: float32 (H, W).
        lung: Attenuation of the middle of the lungs.
        dense: Attenuation of the dense parts.
        look: The site's appearance.
    """
    entries = 8192
    span = 9.0
    scale = np.arange(entries) / entries * span - 1.0
    # A sigmoid that has the lungs' grey at their attenuation and 0.93 at the dense parts'.
    level = np.log(look.lung / (1 - look.lung))
    rise = (2.6 - level) * look.steepness / max(dense - lung, 0.5)
    curve = 1 / (1 + np.exp(-(level + rise * (scale - lung))))
    table = (look.toe + (look.shoulder - look.toe) * curve).astype(np.float32)
    shade = np.empty_like(measured)
    for rows in bands(measured.shape):
        place = (measured[rows] + np.float32(1.0)) * np.float32(entries / span)
        np.maximum(place, np.float32(0), out=place)
        np.minimum(place, np.float32(entries - 1), out=place)
        shade[rows] = table.take(place.astype(np.int32))
    return shade
