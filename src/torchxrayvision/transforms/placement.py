"""From the square that a model saw back to the image of the file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.transforms.arrays import square_region

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Rounding moves the mean of two values, of two such means, by less than this part of the largest.
_ROUNDING: Final = 1e-6
_AXES_KEPT: Final = 32  # tens of kilobytes each
_CELL_ROWS: Final = 64  # of old rows that are drawn together, so that numbers stay in the cache


def resample(plane: ArrayLike, height: int, width: int) -> NDArray[Any]:
    """Resample a map that has no detail to lose: bilinear between centres of pixels.

    Args:
        plane: Shape (H, W). Boolean maps take the nearest pixel, so that they stay masks.
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        Shape (height, width); bool for a boolean map, else float32.

    Example:
        >>> resample([[0.0, 1.0]], 1, 4).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    array = np.asarray(plane)
    if array.ndim != 2 or 0 in array.shape:
        msg = f"expected a map of shape (H, W) with at least one pixel, got {array.shape}"
        raise ImageShapeError(msg)
    if array.dtype == bool:
        rows, columns = (_nearest(n, m) for n, m in zip(array.shape, (height, width), strict=True))
        return array[rows][:, columns]
    out = _lines(array.astype(np.float32, copy=False), height)
    return np.ascontiguousarray(_lines(out.T, width).T)


def square_image(image: NDArray[Any], aspect: float) -> NDArray[Any]:
    """Resample an image, or a boolean mask, so that its pixels are square.

    The coarser axis takes the pixel size of the finer one, so that nothing is lost.

    Args:
        image: Shape (..., H, W).
        aspect: Height of a pixel over its width.

    Returns:
        Shape (..., h, w): the image itself where its pixels are square, float32 for an image, else
        bool for a mask.

    Example:
        >>> square_image(np.zeros((1, 4, 6), np.float32), 2.0).shape
        (1, 8, 6)
    """
    if aspect == 1:
        return image
    height, width = image.shape[-2:]
    if aspect > 1:
        height = max(1, round(height * aspect))
    else:
        width = max(1, round(width / aspect))
    planes = image.reshape(-1, *image.shape[-2:])
    found = np.stack([resample(plane, height, width) for plane in planes])
    return found.reshape(*image.shape[:-2], height, width)


def _nearest(inputs: int, outputs: int) -> NDArray[np.int64]:
    """For each new pixel the old one that its centre lies in."""
    return (2 * np.arange(outputs) + 1) * inputs // (2 * outputs)


def _lines(array: NDArray[np.float32], outputs: int) -> NDArray[np.float32]:
    """Resample along the first axis."""
    axis = _axis(array.shape[0], outputs)
    if axis.same:
        return array
    share = axis.share[:, None]
    lines: NDArray[np.float32] = array[axis.below] * (1 - share) + array[axis.above] * share
    return lines


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """Where the new lines along one axis lie among the old ones.

    Args:
        below: For each new line the old one before it; they never decrease.
        above: And the one after it.
        share: How much of the latter it takes, float32 in [0, 1].
        first: For each old line, and one more, the first new one that lies at or after it.
        same: Whether new and old lines are the same.
    """

    below: NDArray[np.int64]
    above: NDArray[np.int64]
    share: NDArray[np.float32]
    first: NDArray[np.int64]
    same: bool


@lru_cache(maxsize=_AXES_KEPT)
def _axis(inputs: int, outputs: int) -> _Axis:
    centres = np.clip((np.arange(outputs) + 0.5) * inputs / outputs - 0.5, 0, inputs - 1)
    same = inputs == outputs
    below = np.arange(inputs) if same else centres.astype(np.int64)
    above = below if same else np.minimum(below + 1, inputs - 1)
    share = (centres - below).astype(np.float32)
    first = np.searchsorted(below, np.arange(inputs + 1))
    for array in (below, above, share, first):
        array.flags.writeable = False
    return _Axis(below, above, share, first, same)


