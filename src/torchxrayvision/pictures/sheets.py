"""Contact sheets: many pictures in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_GAP, _LINE = 8, 16  # pixels between pictures, and of a title below one
_PALE: dict[str, Any] = {"L": 230, "RGB": (255, 255, 160)}


def contact_sheet(
    pictures: Sequence[NDArray[np.uint8]],
    titles: Sequence[str],
    columns: int,
    *,
    titles_below: bool = False,
) -> NDArray[np.uint8]:
    """Pictures in rows, each with its title.

    Args:
        pictures: Each uint8 (H, W) or (H, W, 3), all of one kind; the largest sets the cells.
        titles: One per picture.
        columns: Pictures per row.
        titles_below: Write titles below the pictures, and leave gaps; else in their corners.

    Returns:
        uint8 (H, W) or (H, W, 3), as the pictures.

    Example:
        >>> contact_sheet([np.zeros((80, 80), np.uint8)] * 3, ["a", "b", "c"], 2).shape
        (160, 160)
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    gap, line = (_GAP, _LINE) if titles_below else (0, 0)
    corner = (2, height + 1) if titles_below else (4, 2)
    mode = "L" if pictures[0].ndim == 2 else "RGB"
    rows = -(-len(pictures) // columns)
    sheet = Image.new(mode, (columns * (width + gap), rows * (height + line + gap)))
    font = ImageFont.load_default(11)
    for place, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        cell = Image.new(mode, (width, height + line))  # so that no title runs into the next one
        cell.paste(Image.fromarray(picture))
        draw = ImageDraw.Draw(cell)
        draw.text(corner, title, _PALE[mode], font, stroke_width=1, stroke_fill="black")
        row, column = divmod(place, columns)
        sheet.paste(cell, (column * (width + gap), row * (height + line + gap)))
    return np.asarray(sheet)
