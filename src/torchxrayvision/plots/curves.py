"""Curves of one finding: ROC, precision and recall, reliability, decisions, scores."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypedDict, Unpack

import numpy as np

from torchxrayvision.evaluation import (
    MEAN,
    Interval,
    auroc_interval,
    average_precision_interval,
    calibration_line,
    expected_calibration_error,
    net_benefit_curve,
    operating_point,
    precision_recall_curve,
    reliability_curve,
    roc_curve,
)
from torchxrayvision.plots.style import ACCENT, BAD, RANGE, SIDE, SOFT, Display, dress

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation import CalibrationLine, OperatingPoint

_LABEL_HEIGHT: Final = 0.032  # of the axes, which a label of a curve takes
_POINTS: Final = 400  # of a curve: more are not seen and make files large


class CurveOptions(TypedDict, total=False):
    """What every figure of one finding takes.

    Attributes:
        name: Of the finding, for the title.
        patient_ids: Patient of each row, shape (N,); None if each row is a patient of its own.
        ax: Axes to draw on; None for new ones.
    """

    name: str
    patient_ids: ArrayLike | None
    ax: Axes | None


def _point(
    labels: ArrayLike, scores: ArrayLike, threshold: float | None, patient_ids: ArrayLike | None
) -> OperatingPoint | None:
    """Rates at a threshold, if there is one."""
    if threshold is None or math.isnan(threshold):
        return None
    return operating_point(labels, scores, threshold, patient_ids)


def _thinned(table: pd.DataFrame) -> pd.DataFrame:
    """A curve with few points, its ends among them."""
    if len(table) <= _POINTS:
        return table
    places = np.unique(np.linspace(0, len(table) - 1, _POINTS).round().astype(int))
    return table.iloc[places]


def _titled(name: str, what: str, interval: Interval) -> str:
    if math.isnan(interval.low):
        return f"{name}\n{what} {interval.value:.3f}".strip()
    return f"{name}\n{what} {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]".strip()


@dataclass
class RocDisplay(Display):
    """Sensitivity against specificity.

    Attributes:
        curve: From `evaluation.roc_curve`.
        area: AUROC with its interval.
        point: At the threshold, or None.
        name: Of the finding.
    """

    curve: pd.DataFrame
    area: Interval
    point: OperatingPoint | None = None
    name: str = ""
    kind: ClassVar[str] = "roc"

    def _draw(self, ax: Axes) -> None:
        curve = _thinned(self.curve)
        ax.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (4, 4)))
        ax.plot(1 - curve["specificity"], curve["sensitivity"], color=ACCENT, linewidth=1.6)
        if self.point is not None:
            x, y = 1 - self.point.specificity.value, self.point.sensitivity.value
            ends = (self.point.specificity, self.point.sensitivity)
            if not any(math.isnan(end.low) for end in ends):
                high, low = ends[0].high, ends[0].low
                ax.plot([1 - high, 1 - low], [y, y], color=BAD, linewidth=1)
                ax.plot([x, x], [ends[1].low, ends[1].high], color=BAD, linewidth=1)
            ax.plot([x], [y], "o", color=BAD, markersize=5)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        title = _titled(self.name, "AUROC", self.area)
        dress(ax, title, "1 - specificity", "sensitivity")


def roc(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float | None = None,
    **options: Unpack[CurveOptions],
) -> RocDisplay:
    """ROC curve of one finding, with the AUROC and a threshold with its interval.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).
        threshold: Drawn as a point with the intervals of its rates; None for none.
        **options: ``name``, ``patient_ids`` and ``ax``, see `CurveOptions`.

    Returns:
        The display.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.
        DependencyError: If matplotlib is missing.
    """
    patient_ids = options.get("patient_ids")
    point = _point(labels, scores, threshold, patient_ids)
    area = auroc_interval(labels, scores, patient_ids)
    shown = RocDisplay(roc_curve(labels, scores), area, point, options.get("name", ""))
    return shown.plot(options.get("ax"))


@dataclass
class PrecisionRecallDisplay(Display):
    """Precision (PPV) against recall (sensitivity).

    Attributes:
        curve: From `evaluation.precision_recall_curve`.
        average: Average precision with its interval.
        prevalence: What a ranking by chance has.
        point: At the threshold, or None.
        name: Of the finding.
    """

    curve: pd.DataFrame
    average: Interval
    prevalence: float
    point: OperatingPoint | None = None
    name: str = ""
    kind: ClassVar[str] = "precision-recall"

    def _draw(self, ax: Axes) -> None:
        curve = _thinned(self.curve)
        ax.axhline(self.prevalence, color=SOFT, linewidth=0.8, linestyle=(0, (4, 4)))
        ax.step(curve["recall"], curve["precision"], where="pre", color=ACCENT, linewidth=1.6)
        if self.point is not None and not math.isnan(self.point.ppv.value):
            ax.plot([self.point.sensitivity.value], [self.point.ppv.value], "o", color=BAD, ms=5)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        dress(ax, _titled(self.name, "average precision", self.average), "recall", "precision")


def precision_recall(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float | None = None,
    **options: Unpack[CurveOptions],
) -> PrecisionRecallDisplay:
    """Precision-recall curve of one finding; dashed is what chance has.

    Args:
        labels: As in `roc`.
        scores: As in `roc`.
        threshold: Drawn as a point; None for none.
        **options: ``name``, ``patient_ids`` and ``ax``, see `CurveOptions`.

    Returns:
        The display.

    Raises:
        EvaluationError: As in `roc`.
        DependencyError: If matplotlib is missing.
    """
    patient_ids = options.get("patient_ids")
    point = _point(labels, scores, threshold, patient_ids)
    curve = precision_recall_curve(labels, scores)
    average = average_precision_interval(labels, scores, patient_ids)
    share = average.positives / average.n
    shown = PrecisionRecallDisplay(curve, average, share, point, options.get("name", ""))
    return shown.plot(options.get("ax"))


@dataclass
class ReliabilityDisplay(Display):
    """Observed share against predicted probability.

    Attributes:
        curve: From `evaluation.reliability_curve`.
        error: Expected calibration error over the same bins.
        line: Slope and intercept, or None where none fits.
        name: Of the finding.
    """

    curve: pd.DataFrame
    error: float
    line: CalibrationLine | None
    name: str = ""
    kind: ClassVar[str] = "reliability"

    def _draw(self, ax: Axes) -> None:
        curve = self.curve
        ax.plot([0, 1], [0, 1], color=SOFT, linewidth=0.8, linestyle=(0, (4, 4)))
        shown = curve[~curve["low"].isna()]
        ax.vlines(shown["predicted"], shown["low"], shown["high"], color=RANGE, linewidth=2.5)
        ax.plot(shown["predicted"], shown["observed"], color=ACCENT, linewidth=1)
        largest = max(float(curve["n"].max()), 1.0)
        ax.scatter(
            shown["predicted"], shown["observed"], s=12 + 60 * shown["n"] / largest, color=ACCENT,
            zorder=3,
        )  # fmt: skip
        few = curve[curve["low"].isna()]  # too few patients to say anything: hollow, not joined
        ax.scatter(
            few["predicted"], few["observed"], s=12, facecolors="none", edgecolors=SOFT, zorder=3
        )
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        line = "" if self.line is None else f", slope {self.line.slope:.2f}"
        title = f"{self.name}\nECE {self.error:.3f}{line}".strip()
        dress(ax, title, "predicted probability", "observed share")


def reliability(
    labels: ArrayLike,
    probabilities: ArrayLike,
    *,
    bins: int = 10,
    **options: Unpack[CurveOptions],
) -> ReliabilityDisplay:
    """Reliability diagram of one finding; the area of a point is the number of its images.

    Args:
        labels: As in `roc`.
        probabilities: In [0, 1], shape (N,).
        bins: Of equal width.
        **options: ``name``, ``patient_ids`` and ``ax``, see `CurveOptions`.

    Returns:
        The display.

    Raises:
        EvaluationError: As in `roc`, or if a probability is outside [0, 1].
        DependencyError: If matplotlib is missing.
    """
    from torchxrayvision.errors import EvaluationError

    curve = reliability_curve(labels, probabilities, bins, patient_ids=options.get("patient_ids"))
    error = expected_calibration_error(labels, probabilities, bins)
    try:
        line = calibration_line(labels, probabilities)
    except EvaluationError:  # the classes are separated, which is no fault of the figure
        line = None
    return ReliabilityDisplay(curve, error, line, options.get("name", "")).plot(options.get("ax"))


@dataclass
class DecisionCurveDisplay(Display):
    """Net benefit against the probability from which acting pays.

    Attributes:
        curve: From `evaluation.net_benefit_curve`.
        name: Of the finding.
    """

    curve: pd.DataFrame
    name: str = ""
    kind: ClassVar[str] = "decision-curve"

    def _draw(self, ax: Axes) -> None:
        curve, at = self.curve, self.curve["threshold"]
        ax.fill_between(at, curve["low"], curve["high"], color=RANGE, alpha=0.45, lw=0)
        ax.plot(at, curve["net_benefit"], color=ACCENT, linewidth=1.6, label="model")
        ax.plot(at, curve["all"], color=SOFT, linewidth=1, label="act on all")
        ax.axhline(0, color=SOFT, linewidth=1, linestyle=(0, (4, 4)), label="act on none")
        top = max(float(curve["high"].max()), float(curve["all"].max()), 0.01)
        ax.set(ylim=(-0.35 * top, 1.1 * top), xlim=(0, float(at.max())))
        ax.legend(fontsize=8, frameon=False, labelcolor=SOFT, loc="upper right")
        dress(
            ax,
            f"{self.name}\nnet benefit per image".strip(),
            "threshold probability",
            "net benefit",
        )


def decision_curve(
    labels: ArrayLike,
    probabilities: ArrayLike,
    **options: Unpack[CurveOptions],
) -> DecisionCurveDisplay:
    """Decision curve of one finding, with a 95 % band, beside acting on all and on none.

    Args:
        labels: As in `roc`.
        probabilities: In [0, 1], shape (N,).
        **options: ``name``, ``patient_ids`` and ``ax``, see `CurveOptions`.

    Returns:
        The display.

    Raises:
        EvaluationError: As in `reliability`.
        DependencyError: If matplotlib is missing.
    """
    curve = net_benefit_curve(labels, probabilities, patient_ids=options.get("patient_ids"))
    return DecisionCurveDisplay(curve, options.get("name", "")).plot(options.get("ax"))


@dataclass
class ScoreDisplay(Display):
    """Histograms of the scores of images with and without the finding.

    Attributes:
        present: Share of the images with the finding in each bin.
        absent: Share of the images without it.
        edges: Of the bins.
        threshold: Drawn as a line, or None.
        name: Of the finding.
    """

    present: NDArray[np.float64]
    absent: NDArray[np.float64]
    edges: NDArray[np.float64]
    threshold: float | None = None
    name: str = ""
    kind: ClassVar[str] = "scores"

    def _draw(self, ax: Axes) -> None:
        ax.stairs(self.absent, self.edges, fill=True, color=RANGE, alpha=0.7, label="without")
        ax.stairs(self.present, self.edges, color=ACCENT, linewidth=1.6, label="with the finding")
        if self.threshold is not None and not math.isnan(self.threshold):
            ax.axvline(self.threshold, color=BAD, linewidth=1, label="threshold")
        ax.legend(fontsize=8, frameon=False, labelcolor=SOFT)
        dress(ax, f"{self.name}\nscores by class".strip(), "score", "share of the class")


def scores(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float | None = None,
    bins: int = 30,
    **options: Unpack[CurveOptions],
) -> ScoreDisplay:
    """Histograms of scores with and without the finding.

    Args:
        labels: As in `roc`.
        scores: As in `roc`.
        threshold: Drawn as a line; None for none.
        bins: How many.
        **options: ``name`` and ``ax``, see `CurveOptions`.

    Returns:
        The display.

    Raises:
        DependencyError: If matplotlib is missing.
    """
    truth, given = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    known = ~np.isnan(truth) & ~np.isnan(given)
    edges = (
        np.histogram_bin_edges(given[known], bins) if known.any() else np.linspace(0, 1, bins + 1)
    )
    counts = [np.histogram(given[truth == side], edges)[0] for side in (1, 0)]
    shares = [count / max(int(count.sum()), 1) for count in counts]
    shown = ScoreDisplay(shares[0], shares[1], edges, threshold, options.get("name", ""))
    return shown.plot(options.get("ax"))


@dataclass
class LearningCurveDisplay(Display):
    """AUROC of probes against the patients that they were fitted to.

    Attributes:
        table: From `training.learning_curve`.
    """

    table: pd.DataFrame
    kind: ClassVar[str] = "learning-curve"

    def _size(self) -> tuple[float, float]:
        return 1.7 * SIDE, 1.2 * SIDE

    def _draw(self, ax: Axes) -> None:
        steps = list(dict.fromkeys(self.table["per_class"]))
        place = {step: i for i, step in enumerate(steps)}
        ends: dict[str, tuple[float, float]] = {}
        for name, part in self.table.groupby("finding", sort=False):
            at, value = part["per_class"].map(place), part["auroc"]
            if name != MEAN:
                ax.plot(at, value, color=SOFT, linewidth=0.8, marker="o", markersize=2, alpha=0.8)
                ends[str(name)] = (float(at.iloc[-1]), float(value.iloc[-1]))
                continue
            given = part["low"].notna()
            ax.fill_between(
                at[given], part["low"][given], part["high"][given], color=RANGE, alpha=0.45, lw=0
            )
            ax.plot(at, value, color=ACCENT, linewidth=1.8, marker="o", markersize=4)
        ax.axhline(0.5, color=SOFT, linewidth=0.8, linestyle=(0, (4, 4)))
        ax.set_xticks(range(len(steps)), steps)
        ax.set_xlim(-0.3, len(steps) - 0.1 + 0.09 * len(steps))
        low, high = ax.get_ylim()
        heights = _apart([end for _, end in ends.values()], _LABEL_HEIGHT * (high - low))
        for (name, (right, _)), height in zip(ends.items(), heights, strict=True):
            ax.annotate(
                name, (right, height), xytext=(5, 0), textcoords="offset points", fontsize=7,
                color=SOFT, va="center",
            )  # fmt: skip
        dress(ax, "AUROC of linear probes", "patients of each class", "AUROC")


def _apart(values: list[float], least: float) -> list[float]:
    """Heights of labels in the order of their values, none nearer to another than `least`."""
    order = np.argsort(values, kind="stable")[::-1]
    heights = np.asarray(values, float)
    for above, below in itertools.pairwise(order):
        heights[below] = min(heights[below], heights[above] - least)
    return [float(height) for height in heights]


def learning_curve(table: pd.DataFrame, *, ax: Axes | None = None) -> LearningCurveDisplay:
    """Curves of `training.learning_curve`: each finding, and their mean with its 95 % band.

    Args:
        table: Of that function.
        ax: Axes to draw on; None for new ones.

    Returns:
        The display.

    Raises:
        DependencyError: If matplotlib is missing.
    """
    return LearningCurveDisplay(table).plot(ax)
