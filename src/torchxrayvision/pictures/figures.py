"""Figures that show themselves: importing this module imports matplotlib."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class ShownAxes(Axes):
    """Axes whose figure a notebook shows where they are the last value of a cell.

    Notebooks show the figures that pyplot keeps; one that pyplot does not know is freed with its
    last reference, and shows itself through this.
    """

    def _repr_png_(self) -> bytes:
        """The whole figure, as PNG."""
        buffer = io.BytesIO()
        self.figure.canvas.print_figure(buffer, format="png")
        return buffer.getvalue()


def figure_of_its_own(width: float, height: float) -> Axes:
    """Axes of a new figure, which pyplot does not know.

    Args:
        width: Inches.
        height: Inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot(axes_class=ShownAxes)
