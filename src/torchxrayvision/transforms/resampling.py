"""scikit-image's anti-aliased resize as two small banded matrix products.

``skimage.transform.resize(image, shape, order=1, mode="constant")`` is a Gaussian filter
followed by linear interpolation. Both are linear and act on each axis alone, so the whole is
``rows @ image @ columns.T`` with two banded matrices that depend on the sizes only:

- Gaussian: sigma ``max(0, (factor - 1) / 2)`` for the shrinking factor ``factor = n / m``, cut
  at ``int(4 * sigma + 0.5)`` pixels; what lies outside the image counts as 0;
- linear interpolation between pixel centres, output pixel ``i`` at ``(i + 0.5) * n / m - 0.5``;
  a neighbour outside the image counts as 0;
- the result is cut to the range of the image where that range lies on one side of 0, which
  undoes the darkening that the zeros outside would otherwise leave along the border.

The products run on blocks of output rows, each a small dense matrix times the slice of the
image that it touches. Integer pixels are converted a block at a time and scaled by the matrix
of their first axis, so no float copy of a large image is ever made.

Source: the documented behaviour of scikit-image 0.26 and ``scipy.ndimage``; the tests
compare the two to 0.01 on a range of 2048.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torchxrayvision.errors import ImageShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images import Reduction

    Float32 = NDArray[np.float32]

# Rows of a block. Few rows keep a dense block close to its band, many rows save calls: where an
# image is cut to a quarter or less its first axis, which does most of the work, takes the fewest.
# Where an axis grows a block touches few pixels whatever its rows.
BLOCK_REDUCING = 4
BLOCK_SHRINKING = 8
BLOCK_GROWING = 64

# OpenBLAS splits a product of more multiplications than this among threads, and on blocks this
# small waiting for the other threads costs more than they bring (tens of milliseconds when the
# cores are busy). Products are therefore cut into column stripes that stay below it.
SINGLE_THREAD_PRODUCT = 262_144
STRIPE = 16  # columns; stripes start at multiples of a cache line

# Pixels of these types are exact in float32. Others are scaled in float64 first.
EXACT = frozenset(np.dtype(t) for t in ("u1", "i1", "u2", "i2", "f2", "f4"))
# Beyond this offset the pixels carry a pedestal that float32 sums would round.
LARGEST_OFFSET = 4096.0

# Another order of axes must save this much arithmetic to be worth strided reads.
STRIDED_READ_PENALTY = 0.7

OPERATORS_KEPT = 256  # about 0.1 MB each

# Of a Gaussian that is narrowed, in squared pixels; below it samples of it are no Gaussian.
LEAST_VARIANCE = 0.25


@dataclass(frozen=True)
class _Block:
    """Output rows ``start:stop`` are ``matrix @ image[first:last]``."""

    start: int
    stop: int
    first: int
    last: int
    matrix: Float32


@dataclass(frozen=True)
class _Operator:
    """The banded matrix from ``n`` to ``m`` pixels, in blocks; none where ``n == m``."""

    blocks: tuple[_Block, ...]
    sums: Float32  # (m,), below 1 where an output pixel reaches over the border
    reach: int  # most input pixels that one block touches


def resize(
    image: NDArray[Any], size: tuple[int, int], *, scale: float = 1.0, offset: float = 0.0
) -> Float32:
    """Resize ``image * scale + offset`` as scikit-image does, anti-aliased.

    Equal to ``skimage.transform.resize(image * scale + offset, size, order=1,
    mode="constant", preserve_range=True)`` to 0.01 on a range of 2048, at any size up or down.

    Args:
        image: Pixels of any integer or float type, shape (..., H, W); each (H, W) image is
            resized on its own. Boolean images take the nearest pixel, as in scikit-image.
        size: Height and width of the result, in pixels.
        scale: Factor from a pixel to its value.
        offset: Added after the factor. The border counts as value 0, not as pixel 0.

    Returns:
        float32 array, shape (..., h, w).

    Raises:
        ImageShapeError: If the image has fewer than two axes or no pixel, or ``size`` is not
            two positive numbers.
        TypeError: If the image holds neither booleans, integers nor floats.

    Example:
        >>> resize(np.full((1, 8, 6), 255, np.uint8), (1, 2), scale=2048 / 255, offset=-1024)
        array([[[1024., 1024.]]], dtype=float32)

    Source: see the head of this module.
    """
    image, (height, width) = _checked(image, size)
    if image.dtype == np.bool_:
        return nearest(image, (height, width)) * np.float32(scale) + np.float32(offset)
    image, scale, offset = _exact(image, scale, offset)
    result = np.empty((*image.shape[:-2], height, width), np.float32)
    for index in np.ndindex(*image.shape[:-2]):
        _resize_into(result[index], image[index], scale, offset)
    return result


def resize_reduced(
    image: NDArray[Any],
    size: int,
    region: tuple[int, int, int, int],
    reduction: Reduction,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Float32:
    """`resize` of a region of an image of which only a reduced one is there.

    The matrices are those for the region of the whole image, with a Gaussian as much narrower as
    the reduction has blurred already; each weight then goes to the reduced pixels that stand for
    its pixel. Geometry, border and crop are therefore those of the whole image.

    Args:
        image: Pixels of the reduced image, any integer or float type, shape (h, w).
        size: Height and width of the result, in pixels.
        region: Top, left, rows and columns of the region, in pixels of the whole image.
        reduction: Where the reduced pixels lie.
        scale: See `resize`.
        offset: See `resize`.

    Returns:
        float32 array, shape (size, size).

    Raises:
        ImageShapeError: As `resize`.
        TypeError: As `resize`.
    """
    image, (rows, columns) = _checked(image, (size, size))
    image, scale, offset = _exact(image, scale, offset)
    top, left, height, width = region
    lines = _lines_of(reduction, top - reduction.top, height, rows, image.shape[0])
    places = _lines_of(reduction, left - reduction.left, width, columns, image.shape[1])
    inside = image[lines.first : lines.last, places.first : places.last]
    result = np.empty((rows, columns), np.float32)
    half = np.empty((rows, inside.shape[1]), np.float32)
    _apply(lines.operator, inside, half, scale, offset)
    _apply(places.operator, half.T, result.T)
    _clip(result, inside, scale, offset)
    return result


def _exact(image: NDArray[Any], scale: float, offset: float) -> tuple[NDArray[Any], float, float]:
    """Pixels that float32 holds exactly, with the line that takes them to their values."""
    if image.dtype not in EXACT or abs(offset) > LARGEST_OFFSET:
        values = image.astype(np.float64) * scale + offset
        return values.astype(np.float32), 1.0, 0.0
    return image, scale, offset


@dataclass(frozen=True)
class _Lines:
    """Reduced lines ``first:last`` of an axis, and what makes output lines of them."""

    first: int
    last: int
    operator: _Operator


def _lines_of(reduction: Reduction, start: float, n: int, m: int, count: int) -> _Lines:
    """The reduced lines of ``n`` lines from ``start`` on, and the operator that makes ``m``."""
    return _reduced_operator(start, n, m, count, reduction.factor, reduction.blur)


@lru_cache(maxsize=OPERATORS_KEPT)
def _reduced_operator(start: float, n: int, m: int, count: int, factor: int, blur: float) -> _Lines:
    """See `_lines_of`; ``start`` is counted from the edge of the first of ``count`` lines."""
    part = start % 1.0
    # A weight that goes to a reduced pixel is spread over all pixels that it stands for.
    spread = (factor**2 - 1 + 12 * part * (1 - part)) / 12
    left, weights = _weights(n, m, blur + spread)
    # The border takes from each line what it takes from one of the whole image.
    weights *= (_weights(n, m)[1].sum(axis=1) / weights.sum(axis=1))[:, None]
    position = (start + left[:, None] + np.arange(weights.shape[1])) / factor
    below = np.floor(position).astype(np.intp)
    share = np.clip((below + 1 - position) * factor, 0, 1)  # of the reduced pixel that it begins in
    first = min(max(0, int(below[0, 0])), count - 1)
    last = min(count, int(below[-1, -1]) + 2)
    targets = [np.clip(below + step, first, last - 1) - first for step in (0, 1)]
    dense = np.zeros((m, last - first))
    lines = np.broadcast_to(np.arange(m)[:, None], weights.shape)
    np.add.at(dense, (lines, targets[0]), weights * share)
    np.add.at(dense, (lines, targets[1]), weights * (1 - share))
    begin = targets[0].min(axis=1)
    width = int((targets[1].max(axis=1) - begin).max()) + 1
    begin = np.minimum(begin, last - first - width).clip(0)
    band = np.take_along_axis(dense, begin[:, None] + np.arange(width), 1)
    blocks = _blocks(begin, band, last - first, BLOCK_SHRINKING)
    return _Lines(
        first,
        last,
        _Operator(
            blocks,
            _read_only(band.sum(axis=1).astype(np.float32)),
            max(block.last - block.first for block in blocks),
        ),
    )


def _checked(image: NDArray[Any], size: tuple[int, int]) -> tuple[NDArray[Any], tuple[int, int]]:
    image = np.asarray(image)
    if image.dtype.kind not in "buif":
        msg = f"resize takes booleans, integers or floats, not an array of {image.dtype}"
        raise TypeError(msg)
    if image.ndim < 2 or 0 in image.shape[-2:]:
        msg = (
            f"resize takes an image of shape (..., H, W) with at least one pixel, not {image.shape}"
        )
        raise ImageShapeError(msg)
    if len(size) != 2 or min(size) < 1:
        msg = f"the size of the result is a height and a width of at least 1 pixel, not {size}"
        raise ImageShapeError(msg)
    return image, (int(size[0]), int(size[1]))


def nearest(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Take the nearest pixel, as scikit-image does at order 0.

    Args:
        image: Pixels of any type, shape (..., H, W).
        size: Height and width of the result, in pixels.

    Returns:
        Array of the type of the image, shape (..., h, w); a copy.

    Example:
        >>> nearest(np.array([[1, 2, 3]]), (1, 2))
        array([[1, 3]])
    """
    rows, columns = (
        ((np.arange(m) + 0.5) * (n / m)).astype(np.intp)
        for n, m in zip(image.shape[-2:], size, strict=True)
    )
    return image[..., rows[:, None], columns]


