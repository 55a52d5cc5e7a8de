"""Solids that a ray meets in one stretch, found in closed form.

All rays of a film leave one focal spot, and their directions are linear in two slopes, one for the
column and one for the row of a pixel. So what a quadratic equation needs at each pixel is a
quadratic in these slopes: an outer sum with a few numbers for each solid.

Only sums, products, quotients and square roots touch pixels: IEEE 754 rounds these in one way, so
the same spans come out on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom._spans import FAR, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.phantom._rays import Projection, Rays

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]
    Profile = Callable[[Float64], Float64]
    Vector = Sequence[float]
    Matrix = Sequence[Vector]

_FLAT = np.float32(1e-9)


def _chord(square: Float32, a: Float32, b: Float32, shift: float) -> Span:
    """Solve ``a w^2 + 2 b w + c <= 0`` for ``a > 0`` where ``square`` is ``b^2 - a c``.

    Args:
        square: Changed in place.
        a: Changed in place.
        b: Changed in place.
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


def _dot(first: Vector, second: Vector) -> float:
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def _times(matrix: Matrix, vector: Vector) -> tuple[float, float, float]:
    return _dot(matrix[0], vector), _dot(matrix[1], vector), _dot(matrix[2], vector)


def _form(matrix: Matrix, start: Vector, right: Vector, u: Float32, v: Float32) -> Float32:
    """Value of a quadratic form for the directions ``start + u right + v up``, float32 (H, W)."""
    turned, raised = _times(matrix, right), matrix[2]
    column = _dot(start, _times(matrix, start)) + u * (2 * _dot(start, turned))
    column += u * u * _dot(right, turned)
    row = v * (2 * _dot(start, raised)) + v * v * raised[2]
    value: Float32 = (u * (2 * turned[2])) * v
    value += column
    value += row
    return value


def _product(p: tuple[Float64, Float64], q: tuple[Float64, Float64]) -> Float64:
    """Coefficients of the product of two linear polynomials, lowest first, float64 (3, H)."""
    return np.stack([p[0] * q[0], p[0] * q[1] + p[1] * q[0], p[1] * q[1]])


def _polynomial(rows: Float64, u: Float32) -> Float32:
    """Value of a polynomial in u whose coefficients (3, H) change from row to row, (H, W)."""
    lowest, middle, highest = rows.astype(np.float32)[:, :, None]
    value: Float32 = highest * u
    value += middle
    value *= u
    value += lowest
    return value


