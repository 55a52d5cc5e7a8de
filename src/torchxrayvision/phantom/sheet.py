"""Contact sheets: many simulated images in one picture."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import DatasetError
from torchxrayvision.phantom.records import FINDINGS, SITES, VIEWS
from torchxrayvision.phantom.render import simulate
from torchxrayvision.pictures import contact_sheet as sheet_of
from torchxrayvision.pictures import grey, outline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]

_OUTLINE = (255, 80, 60)
_WHOLE = frozenset({"Emphysema", "Lung Opacity"})  # outlines of these only repeat other structures


def contact_sheet(
    findings: Sequence[str | None] = (None, *FINDINGS),
    *,
    views: Sequence[str] = VIEWS,
    sites: Sequence[str] = SITES[:1],
    columns: int | None = None,
    size: int = 256,
    severity: float = 0.7,
    seed: int = 0,
    index: int = 0,
    outlines: bool = True,
) -> Picture:
    """Show findings, views and sites side by side, one finding per image.

    The sheet runs along rows through findings, then views, then sites; each finding has a patient
    of its own, who is the same in every view and site.

    Args:
        findings: Findings to show; None is an image without any.
        views: Views of each.
        sites: Sites of each.
        columns: Images per row; None for all views and sites of a finding.
        size: Rows and columns of each image, pixels.
        severity: Of each finding, above 0 to 1.
        seed: Seed of the collection.
        index: Number of the first image.
        outlines: Whether to draw the outlines of masks.

    Returns:
        uint8 (H, W, 3).

    Raises:
        DatasetError: If there is nothing to show or a number is out of range.
        UnknownNameError: If a finding or site is not simulated.
        ViewError: If a view is not simulated.

    Example:
        >>> contact_sheet(["Effusion"], views=["PA"], sites=["A", "B"], size=64).shape
        (64, 128, 3)
    """
    cells = [
        (f"{finding or 'No finding'}, {view}, {site}", finding, view, site, index + 3 * number)
        for (number, finding), view, site in product(enumerate(findings), views, sites)
    ]
    width = columns if columns is not None else len(views) * len(sites)
    if not cells or width < 1:
        msg = "a contact sheet needs at least one finding, view, site and column"
        raise DatasetError(msg)
    pictures = []
    for _, finding, view, site, number in cells:
        forced = {} if finding is None else {finding: severity}
        shown = simulate(
            number, seed=seed, size=size, site=site, views=[view], findings=forced, others=False
        )
        picture = np.repeat(grey(shown.image)[..., None], 3, axis=2)
        mask = shown.masks.get(finding or "")
        if outlines and mask is not None and finding not in _WHOLE:
            picture[outline(mask)] = _OUTLINE
        pictures.append(picture)
    return sheet_of(pictures, [title for title, *_ in cells], width)
