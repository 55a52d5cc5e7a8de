"""Forest plots: values with their intervals, one row each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torchxrayvision.errors import EvaluationError
from torchxrayvision.plots.style import ACCENT, INK, SOFT, Display, dress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes


@dataclass
class ForestDisplay(Display):
    """Values with intervals.

    Attributes:
        table: ``label``, ``value``, ``low``, ``high``, one row each.
        reference: Where a line is drawn, or None.
        title: Of the figure.
        measure: Name of the horizontal axis.
    """

    table: pd.DataFrame
    reference: float | None = None
    title: str = ""
    measure: str = ""
    kind: ClassVar[str] = "forest"

    def _size(self) -> tuple[float, float]:
        return 6.4, 0.9 + 0.24 * max(len(self.table), 2)

    def _draw(self, ax: Axes) -> None:
        rows = self.table[::-1].reset_index(drop=True)
        if self.reference is not None:
            ax.axvline(self.reference, color=SOFT, linewidth=0.8, linestyle=(0, (4, 4)))
        for place, (value, low, high) in enumerate(
            zip(rows["value"], rows["low"], rows["high"], strict=True)
        ):
            if math.isnan(value):
                continue
            if not math.isnan(low):
                ax.plot([low, high], [place, place], color=ACCENT, linewidth=1.6)
            hollow = math.isnan(low)
            ax.plot(
                [value], [place], "s", markersize=4.5, color=ACCENT,
                markerfacecolor="none" if hollow else ACCENT,
            )  # fmt: skip
        dress(ax, self.title, self.measure, "")
        ax.set_yticks(range(len(rows)), rows["label"].astype(str).tolist())
        ax.tick_params(axis="y", colors=INK)
        ax.grid(visible=False, axis="y")
        ax.set_ylim(-0.7, len(rows) - 0.3)


def forest(
    table: pd.DataFrame,
    *,
    label: str | Sequence[str] = "finding",
    value: str = "value",
    low: str = "low",
    high: str = "high",
    reference: float | None = None,
    title: str = "",
    measure: str = "",
    ax: Axes | None = None,
) -> ForestDisplay:
    """Forest plot of a table; rows without an interval have a hollow mark.

    Args:
        table: Such as `evaluation.auroc_table`, `performance_table` or `gap_table` give it.
        label: Column, or columns, that name a row.
        value: Column of the value.
        low: Column of the lower end.
        high: Column of the upper end.
        reference: Where a line is drawn, such as 0.5 or 0.
        title: Of the figure.
        measure: Name of the horizontal axis; the name of the column by default.
        ax: Axes to draw on; None for new ones.

    Returns:
        The display.

    Raises:
        EvaluationError: If a column is missing.
        DependencyError: If matplotlib is missing.
    """
    import pandas as pd

    names = [label] if isinstance(label, str) else list(label)
    if missing := [name for name in (*names, value, low, high) if name not in table]:
        msg = f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, table))}"
        raise EvaluationError(msg)
    texts = table[names].astype(str).agg(" · ".join, axis=1)
    made = pd.DataFrame(
        {
            "label": texts.to_numpy(),
            "value": table[value].to_numpy(float),
            "low": table[low].to_numpy(float),
            "high": table[high].to_numpy(float),
        }
    )
    return ForestDisplay(made, reference, title, measure or value).plot(ax)
