"""Contact sheets: many simulated films in one picture."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import DatasetError
from torchxrayvision.phantom.records import FINDINGS, SITES, VIEWS
from torchxrayvision.phantom.render import simulate
from torchxrayvision.pictures import grey, outline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from torchxrayvision.phantom.records import Simulation

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
    """Show findings, views and sites side by side, one finding per film.

    The sheet runs along rows through findings, then views, then sites; each finding has a patient
    of its own, who is the same in every view and site.

    Args:
        findings: Findings to show; None is a film without any.
        views: Views of each.
        sites: Sites of each.
        columns: Films in a row; None for all views and sites of a finding.
        size: Rows and columns of each film, pixels.
        severity: Of each finding, above 0 to 1.
        seed: Seed of the collection.
        index: Number of the first film.
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
    tiles = []
    for title, finding, view, site, film in cells:
        forced = {} if finding is None else {finding: severity}
        shown = simulate(
            film, seed=seed, size=size, site=site, views=[view], findings=forced, others=False
        )
        marked = finding if outlines and finding not in _WHOLE else None
        tiles.append(_tile(shown, marked, title))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % width)
    rows = [np.concatenate(tiles[k : k + width], axis=1) for k in range(0, len(tiles), width)]
    return np.concatenate(rows)


def _tile(shown: Simulation, finding: str | None, title: str) -> Picture:
    from PIL import Image, ImageDraw

    picture = np.repeat(grey(shown.image)[..., None], 3, axis=2)
    if finding is not None and finding in shown.masks:
        picture[outline(shown.masks[finding])] = _OUTLINE
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    pen.text((4, 2), title, fill=(255, 255, 160), stroke_width=1, stroke_fill=(0, 0, 0))
    return np.asarray(canvas)
