"""The two halves of the chest: pleural cavities, and the organs that narrow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.spans import (
    EVERYWHERE,
    Span,
    Union,
    around,
    half_space,
    relative,
    window_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from torchxrayvision.phantom.anatomy import Anatomy
    from torchxrayvision.phantom.cast import Cast
    from torchxrayvision.phantom.rays import Projection, Rays
    from torchxrayvision.phantom.solids import Ellipsoid, Solid
    from torchxrayvision.phantom.spans import Window

    Float32 = NDArray[np.float32]


class Side:
    """One half of the chest, within the window of its shadow.

    Args:
        anatomy: Solids of the chest.
        cast: What the rays meet of these.
        side: 1 for the left half, -1 for the right.

    Attributes:
        window: Rows and columns of the picture that the arrays cover.
        rays: Their rays.
        cavity: The pleural cavity.
        organs: Heart, mediastinum, spine and diaphragm, joined.
        dome: The half of the diaphragm.
        room: Stretch in the cavity and outside the organs, mm of w.
        lung: The part of the cavity that the visceral pleura encloses; at first all.
        air: Stretch in aerated lung, mm of w; at first the room.
    """

    def __init__(self, anatomy: Anatomy, cast: Cast, side: int) -> None:
        lung = anatomy.lungs[side]
        self.window: Window = cast.window(lung) or cast.frame
        self.rays: Rays = cast.rays.window(self.window)
        self.cavity: Span = lung.span(self.rays) & half_space(self.rays, (side, 0, 0), 0.0)
        self.dome, self.organs = Union(self.rays.shape), Union(self.rays.shape)
        self._join(anatomy, cast, anatomy.domes[side])
        self.room: Float32 = self.within(self.cavity)
        self.lung, self.air = self.cavity, self.room

    def _join(self, anatomy: Anatomy, cast: Cast, dome: Solid) -> None:
        """Join all that narrows the cavity."""
        front, back = anatomy.mediastinum
        middle = Union(self.rays.shape)
        for union, solids in (
            (self.dome, [dome, anatomy.saddle]),
            (middle, [front, *anatomy.heart.values()]),
        ):
            places = []
            for place, span in cast.spans(solids, self.window):
                union.add(span, place, touching=True)
                places.append(place)
            if places:
                box = around(places)
                self.organs.add(union.hull.part(box).clipped(self.cavity.part(box)), box)
        # From front to back, since a gap that a later solid filled would stay a gap.
        others: list[Solid] = [*anatomy.vessels.values(), back, *anatomy.aorta.values()]
        for place, span in cast.spans([*others, anatomy.spine, anatomy.gutter], self.window):
            self.organs.add(span.clipped(self.cavity.part(place)), place)

    def within(self, span: Span, window: Window = EVERYWHERE) -> Float32:
        """Stretch of a span in the cavity that lies outside the organs, mm of w."""
        stretch = span.length()
        stretch -= self.organs.length_within(span, window)
        return np.maximum(stretch, np.float32(0), out=stretch)

    def blobs(self, solids: Iterable[Ellipsoid], plan: Projection) -> Float32:
        """Stretch of aerated lung in any of some ellipsoids, mm of w."""
        thick = np.zeros(self.rays.shape, np.float32)
        windows = [(solid, window_of(solid.extent(plan), self.window)) for solid in solids]
        places = [(solid, relative(place, self.window)) for solid, place in windows if place]
        if not places:
            return thick
        box = around([place for _, place in places])
        joined = Union(self.rays.window(box).shape)
        for solid, place in places:
            joined.add(solid.span(self.rays.window(place)), relative(place, box), touching=True)
        stretch = self.within(self.lung.part(box) & joined.hull, box)
        np.minimum(stretch, self.air[box], out=thick[box])
        return thick
