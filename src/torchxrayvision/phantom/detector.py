"""From attenuation to a picture: scatter, blur, quantum noise, logarithm, grey scale.

Pixels meet only sums, products, square roots and tables, so that every machine gives the same
picture; the last step rounds to 12 bits, the depth of a digital detector.

Source:
    Scatter fractions and noise: Bushberg et al., The essential physics of medical imaging, 3rd
    edition (2012), chapters 7 and 8. Grey scale: the sigmoid of film, Hurter and Driffield 1890.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

_STEPS = 4096  # entries of a table for each unit of attenuation
_DEEPEST = 14
_BAND = 32768  # pixels
_EXPONENTIAL = np.exp(-np.arange(_DEEPEST * _STEPS + 1) / _STEPS).astype(np.float32)


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Divide pictures into bands of rows that the processor's cache holds."""
    rows = max(_BAND * shape[0] // math.prod(shape), 1)
    for first in range(0, shape[0], rows):
        yield slice(first, first + rows)


def transmitted(attenuation: Float32) -> Float32:
    """Beer and Lambert: share of quanta that pass, float32 of the same shape."""
    passed = np.empty_like(attenuation)
    for rows in bands(attenuation.shape):
        index = attenuation[rows] * np.float32(_STEPS)
        np.maximum(index, np.float32(0), out=index)
        np.minimum(index, np.float32(_DEEPEST * _STEPS), out=index)
        passed[rows] = _EXPONENTIAL.take(index.astype(np.int32))
    return passed


def negative_log(signal: Float32) -> Float32:
    """Natural logarithm, negated, to 1e-4, from the bits of positive float32 and a short table."""
    bits = np.ascontiguousarray(signal, np.float32).view(np.int32)
    exponent = (bits >> 23) - 127
    mantissa = (bits >> 11) & 0xFFF
    logarithm = exponent.astype(np.float32)
    logarithm *= np.float32(np.log(2.0))
    logarithm += _LOG_TABLE.take(mantissa)
    return np.negative(logarithm, out=logarithm)


_LOG_TABLE = np.log1p((np.arange(4096) + 0.5) / 4096).astype(np.float32)


def shrink(image: Float32, factor: int) -> Float32:
    """Average blocks of ``factor`` squared pixels; what does not fill a block is left out."""
    rows, columns = (n // factor * factor for n in image.shape)
    total = image[0:rows:factor].copy()
    for k in range(1, factor):
        total += image[k:rows:factor]
    small = total[:, 0:columns:factor].copy()
    for k in range(1, factor):
        small += total[:, k:columns:factor]
    return small * np.float32(1 / factor**2)


def enlarge(small: Float32, shape: tuple[int, int]) -> Float32:
    """Interpolate bilinearly to a larger shape."""
    column, share = _between(small.shape[1], shape[1])
    wide = small.take(column, axis=1)
    wide += np.diff(small, axis=1, append=small[:, -1:]).take(column, axis=1) * share
    row, share = _between(small.shape[0], shape[0])
    step = np.diff(wide, axis=0, append=wide[-1:])
    large = np.empty(shape, np.float32)
    for rows in bands(shape):
        part = np.take(step, row[rows], axis=0, out=large[rows], mode="clip")
        part *= share[rows, None]
        part += wide.take(row[rows], axis=0)
    return large


def _between(count: int, wanted: int) -> tuple[NDArray[np.intp], Float32]:
    """Which of ``count`` samples comes before each of ``wanted``, and how far that is beyond it."""
    at = np.clip((np.arange(wanted) + 0.5) * count / wanted - 0.5, 0, count - 1)
    before = at.astype(np.intp)
    return before, (at - before).astype(np.float32)


def box(image: Float32, radius: int) -> Float32:
    """Average over squares of ``2 radius + 1`` pixels, with the edge repeated."""
    for _ in range(2):
        count = len(image)
        padded = image.take(np.clip(np.arange(-radius, count + radius), 0, count - 1), axis=0)
        total = padded[:count].copy()
        for k in range(1, 2 * radius + 1):
            total += padded[k : k + count]
        image = total.T * np.float32(1 / (2 * radius + 1))
    return image


def smooth(image: Float32, sigma: float) -> Float32:
    """Blur widely, on a coarser grid: about a Gaussian of ``sigma`` pixels, at least 2."""
    factor = max(int(sigma / 2), 1)
    small = shrink(image, factor)
    radius = max(round(sigma / factor), 1)
    for _ in range(3):
        small = box(small, radius)
    return enlarge(small, (image.shape[0], image.shape[1]))


def blend(image: Float32, amount: float) -> None:
    """Mix each pixel with its four neighbours, in place; amounts above 0 blur."""
    if amount <= 0:
        return
    keep, half = np.float32(1 - amount), np.float32(amount / 2)
    part = image * half
    image *= keep
    image[1:] += part[:-1]
    image[:-1] += part[1:]
    image[0] += part[0]
    image[-1] += part[-1]
    np.multiply(image, half, out=part)
    image *= keep
    image[:, 1:] += part[:, :-1]
    image[:, :-1] += part[:, 1:]
    image[:, 0] += part[:, 0]
    image[:, -1] += part[:, -1]
