"""Datasets whose drawn annotations are a table of their own: boxes, outlines, phrases."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from torchxrayvision.datasets.annotations import TableMasks
from torchxrayvision.datasets.pipeline import SpecDataset
from torchxrayvision.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


class GroundedDataset(SpecDataset):
    """A dataset that can show the annotations behind its masks and boxes."""

    def annotations(self, idx: int) -> pd.DataFrame:
        """The annotations of an image as its release has them.

        Args:
            idx: Position of the sample.

        Returns:
            One row per annotation, in the order of the release and of the sample's ``bbox``;
            coordinates as released, before any transform.

        Raises:
            IndexError: If `idx` is outside.
        """
        source = self.spec.boxes or self.spec.masks
        if not isinstance(source, TableMasks):
            msg = f"{type(self).__name__} has no table of annotations"
            raise DatasetError(msg)
        _, positions = source.found(self._row(self._position(idx)), self._context)
        return self._context.tables[source.table].iloc[positions].reset_index(drop=True)


def read_records(path: Path) -> pd.DataFrame:
    """A JSON file that holds a list of objects, one row each; nested values stay as they are.

    One column per key, NaN where an object lacks it; a `ValueError` if the file is no such list.
    """
    import pandas as pd

    records: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(records, list) or not all(isinstance(entry, dict) for entry in records):
        msg = "it is no list of objects"
        raise ValueError(msg)
    return pd.DataFrame(records)
