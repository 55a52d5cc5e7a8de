"""What the picture around the patient tells: bars and text burnt in, and how it was exposed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.measures import connected_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images import Raster

    Float32 = NDArray[np.float32]

__all__ = ["FrameMeasures", "inside_bars", "levels_of", "measure_frame"]

_LONGEST: Final = 1024  # pixels of the longer side that are looked at
_PLAIN: Final = 0.02  # of the grey range: a bar may vary so much, from lossy compression
_STRAY: Final = 0.02  # of the pixels of a line: letters may lie on a bar
_STROKE: Final = 0.35  # of the grey range: how far letters stand out
_GLYPH: Final = (0.007, 0.05)  # of the longer side: heights of letters
_LETTERS: Final = 4  # a line of so many is text; side markers have fewer


@dataclass(frozen=True, slots=True)
class FrameMeasures:
    """Measures of one picture.

    Args:
        bars: Share of the picture that bars of one grey along its edges take, 0 to 1.
        letters: Signs in lines of at least four, outside the bars or on them.
        black: Share of pixels at the lowest value that the file can hold.
        white: The same at the highest.
        contrast: Between the 2nd and the 98th percentile, as a share of what the file can hold.
        brightness: Median, from 0, black, to 1, white.
        levels: Different values among the pixels that were looked at.
        inside: First and last row and column, half open, of the picture inside the bars.
    """

    bars: float
    letters: int
    black: float
    white: float
    contrast: float
    brightness: float
    levels: int
    inside: tuple[int, int, int, int]


def measure_frame(raster: Raster) -> FrameMeasures:
    """Measure one picture.

    Args:
        raster: As read; every few pixels are looked at.

    Returns:
        Its measures.
    """
    grey, step = _seen(raster, _LONGEST)
    rows, columns = _without_bars(grey)
    inner = grey[rows, columns]
    shown = inner if inner.size else grey
    low, middle, high = np.quantile(shown, (0.02, 0.5, 0.98))
    return FrameMeasures(
        bars=1 - inner.size / grey.size,
        letters=_letters(grey),
        black=float((shown <= 0.001).mean()),
        white=float((shown >= 0.999).mean()),
        contrast=float(high - low),
        brightness=float(middle),
        levels=levels_of(raster),
        inside=(rows.start * step, rows.stop * step, columns.start * step, columns.stop * step),
    )


def levels_of(raster: Raster) -> int:
    """Different values among the pixels that are looked at.

    Args:
        raster: As read.
    """
    step = max(1, max(raster.shape) // _LONGEST)
    return int(np.unique(raster.pixels[::step, ::step]).size)


def inside_bars(raster: Raster) -> tuple[tuple[int, int, int, int], float]:
    """`FrameMeasures.inside` and `FrameMeasures.bars` alone, from fewer pixels.

    Args:
        raster: As read.
    """
    grey, step = _seen(raster, _LONGEST // 4)
    rows, columns = _without_bars(grey)
    inside = (rows.start * step, rows.stop * step, columns.start * step, columns.stop * step)
    return inside, 1 - grey[rows, columns].size / grey.size


def _seen(raster: Raster, longest: int) -> tuple[Float32, int]:
    """Every few pixels, from 0 to 1 by the range that the file declares."""
    step = max(1, max(raster.shape) // longest)
    stored = raster.pixels[::step, ::step]
    grey: Float32 = stored.astype(np.float32) * np.float32(raster.scale / 2048)
    grey += np.float32((raster.offset + 1024) / 2048)
    return grey, step


def _without_bars(grey: Float32) -> tuple[slice, slice]:
    """The part of a picture inside the bars of one grey along its edges."""
    span = float(grey.max() - grey.min())
    if span <= 0:
        return slice(0, 0), slice(0, 0)
    rows = _inside(grey, span)
    if rows.start == rows.stop:
        return slice(0, 0), slice(0, 0)
    return rows, _inside(grey[rows].T, span)


def _inside(grey: Float32, span: float) -> slice:
    """Rows inside those of one grey at the top and at the bottom."""
    middle = np.median(grey, axis=1)
    stray = (np.abs(grey - middle[:, None]) > _PLAIN * span).mean(axis=1)
    kept = np.flatnonzero(stray > _STRAY)
    return slice(int(kept[0]), int(kept[-1]) + 1) if kept.size else slice(0, 0)


def _letters(grey: Float32) -> int:
    """Signs of equal height that stand in a line, bright or dark."""
    low, high = np.quantile(grey, (0.005, 0.995))
    span = float(high - low)
    if span <= 0:
        return 0
    size = max(grey.shape)
    local = _box_mean(grey, max(2, round(size * 0.02)))
    return max(
        _in_lines(connected_boxes(sign * (grey - local) > _STROKE * span), size) for sign in (1, -1)
    )


def _box_mean(grey: Float32, radius: int) -> Float32:
    """Mean over a square around each pixel, cut off at the edges."""
    out: Any = grey
    for axis in (0, 1):
        sums = np.cumsum(np.moveaxis(out, axis, 0), axis=0, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums[:1]), sums])
        count = sums.shape[0] - 1
        first = np.clip(np.arange(count) - radius, 0, count)
        last = np.clip(np.arange(count) + radius + 1, 0, count)
        mean = (sums[last] - sums[first]) / (last - first).reshape(-1, 1)
        out = np.moveaxis(mean, 0, axis)
    return np.asarray(out, np.float32)


def _in_lines(boxes: NDArray[np.int64], size: int) -> int:
    """How many boxes (left, top, right, bottom, pixels) are letters in a line of some."""
    left, top, right, bottom, pixels = boxes.T
    height, width = bottom - top, right - left
    least, most = (share * size for share in _GLYPH)
    ink = pixels / np.maximum(height * width, 1)
    fits = (height >= max(5, least)) & (height <= most) & (width <= 1.6 * height)
    letters = boxes[fits & (ink > 0.15) & (ink < 0.95)]
    found = 0
    taken = np.zeros(len(letters), bool)
    for index in range(len(letters)):
        line = _line(letters, index, taken)
        if len(line) >= _LETTERS:
            found += len(line)
            taken[line] = True
    return found


def _line(letters: NDArray[np.int64], first: int, taken: NDArray[np.bool_]) -> list[int]:
    """The letters to the right of one that continue its line."""
    if taken[first]:
        return []
    line, (_, top, right, bottom, _) = [first], letters[first]
    height = bottom - top
    while True:
        gaps = letters[:, 0] - right
        same = (np.abs(letters[:, 1] - top) <= 0.25 * height) & (
            np.abs(letters[:, 3] - bottom) <= 0.25 * height
        )
        following = np.flatnonzero(same & ~taken & (gaps >= 0) & (gaps <= 1.5 * height))
        if not following.size:
            return line
        line.append(int(following[np.argmin(gaps[following])]))
        right = letters[line[-1], 2]