def _resize_into(out: Float32, image: NDArray[Any], scale: float, offset: float) -> None:
    (height, width), (rows, columns) = image.shape, out.shape
    row_work, column_work = _work(height, rows), _work(width, columns)
    rows_first = row_work * width + column_work * rows
    columns_first = column_work * height + row_work * columns
    if columns_first < STRIDED_READ_PENALTY * rows_first:
        half = np.empty((height, columns), np.float32)
        _apply(_operator(width, columns, first=True), image.T, half.T, scale, offset)
        _apply(_operator(height, rows), half, out)
    else:
        half = np.empty((rows, width), np.float32)
        _apply(_operator(height, rows, first=True), image, half, scale, offset)
        _apply(_operator(width, columns), half.T, out.T)
    _clip(out, image, scale, offset)


def _clip(out: Float32, image: NDArray[Any], scale: float, offset: float) -> None:
    """Keep to the range of the values, as scikit-image does.

    The border, which counts as 0, takes a result out of the range of an image that lies on one
    side of 0, and rounding may take any by a unit in the last place.
    """
    least, most = out.min(), out.max()
    for sample in (image[::32, ::32], image):  # a few pixels are enough for most images
        low, high = sorted(float(end) * scale + offset for end in (sample.min(), sample.max()))
        if low <= least and most <= high:
            return
    if low <= high:  # not so where a value is not a number
        np.clip(out, low, high, out=out)


