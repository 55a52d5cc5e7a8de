"""Solids that a ray meets in one stretch, found in closed form.

A `Span` holds, for each ray, where it enters and leaves; rays that miss have ``enter > leave``.
Convex solids intersect by the later entry and the earlier exit. `Union` joins solids that touch or
overlap and remembers the gaps between those that do not.

Only sums, products, quotients and square roots touch pixels: IEEE 754 rounds these in one way, so
the same spans come out on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.phantom._rays import Projection, Rays

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]
    Profile = Callable[[Float64], Float64]

FAR = np.float32(1e5)
_FLAT = np.float32(1e-9)

Window = tuple[slice, slice]
"""Rows and columns of a picture."""

EVERYWHERE: Window = (slice(None), slice(None))


@dataclass(frozen=True)
class Span:
    """Where rays enter and leave a solid.

    Args:
        enter: Depth w of entry, float32 (H, W), mm.
        leave: Depth w of exit.
    """

    enter: Float32
    leave: Float32

    def __and__(self, other: Span) -> Span:
        return Span(np.maximum(self.enter, other.enter), np.minimum(self.leave, other.leave))

    def clipped(self, to: Span) -> Span:
        """Cut to another span; what lies outside shrinks to nothing at its edge."""
        enter = np.minimum(np.maximum(self.enter, to.enter), to.leave)
        leave = np.minimum(np.maximum(self.leave, to.enter), to.leave)
        missed = enter > leave
        enter[missed], leave[missed] = FAR, -FAR
        return Span(enter, leave)

    def part(self, window: Window) -> Span:
        """The rays of a window."""
        return Span(self.enter[window], self.leave[window])

    def length(self) -> Float32:
        """Stretch inside, float32 (H, W), mm of w; 0 where missed."""
        stretch: Float32 = self.leave - self.enter
        return np.maximum(stretch, np.float32(0), out=stretch)

    def hit(self) -> NDArray[np.bool_]:
        """Whether each ray meets the solid, bool (H, W)."""
        met: NDArray[np.bool_] = self.leave > self.enter
        return met


class Union:
    """Solids joined along each ray: the hull of their spans less the gaps between them."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.hull = Span(np.full(shape, FAR), np.full(shape, -FAR))
        self.gap: Float32 = np.zeros(shape, np.float32)

    def add(self, other: Span, window: Window = EVERYWHERE, *, touching: bool = False) -> None:
        """Join one more solid.

        Args:
            other: Its span.
            window: The part of the picture that this covers.
            touching: Whether it hangs together with what is there, so that nothing lies between.
        """
        enter, leave = self.hull.enter[window], self.hull.leave[window]
        if touching:
            np.minimum(enter, other.enter, out=enter)
            np.maximum(leave, other.leave, out=leave)
            return
        apart = np.maximum(enter, other.enter)
        apart -= np.minimum(leave, other.leave)
        # Where either is missed, the difference is beyond any chest.
        apart[apart > FAR / 4] = 0
        self.gap[window] += np.maximum(apart, np.float32(0), out=apart)
        np.minimum(enter, other.enter, out=enter)
        np.maximum(leave, other.leave, out=leave)

    def length(self) -> Float32:
        """Stretch inside any of them, mm of w."""
        stretch = self.hull.length()
        stretch -= self.gap
        return np.maximum(stretch, np.float32(0), out=stretch)

    def length_within(self, span: Span) -> Float32:
        """Stretch of a span that lies inside any of them, mm of w."""
        inside = (self.hull & span).length()
        inside -= np.minimum(self.gap, inside)
        return inside


