"""A sample of a dataset as a picture: the image with its masks and boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.errors import needs_package
from torchxrayvision.pictures.outlines import draw_outlines, palette
from torchxrayvision.pictures.overlays import grey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


def draw_sample(
    sample: Mapping[str, Any], pathologies: Sequence[str], size: int = 512
) -> tuple[NDArray[np.uint8], str]:
    """The image of a sample with the outlines of its masks and its boxes.

    Args:
        sample: What a dataset gives: ``img``, ``lab``, and ``pathology_masks`` and ``bbox`` where
            there are any; boxes are (x, y, width, height) in pixels of the image.
        pathologies: Names of the labels.
        size: Longer side of the picture, pixels.

    Returns:
        uint8 (H, W, 3), and the findings that are present as text.

    Example:
        >>> sample = {"img": np.zeros((1, 40, 80), np.float32), "lab": np.array([1.0, 0.0])}
        >>> picture, title = draw_sample(sample, ["Mass", "Edema"], 160)
        >>> picture.shape, title
        ((80, 160, 3), 'Mass')
    """
    from PIL import Image, ImageDraw

    plane = grey(np.asarray(sample["img"]))
    scale = size / max(plane.shape)
    height, width = (max(1, round(side * scale)) for side in plane.shape)
    shown = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS))
    masks = {}
    for index, mask in (sample.get("pathology_masks") or {}).items():
        plain = Image.fromarray((np.asarray(mask).reshape(plane.shape) > 0).astype(np.uint8) * 255)
        masks[pathologies[index]] = np.asarray(plain.resize((width, height))) > 127
    picture = np.repeat(shown[..., None], 3, axis=2)
    if masks:
        picture = draw_outlines(shown, masks, palette(len(masks)).tolist())
    boxes = np.asarray(sample.get("bbox", ()), np.float64).reshape(-1, 4)
    if len(boxes):
        image = Image.fromarray(picture)
        draw = ImageDraw.Draw(image)
        for x, y, across, down in boxes * scale:
            draw.rectangle((x, y, x + across, y + down), outline=(0, 255, 255), width=2)
        picture = np.asarray(image)
    labels = np.asarray(sample["lab"], np.float64)
    present = [name for name, value in zip(pathologies, labels, strict=True) if value == 1]
    return picture, ", ".join(present) or "no finding"


def picture_axes(picture: NDArray[np.uint8], title: str, ax: Any = None) -> Any:
    """A picture on axes of matplotlib.

    Args:
        picture: uint8 (H, W, 3).
        title: Above it.
        ax: Axes to draw on; None for those of a new figure, which pyplot does not
            know and which a notebook shows where the axes are the last value of a cell.

    Returns:
        The axes.

    Raises:
        DependencyError: If matplotlib is missing.
    """
    if ax is None:
        with needs_package("matplotlib", "a figure", "report"):
            from torchxrayvision.pictures.figures import figure_of_its_own
        ax = figure_of_its_own(5, 5 * picture.shape[0] / picture.shape[1])
    ax.imshow(picture)
    ax.set_axis_off()
    ax.set_title(title, fontsize=9, wrap=True)
    return ax
