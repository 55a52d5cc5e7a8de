"""Write simulated radiographs as a release that looks like a real one: `write_release`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import DatasetError, UnknownNameError, ViewError
from torchxrayvision.phantom.layouts import LAYOUTS
from torchxrayvision.phantom.render import simulate

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    from torchxrayvision.phantom.records import Simulation

__all__ = ["release_layouts", "write_release"]


def release_layouts() -> dict[str, str]:
    """Layouts that `write_release` knows.

    Returns:
        Name to the class of `torchxrayvision.datasets` that reads it.

    Example:
        >>> release_layouts()["nih"]
        'NIH_Dataset'
    """
    return {name: layout.dataset for name, layout in LAYOUTS.items()}


def write_release(
    folder: str | os.PathLike[str],
    n: int,
    seed: int = 0,
    layout: str = "folder",
    *,
    size: int | None = None,
    site: str = "A",
    views: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write simulated radiographs in the files, folders and tables of a real release.

    ``"folder"`` is somebody's own collection: 8 and 16 bit PNG, JPEG and DICOM mixed,
    ``labels.csv``, ``truth.csv`` (severities, cardiothoracic ratio), masks of findings and of
    anatomy. ``"nih"``, ``"chexpert"``, ``"rsna"`` and ``"siim"`` have the names, headers and boxes
    or run lengths of those releases. DICOM files are 12 bits deep, some of them MONOCHROME1, and
    name nobody.

    Args:
        folder: New or empty folder.
        n: Number of films.
        seed: Of the simulation; film i is ``simulate(i, seed=seed, ...)``.
        layout: One of `release_layouts`.
        size: Side of the films in pixels; None: 1024 for NIH, RSNA and SIIM as in the releases
            (whose tables count in pixels of 1024 at any size), else 512.
        site: Look of the films, one of `SITES`.
        views: Views to simulate; None: those that the release has.
        progress: Called with (done, total) after each film.

    Returns:
        Arguments with which the dataset class of the layout reads the release.

    Raises:
        UnknownNameError: If there is no such layout.
        ViewError: If the release has no such view.
        DatasetError: If the folder holds something, or `n` is not positive.

    Example:
        >>> import tempfile
        >>> import torchxrayvision as xrv
        >>> arguments = xrv.phantom.write_release(tempfile.mkdtemp(), 2, layout="nih", size=64)
        >>> nih = xrv.datasets.NIH_Dataset(**arguments, views="*", unique_patients=False)
        >>> len(nih), nih[0]["img"].shape
        (2, (1, 64, 64))
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, list(LAYOUTS))
    chosen = LAYOUTS[layout]
    unknown = [view for view in views or () if view not in chosen.views]
    if unknown:
        msg = f"layout {layout!r} has the views {', '.join(chosen.views)}, not {unknown[0]!r}"
        raise ViewError(msg)
    if n < 1:
        msg = f"a release of n={n!r} films: at least 1"
        raise DatasetError(msg)
    target = _empty(Path(folder).expanduser())
    films = _films(
        n, progress, seed=seed, size=size or chosen.size, site=site, views=views or chosen.views
    )
    return chosen.write(target, films, seed)


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        msg = f"{folder} is not empty; name a new folder"
        raise DatasetError(msg)
    return folder


def _films(
    n: int, progress: Callable[[int, int], None] | None, **settings: Any
) -> Iterator[Simulation]:
    for index in range(n):
        yield simulate(index, **settings)
        if progress is not None:
            progress(index + 1, n)