def _draw_reached(array: NDArray[np.float32], threshold: float, out: NDArray[np.bool_]) -> None:
    """Set where a map, resampled to the shape of `out`, reaches a threshold above 0.

    What is drawn is ``resample(array, *out.shape) >= threshold``, bit for bit. New pixels lie in
    cells between four old ones. A cell whose four values are well above the threshold is inside
    and one whose four are well below it is outside, as rounding moves a mean by less than
    `_ROUNDING`; only the cells along a border are computed, in the order of `resample`.

    Args:
        array: Shape (h, w).
        threshold: Above 0.
        out: Shape (H, W), False everywhere.
    """
    rows, columns = (_axis(n, m) for n, m in zip(array.shape, out.shape, strict=True))
    level = np.float32(threshold)
    whole = _over_cells(np.logical_and, array >= level * np.float32(1 + _ROUNDING), rows, columns)
    touched = _over_cells(np.logical_or, array >= level * np.float32(1 - _ROUNDING), rows, columns)
    top, bottom = _extent(np.any(touched, axis=1))
    left, right = _extent(np.any(touched, axis=0))
    across = slice(int(columns.first[left]), int(columns.first[right]))
    for start in range(top, bottom, _CELL_ROWS):
        cells = slice(start, min(start + _CELL_ROWS, bottom))
        down = slice(int(rows.first[cells.start]), int(rows.first[cells.stop]))
        inside = whole[cells].take(columns.below[across], axis=1)
        out[down, across] = inside.take(rows.below[down] - start, axis=0)
        border = (touched[cells] & ~whole[cells]).take(columns.below[across], axis=1)
        border &= (rows.first[start + 1 : cells.stop + 1] > rows.first[cells])[:, None]
        if border.any():
            _draw_border(array, level, out, border, start, across.start)


def _over_cells(
    join: np.ufunc, marked: NDArray[np.bool_], rows: _Axis, columns: _Axis
) -> NDArray[np.bool_]:
    """For each old pixel what its mark and those after it, along both axes, come to."""
    if not rows.same:
        marked = np.concatenate([join(marked[:-1], marked[1:]), marked[-1:]])
    if not columns.same:
        marked = np.concatenate([join(marked[:, :-1], marked[:, 1:]), marked[:, -1:]], axis=1)
    return marked


def _extent(marked: NDArray[np.bool_]) -> tuple[int, int]:
    """The first marked place and the one after the last; nothing where there is none."""
    places = np.flatnonzero(marked)
    return (int(places[0]), int(places[-1]) + 1) if places.size else (0, 0)


