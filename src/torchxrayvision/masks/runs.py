"""Masks from run lengths, in the three dialects of the field, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from torchxrayvision.errors import DatasetError
from torchxrayvision.masks.checks import checked_mask, checked_numbers, checked_shape, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from torchxrayvision.masks.checks import Mask, Shape

_COCO_ZERO = 48  # COCO writes six bits as the character 48 + value, "0" to "o"
_LARGEST = 1 << 53  # float64 holds every whole number up to here
_COCO_LONGEST = 8  # groups of five bits in one number: 40 bits, more than any image has pixels


def decode_gap_rle(text: str, shape: Shape = (1024, 1024)) -> Mask:
    """Read run lengths of the SIIM-ACR pneumothorax challenge.

    Args:
        text: ``"gap run gap run ..."``: pixels to skip since the end of the last run, then pixels
            to set, down the columns; ``"-1"`` or nothing is an empty mask.
        shape: Height and width of the image, pixels; 1024 by 1024 in that release.

    Returns:
        bool (H, W).

    Raises:
        DatasetError: If the text is no such list, or runs leave the image.

    Example:
        >>> decode_gap_rle("1 2 1 1", (3, 2)).astype(int).tolist()
        [[0, 0], [1, 1], [1, 0]]
    """
    height, width = checked_shape(shape)
    counts = _integers(text)
    if counts.tolist() == [-1]:
        counts = counts[:0]
    if counts.size % 2:
        msg = f"gap and run lengths must come in pairs, got {counts.size} numbers: {shown(text)}"
        raise DatasetError(msg)
    return _fill(counts, (width, height), text).T


def encode_gap_rle(mask: ArrayLike) -> str:
    """Write a mask as :func:`decode_gap_rle` reads it.

    Args:
        mask: bool (H, W).

    Returns:
        Gaps and runs down the columns; ``"-1"`` for an empty mask.

    Example:
        >>> encode_gap_rle([[False, False], [True, True], [True, False]])
        '1 2 1 1'
    """
    counts = _runs(checked_mask(mask).T)
    return " ".join(map(str, counts[: counts.size // 2 * 2].tolist())) or "-1"


def decode_rle(
    text: str, shape: Shape, *, order: Literal["rows", "columns"] = "rows", first: int = 1
) -> Mask:
    """Read run lengths with absolute starts.

    Args:
        text: ``"start length start length ..."``; nothing or ``"-1"`` is an empty mask.
        shape: Height and width of the image, pixels.
        order: Whether pixels are numbered along the rows, as in CheXmask, or down the columns.
        first: Number of the first pixel: 1 in CheXmask, 0 elsewhere.

    Returns:
        bool (H, W).

    Raises:
        DatasetError: If the text is no such list, or runs leave the image.

    Example:
        >>> decode_rle("2 1 4 2", (2, 3)).astype(int).tolist()
        [[0, 1, 0], [1, 1, 0]]
    """
    height, width = checked_shape(shape)
    numbers = _integers(text)
    if numbers.tolist() == [-1]:
        numbers = numbers[:0]
    if numbers.size % 2:
        msg = f"starts and lengths must come in pairs, got {numbers.size} numbers: {shown(text)}"
        raise DatasetError(msg)
    starts, lengths = numbers[0::2] - first, numbers[1::2]
    size = height * width
    if numbers.size and (starts.min() < 0 or lengths.min() < 0 or (starts > size - lengths).any()):
        msg = f"run lengths leave an image of {height} by {width} pixels: {shown(text)}"
        raise DatasetError(msg)
    # A slice a run: a mask has a run a line, and a pass over all pixels takes ten times as long.
    flat: Mask = np.zeros(size, bool)
    for start, end in zip(starts.tolist(), (starts + lengths).tolist(), strict=True):
        flat[start:end] = True
    return flat.reshape(height, width) if order == "rows" else flat.reshape(width, height).T


def encode_rle(
    mask: ArrayLike, *, order: Literal["rows", "columns"] = "rows", first: int = 1
) -> str:
    """Write a mask as :func:`decode_rle` reads it.

    Args:
        mask: bool (H, W).
        order: Whether pixels are numbered along the rows or down the columns.
        first: Number of the first pixel.

    Returns:
        Starts and lengths; an empty string for an empty mask.

    Example:
        >>> encode_rle([[False, True, False], [True, True, False]])
        '2 1 4 2'
    """
    array = checked_mask(mask)
    counts = _runs(array if order == "rows" else array.T)
    ends = np.cumsum(counts)
    pairs = np.stack([ends[0::2][: counts.size // 2] + first, counts[1::2]], axis=1)
    return " ".join(map(str, pairs.ravel().tolist()))


def decode_coco_rle(counts: str | bytes | Sequence[int], shape: Shape) -> Mask:
    """Read COCO's run lengths, compressed or not.

    Args:
        counts: The ``counts`` of a COCO segmentation: a compressed string, or plain integers that
            alternate between pixels outside and inside, down the columns, starting outside.
        shape: Its ``size``: height and width, pixels.

    Returns:
        bool (H, W).

    Raises:
        DatasetError: If the counts are malformed or do not add up to the size.

    Example:
        >>> decode_coco_rle("132", (3, 2)).astype(int).tolist()
        [[0, 1], [1, 0], [1, 0]]
        >>> decode_coco_rle([1, 2, 3], (3, 2)).astype(int).tolist()
        [[0, 0], [1, 0], [1, 0]]

    Reference:
        Lin et al., Microsoft COCO: Common Objects in Context, 2014; the format of the COCO API.
    """
    height, width = checked_shape(shape)
    if isinstance(counts, (str, bytes)):
        numbers = _uncompress(counts)
    else:
        given = checked_numbers(counts, "run lengths")
        if given.ndim != 1 or (given % 1).any() or (np.abs(given) > _LARGEST).any():
            msg = f"run lengths are a list of whole numbers, got {shown(counts)}"
            raise DatasetError(msg)
        numbers = given.astype(np.int64)
    if numbers.sum() != height * width:
        msg = (
            f"run lengths add up to {numbers.sum()} pixels, but an image of {height} by {width} "
            f"has {height * width}: {shown(counts)}"
        )
        raise DatasetError(msg)
    return _fill(numbers, (width, height), counts).T


def encode_coco_rle(mask: ArrayLike) -> str:
    """Write a mask as COCO's compressed run lengths.

    Args:
        mask: bool (H, W).

    Returns:
        The ``counts`` of a COCO segmentation whose ``size`` is (H, W).

    Example:
        >>> encode_coco_rle([[False, True], [True, False], [True, False]])
        '132'
    """
    counts = _runs(checked_mask(mask).T)
    values = counts.copy()
    values[3:] -= counts[1:-2]
    # Five bits at a time, lowest first, until what is left is the sign alone.
    shifts = np.arange(_COCO_LONGEST) * 5
    rest = values[:, None] >> shifts
    more = ((rest >> 5) != 0) | ((rest & 16) != 0)
    negative = ((rest >> 5) != -1) | ((rest & 16) == 0)
    more = np.where(values[:, None] < 0, negative, more)
    lengths = more.cumprod(axis=1).sum(axis=1) + 1
    keep = np.arange(_COCO_LONGEST) < lengths[:, None]
    codes = (rest & 31) | (more.astype(np.int64) << 5)
    text: bytes = (codes[keep] + _COCO_ZERO).astype(np.uint8).tobytes()
    return text.decode("ascii")


def _integers(text: str) -> NDArray[np.int64]:
    try:
        return np.array([int(n) for n in text.split()], np.int64)
    except (AttributeError, OverflowError, ValueError):
        msg = f"run lengths are whole numbers with spaces between, got {shown(text)}"
        raise DatasetError(msg) from None


def _fill(counts: NDArray[np.int64], shape: Shape, given: object) -> Mask:
    """Alternate between outside and inside over ``counts``; the rest stays outside."""
    size = shape[0] * shape[1]
    total = int(counts.sum()) if counts.size else 0
    if counts.size and (counts.min() < 0 or counts.max() > size or total > size):
        msg = f"run lengths leave an image of {size} pixels, or are negative: {shown(given)}"
        raise DatasetError(msg)
    flat = np.zeros(size, bool)
    flat[:total] = np.repeat(np.arange(counts.size) % 2 == 1, counts)
    return flat.reshape(shape)


def _runs(mask: Mask) -> NDArray[np.int64]:
    """Lengths of alternating runs along the rows of ``mask``, the first one outside."""
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([edges, [flat.size]])
    starts = np.concatenate([[0], edges])
    counts = (ends - starts).astype(np.int64)
    return np.concatenate([[0], counts]) if flat[0] else counts


def _uncompress(counts: str | bytes) -> NDArray[np.int64]:
    """Undo COCO's compression: numbers of five-bit groups, each minus the one two before it."""
    raw = counts.encode("latin-1", "replace") if isinstance(counts, str) else counts
    codes = np.frombuffer(raw, np.uint8).astype(np.int64) - _COCO_ZERO
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        msg = f"not COCO's compressed run lengths: {shown(counts)}"
        raise DatasetError(msg)
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _COCO_LONGEST:
        msg = f"a number of {lengths.max()} characters in COCO's run lengths: {shown(counts)}"
        raise DatasetError(msg)
    place = np.arange(codes.size) - np.repeat(starts, lengths)
    values: NDArray[np.int64] = np.add.reduceat((codes & 31) << (5 * place), starts)
    values[(codes[ends] & 16) != 0] -= np.int64(1) << (5 * lengths[(codes[ends] & 16) != 0])
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