def _quadric(rays: Rays, center: Vector, matrix: Matrix, linear: Vector, constant: float) -> Span:
    """Intersect rays with ``p Q p + 2 g p + h <= 0``, p counted from the centre.

    A ray is ``f + t d``, f from the centre to the focal spot. With ``A = d Q d``,
    ``B = d (Q f + g)`` and ``C = f Q f + 2 g f + h``, it enters and leaves at
    ``t = (-B -+ sqrt(B^2 - A C)) / A``. C is the same for all rays.
    """
    f = tuple(a - b for a, b in zip(rays.focus, center, strict=True))
    right, towards = (*rays.right, 0.0), (*rays.towards, 0.0)
    pull = tuple(a + b for a, b in zip(_times(matrix, f), linear, strict=True))
    rest = _dot(f, pull) + _dot(f, linear) + constant
    root = [[pull[i] * pull[j] - rest * matrix[i][j] for j in range(3)] for i in range(3)]
    # Slopes are counted from those of the ray through the centre, which keeps float32 exact enough.
    across, up, _ = rays.aim(center)
    start = (towards[0] + across * right[0], towards[1] + across * right[1], up)
    u, v = rays.u - np.float32(across), rays.dz - np.float32(up)
    a = _form(matrix, start, right, u, v)
    square = _form(root, start, right, u, v)
    b: Float32 = (u * _dot(pull, right) + np.float32(_dot(pull, start))) + v * pull[2]
    return _chord(square, a, b, rays.source)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid.

    Args:
        center: (x, y, z), mm.
        axes: float64 (3, 3): the half axes as rows, mm.
    """

    center: tuple[float, float, float]
    axes: Float64

    @classmethod
    def upright(
        cls, center: tuple[float, float, float], radii: tuple[float, float, float]
    ) -> Ellipsoid:
        """Make one whose axes lie along x, y and z."""
        return cls(center, np.diag(np.asarray(radii, float)))

    @classmethod
    def along(
        cls,
        center: tuple[float, float, float],
        direction: tuple[float, float, float],
        radii: tuple[float, float, float],
    ) -> Ellipsoid:
        """Make one whose first axis points in a direction; the third stays as upright as can be."""
        first = np.asarray(direction, float) / np.sqrt(float(np.sum(np.square(direction))))
        second = np.array([-first[1], first[0], 0.0])
        norm = float(np.sqrt(second[0] ** 2 + second[1] ** 2))
        second = np.array([0.0, 1.0, 0.0]) if norm < 1e-6 else second / norm
        third = np.array(
            [
                first[1] * second[2] - first[2] * second[1],
                first[2] * second[0] - first[0] * second[2],
                first[0] * second[1] - first[1] * second[0],
            ]
        )
        scaled = np.stack([first * radii[0], second * radii[1], third * radii[2]])
        return cls(center, scaled)

    def moved(self, shift: tuple[float, float, float]) -> Ellipsoid:
        """Give the ellipsoid elsewhere."""
        x, y, z = (a + b for a, b in zip(self.center, shift, strict=True))
        return replace(self, center=(x, y, z))

    def scaled(self, factor: float, about: tuple[float, float, float]) -> Ellipsoid:
        """Give the ellipsoid enlarged about a point."""
        x, y, z = (b + factor * (a - b) for a, b in zip(self.center, about, strict=True))
        return Ellipsoid((x, y, z), self.axes * factor)

    def inverse(self) -> Float64:
        """Matrix that maps offsets from the centre to the unit ball, float64 (3, 3)."""
        squares = (self.axes**2).sum(axis=1)
        normal: Float64 = self.axes / squares[:, None]
        return normal

    def contains(self, points: Float64) -> NDArray[np.bool_]:
        """Tell which points (..., 3) lie inside."""
        x, y, z = (points[..., k] - self.center[k] for k in range(3))
        reach = np.sqrt((self.axes**2).sum(axis=0))
        inside: NDArray[np.bool_] = (np.abs(x) < reach[0]) & (np.abs(y) < reach[1])
        near = np.nonzero(inside)  # few are left to look at closely
        x, y, z = x[near], y[near], z[near]
        total = np.zeros_like(x)
        for mx, my, mz in self.inverse():
            total += ((x * mx + y * my) + z * mz) ** 2
        inside[near] = total <= 1
        return inside

    def span(self, rays: Rays) -> Span:
        """Intersect rays with the ellipsoid."""
        rows = self.inverse()
        matrix = (rows[:, :, None] * rows[:, None, :]).sum(axis=0).tolist()
        return _quadric(rays, self.center, matrix, (0.0, 0.0, 0.0), -1.0)

    def extent(self, projection: Projection) -> tuple[float, float, float, float]:
        """Find the box around the shadow, exactly.

        Returns:
            Smallest and largest column, smallest and largest row, in pixels from the centre of
            the first.

        Source:
            Hartley and Zisserman, Multiple view geometry, 2nd edition, section 8.3: the outline of
            a quadric is the dual conic ``P Q* P^T``.
        """
        (rx, ry), (tx, ty) = projection.axes()
        turn = np.array([[rx, ry, 0.0], [0.0, 0.0, 1.0], [tx, ty, 0.0]])
        focus = np.array([projection.focus[0], projection.focus[1], projection.source])
        center = turn @ np.asarray(self.center) - focus
        half = turn @ self.axes.T
        dual = np.outer(center, center) - half @ half.T
        bounds = []
        for axis, sign in ((0, 1.0), (1, -1.0)):
            # Tangent planes through the focal spot: dual[2,2] t^2 - 2 dual[axis,2] t + dual[a,a]=0.
            mean = dual[axis, 2] / dual[2, 2]
            reach = np.sqrt(max(mean**2 - dual[axis, axis] / dual[2, 2], 0.0))
            for slope in (mean - reach, mean + reach):
                place = projection.focus[axis] + slope * projection.distance
                offset = sign * (place - projection.center[axis]) / projection.spacing
                bounds.append(offset + (projection.size - 1) / 2)
        left, right, bottom, top = (float(b) for b in bounds)
        return left, right, top, bottom


@dataclass(frozen=True)
class Column:
    """A solid with elliptic horizontal sections that change along z.

    Inside is where ``((x - cx)/a)^2 + ((y - cy)/b)^2 <= f``. Along a ray, the five profiles are
    taken at the height where it passes the axis, f to second and the centre to first order.

    Args:
        cx: Profile of the centre's x over z, mm.
        cy: Profile of the centre's y, mm.
        a: Profile of the half axis along x, mm.
        b: Profile of the half axis along y, mm.
        f: Profile of the squared scale; not above 0 where the solid is absent.
        depth: A point (x, y) on the axis.
    """

    cx: Profile
    cy: Profile
    a: Profile
    b: Profile
    f: Profile
    depth: tuple[float, float]

    def extent(self, projection: Projection) -> tuple[float, float, float, float]:
        """Find a box that holds the shadow: columns and rows, in pixels."""
        return _column_extent(self, projection)

    def span(self, rays: Rays) -> Span:
        """Intersect rays with the solid."""
        depth = rays.depth(*self.depth)
        slope = rays.dz[:, 0].astype(np.float64)
        z = rays.z[:, 0] + slope * depth
        near = np.stack([z - 1, z, z + 1])
        # In the scaled section a ray passes p at the axis and moves by q; both are linear in u,
        # which is counted from the ray through the axis.
        at, _, far = rays.aim((*self.depth, 0.0))
        below, f, above = self.f(near)
        a, b, c = (np.zeros((3, len(z))) for _ in range(3))
        a[0], b[0], c[0] = -(above - 2 * f + below) / 2 * slope**2, -(above - below) / 4 * slope, -f
        for k, (center, radius) in enumerate(((self.cx, self.a), (self.cy, self.b))):
            before, middle, after = center(near)
            scale, right = 1 / radius(z), rays.right[k]
            drift = (after - before) / 2 * slope
            p = ((self.depth[k] - middle) * scale, scale * (far * right))
            q = ((rays.towards[k] + at * right - drift) * scale, scale * right)
            a += _product(q, q)
            b += _product(p, q)
            c += _product(p, p)
        u = rays.u - np.float32(at)
        first, second = _polynomial(a, u), _polynomial(b, u)
        square = second * second
        square -= first * _polynomial(c, u)
        return _chord(square, first, second, depth)

    def contains(self, points: Float64) -> NDArray[np.bool_]:
        """Tell which points (..., 3) lie inside."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        level = ((x - self.cx(z)) / self.a(z)) ** 2 + ((y - self.cy(z)) / self.b(z)) ** 2
        inside: NDArray[np.bool_] = level <= self.f(z)
        return inside


