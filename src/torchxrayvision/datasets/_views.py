"""The view of an image: which views a caller asks for, and which rows have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets._compact import is_coded_text, is_value
from torchxrayvision.errors import ViewError
from torchxrayvision.labels import CANONICAL_VIEWS, UNKNOWN_VIEW

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["ALL_VIEWS", "named_views", "rows_with_views", "view_list"]

ALL_VIEWS = "*"


def view_list(views: str | Iterable[str] | None, default: Iterable[str]) -> list[str]:
    """The requested views as a list of the caller's own.

    Args:
        views: One view, several, ``"*"`` for all, or None for the default.
        default: Views of the dataset when the caller names none.

    Returns:
        New list.

    Raises:
        ViewError: If the request is empty or holds something else than text.

    Example:
        >>> view_list("PA", ["AP"]), view_list(("PA", "AP"), ["AP"]), view_list(None, ["AP"])
        (['PA'], ['PA', 'AP'], ['AP'])
    """
    if views is None:
        return list(default)
    wanted = [views] if isinstance(views, str) else list(views)
    if not wanted or not all(isinstance(view, str) for view in wanted):
        msg = f"views must name at least one view, such as ['PA', 'AP'] or '*', got {views!r}"
        raise ViewError(msg)
    return wanted


def named_views(views: pd.Series[Any]) -> pd.Series[Any]:
    """A column of views with a name in every row.

    Args:
        views: Raw names, blank where the release has none.

    Returns:
        Same with "UNKNOWN" for blanks; text, or categorical text where it was that.
    """
    blank = views.isna().to_numpy() | is_value(views, "")
    if not is_coded_text(views):
        named = views.astype(str)
        return named.mask(blank, UNKNOWN_VIEW) if blank.any() else named
    if not blank.any():
        return views
    if UNKNOWN_VIEW not in views.cat.categories:
        views = views.cat.add_categories([UNKNOWN_VIEW])
    return views.mask(blank, UNKNOWN_VIEW)


def rows_with_views(column: pd.Series[str], wanted: list[str], dataset: str) -> NDArray[np.bool_]:
    """Which rows have one of the wanted views.

    A view that other datasets have and this one lacks selects nothing, so that one list serves a
    merge; a name that no dataset has is a slip.

    Args:
        column: View of each row.
        wanted: From `view_list`.
        dataset: Name for messages.

    Returns:
        Boolean array, one value a row.

    Raises:
        ViewError: If a name is unknown, or the source has none of the views.
    """
    if ALL_VIEWS in wanted:
        return np.ones(len(column), dtype=bool)
    present = [str(view) for view in column.unique()]
    unknown = [view for view in wanted if view not in present and view not in CANONICAL_VIEWS]
    lacking = not any(view in present for view in wanted)
    if unknown or (lacking and len(column)):
        counts = column.value_counts()
        has = ", ".join(f"{view} ({counts[view]:,})" for view in counts.index if counts[view])
        what = f"unknown view {unknown[0]!r}" if unknown else f"no image with views {wanted}"
        msg = f"{dataset}: {what}; this source has {has}. Pass '*' for all"
        raise ViewError(msg)
    return column.isin(wanted).to_numpy(dtype=bool)
