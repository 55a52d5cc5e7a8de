"""What all figures share: colours, size, and SVG that follows the page it stands in."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from torchxrayvision.errors import needs_package
from torchxrayvision.files import write_atomically

if TYPE_CHECKING:
    import os

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In SVG these become the variables of the page, so that figures have its dark mode too.
INK: Final = "#1b1f23"
SOFT: Final = "#5f6a72"
LINE: Final = "#dcdad5"
ACCENT: Final = "#0b6b74"
RANGE: Final = "#8fc3c8"
BAD: Final = "#a3261b"
_VARIABLES: Final = {
    INK: "ink", SOFT: "soft", LINE: "line", ACCENT: "accent", RANGE: "range", BAD: "bad",
}  # fmt: skip

SIDE: Final = 3.4  # inches
_SETTINGS: Final[dict[str, Any]] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, found and copied
    "svg.hashsalt": "torchxrayvision",
    "font.family": "sans-serif",
}


def matplotlib_or_error() -> Any:
    """Matplotlib.

    Raises:
        DependencyError: If it is not installed.
    """
    with needs_package("matplotlib", "a figure", "report"):
        import matplotlib as module
    return module


def new_axes(width: float = SIDE, height: float = SIDE) -> Axes:
    """Axes of a figure of their own, which pyplot does not know.

    Args:
        width: Inches.
        height: Inches.
    """
    matplotlib_or_error()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def dress(ax: Axes, title: str, x: str, y: str) -> None:
    """Labels, grid and colours.

    Args:
        ax: The axes.
        title: Of the figure.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
    """
    ax.set_title(title, fontsize=10, color=INK, loc="left", wrap=True)
    ax.set_xlabel(x, fontsize=9, color=SOFT)
    ax.set_ylabel(y, fontsize=9, color=SOFT)
    ax.tick_params(colors=SOFT, labelsize=8, length=0)
    ax.grid(visible=True, color=LINE, linewidth=0.7)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)


class Display:
    """A figure with its numbers.

    Attributes:
        ax_: The axes.
        figure_: The figure they are in.
    """

    ax_: Axes
    figure_: Figure
    kind: ClassVar[str] = "figure"

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw it.

        Args:
            ax: Axes to draw on; None for new ones, as large as it needs.

        Returns:
            Itself.

        Raises:
            DependencyError: If matplotlib is missing.
        """
        self.ax_ = new_axes(*self._size()) if ax is None else ax
        self.figure_ = self.ax_.figure  # type: ignore[assignment]
        self._draw(self.ax_)
        return self

    def _size(self) -> tuple[float, float]:
        """Width and height of axes of its own, inches."""
        return SIDE, SIDE

    def _draw(self, ax: Axes) -> None:
        """Draw on the axes."""
        raise NotImplementedError

    def svg(self, description: str = "") -> str:
        """The figure as an element of an HTML page; its colours follow the page.

        Args:
            description: Of what it shows, for those who do not see it.

        Returns:
            The element, without a declaration of XML.
        """
        buffer = io.StringIO()
        self._write(buffer, "svg")
        return _for_page(buffer.getvalue(), description)

    def save(self, path: str | os.PathLike[str], dpi: int = 200) -> None:
        """Write the figure.

        Args:
            path: .svg, .pdf or .png.
            dpi: Of a PNG.
        """
        with write_atomically(path) as part:
            self._write(part, part.suffix[1:].lower(), dpi=dpi)

    def _write(self, target: Any, form: str, **options: Any) -> None:
        metadata = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}
        with matplotlib_or_error().rc_context(_SETTINGS):
            self.figure_.savefig(
                target, format=form, transparent=form == "svg", metadata=metadata.get(form),
                **options,
            )  # fmt: skip

    def _repr_svg_(self) -> str:
        buffer = io.StringIO()
        self._write(buffer, "svg")
        return buffer.getvalue()


def _for_page(text: str, description: str) -> str:
    """SVG as it stands in a page: no header, colours as variables, identifiers of its own."""
    import hashlib
    import html

    text = text[text.index("<svg") :]
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    mark = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'\bid="', f'id="{mark}-', text)
    text = re.sub(r'href="#', f'href="#{mark}-', text)
    text = re.sub(r"url\(#", f"url(#{mark}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" ?', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*" ?', r"<svg \1", text, count=1)
    label = html.escape(description or "figure", quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).rstrip()