@lru_cache(maxsize=32)  # asked for by every part of a film
def _column_extent(column: Column, projection: Projection) -> tuple[float, float, float, float]:
    z = np.arange(-320.0, 320.0, 4.0)
    f = column.f(z)
    held = np.concatenate([f[1:], f[-1:]]) + f + np.concatenate([f[:1], f[:-1]]) > 0
    z, scale = z[held], np.sqrt(np.maximum(f[held], 0.04))
    x, y = column.cx(z), column.cy(z)
    a, b = column.a(z) * scale, column.b(z) * scale
    corners = [np.stack([x + i * a, y + j * b, z], -1) for i in (-1, 1) for j in (-1, 1)]
    across, down, _ = projection.project(np.concatenate(corners))
    margin = 6.0 / projection.spacing
    return (
        float(across.min()) - margin, float(across.max()) + margin,
        float(down.min()) - margin, float(down.max()) + margin,
    )  # fmt: skip


@dataclass(frozen=True)
class Paraboloid:
    """What lies under (or over) an elliptic paraboloid.

    Inside is where ``sign * (z - top) + height * (((x-cx)/a)^2 + ((y-cy)/b)^2) <= 0``.

    Args:
        center: (cx, cy), mm.
        top: Height of the vertex, mm.
        radii: (a, b), mm.
        height: Drop from the vertex to where the scaled radius is one, mm, above 0.
        sign: 1 for a dome, -1 for a bowl.
    """

    center: tuple[float, float]
    top: float
    radii: tuple[float, float]
    height: float
    sign: float = 1.0

    def span(self, rays: Rays) -> Span:
        """Intersect rays with the solid."""
        x, y = (self.height / radius**2 for radius in self.radii)
        matrix = ((x, 0.0, 0.0), (0.0, y, 0.0), (0.0, 0.0, 0.0))
        linear = (0.0, 0.0, 0.5 * self.sign)
        return _quadric(rays, (*self.center, self.top), matrix, linear, 0.0)

    def level(self, points: Float64) -> Float64:
        """Height of the surface at points (..., 3), mm."""
        x = (points[..., 0] - self.center[0]) / self.radii[0]
        y = (points[..., 1] - self.center[1]) / self.radii[1]
        height: Float64 = self.top - self.sign * self.height * (x**2 + y**2)
        return height
