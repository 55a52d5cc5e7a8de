"""The result type of every measure here, and intervals that have a formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from torchxrayvision.errors import EvaluationError

__all__ = ["Interval", "checked_level", "score_interval", "wilson_interval", "z_of"]


@dataclass(frozen=True)
class Interval:
    """A measured value and its confidence interval.

    Attributes:
        value: The measure; NaN where it is not defined, see `reason`.
        low: Lower end.
        high: Upper end.
        n: Rows that were measured.
        positives: Rows among them in which the finding is present.
        level: Confidence of the interval.
        reason: Why there is no value; empty where there is one.

    Example:
        >>> print(Interval(0.812, 0.78, 0.841, n=500, positives=60))
        0.812 [0.780, 0.841]
    """

    value: float
    low: float
    high: float
    n: int
    positives: int
    level: float = 0.95
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"not defined: {self.reason}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def checked_level(level: float) -> float:
    """The level, if it is a share between 0 and 1."""
    if not 0 < level < 1:
        msg = f"level is a share between 0 and 1 such as 0.95, got {level}"
        raise EvaluationError(msg)
    return float(level)


def z_of(level: float) -> float:
    """Standard deviations of a normal distribution to either side that hold a share of it."""
    return NormalDist().inv_cdf((1 + checked_level(level)) / 2)


def wilson_interval(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Ends of the interval of a proportion; never outside [0, 1], never of width 0.

    Args:
        successes: How many of `n`.
        n: Independent trials; 0 gives NaN.
        level: Confidence.

    Returns:
        Lower and upper end.

    Example:
        >>> low, high = wilson_interval(10, 10)
        >>> round(low, 3), round(high, 3)
        (0.722, 1.0)

    Source:
        Wilson. Probable inference, the law of succession, and statistical inference. JASA 22,
        1927.
    """
    if n == 0:
        return math.nan, math.nan
    z, share = z_of(level), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def score_interval(
    area: float, positives: int, negatives: int, level: float
) -> tuple[float, float]:
    """Ends of the interval of an AUROC from its value and the sizes of the classes alone.

    Resampling shows no spread in an area of exactly 0 or 1, and too little where a class has few
    rows; an interval of width 0 would claim certainty from however few patients. This one inverts
    the score test with the variance of Hanley and McNeil.

    Source:
        Newcombe. Confidence intervals for an effect size measure based on the Mann-Whitney
        statistic, part 2. Statistics in Medicine 25, 2006, method 5.
        https://doi.org/10.1002/sim.2324
    """
    z, spare = z_of(level), (positives + negatives) / 2 - 1

    def lower(value: float) -> float:
        near, far = value, 0.0  # of areas: one that could give the value, and one too low to
        for _ in range(60):
            middle = (near + far) / 2
            spread = 1 + spare * (1 - middle) / (2 - middle) + spare * middle / (1 + middle)
            variance = middle * (1 - middle) * spread / (positives * negatives)
            too_far = value - middle > z * math.sqrt(variance)
            near, far = (near, middle) if too_far else (middle, far)
        return far

    return lower(area), 1 - lower(1 - area)
