"""Where rays enter and leave solids, and what becomes of it when solids meet.

A `Span` holds, for each ray, where it enters and leaves; rays that miss have ``enter > leave``.
Convex solids intersect by the later entry and the earlier exit. `Union` joins solids that touch or
overlap and remembers the gaps between those that do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.phantom.rays import Projection, Rays
    from torchxrayvision.phantom.solids import Solid

    Float32 = NDArray[np.float32]


FAR = np.float32(1e5)

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
        enter, leave = np.maximum(self.enter, to.enter), np.maximum(self.leave, to.enter)
        np.minimum(enter, to.leave, out=enter)
        np.minimum(leave, to.leave, out=leave)
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

    def length_within(self, span: Span, window: Window = EVERYWHERE) -> Float32:
        """Stretch of a span, which covers a window, inside any of them, mm of w."""
        inside = (self.hull.part(window) & span).length()
        inside -= np.minimum(self.gap[window], inside)
        return inside


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


def overlap(first: Window, second: Window) -> Window | None:
    """Give what two windows share; None if nothing."""
    rows, columns = (
        slice(max(a.start, b.start), min(a.stop, b.stop))
        for a, b in zip(first, second, strict=True)
    )
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def around(windows: Sequence[Window]) -> Window:
    """Give the least window that holds some others, at least one."""
    rows, columns = zip(*windows, strict=True)
    return (
        slice(min(r.start for r in rows), max(r.stop for r in rows)),
        slice(min(c.start for c in columns), max(c.stop for c in columns)),
    )


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


class Shadows:
    """What the rays of an image meet, found once for all parts of the image that ask.

    Args:
        plan: Where focal spot and detector are.
    """

    def __init__(self, plan: Projection) -> None:
        self.plan: Projection = plan
        self.rays: Rays = plan.rays()
        self.frame: Window = (slice(0, plan.size), slice(0, plan.size))
        self._found: dict[int, tuple[Solid, Window, Span] | None] = {}

    def window(self, solid: Solid) -> Window | None:
        """The window of a solid's shadow; None if it falls beside the detector."""
        return window_of(solid.extent(self.plan), self.frame)

    def span(self, solid: Solid) -> tuple[Window, Span] | None:
        """The window of a solid's shadow, and the span of its rays."""
        key = id(solid)  # of an object that is kept, so that no other can have it
        if key not in self._found:
            place = self.window(solid)
            self._found[key] = (
                (solid, place, solid.span(self.rays.window(place))) if place else None
            )
        found = self._found[key]
        return found and found[1:]

    def spans(self, solids: Iterable[Solid], within: Window) -> Iterator[tuple[Window, Span]]:
        """Spans of solids where they fall in a window, with their places in it."""
        for solid in solids:
            found = self.span(solid)
            here = overlap(found[0], within) if found else None
            if found and here:
                yield relative(here, within), found[1].part(relative(here, found[0]))
