"""Outlines of structures with their names, drawn over a radiograph."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from PIL import ImageDraw

    from torchxrayvision.measures import Cardiothoracic

    Box = tuple[float, float, float, float]

_GOLDEN: Final = 0.618034  # of the circle of hues: neighbours in a list are told apart
_THICKNESS: Final = 500  # an outline is this part of the shorter side
_LETTERS: Final = 45
_MEASURE: Final = (255, 255, 255)


def palette(count: int) -> NDArray[np.uint8]:
    """Bright colours that differ from those next to them.

    Args:
        count: How many.

    Returns:
        uint8, shape (count, 3).

    Example:
        >>> palette(2).tolist()
        [[255, 89, 89], [89, 138, 255]]
    """
    hues = [(index * _GOLDEN) % 1 for index in range(count)]
    rgb = [colorsys.hsv_to_rgb(hue, 0.65, 1.0) for hue in hues]
    return np.round(np.array(rgb).reshape(-1, 3) * 255).astype(np.uint8)


def draw_outlines(
    picture: NDArray[np.uint8],
    masks: Mapping[str, NDArray[np.bool_]],
    palette: Sequence[Sequence[int]],
    measured: Cardiothoracic | None = None,
    thickness: int | None = None,
) -> NDArray[np.uint8]:
    """Draw the outline and name of each structure, and the widths of heart and thorax.

    Args:
        picture: uint8, shape (H, W).
        masks: Name to mask of shape (H, W), in the order of the palette; empty ones are left out.
        palette: A colour for each.
        measured: Draws the midline and the distances behind the cardiothoracic ratio.
        thickness: Of the lines, pixels; None: a five-hundredth of the shorter side.

    Returns:
        uint8, shape (H, W, 3).
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = np.array(Image.fromarray(np.ascontiguousarray(picture)).convert("RGB"))
    short = min(picture.shape)
    thickness = thickness or max(1, round(short / _THICKNESS))
    places: dict[str, tuple[float, float]] = {}
    for (name, mask), colour in zip(masks.items(), palette, strict=True):
        box = _box(mask, thickness, picture.shape)
        if box is not None:
            within = mask[box]
            rows, columns = np.nonzero(outline(within, thickness))
            canvas[rows + box[0].start, columns + box[1].start] = colour
            row, column = _centre(within)
            places[name] = (row + box[0].start, column + box[1].start)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(9, short // _LETTERS))
    by_name = dict(zip(masks, palette, strict=True))
    taken: list[Box] = []
    if measured is not None:
        taken.append(_draw_widths(draw, measured, thickness, font))
    # The small structures first: their names have the least room to give way.
    for name in sorted(places, key=lambda name: np.count_nonzero(masks[name])):
        _draw_name(draw, name, places[name], by_name[name], font, taken, picture.shape)
    return np.asarray(image)


def _box(
    mask: NDArray[np.bool_], margin: int, shape: tuple[int, ...]
) -> tuple[slice, slice] | None:
    """The part of the picture that a mask lies in, with a margin."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    (top, bottom), (left, right) = ((int(a[0]), int(a[-1]) + 1) for a in (rows, columns))
    return (
        slice(max(0, top - margin), min(shape[0], bottom + margin)),
        slice(max(0, left - margin), min(shape[1], right + margin)),
    )


def outline(mask: NDArray[np.bool_], thickness: int = 1) -> NDArray[np.bool_]:
    """The pixels of a mask within so many of its border.

    Args:
        mask: bool, shape (H, W).
        thickness: Pixels.

    Returns:
        bool, shape (H, W).

    Example:
        >>> outline(np.ones((3, 3), bool)).sum().item()
        8
    """
    packed = np.packbits(mask, axis=1)  # eight pixels to a byte, the first in the highest bit
    inner = packed
    for _ in range(thickness):
        around = np.pad(inner, 1)
        kept, before, after = inner.copy(), around[1:-1, :-2], around[1:-1, 2:]
        kept &= around[:-2, 1:-1]
        kept &= around[2:, 1:-1]
        kept &= (inner >> 1) | (before << 7)
        kept &= (inner << 1) | (after >> 7)
        inner = kept
    return np.unpackbits(packed & ~inner, axis=1, count=mask.shape[1]).view(bool)


def _centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Middle of the longest run of the row in the middle: inside also where the mask is bent."""
    rows = np.flatnonzero(mask.any(axis=1))
    weights = np.cumsum(mask.sum(axis=1)[rows])
    row = int(rows[np.searchsorted(weights, weights[-1] / 2)])
    edges = np.flatnonzero(np.diff(np.pad(mask[row], 1).astype(np.int8))).reshape(-1, 2)
    start, stop = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    return float(row), float(start + stop) / 2


def _draw_name(
    draw: ImageDraw.ImageDraw,
    name: str,
    place: tuple[float, float],
    colour: Sequence[int],
    font: Any,
    taken: list[Box],
    shape: tuple[int, ...],
) -> None:
    """Write a name at its place, or as near above or below as no other name is."""
    y, x = place
    width, height = font.getlength(name), font.size * 1.15
    x = min(max(x, width / 2), shape[1] - width / 2)
    for step in range(40):
        shift = (step + 1) // 2 * (1 if step % 2 else -1) * height / 2
        box = (x - width / 2, y + shift - height / 2, x + width / 2, y + shift + height / 2)
        inside = box[1] >= 0 and box[3] <= shape[0]
        if inside and not any(_meet(box, other) for other in taken):
            break
    taken.append(box)
    halo = max(1, font.size // 9)
    draw.text(
        (x, (box[1] + box[3]) / 2),
        name,
        fill=tuple(int(value) for value in colour),
        font=font,
        anchor="mm",
        stroke_width=halo,
        stroke_fill=(0, 0, 0),
    )


def _meet(first: Box, second: Box) -> bool:
    apart = first[2] <= second[0] or second[2] <= first[0]
    return not apart and first[1] < second[3] and second[1] < first[3]


def _draw_widths(
    draw: ImageDraw.ImageDraw, measured: Cardiothoracic, thickness: int, font: Any
) -> Box:
    """Draw the midline and the distances; returns where the ratio was written."""
    middle = measured.midline
    lines = [
        (measured.thorax_right, measured.thorax_left),
        (measured.heart_right, (middle, measured.heart_right[1])),
        ((middle, measured.heart_left[1]), measured.heart_left),
    ]
    heights = [y for line in lines for _, y in line]
    lines.append(((middle, min(heights) - 3 * font.size), (middle, max(heights) + 3 * font.size)))
    for line in lines:
        draw.line(line, fill=_MEASURE, width=thickness)
    x, y = measured.thorax_right[0] + font.size / 2, measured.thorax_right[1] + font.size / 4
    text = f"CTR {measured.ratio:.2f}"
    halo = max(1, font.size // 9)
    draw.text((x, y), text, fill=_MEASURE, font=font, stroke_width=halo, stroke_fill=(0, 0, 0))
    left, top, right, bottom = draw.textbbox((x, y), text, font=font, stroke_width=halo)
    return left, top, right, bottom
