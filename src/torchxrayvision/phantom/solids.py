"""Solids that a ray meets in one stretch, found in closed form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.equations import dot, meet_quadric, meet_sections, product

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.phantom.rays import Projection, Rays
    from torchxrayvision.phantom.spans import Span

    Reals = NDArray[np.floating]
    Profile = Callable[[Reals], Reals]


class Solid(ABC):
    """What a ray meets in one stretch."""

    @abstractmethod
    def span(self, rays: Rays) -> Span:
        """Intersect rays with the solid."""

    @abstractmethod
    def extent(self, projection: Projection) -> tuple[float, float, float, float]:
        """Find a box that holds the shadow.

        Returns:
            Smallest and largest column, smallest and largest row, in pixels from the centre of
            the first.
        """


@dataclass(frozen=True)
class Ellipsoid(Solid):
    """An ellipsoid.

    Args:
        center: (x, y, z), mm.
        axes: float64 (3, 3): the half axes as rows, mm.
    """

    center: tuple[float, float, float]
    axes: Reals

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

    def inverse(self) -> Reals:
        """Matrix that maps offsets from the centre to the unit ball, float64 (3, 3)."""
        squares = (self.axes**2).sum(axis=1)
        normal: Reals = self.axes / squares[:, None]
        return normal

    def contains(self, points: Reals) -> NDArray[np.bool_]:
        """Tell which points (..., 3) lie inside."""
        x, y, z = (points[..., k].reshape(-1) for k in range(3))
        reach = float(np.sqrt((self.axes[:, 0] ** 2).sum()))
        near = np.flatnonzero(np.abs(x - self.center[0]) < reach)  # few to look at closely
        x, y, z = (axis.take(near) - self.center[k] for k, axis in enumerate((x, y, z)))
        total = np.zeros_like(x)
        for mx, my, mz in self.inverse().tolist():
            total += ((x * mx + y * my) + z * mz) ** 2
        inside = np.zeros(points.shape[:-1], bool)
        inside.reshape(-1)[near] = total <= 1
        return inside

    def span(self, rays: Rays) -> Span:
        """Intersect rays with the ellipsoid."""
        rows = self.inverse()
        matrix = (rows[:, :, None] * rows[:, None, :]).sum(axis=0).tolist()
        return meet_quadric(rays, self.center, matrix, (0.0, 0.0, 0.0), -1.0)

    def extent(self, projection: Projection) -> tuple[float, float, float, float]:
        """Find the box around the shadow, exactly.

        Source:
            Hartley and Zisserman, Multiple view geometry, 2nd edition, section 8.3: the outline of
            a quadric is the dual conic ``P Q* P^T``.
        """
        (rx, ry), (tx, ty) = projection.axes()
        x, y, z = self.center
        center = (
            x * rx + y * ry - projection.focus[0],
            z - projection.focus[1],
            x * tx + y * ty - projection.source,
        )
        axes = self.axes.tolist()
        far = [x * tx + y * ty for x, y, _ in axes]
        halves = [x * rx + y * ry for x, y, _ in axes], [z for _, _, z in axes]
        corner = center[2] ** 2 - dot(far, far)
        bounds = []
        for axis, sign in ((0, 1.0), (1, -1.0)):
            # Tangent planes through the focal spot: corner t^2 - 2 side t + own = 0.
            half = halves[axis]
            mean = (center[axis] * center[2] - dot(half, far)) / corner
            own = (center[axis] ** 2 - dot(half, half)) / corner
            reach = math.sqrt(max(mean**2 - own, 0.0))
            for slope in (mean - reach, mean + reach):
                place = projection.focus[axis] + slope * projection.distance
                offset = sign * (place - projection.center[axis]) / projection.spacing
                bounds.append(offset + (projection.size - 1) / 2)
        left, right, bottom, top = bounds
        return left, right, top, bottom


@dataclass(frozen=True)
class Column(Solid):
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
            a += product(q, q)
            b += product(p, q)
            c += product(p, p)
        return meet_sections(a, b, c, rays.u - np.float32(at), depth)

    def contains(self, points: Reals) -> NDArray[np.bool_]:
        """Tell which points (..., 3) lie inside."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        level = ((x - self.cx(z)) / self.a(z)) ** 2 + ((y - self.cy(z)) / self.b(z)) ** 2
        inside: NDArray[np.bool_] = level <= self.f(z)
        return inside


@lru_cache(maxsize=32)  # asked for by every part of an image
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
class Paraboloid(Solid):
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
        return meet_quadric(rays, (*self.center, self.top), matrix, linear, 0.0)

    def extent(self, projection: Projection) -> tuple[float, float, float, float]:
        """Find a box that holds the shadow: all columns, and for a dome the rows from its top on.

        The highest tangent through the focal spot has the slope v of
        ``k v^2 / (4 height) - far v + rise = 0``, where k is the squared reach of the section at
        scale one along w.
        """
        towards = projection.axes()[1]
        far = self.center[0] * towards[0] + self.center[1] * towards[1] - projection.source
        rise = self.top - projection.focus[1]
        k = sum((t * radius) ** 2 for t, radius in zip(towards, self.radii, strict=True))
        root = far**2 - k * rise / self.height
        top = 0.0
        if self.sign > 0 and root > 0:
            slope = 2 * rise / (far + math.sqrt(root))
            point = projection.focus[1] + slope * projection.distance
            top = (projection.center[1] - point) / projection.spacing + (projection.size - 1) / 2
        return 0.0, projection.size - 1.0, top, projection.size - 1.0

    def level(self, points: Reals) -> Reals:
        """Height of the surface at points (..., 3), mm."""
        x = (points[..., 0] - self.center[0]) / self.radii[0]
        y = (points[..., 1] - self.center[1]) / self.radii[1]
        height: Reals = self.top - self.sign * self.height * (x**2 + y**2)
        return height