def _roots(a: Float32, b: Float32, c: Float32, shift: float = 0.0) -> Span:
    """Solve ``a w^2 + 2 b w + c <= 0`` for ``a > 0``."""
    square = b * b
    square -= a * c
    missed = square <= 0
    root = np.sqrt(np.maximum(square, np.float32(0), out=square), out=square)
    scale: Float32 = np.reciprocal(np.maximum(a, _FLAT))
    middle: Float32 = np.multiply(b, scale)
    np.subtract(np.float32(shift), middle, out=middle)
    root *= scale
    enter: Float32 = np.subtract(middle, root)
    leave: Float32 = np.add(middle, root, out=middle)
    enter[missed], leave[missed] = FAR, -FAR
    return Span(enter, leave)


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
        inverse = self.inverse().astype(np.float32)
        depth = np.float32(rays.depth(self.center[0], self.center[1]))
        x = rays.x + rays.dx * depth - np.float32(self.center[0])
        y = rays.y + rays.dy * depth - np.float32(self.center[1])
        z = rays.z + rays.dz * depth - np.float32(self.center[2])
        a, b, c = (np.zeros(rays.shape, np.float32) for _ in range(3))
        for mx, my, mz in inverse:
            place = (x * mx + y * my) + z * mz
            slope = (rays.dx * mx + rays.dy * my) + rays.dz * mz
            b += slope * place
            slope *= slope
            a += slope
            place *= place
            c += place
        c -= np.float32(1)
        return _roots(a, b, c, float(depth))

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
        z = (rays.z[:, 0] + rays.dz[:, 0] * np.float32(depth)).astype(np.float64)
        slope = rays.dz[:, 0].astype(np.float64)

        def column(values: Float64) -> Float32:
            return np.ascontiguousarray(values, np.float32)[:, None]

        f, above, below = self.f(z), self.f(z + 1), self.f(z - 1)
        first = column((above - below) / 4 * slope)
        second = column((above - 2 * f + below) / 2 * slope**2)
        scale_x, scale_y = column(1 / self.a(z)), column(1 / self.b(z))
        drift_x = column((self.cx(z + 1) - self.cx(z - 1)) / 2 * slope)
        drift_y = column((self.cy(z + 1) - self.cy(z - 1)) / 2 * slope)
        mid = np.float32(depth)
        px = ((rays.x + rays.dx * mid) - column(self.cx(z))) * scale_x
        qx = (rays.dx - drift_x) * scale_x
        py = ((rays.y + rays.dy * mid) - column(self.cy(z))) * scale_y
        qy = (rays.dy - drift_y) * scale_y
        b = px * qx
        b += py * qy
        b -= first
        for values in (px, qx, py, qy):
            values *= values
        qx += qy
        qx -= second
        px += py
        px -= column(f)
        return _roots(qx, b, px, depth)

    def contains(self, points: Float64) -> NDArray[np.bool_]:
        """Tell which points (..., 3) lie inside."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        level = ((x - self.cx(z)) / self.a(z)) ** 2 + ((y - self.cy(z)) / self.b(z)) ** 2
        inside: NDArray[np.bool_] = level <= self.f(z)
        return inside


@lru_cache(maxsize=32)  # asked for by every part of a film
def _column_extent(column: Column, projection: Projection) -> tuple[float, float, float, float]:
    z = np.arange(-320.0, 320.0, 4.0)
    z = z[column.f(z + 4) + column.f(z) + column.f(z - 4) > 0]
    scale = np.sqrt(np.maximum(column.f(z), 0.04))
    corners = [
        np.stack(
            [column.cx(z) + i * column.a(z) * scale, column.cy(z) + j * column.b(z) * scale, z], -1
        )
        for i in (-1, 1)
        for j in (-1, 1)
    ]
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
        sign, height = np.float32(self.sign), np.float32(self.height)
        ia, ib = (np.float32(1 / r**2) for r in self.radii)
        x, y = rays.x - np.float32(self.center[0]), rays.y - np.float32(self.center[1])
        a = height * (rays.dx * rays.dx * ia + rays.dy * rays.dy * ib)
        b = height * (x * rays.dx * ia + y * rays.dy * ib) + sign * np.float32(0.5) * rays.dz
        c = height * (x * x * ia + y * y * ib) + sign * (rays.z - np.float32(self.top))
        return _roots(np.broadcast_to(a, b.shape), b, c)

    def level(self, points: Float64) -> Float64:
        """Height of the surface at points (..., 3), mm."""
        x = (points[..., 0] - self.center[0]) / self.radii[0]
        y = (points[..., 1] - self.center[1]) / self.radii[1]
        height: Float64 = self.top - self.sign * self.height * (x**2 + y**2)
        return height


def window_of(extent: tuple[float, float, float, float], within: Window) -> Window | None:
    """Cut the box of a shadow to a window with whole bounds; None if nothing is left."""
    left, right, top, bottom = extent
    rows = slice(max(math.floor(top), within[0].start), min(math.ceil(bottom) + 1, within[0].stop))
    columns = slice(
        max(math.floor(left), within[1].start), min(math.ceil(right) + 1, within[1].stop)
    )
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    return rows, columns


def relative(window: Window, within: Window) -> Window:
    """Give a window's place in another that holds it."""
    rows, columns = window
    top, left = within[0].start, within[1].start
    return (
        slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    )  # fmt: skip


def half_space(rays: Rays, normal: tuple[float, float, float], offset: float) -> Span:
    """Intersect rays with the points whose product with ``normal`` is at least ``offset``."""
    nx, ny, nz = (np.float32(n) for n in normal)
    rate = rays.dx * nx + rays.dy * ny
    value = rays.x * nx + rays.y * ny - np.float32(offset)
    if nz:  # or all rows are alike, and one is enough
        rate, value = rate + rays.dz * nz, value + rays.z * nz
    steep = np.abs(rate) > np.float32(1e-6)
    crossing = -value / np.where(steep, rate, np.float32(1))
    inside = np.where(value >= 0, -FAR, FAR)
    enter = np.where(steep & (rate > 0), crossing, np.where(steep, -FAR, inside))
    leave = np.where(steep & (rate < 0), crossing, np.where(steep, FAR, -inside))
    return Span(enter.astype(np.float32), leave.astype(np.float32))