def _draw_border(
    array: NDArray[np.float32],
    level: np.float32,
    out: NDArray[np.bool_],
    border: NDArray[np.bool_],
    top: int,
    left: int,
) -> None:
    """Compute the pixels of some cells, each as `resample` does.

    Args:
        array: Shape (h, w).
        level: Least value that is set.
        out: Shape (H, W).
        border: The cells, shape (old rows from `top`, new columns from `left`).
        top: An old row.
        left: A new column.
    """
    rows, columns = (_axis(n, m) for n, m in zip(array.shape, out.shape, strict=True))
    places = np.flatnonzero(border)
    row = places // border.shape[1]
    x = places - row * border.shape[1] + left
    row += top
    before, after = columns.below.take(x), columns.above.take(x)
    share = columns.share.take(x)
    rest = 1 - share
    values = array.ravel()
    at, next_at = row * array.shape[1], row * array.shape[1]
    if not rows.same:
        next_at = np.minimum(row + 1, array.shape[0] - 1) * array.shape[1]
    corners = [values.take(line + column) for column in (before, after) for line in (at, next_at)]
    lines = np.arange(top, top + len(border))
    first, last = rows.first[lines], rows.first[lines + 1] - 1
    row -= top
    for step in range(int((last - first).max()) + 1):
        y = np.minimum(first + step, last)  # cells differ by one line: some do their last again
        part = rows.share[y].take(row)
        other = 1 - part
        here = corners[0] * other + corners[1] * part
        there = corners[2] * other + corners[3] * part
        out[y.take(row), x] = here * rest + there * share >= level


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the square that a model saw lies in the image of a file.

    An image is upright, as it is read: orientations of Exif and TIFF are applied.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        top: First row of the square.
        left: First column of the square.
        side: Rows of the square, before it was resized.
        turns: Quarter turns counterclockwise of the square, before the model saw it.
        columns: Columns of the square; None for `side`, as where pixels are square.

    Raises:
        ImageShapeError: If the square does not lie in the image.

    Example:
        >>> place = Placement.in_middle(6, 4)
        >>> place.to_picture(np.ones((2, 2))).shape
        (6, 4)
    """

    height: int
    width: int
    top: int
    left: int
    side: int
    turns: int = 0
    columns: int | None = None

    def __post_init__(self) -> None:
        across = self._across
        fits = 0 <= self.top <= self.height - self.side and 0 <= self.left <= self.width - across
        if min(self.side, across) < 1 or not fits:
            msg = f"the square does not lie in the picture: {self}"
            raise ImageShapeError(msg)

    @classmethod
    def in_middle(
        cls, height: int, width: int, *, aspect: float = 1.0, turns: int = 0
    ) -> Placement:
        """The square that `prepare` cuts out.

        Args:
            height: Rows of the image.
            width: Columns of the image.
            aspect: Height of a pixel over its width.
            turns: Quarter turns counterclockwise of the square, before the model saw it.

        Example:
            >>> Placement.in_middle(300, 560, aspect=2.0).columns
            560
        """
        top, left, rows, columns = square_region(height, width, aspect)
        return cls(height, width, top, left, rows, turns, None if rows == columns else columns)

    @property
    def _across(self) -> int:
        return self.side if self.columns is None else self.columns

    @property
    def _region(self) -> tuple[slice, slice]:
        return (
            slice(self.top, self.top + self.side),
            slice(self.left, self.left + self._across),
        )

    @property
    def _seen(self) -> tuple[int, int]:
        """Rows and columns of the square as the model saw it."""
        shape = self.side, self._across
        return shape if self.turns % 2 == 0 else shape[::-1]

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """The square as the model saw it, before it was resized.

        Args:
            image: Shape (height, width).

        Returns:
            Shape (side, side), or (side, columns) turned; a view.
        """
        if image.shape != (self.height, self.width):
            msg = f"expected a picture of {self.height} x {self.width}, got {image.shape}"
            raise ImageShapeError(msg)
        return np.rot90(image[self._region], self.turns)

    def to_picture(self, plane: ArrayLike, outside: float = 0) -> NDArray[Any]:
        """Undo resizing and cropping of one map.

        Args:
            plane: What a model gave for the square, shape (R, R) of any R.
            outside: Value of what the model did not see.

        Returns:
            Shape (height, width); bool for a boolean map, by the nearest pixel, else float32.
        """
        square = np.rot90(resample(plane, *self._seen), -self.turns)
        picture = np.full((self.height, self.width), outside, square.dtype)
        picture[self._region] = square
        return picture

    def mask_to_picture(self, plane: ArrayLike, threshold: float) -> NDArray[np.bool_]:
        """Where a map reaches a threshold, in the image.

        The same as ``to_picture(plane) >= threshold``, but only the border of a structure is
        resampled.

        Args:
            plane: What a model gave for the square, shape (R, R) of any R.
            threshold: Above 0; what the model did not see is below it.

        Returns:
            bool, shape (height, width).
        """
        array = np.asarray(plane).astype(np.float32, copy=False)
        picture = np.zeros((self.height, self.width), bool)
        _draw_reached(array, threshold, np.rot90(picture[self._region], self.turns))
        return picture

    def point_to_picture(self, y: float, x: float, resolution: int) -> tuple[float, float]:
        """Undo resizing, turning and cropping of one point.

        Args:
            y: Distance from the top edge of the resized square, pixels.
            x: Distance from its left edge.
            resolution: Rows and columns of the resized square.

        Returns:
            Distances from the top and left edges of the image, pixels.
        """
        y, x = y / resolution, x / resolution
        for _ in range(self.turns % 4):  # a turn had taken the right edge to the top
            y, x = x, 1 - y
        return self.top + y * self.side, self.left + x * self._across

    def box_to_picture(
        self, box: tuple[float, float, float, float], resolution: int
    ) -> tuple[float, float, float, float]:
        """Undo resizing, turning and cropping of one box.

        Args:
            box: Left, top, right and bottom edges in the resized square, pixels.
            resolution: Rows and columns of the resized square.

        Returns:
            Left, top, right and bottom edges in the image, pixels.
        """
        left, top, right, bottom = box
        corners = [
            self.point_to_picture(y, x, resolution) for y, x in ((top, left), (bottom, right))
        ]
        (y1, y2), (x1, x2) = (sorted(values) for values in zip(*corners, strict=True))
        return x1, y1, x2, y2
