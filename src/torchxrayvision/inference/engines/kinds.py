"""Logits to the kinds of output, on NumPy arrays, with the bits that torch gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]

# The exponential by Cody and Waite's reduction and the polynomial of SLEEF's `expf` (error below
# one unit in the last place), which torch's sigmoid uses on every processor. Another one would be
# as exact, and change the last digit of every sixth number of a table.
_PER_LN2: Final = np.float32(1.442695040888963407)
_LN2: Final = (np.float32(0.693145751953125), np.float32(1.428606765330187045e-06))
_TERMS: Final = tuple(
    np.float32(term)
    for term in (
        0.000198527617612853646278381,
        0.00139304355252534151077271,
        0.00833336077630519866943359,
        0.0416664853692054748535156,
        0.166666671633720397949219,
        0.5,
    )
)
_LEAST, _MOST = np.float32(-104), np.float32(100)  # beyond these it is 0 and infinite


def convert(logits: Float32, kind: str, points: Float32 | None) -> Float32:
    """Turn logits into the kind that was asked for, as tables hold it.

    Args:
        logits: Shape (B, P), float32.
        kind: `"logit"`, `"probability"` or `"operating-point"`.
        points: Operating points, shape (P,), NaN where there is none; None for none.

    Returns:
        Shape (B, P), float32. NaN where a value would be relative to an operating point that is
        not set.

    Raises:
        ValueError: If operating points are asked for and there are none.
    """
    if kind == "logit":
        return logits
    probability = sigmoid(logits)
    if kind == "probability":
        return probability
    if points is None:
        msg = "output='operating-point' needs operating points; ask for 'probability'"
        raise ValueError(msg)
    one, two = np.float32(1), np.float32(2)
    below = probability / (points * two)
    above = one - (one - probability) / ((one - points) * two)
    relative: Float32 = np.where(probability < points, below, above).astype(np.float32, copy=False)
    relative[:, np.isnan(points)] = np.nan
    return relative


def sigmoid(logits: Float32) -> Float32:
    """Probabilities of logits.

    Args:
        logits: float32, any shape.

    Returns:
        float32 in [0, 1], of the same shape.

    Example:
        >>> sigmoid(np.array([0, 200], np.float32))
        array([0.5, 1. ], dtype=float32)
    """
    one = np.float32(1)
    with np.errstate(over="ignore", invalid="ignore"):
        return one / (one + _exp(-logits))


def _exp(x: Float32) -> Float32:
    power = np.rint(np.clip(x, _LEAST, _MOST) * _PER_LN2)
    rest = _fused(power, -_LN2[1], _fused(power, -_LN2[0], x))
    sums = np.full_like(rest, _TERMS[0])
    for term in _TERMS[1:]:
        sums = _fused(sums, rest, term)
    part = np.float32(1) + _fused(rest * rest, sums, rest)
    whole = np.ldexp(part, np.nan_to_num(power).astype(np.int32))
    found: Float32 = np.where(x < _LEAST, np.float32(0), whole)
    return np.where(x > _MOST, np.float32(np.inf), found)


def _fused(a: Any, b: Any, c: Any) -> Float32:
    """`a * b + c`, rounded once: in float64 the product is exact."""
    product = np.multiply(a, b, dtype=np.float64)
    return np.asarray(np.add(product, c, dtype=np.float64), np.float32)
