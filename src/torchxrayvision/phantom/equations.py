"""The quadratic equations by which rays meet solids, solved for all rays at once.

All rays of an image leave one focal spot, and their directions are linear in two slopes, one for
the column and one for the row of a pixel. So what an equation needs at each pixel is a quadratic in
these slopes: an outer sum with a few numbers for each solid.

Only sums, products, quotients and square roots touch pixels: IEEE 754 rounds these in one way, so
the same spans come out on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.spans import FAR, Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from torchxrayvision.phantom.rays import Rays

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]
    Vector = Sequence[float]
    Matrix = Sequence[Vector]

_FLAT = np.float32(1e-9)


def _chord(square: Float32, a: Float32, b: Float32, shift: float) -> Span:
    """Solve ``a w^2 + 2 b w + c <= 0`` for ``a > 0`` where ``square`` is ``b^2 - a c``.

    Args:
        square: Changed in place, as are a and b.
        a: See above.
        b: See above.
        shift: Depth at which w is 0.
    """
    missed = square <= 0
    np.maximum(square, np.float32(0), out=square)
    root = np.sqrt(square, out=square)
    scale = np.reciprocal(np.maximum(a, _FLAT, out=a), out=a)
    root *= scale
    b *= scale
    middle = np.subtract(np.float32(shift), b, out=b)
    enter: Float32 = np.subtract(middle, root, out=scale)
    leave: Float32 = np.add(middle, root, out=middle)
    enter[missed], leave[missed] = FAR, -FAR
    return Span(enter, leave)


def dot(first: Vector, second: Vector) -> float:
    """Inner product of two vectors of three."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _times(matrix: Matrix, vector: Vector) -> tuple[float, float, float]:
    return dot(matrix[0], vector), dot(matrix[1], vector), dot(matrix[2], vector)


def _form(matrix: Matrix, start: Vector, right: Vector, u: Float32, v: Float32) -> Float32:
    """Value of a quadratic form for the directions ``start + u right + v up``, float32 (H, W)."""
    turned, raised = _times(matrix, right), matrix[2]
    column = u * (2 * dot(start, turned)) + u * u * dot(right, turned)
    column += np.float32(dot(start, _times(matrix, start)))
    value: Float32 = (u * (2 * turned[2])) * v
    value += column
    value += v * (2 * dot(start, raised)) + v * v * raised[2]
    return value


def meet_quadric(
    rays: Rays, center: Vector, matrix: Matrix, linear: Vector, constant: float
) -> Span:
    """Intersect rays with ``p Q p + 2 g p + h <= 0``, p counted from a centre.

    A ray is ``f + t d``, f from the centre to the focal spot. With ``A = d Q d``,
    ``B = d (Q f + g)`` and ``C = f Q f + 2 g f + h``, it enters and leaves at
    ``t = (-B -+ sqrt(B^2 - A C)) / A``. C is the same for all rays.

    Args:
        rays: The rays.
        center: The centre, mm.
        matrix: Q.
        linear: g.
        constant: h.

    Returns:
        Where they enter and leave.
    """
    f = [a - b for a, b in zip(rays.focus, center, strict=True)]
    right, towards = (*rays.right, 0.0), (*rays.towards, 0.0)
    pull = [a + b for a, b in zip(_times(matrix, f), linear, strict=True)]
    rest = dot(f, pull) + dot(f, linear) + constant
    root = [[pull[i] * pull[j] - rest * matrix[i][j] for j in range(3)] for i in range(3)]
    # Slopes count from those of the ray through the centre, which keeps float32 exact enough.
    across, up, _ = rays.aim(center)
    start = (towards[0] + across * right[0], towards[1] + across * right[1], up)
    u, v = rays.u - np.float32(across), rays.dz - np.float32(up)
    b: Float32 = (u * dot(pull, right) + np.float32(dot(pull, start))) + v * pull[2]
    square = _form(root, start, right, u, v)
    return _chord(square, _form(matrix, start, right, u, v), b, rays.source)


def product(p: tuple[Float64, Float64], q: tuple[Float64, Float64]) -> Float64:
    """Coefficients of the product of two linear polynomials, lowest first, float64 (3, H)."""
    return np.stack([p[0] * q[0], p[0] * q[1] + p[1] * q[0], p[1] * q[1]])


def meet_sections(a: Float64, b: Float64, c: Float64, u: Float32, depth: float) -> Span:
    """Solve ``a w^2 + 2 b w + c <= 0`` whose coefficients are polynomials in u in each row.

    Args:
        a: Coefficients of the polynomial a, lowest first, float64 (3, H).
        b: Those of b.
        c: Those of c.
        u: Slope of each column, float32 (1, W).
        depth: Depth at which w is 0, mm.

    Returns:
        Where the rays enter and leave.
    """
    first, second, third = (_polynomial(rows, u) for rows in (a, b, c))
    square = second * second
    third *= first
    square -= third
    return _chord(square, first, second, depth)


def _polynomial(rows: Float64, u: Float32) -> Float32:
    """Value of a polynomial in u whose coefficients (3, H) change from row to row, (H, W)."""
    lowest, middle, highest = rows.astype(np.float32)[:, :, None]
    value: Float32 = highest * u
    value += middle
    value *= u
    value += lowest
    return value
