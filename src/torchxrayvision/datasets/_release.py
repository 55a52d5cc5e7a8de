"""What one dataset object knows about the release it was built from, and a row of its table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets._pack import PackedFrame, pack_frame, unpack_frame

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from torchxrayvision.datasets._compact import Lines

__all__ = ["Release", "Row"]


@dataclass
class Release:
    """The context that every rule of a `DatasetSpec` receives.

    Args:
        dataset: Name of the dataset class, for messages.
        places: Constructor argument to the folder or archive given for it, or None.
        tables: Constructor argument to the table read for it. After construction only the
            tables that masks or boxes declare are kept.
        arguments: Further constructor arguments by name, such as ``extension``.
        compat: Whether the caller asked for 1.5.7's results.
        packaged: Arguments of the tables that came from this package.
        cache: What an image or mask source computed once for this object. Everything in it
            must pickle.
    """

    dataset: str
    places: dict[str, Path | None]
    tables: dict[str, pd.DataFrame]
    arguments: dict[str, Any] = field(default_factory=dict)
    compat: bool = False
    packaged: frozenset[str] = frozenset()
    cache: dict[str, Any] = field(default_factory=dict)

    def position(
        self, frame: pd.DataFrame | PackedFrame | Lines, column: str, name: str
    ) -> int | None:
        """The first row of a csv that has a name in a column.

        Comparing every string takes as long as painting a mask, so positions are kept. The csv
        belongs to the user, who may have changed it since: what was kept is looked at again.

        Args:
            frame: The csv.
            column: One of its columns.
            name: What to look for.

        Returns:
            Position, or None.
        """
        from torchxrayvision.datasets._annotations import Groups

        names = frame[column]
        slot = f"named:{column}"
        if slot not in self.cache:
            self.cache[slot] = Groups(names)
        groups = self.cache[slot]
        for position in groups[name].tolist():
            if position < len(names) and names.iloc[position] == name:
                return int(position)
        found = np.flatnonzero(names == name)
        return int(found[0]) if len(found) else None

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["tables"] = {name: pack_frame(table) for name, table in self.tables.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.tables = {name: unpack_frame(table) for name, table in state["tables"].items()}


class Row(Mapping[str, Any]):
    """One row of a dataset's csv, read column by column when asked.

    Args:
        frame: The csv of the dataset, or its compact form.
        position: Which row, from 0.
        arguments: Constructor arguments, which stand behind the columns, so that a path
            template may say ``{patientId}{extension}``.

    Example:
        >>> import pandas as pd
        >>> row = Row(pd.DataFrame({"name": ["a"]}), 0, {"extension": ".png"})
        >>> "{name}{extension}".format_map(row)
        'a.png'
    """

    __slots__ = ("_arguments", "_frame", "position")

    def __init__(
        self,
        frame: pd.DataFrame | PackedFrame | Lines,
        position: int,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self._frame = frame
        self._arguments = arguments or {}
        self.position = position

    def __getitem__(self, name: str) -> Any:
        if name in self._frame.columns:
            return self._frame[name].array[self.position]  # a third of the time of iloc
        return self._arguments[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._frame.columns, *self._arguments])

    def __len__(self) -> int:
        return len(self._frame.columns) + len(self._arguments)
