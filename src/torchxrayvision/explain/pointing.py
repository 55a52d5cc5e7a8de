"""Whether a map points at the finding: the pointing game, and boxes around evidence."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.evaluation import wilson_interval
from torchxrayvision.transforms import resample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

# Boxes are found on a map of at most this side: evidence has no finer edge.
_COARSE: Final = 128


@dataclass(frozen=True)
class PointingGame:
    """Result of a pointing game.

    Attributes:
        hits: Sum over images; where several pixels are largest an image counts as the share of
            them that hits.
        n: Images.
        accuracy: Hits a image.
        low: Lower end of the interval.
        high: Upper end of the interval.
        level: Confidence of the interval.
        chance: What a point at random would score: the mean share of the image that counts as a
            hit, tolerance included.
    """

    hits: float
    n: int
    accuracy: float
    low: float
    high: float
    level: float
    chance: float

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval lies above the chance rate."""
        return self.low > self.chance


def pointing_game(
    heats: Iterable[ArrayLike],
    masks: Iterable[ArrayLike],
    *,
    tolerance: float = 0.0,
    level: float = 0.95,
) -> PointingGame:
    """Count how often the strongest evidence lies in the finding.

    Masks from boxes: `torchxrayvision.masks.boxes_to_mask`. Blur noisy maps first, see `smoothed`.

    Args:
        heats: One map an image, each (H, W).
        masks: One mask an image, bool (H, W), each with at least one pixel.
        tolerance: Pixels around the mask that still count; 15 of about 500 in the publication.
        level: Confidence of the interval, by Wilson.

    Returns:
        Hits, rate, interval and chance rate.

    Raises:
        ImageShapeError: If shapes differ, a mask is empty, or there is no image.

    Example:
        >>> mask = np.zeros((10, 10), bool)
        >>> mask[2:4, 2:7] = True
        >>> result = pointing_game([mask * 1.0], [mask])
        >>> result.accuracy, result.chance
        (1.0, 0.1)

    Source:
        Zhang et al. Top-down neural attention by excitation backprop. ECCV 2016, section 4.1.
        https://arxiv.org/abs/1608.00507. Wilson. Probable inference. JASA 22, 1927.
    """
    hits: list[float] = []
    chances: list[float] = []
    for heat, mask in zip(heats, masks, strict=True):
        values, region = np.asarray(heat, np.float64), np.asarray(mask, bool)
        if values.shape != region.shape or values.ndim != 2 or not region.any():
            msg = (
                f"map {len(hits)} of shape {values.shape} needs a mask of the same shape (H, W) "
                f"with at least one pixel, got {region.shape} with {int(region.sum())}"
            )
            raise ImageShapeError(msg)
        region = _grown(region, tolerance)
        hits.append(float(region[values == np.nanmax(values)].mean()))
        chances.append(float(region.mean()))
    if not hits:
        msg = "a pointing game needs at least one image"
        raise ImageShapeError(msg)
    total, n = math.fsum(hits), len(hits)
    low, high = wilson_interval(total, n, level)
    return PointingGame(total, n, total / n, low, high, level, math.fsum(chances) / n)


def _grown(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """All pixels within a distance of the mask."""
    out = mask.copy()
    height = mask.shape[0]
    for step in range(-math.floor(radius), math.floor(radius) + 1):
        reach = math.floor(math.sqrt(radius**2 - step**2))
        if abs(step) >= height:
            continue
        target = slice(max(0, step), height + min(0, step))
        source = slice(max(0, -step), height - max(0, step))
        out[target] |= _widened(mask[source], reach)
    return out


def _widened(rows: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Each row with `reach` more pixels on both sides of what is set."""
    width = rows.shape[1]
    counts = np.zeros((len(rows), width + 1), np.int64)
    np.cumsum(rows, axis=1, out=counts[:, 1:])
    columns = np.arange(width)
    stop, start = np.minimum(columns + reach + 1, width), np.maximum(columns - reach, 0)
    wide: NDArray[np.bool_] = counts[:, stop] > counts[:, start]
    return wide


def evidence_box(heat: ArrayLike, share: float = 0.5) -> tuple[int, int, int, int] | None:
    """Find the box around the region of the strongest evidence.

    Args:
        heat: Shape (H, W); NaN where nothing is known.
        share: Of the maximum, that the region and all pixels on the way to it exceed.

    Returns:
        Left, top, right, bottom in pixels, half open; None if nothing is above 0.

    Example:
        >>> heat = np.zeros((100, 80))
        >>> heat[20:30, 40:60] = 1
        >>> evidence_box(heat)
        (40, 20, 60, 30)
    """
    full = np.nan_to_num(np.asarray(heat, np.float32), nan=0.0)
    height, width = full.shape
    coarse = resample(full, min(height, _COARSE), min(width, _COARSE))
    if not coarse.max() > 0:
        return None
    rows, columns = zip(*_region(coarse >= share * coarse.max(), coarse), strict=True)
    y, x = height / coarse.shape[0], width / coarse.shape[1]
    left, right = math.floor(min(columns) * x), math.ceil((max(columns) + 1) * x)
    top, bottom = math.floor(min(rows) * y), math.ceil((max(rows) + 1) * y)
    return left, top, right, bottom


def _region(above: NDArray[np.bool_], heat: NDArray[np.float32]) -> set[tuple[int, int]]:
    """The connected region around the maximum."""
    peak = divmod(int(heat.argmax()), heat.shape[1])
    seen, waiting = {peak}, deque([peak])
    while waiting:
        y, x = waiting.popleft()
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= near[0] < above.shape[0] and 0 <= near[1] < above.shape[1]
            if inside and above[near] and near not in seen:
                seen.add(near)
                waiting.append(near)
    return seen
