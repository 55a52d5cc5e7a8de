"""How far two masks agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import EvaluationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def dice(mask_a: ArrayLike, mask_b: ArrayLike) -> float:
    """Dice coefficient: twice the shared area over the sum of both.

    Args:
        mask_a: Anything that is true inside, any shape.
        mask_b: Of the same shape.

    Returns:
        In [0, 1]; NaN where both are empty, as there is nothing to agree on.

    Raises:
        EvaluationError: If shapes differ.

    Example:
        >>> dice([1, 1, 0, 0], [0, 1, 1, 0])
        0.5

    Source:
        Dice. Measures of the amount of ecologic association between species. Ecology 26, 1945.
    """
    shared, a, b = _areas(mask_a, mask_b)
    return 2 * shared / (a + b) if a + b else float("nan")


def iou(mask_a: ArrayLike, mask_b: ArrayLike) -> float:
    """Intersection over union, the Jaccard index.

    Args:
        mask_a: Anything that is true inside, any shape.
        mask_b: Of the same shape.

    Returns:
        In [0, 1]; NaN where both are empty.

    Raises:
        EvaluationError: If shapes differ.

    Example:
        >>> iou([1, 1, 0, 0], [0, 1, 1, 1])
        0.25
    """
    shared, a, b = _areas(mask_a, mask_b)
    union = a + b - shared
    return shared / union if union else float("nan")


def _areas(mask_a: ArrayLike, mask_b: ArrayLike) -> tuple[int, int, int]:
    a, b = np.asarray(mask_a, dtype=bool), np.asarray(mask_b, dtype=bool)
    if a.shape != b.shape:
        msg = f"masks are compared pixel by pixel; their shapes differ: {a.shape} and {b.shape}"
        raise EvaluationError(msg)
    return int((a & b).sum()), int(a.sum()), int(b.sum())
