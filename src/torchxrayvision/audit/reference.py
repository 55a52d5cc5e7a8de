"""What a collection is compared with: a folder of images, a table, or a dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets import label_table
from torchxrayvision.errors import DatasetNotFoundError
from torchxrayvision.evaluation import read_table

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.datasets import SpecDataset
    from torchxrayvision.inputs import InputFile

_TABLES = (".csv", ".parquet", ".json")


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """A collection that another one is compared with.

    Attributes:
        files: Images to read; none where the table is all there is.
        table: Labels and what else is known, one row per file where there are files; None for
            images alone.
        names: Names of all images of a dataset, also of those that are not here.
        title: What to call it.
    """

    files: list[str | InputFile] = field(default_factory=list)
    table: pd.DataFrame | None = None
    names: list[str] = field(default_factory=list)
    title: str = "the reference"


def reference_of(against: Any) -> Reference | None:
    """Make a reference of what the user gave.

    Args:
        against: A folder or other images, the file of a table, a table, a dataset, or None.

    Returns:
        The reference; None for None.
    """
    import pandas as pd

    if against is None:
        return None
    if isinstance(against, pd.DataFrame):
        return Reference(table=against)
    if isinstance(against, str | os.PathLike):
        path = Path(against)
        if path.suffix.lower() in _TABLES and path.is_file():
            return Reference(table=read_table(path))
        return Reference(files=[os.fspath(against)])
    return _of_dataset(against)


def _of_dataset(dataset: SpecDataset) -> Reference:
    """Those images of a dataset that are here, and its table; the table alone where none is."""
    table = label_table(dataset)
    names = [dataset.image_path(at) for at in range(len(dataset))]
    title = type(dataset).__name__
    try:
        found = {at: dataset.image_file(at) for at in range(len(dataset))}
    except DatasetNotFoundError:
        found = {}
    there = [at for at, file in found.items() if file is not None]
    files: list[str | InputFile] = [file for file in found.values() if file is not None]
    if there:
        table = table.iloc[there].reset_index(drop=True)
    return Reference(files=files, table=table, names=names, title=title)