def _apply(
    operator: _Operator, image: NDArray[Any], out: Float32, scale: float = 1.0, offset: float = 0.0
) -> None:
    """``out[:] = operator @ (image * scale + offset)``."""
    if not operator.blocks:
        out[:] = image
        out *= np.float32(scale)
    convert = image.dtype != np.float32
    if convert:  # the copy keeps the order of the image's axes, so that it reads memory in order
        order: Literal["C", "F"] = "C" if image.strides[0] >= image.strides[1] else "F"
        buffer = np.empty((operator.reach, image.shape[1]), np.float32, order=order)
    for block in operator.blocks:
        pixels = image[block.first : block.last]
        if convert:
            converted = buffer[: len(pixels)]
            np.copyto(converted, pixels)
            pixels = converted
        matrix = block.matrix if scale == 1.0 else block.matrix * np.float32(scale)
        _product(matrix, pixels, out[block.start : block.stop])
    if offset != 0.0:
        out += np.float32(offset) * operator.sums[:, None]


def _product(matrix: Float32, pixels: Float32, out: Float32) -> None:
    """``out[:] = matrix @ pixels`` in stripes that BLAS keeps to one thread."""
    height, width = pixels.shape
    stripe = max(STRIPE, SINGLE_THREAD_PRODUCT // matrix.size // STRIPE * STRIPE)
    whole = width - width % stripe
    if whole:  # one call for all stripes: a stack of products
        shape = (whole // stripe, stripe)
        np.matmul(
            matrix,
            pixels[:, :whole].reshape(height, *shape).transpose(1, 0, 2),
            out=out[:, :whole].reshape(len(out), *shape).transpose(1, 0, 2),
        )
    if whole < width:
        np.matmul(matrix, pixels[:, whole:], out=out[:, whole:])


def _radius(n: int, m: int) -> int:
    """Pixels on either side that the Gaussian reaches."""
    return int(4 * max(0.0, (n / m - 1) / 2) + 0.5)


def _work(n: int, m: int) -> int:
    """About how many multiplications one line of ``n`` pixels costs."""
    return m * (2 * _radius(n, m) + 2)


@lru_cache(maxsize=OPERATORS_KEPT)
def _operator(n: int, m: int, *, first: bool = False) -> _Operator:
    """The operator from ``n`` to ``m`` pixels, ``first`` for the axis that is reduced first.

    Its arrays are read-only, as threads share it.
    """
    if n == m:
        return _Operator((), _read_only(np.ones(m, np.float32)), n)
    left, weights = _weights(n, m)
    length = BLOCK_GROWING if n < m else BLOCK_SHRINKING
    if first and n >= 4 * m:
        length = BLOCK_REDUCING
    blocks = _blocks(left, weights, n, length)
    return _Operator(
        blocks,
        _read_only(weights.sum(axis=1).astype(np.float32)),
        max(block.last - block.first for block in blocks),
    )


def _weights(n: int, m: int, blur: float = 0.0) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The band: row ``i`` is ``weights[i]`` on the input pixels from ``left[i]`` on.

    Pixels outside the image have the weight 0. `blur` is a variance that the image has already.
    """
    sigma = max(0.0, (n / m - 1) / 2)
    if blur:
        sigma = max(LEAST_VARIANCE, sigma**2 - blur) ** 0.5
    radius = _radius(n, m)
    kernel = np.ones(1)
    if radius:
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        kernel /= kernel.sum()
    centre = (np.arange(m) + 0.5) * (n / m) - 0.5
    near = np.floor(centre).astype(np.intp)
    share = centre - near  # of the next neighbour
    weights = np.zeros((m, len(kernel) + 1))
    weights[:, :-1] += np.where(near >= 0, 1 - share, 0)[:, None] * kernel
    weights[:, 1:] += np.where(near + 1 < n, share, 0)[:, None] * kernel
    left = near - radius
    positions = left[:, None] + np.arange(weights.shape[1])
    weights[(positions < 0) | (positions >= n)] = 0
    return left, weights


def _blocks(
    left: NDArray[np.intp], weights: NDArray[np.float64], n: int, length: int
) -> tuple[_Block, ...]:
    """Dense blocks of ``length`` rows of the band, all in one buffer that is filled at once."""
    m, band = weights.shape
    starts = np.arange(0, m, length)
    stops = np.minimum(starts + length, m)
    lows = np.maximum(left[starts], 0)
    highs = np.minimum(left[stops - 1] + band, n)
    widths = highs - lows
    ends = np.cumsum((stops - starts) * widths)
    begins = ends - (stops - starts) * widths

    row = np.arange(m)
    block = row // length
    origin = begins[block] + (row - starts[block]) * widths[block] - lows[block]
    positions = left[:, None] + np.arange(band)
    inside = (positions >= 0) & (positions < n)
    buffer = np.zeros(int(ends[-1]), np.float32)
    buffer[(origin[:, None] + positions)[inside]] = weights[inside]
    _read_only(buffer)  # and with it every view of it below
    return tuple(
        _Block(start, stop, low, high, buffer[begin:end].reshape(stop - start, high - low))
        for start, stop, low, high, begin, end in np.stack(
            [starts, stops, lows, highs, begins, ends], axis=1
        ).tolist()
    )


def _read_only(array: Float32) -> Float32:
    array.setflags(write=False)
    return array
