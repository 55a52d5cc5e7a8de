"""Heatmaps over radiographs as pictures, with NumPy and Pillow only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.pictures.colours import diverging, sequential
from torchxrayvision.transforms import resample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray
    from PIL import Image

# One pixel of a gradient may be ten times the next; the scale ends where 0.1 % lies beyond.
_QUANTILE: Final = 0.999
_BOX_COLOUR: Final = (0, 255, 255)
_INK, _PAPER = (230, 230, 230), (0, 0, 0)


def grey(image: ArrayLike) -> NDArray[np.uint8]:
    """The picture of a radiograph as a screen shows it.

    Args:
        image: Shape (H, W) or (1, H, W), uint8 or in [-1024, 1024].

    Returns:
        uint8, shape (H, W).

    Raises:
        ImageShapeError: If the shape is another.

    Example:
        >>> grey([[-1024.0, 1024.0]]).tolist()
        [[0, 255]]
    """
    array = np.asarray(image)
    plane: NDArray[Any] = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    if plane.ndim != 2:
        msg = f"expected one image of shape (H, W) or (1, H, W), got {array.shape}"
        raise ImageShapeError(msg)
    if plane.dtype == np.uint8:
        return plane
    scaled = np.clip((plane.astype(np.float32) + 1024) * (255 / 2048), 0, 255)
    shown: NDArray[np.uint8] = np.round(scaled).astype(np.uint8)
    return shown


def scale_of(heat: ArrayLike) -> float:
    """The absolute value that gets the strongest colour, unless another is asked for.

    Args:
        heat: Shape (H, W); NaN where nothing is known.

    Returns:
        The 99.9th percentile of the absolute values, or the maximum if that is 0.
    """
    known = np.abs(np.asarray(heat, np.float32))
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0
    return float(np.quantile(known, _QUANTILE)) or float(known.max())


def overlay(
    image: ArrayLike, heat: ArrayLike, *, opacity: float = 0.65, limit: float | None = None
) -> NDArray[np.uint8]:
    """Lay a heatmap over a radiograph; the weaker the evidence, the more of the radiograph shows.

    Args:
        image: Shape (H, W) or (1, H, W), uint8 or in [-1024, 1024].
        heat: Evidence, shape (H, W), or of any other resolution of the same field of view. NaN is
            left as the radiograph is. With negative values the colours are `diverging`, else
            `sequential`.
        opacity: Of the strongest colour, 0 to 1.
        limit: Absolute value that gets the strongest colour; None for the 99.9th percentile.

    Returns:
        uint8, shape (H, W, 3).

    Raises:
        ImageShapeError: If a shape is another.

    Example:
        >>> overlay(np.zeros((4, 6), np.uint8), np.eye(2)).shape
        (4, 6, 3)
    """
    plane = grey(image)
    values = _heat_of(heat, plane.shape)
    known = np.isfinite(values)
    values = np.where(known, values, 0)
    top = scale_of(heat) if limit is None else limit
    strength = np.clip(values / top, -1, 1) if top > 0 else np.zeros_like(values)
    if (strength < 0).any():
        colours = diverging()[np.round((strength + 1) * 127.5).astype(np.intp)]
    else:
        colours = sequential()[np.round(strength * 255).astype(np.intp)]
    share = (np.abs(strength) * np.float32(opacity))[..., None]
    mixed = plane[..., None] * (1 - share) + colours * share
    return np.round(mixed).astype(np.uint8)


def _heat_of(heat: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    array = np.asarray(heat, np.float32)
    if array.ndim != 2:
        msg = f"expected one map of shape (H, W), got {array.shape}"
        raise ImageShapeError(msg)
    return array if array.shape == shape else resample(array, *shape[:2])


def annotate(
    picture: NDArray[np.uint8],
    title: str,
    *,
    low: float | None = None,
    high: float | None = None,
    boxes: Iterable[Sequence[float]] = (),
) -> NDArray[np.uint8]:
    """Put a legend under a picture: what is shown, and the scale of its colours.

    Args:
        picture: uint8, shape (H, W, 3).
        title: Such as the target, its probability and the method.
        low: Value of the weakest colour; None leaves the scale out. Below 0: `diverging`.
        high: Value of the strongest colour.
        boxes: Drawn into the picture, each left, top, right, bottom in pixels, half open.

    Returns:
        uint8, shape (H + legend, W, 3); the first H rows are the picture with its boxes.

    Example:
        >>> annotate(np.zeros((90, 120, 3), np.uint8), "Effusion 0.93").shape[1:]
        (120, 3)
    """
    from PIL import Image, ImageDraw

    height, width = picture.shape[:2]
    font, size = _font(title, width)
    margin = max(2, size // 3)
    scaled = low is not None and high is not None
    rows = 2 if scaled else 1
    canvas = Image.new("RGB", (width, height + rows * (size + margin) + margin), _PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    line = max(1, round(min(height, width) / 300))
    for left, top, right, bottom in boxes:
        draw.rectangle((left, top, right - 1, bottom - 1), outline=_BOX_COLOUR, width=line)
    draw.text((margin, height + margin), title, fill=_INK, font=font)
    if low is not None and high is not None:
        place = (margin, height + size + 2 * margin, width - margin, size)
        _draw_scale(canvas, draw, place, low, high, font)
    return np.asarray(canvas)


def _font(text: str, width: int) -> tuple[Any, int]:
    """The largest font up to a thirtieth of the width in which the text fits."""
    from PIL import ImageFont

    for size in range(max(10, width // 30), 7, -1):
        font = ImageFont.load_default(size)
        if font.getlength(text) <= 0.97 * width:
            break
    return font, size


def _draw_scale(
    canvas: Image.Image,
    draw: Any,
    place: tuple[int, int, int, int],
    low: float,
    high: float,
    font: Any,
) -> None:
    from PIL import Image

    left, top, right, size = place
    before, after = f"{low:.3g} ", f" {high:.3g}"
    start = left + round(font.getlength(before))
    stop = right - round(font.getlength(after))
    colours = diverging() if low < 0 else sequential()
    if stop > start:
        steps = np.linspace(0, len(colours) - 1, stop - start).round().astype(np.intp)
        bar = np.broadcast_to(colours[steps], (size, stop - start, 3))
        canvas.paste(Image.fromarray(np.ascontiguousarray(bar)), (start, top))
    draw.text((left, top), before, fill=_INK, font=font)
    draw.text((stop, top), after, fill=_INK, font=font)
