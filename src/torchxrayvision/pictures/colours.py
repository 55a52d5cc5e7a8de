"""Colours of heatmaps, computed so that equal steps of evidence look like equal steps.

Both maps are paths through Oklab, a space in which distances are close to perceived ones. Source:
Ottosson. A perceptual color space for image processing. 2020.
https://bottosson.github.io/posts/oklab/ (the matrices are those of that page).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COUNT: Final = 256
_TO_CONES: Final = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_RGB: Final = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _rgb(
    lightness: NDArray[np.float64], chroma: float, hue: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Colours of sRGB; a chroma that the space does not have is lowered until it has it."""
    low, high = np.zeros_like(lightness), np.full_like(lightness, chroma)
    for _ in range(20):
        middle = (low + high) / 2
        linear = _linear(lightness, middle, hue)
        inside = ((linear >= 0) & (linear <= 1)).all(1)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    linear = np.clip(_linear(lightness, low, hue), 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: NDArray[np.uint8] = np.round(gamma * 255).astype(np.uint8)
    colours.flags.writeable = False
    return colours


def _linear(
    lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: NDArray[np.float64]
) -> NDArray[np.float64]:
    angle = np.deg2rad(hue)
    lab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], 1)
    linear: NDArray[np.float64] = (lab @ _TO_CONES.T) ** 3 @ _TO_RGB.T
    return linear


@cache
def sequential() -> NDArray[np.uint8]:
    """From dark violet over red to light yellow, for evidence that is 0 or more.

    Returns:
        uint8, shape (256, 3), red, green and blue; read-only.

    Example:
        >>> sequential().shape
        (256, 3)
    """
    share = np.linspace(0, 1, _COUNT)
    return _rgb(0.30 + 0.65 * share, 0.19, 290 + 170 * share)


@cache
def diverging() -> NDArray[np.uint8]:
    """From blue (against) over white to red (for), for evidence of both signs.

    Returns:
        uint8, shape (256, 3), red, green and blue; read-only.

    Example:
        >>> blue, red = diverging()[0], diverging()[-1]
        >>> bool(blue[2] > blue[0] and red[0] > red[2])
        True
    """
    half = np.linspace(1, 0, _COUNT // 2)
    sides = [_pale(half, 255.0), _pale(half, 27.0)[::-1]]
    colours = np.concatenate(sides)
    colours.flags.writeable = False
    return colours


def _pale(strength: NDArray[np.float64], hue: float) -> NDArray[np.uint8]:
    """From the full colour to white, the same steps in lightness for any hue."""
    lightness = 0.97 - 0.42 * strength
    rows = [
        _rgb(lightness[i : i + 1], 0.2 * strength[i], np.array([hue])) for i in range(len(strength))
    ]
    return np.concatenate(rows)
