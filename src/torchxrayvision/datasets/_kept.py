"""Tables of a release as they were read, for the attributes of 1.5.7 that hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets._compact import ordinary
from torchxrayvision.datasets._read import read_tables

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets._base import SpecDataset

__all__ = ["release_table"]


def release_table(dataset: SpecDataset, argument: str) -> pd.DataFrame:
    """A table of a release, with all its columns.

    1.5.7 keeps these tables in memory. Here only those that masks need are kept; the others are
    read again when somebody looks.

    Args:
        dataset: The dataset.
        argument: Constructor argument that names the table.

    Returns:
        New table with the types that pandas gives a csv file.

    Raises:
        AttributeError: If the caller passed a DataFrame, which the caller still has.
    """
    release, name = dataset._release, type(dataset).__name__
    packaged = argument in release.packaged
    (table,) = (table for table in dataset.spec.tables if table.argument == argument)
    kept = release.tables.get(argument)
    if kept is None or (packaged and table.columns is not None):
        given: Any = dataset.__dict__.get(argument)
        if given is None and not packaged:
            msg = f"{name}: the DataFrame given as {argument} is not kept; use your own"
            raise AttributeError(msg)
        spec = replace(dataset.spec, tables=(replace(table, columns=None),))
        place = release.places.get("imgpath")
        kept = read_tables(spec, {argument: given}, place, name)[argument]
    return ordinary(kept, frozenset(), packaged)
