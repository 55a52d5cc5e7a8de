"""The shadows that the solids of one film cast, each found once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchxrayvision.phantom.spans import overlap, relative, window_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torchxrayvision.phantom.rays import Projection, Rays
    from torchxrayvision.phantom.solids import Solid
    from torchxrayvision.phantom.spans import Span, Window


class Cast:
    """What the rays of a film meet, found once for all parts of the film that ask.

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
