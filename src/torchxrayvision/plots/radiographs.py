"""Radiographs of a dataset, with their masks and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from torchxrayvision.pictures import contact_sheet as sheet_of
from torchxrayvision.pictures import draw_sample
from torchxrayvision.plots.style import INK, Display

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray


@dataclass
class ContactSheetDisplay(Display):
    """Samples of a dataset in rows.

    Attributes:
        picture: uint8 (H, W, 3).
        titles: One per sample.
    """

    picture: NDArray[np.uint8]
    titles: list[str]
    kind: ClassVar[str] = "contact-sheet"

    def _size(self) -> tuple[float, float]:
        height, width = self.picture.shape[:2]
        return 8.0, 8.0 * height / width

    def _draw(self, ax: Axes) -> None:
        ax.imshow(self.picture)
        ax.set_axis_off()
        ax.figure.set_facecolor(INK)


def contact_sheet(
    dataset: Any,
    indices: Sequence[int] | None = None,
    *,
    number: int = 12,
    columns: int = 4,
    size: int = 224,
    seed: int = 0,
    ax: Axes | None = None,
) -> ContactSheetDisplay:
    """Samples of a dataset side by side, with their findings, masks and boxes.

    Args:
        dataset: Of this package.
        indices: Which samples; None for some drawn at random.
        number: How many are drawn.
        columns: Per row.
        size: Longer side of each, pixels.
        seed: Of the draw.
        ax: Axes to draw on; None for new ones.

    Returns:
        The display.

    Raises:
        IndexError: If the dataset has no such sample.
        DependencyError: If matplotlib is missing.
    """
    if indices is None:
        count = min(number, len(dataset))
        drawn = np.random.default_rng(seed).choice(len(dataset), count, replace=False)
        indices = sorted(drawn.tolist())
    pictures, titles = [], []
    for index in indices:
        picture, title = draw_sample(dataset[index], dataset.pathologies, size)
        pictures.append(picture)
        titles.append(title)
    sheet = sheet_of(pictures, titles, columns, titles_below=True)
    return ContactSheetDisplay(sheet, titles).plot(ax)
