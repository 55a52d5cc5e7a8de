"""How well scores rank: AUROC, average precision and the curve behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.evaluation._input import column

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.evaluation._input import Floats, Rows

__all__ = ["Ranking", "auroc", "average_precision", "roc_curve"]


@dataclass(frozen=True)
class Ranking:
    """Rows with the finding, placed among the sorted rows without it.

    Sorted once, it gives the AUROC of any number of weighted resamples: for each row with the
    finding, the weight of the rows below it and half that of its equals.

    Attributes:
        positives: Rows with the finding, int64 (A,).
        negatives: Rows without it, by rising score, int64 (B,).
        below: Of each positive, how many negatives score less, int64 (A,).
        upto: And how many score less or the same, int64 (A,).
    """

    positives: Rows
    negatives: Rows
    below: Rows
    upto: Rows

    @classmethod
    def of(cls, labels: Floats, scores: Floats) -> Ranking:
        """Rank one finding; rows with a NaN label are in neither class."""
        positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
        negatives = negatives[np.argsort(scores[negatives], kind="stable")]
        floor, ours = scores[negatives], scores[positives]
        return cls(
            positives,
            negatives,
            np.searchsorted(floor, ours, side="left"),
            np.searchsorted(floor, ours, side="right"),
        )

    def areas(self, weights: Floats) -> Floats:
        """AUROC under each column of weights.

        Args:
            weights: How often each row counts, (N, R).

        Returns:
            float64 (R,), NaN where a class has no weight.
        """
        passed = np.zeros((len(self.negatives) + 1, weights.shape[1]))
        np.cumsum(weights[self.negatives], axis=0, out=passed[1:])
        ours = weights[self.positives]
        won = np.einsum("ar,ar->r", ours, passed[self.below] + passed[self.upto]) / 2
        pairs = ours.sum(axis=0) * passed[-1]
        areas = np.full(len(won), np.nan)
        np.divide(won, pairs, out=areas, where=pairs > 0)
        return areas

    def placements(self) -> tuple[Floats, Floats]:
        """Share of the other class that each row outranks: (A,), and (B,) in sorted order."""
        ours = (self.below + self.upto) / (2 * len(self.negatives))
        steps = np.zeros(len(self.negatives) + 1)
        # A positive outranks the negatives before `below` and ties with those up to `upto`.
        np.add.at(steps, self.below, 0.5)
        np.add.at(steps, self.upto, 0.5)
        beaten = steps[::-1].cumsum()[::-1][1:]
        return ours, beaten / len(self.positives)


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a row with the finding scores above one without.

    Exact; equal scores count half.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).

    Returns:
        The area in [0, 1].

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> auroc([0, 0, 1, 1, float("nan")], [0.1, 0.4, 0.35, 0.8, 0.9])
        0.75

    Source:
        Hanley and McNeil. The meaning and use of the area under a ROC curve. Radiology 143, 1982.
    """
    present, known = column(labels, scores)
    ranking = Ranking.of(present.astype(np.float64), known)
    return float(ranking.areas(np.ones((len(known), 1)))[0])


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as a sum of steps, without interpolation.

    A ranking by chance scores the share of rows with the finding.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).

    Returns:
        The average precision in [0, 1].

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
        0.8333

    Source:
        Zhu. Recall, precision and average precision. University of Waterloo, 2004.
    """
    present, known = column(labels, scores)
    hits, alarms, _ = _steps(present, known)
    precision = hits / (hits + alarms)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> pd.DataFrame:
    """Sensitivity and specificity at every threshold that changes them.

    Args:
        labels: 1 present, 0 absent, NaN unknown (left out), shape (N,).
        scores: Any scale that rises with the finding, shape (N,).

    Returns:
        Columns ``threshold`` (a row is called positive at or above it; falling, from infinity),
        ``sensitivity`` and ``specificity``.

    Raises:
        EvaluationError: If a class has no row, a score is missing, or shapes differ.

    Example:
        >>> roc_curve([0, 1], [0.2, 0.7])["sensitivity"].tolist()
        [0.0, 1.0, 1.0]
    """
    import pandas as pd

    present, known = column(labels, scores)
    hits, alarms, thresholds = _steps(present, known)
    return pd.DataFrame(
        {
            "threshold": np.concatenate([[np.inf], thresholds]),
            "sensitivity": np.concatenate([[0.0], hits / hits[-1]]),
            "specificity": np.concatenate([[1.0], 1 - alarms / alarms[-1]]),
        }
    )


def _steps(present: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats, Floats]:
    """True and false positives at each distinct score, from the highest, and the scores."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # of the rows with equal scores
    hits = np.cumsum(present[order], dtype=np.float64)[last]
    alarms = np.cumsum(~present[order], dtype=np.float64)[last]
    return hits, alarms, ordered[last]
