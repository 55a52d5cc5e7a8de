"""From the square that a model saw back to the image of the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.transforms.arrays import square_region

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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


def _lines(
    array: NDArray[np.float32], outputs: int, wanted: slice = slice(None)
) -> NDArray[np.float32]:
    """Resample along the first axis; only the lines that are wanted."""
    inputs = array.shape[0]
    if inputs == outputs:
        return array[wanted]
    centres, below, above = _neighbours(inputs, outputs)
    below, above = below[wanted], above[wanted]
    share = (centres[wanted] - below).astype(np.float32)[:, None]
    lines: NDArray[np.float32] = array[below] * (1 - share) + array[above] * share
    return lines


def _neighbours(inputs: int, outputs: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Where each new line lies among the old ones, and the two that it lies between."""
    centres = np.clip((np.arange(outputs) + 0.5) * inputs / outputs - 0.5, 0, inputs - 1)
    below = centres.astype(np.int64)
    return centres, below, np.minimum(below + 1, inputs - 1)


def _reached(marked: NDArray[np.bool_], outputs: int) -> slice:
    """The new lines between the first and the last that see a marked old one."""
    if len(marked) == outputs:
        below = above = np.arange(outputs)
    else:
        _, below, above = _neighbours(len(marked), outputs)
    lines = np.flatnonzero(marked[below] | marked[above])
    return slice(int(lines[0]), int(lines[-1]) + 1) if len(lines) else slice(0, 0)


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

        The same as ``to_picture(plane) >= threshold``, but only the part that a structure takes
        up is resampled.

        Args:
            plane: What a model gave for the square, shape (R, R) of any R.
            threshold: Above 0; what the model did not see is below it.

        Returns:
            bool, shape (height, width).
        """
        array = np.asarray(plane).astype(np.float32, copy=False)
        inside = array >= threshold
        height, width = self._seen
        rows = _reached(np.any(inside, axis=1), height)
        columns = _reached(np.any(inside, axis=0), width)
        square = np.zeros((height, width), bool)
        part = _lines(_lines(array, height, rows).T, width, columns)
        square[rows, columns] = (part >= threshold).T
        picture = np.zeros((self.height, self.width), bool)
        picture[self._region] = np.rot90(square, -self.turns)
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
