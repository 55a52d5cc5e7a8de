"""Figures of studies over several datasets: a matrix of weights and datasets, covariate shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from torchxrayvision.errors import EvaluationError
from torchxrayvision.plots.style import ACCENT, BAD, INK, SOFT, Display, dress

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_TESTS: Final = {
    "same": ("in distribution", ACCENT, "o"),
    "even": ("site says nothing in the test", SOFT, "s"),
    "opposite": ("out of distribution", BAD, "^"),
}


@dataclass
class MatrixDisplay(Display):
    """A value for every row and column, with its interval.

    Attributes:
        table: ``row``, ``column``, ``value``, ``low``, ``high``.
        measure: What the values are.
    """

    table: pd.DataFrame
    measure: str = "AUROC"
    kind: ClassVar[str] = "matrix"

    def _size(self) -> tuple[float, float]:
        rows, columns = (self.table[name].nunique() for name in ("row", "column"))
        longest = max(len(str(name)) for name in self.table["row"])
        return 0.085 * longest + 1.5 * columns + 0.4, 0.62 * rows + 1.1

    def _draw(self, ax: Axes) -> None:
        rows, columns = ([*dict.fromkeys(self.table[name])] for name in ("row", "column"))
        shown = np.full((len(rows), len(columns)), np.nan)
        for cell in self.table.to_dict("records"):
            at = rows.index(cell["row"]), columns.index(cell["column"])
            value, low, high = (float(cell[name]) for name in ("value", "low", "high"))
            shown[at] = value
            text = "" if math.isnan(value) else f"{value:.3f}"
            text += "" if math.isnan(low) else f"\n{low:.3f} to {high:.3f}"
            dark = value > 0.82
            ax.text(
                at[1], at[0], text, ha="center", va="center", fontsize=8,
                color="#ffffff" if dark else INK,
            )  # fmt: skip
        ax.imshow(shown, vmin=0.4, vmax=1.0, cmap="GnBu", aspect="auto")
        dress(ax, f"{self.measure} with 95 % interval", "", "")
        ax.grid(visible=False)
        ax.set_xticks(range(len(columns)), [str(name) for name in columns])
        ax.set_yticks(range(len(rows)), [str(name) for name in rows])
        for spine in ax.spines.values():
            spine.set_visible(False)


def matrix(
    table: pd.DataFrame,
    *,
    row: str = "weights",
    column: str = "dataset",
    value: str = "auroc",
    measure: str = "mean AUROC",
    ax: Axes | None = None,
) -> MatrixDisplay:
    """A matrix such as `xrv benchmark cross-dataset` gives it, darker where the value is higher.

    Args:
        table: One row per cell, with ``low`` and ``high``.
        row: Column that names the rows.
        column: Column that names the columns.
        value: Column of the value, in [0, 1].
        measure: What it is.
        ax: Axes to draw on; None for new ones.

    Returns:
        The display.

    Raises:
        EvaluationError: If a column is missing, or there is no cell.
        DependencyError: If matplotlib is missing.
    """
    wanted = {row: "row", column: "column", value: "value", "low": "low", "high": "high"}
    missing = [name for name in wanted if name not in table]
    if missing or not len(table):
        msg = f"a matrix needs rows and the columns {', '.join(wanted)}, got {len(table)} rows and "
        raise EvaluationError(msg + ", ".join(map(str, table)))
    return MatrixDisplay(table[[*wanted]].rename(columns=wanted), measure).plot(ax)


@dataclass
class ShiftDisplay(Display):
    """AUROC of three tests against how much the site says about the label.

    Attributes:
        table: From `benchmark.covariate_shift`.
        finding: That was learned.
    """

    table: pd.DataFrame
    finding: str = ""
    kind: ClassVar[str] = "covariate-shift"

    def _size(self) -> tuple[float, float]:
        return 7.0, 4.4

    def _draw(self, ax: Axes) -> None:
        for test, (name, colour, marker) in _TESTS.items():
            part = self.table[self.table["test"] == test]
            at, given = part["ratio"], part["low"].notna()
            ax.fill_between(
                at[given], part["low"][given], part["high"][given], color=colour, alpha=0.18, lw=0
            )
            ax.plot(at, part["auroc"], color=colour, marker=marker, ms=5, label=name)
        ax.axhline(0.5, color=SOFT, linewidth=0.8, linestyle=(0, (4, 4)))
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=sorted(set(self.table["ratio"])))
        ax.legend(frameon=False, loc="lower center", fontsize=9, labelcolor=SOFT)
        ratio = "ratio in training: share of positives from site B, and of negatives from site A"
        dress(ax, "", ratio, f"AUROC {self.finding}".strip())


def covariate_shift(
    table: pd.DataFrame, *, finding: str = "", ax: Axes | None = None
) -> ShiftDisplay:
    """The figure of `xrv benchmark covariate-shift`.

    Args:
        table: From `benchmark.covariate_shift`.
        finding: That was learned.
        ax: Axes to draw on; None for new ones.

    Returns:
        The display.

    Raises:
        DependencyError: If matplotlib is missing.
    """
    return ShiftDisplay(table, finding).plot(ax)
