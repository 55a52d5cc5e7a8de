"""Pictures of the report: thumbnails, overlays, and how they get into one file."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.pictures import outline

if TYPE_CHECKING:
    from numpy.typing import NDArray

_QUALITY: Final = 82


def fitted(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture whose longer side is at most so many pixels.

    Args:
        picture: Shape (H, W) or (H, W, 3).
        side: Pixels.

    Returns:
        uint8 of the same number of dimensions.

    Example:
        >>> fitted(np.zeros((200, 100), np.uint8), 50).shape
        (50, 25)
    """
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
    return np.asarray(image)


def data_uri(picture: NDArray[np.uint8]) -> str:
    """A picture as the address of itself, a JPEG.

    Args:
        picture: Shape (H, W) or (H, W, 3).

    Returns:
        What the attribute ``src`` of an image takes.
    """
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def outlined(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Draw the border of a mask, two pixels wide.

    Args:
        picture: Shape (H, W, 3).
        mask: Shape (H, W).
        colour: Red, green and blue.

    Returns:
        uint8 (H, W, 3), a copy.

    Example:
        >>> drawn = outlined(np.zeros((9, 9, 3), np.uint8), np.ones((9, 9), bool), (255, 0, 0))
        >>> drawn[:3, 4, 0].tolist()
        [255, 255, 0]
    """
    drawn = picture.copy()
    drawn[outline(mask, 2)] = colour
    return drawn


def lined(
    picture: NDArray[np.uint8], lines: list[tuple[tuple[float, float], tuple[float, float]]]
) -> NDArray[np.uint8]:
    """Draw white lines, three pixels wide.

    Args:
        picture: Shape (H, W, 3).
        lines: The x and y of both ends of each.

    Returns:
        uint8 (H, W, 3), a copy.

    Example:
        >>> lined(np.zeros((9, 9, 3), np.uint8), [((0, 4), (8, 4))])[:, 4, 0].tolist()
        [0, 0, 0, 255, 255, 255, 0, 0, 0]
    """
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    for line in lines:
        draw.line(line, fill=(255, 255, 255), width=3)
    return np.asarray(canvas)


def sheet(pictures: list[NDArray[np.uint8]], titles: list[str], columns: int) -> NDArray[np.uint8]:
    """A contact sheet: thumbnails in rows with a title below each.

    Args:
        pictures: Each (H, W), of one width.
        titles: One each.
        columns: Thumbnails a row.

    Returns:
        uint8 (H, W).

    Example:
        >>> sheet([np.zeros((80, 80), np.uint8)] * 3, ["a", "b", "c"], columns=2).shape
        (208, 176)
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = max(p.shape[0] for p in pictures), max(p.shape[1] for p in pictures)
    gap, line = 8, 16
    rows = -(-len(pictures) // columns)
    canvas: Any = Image.new("L", (columns * (width + gap), rows * (height + line + gap)), 0)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for place, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        row, column = divmod(place, columns)
        left, top = column * (width + gap), row * (height + line + gap)
        canvas.paste(Image.fromarray(picture), (left, top))
        draw.text((left + 2, top + height + 1), title, fill=230, font=font)
    return np.asarray(canvas)
