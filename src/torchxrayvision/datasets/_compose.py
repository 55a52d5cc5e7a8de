"""Containers: merge, subset, filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets._container import Container, stacked
from torchxrayvision.datasets._relabel import align
from torchxrayvision.errors import DatasetError, EmptyDatasetError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets._dataset import Sample

__all__ = [
    "FilterDataset",
    "Filter_Dataset",
    "MergeDataset",
    "Merge_Dataset",
    "SubsetDataset",
    "Subset_Dataset",
]


class MergeDataset(Container):
    """Several datasets one after another; a sample's ``source`` says which.

    Args:
        datasets: With the same findings, see `relabel_dataset`.
        seed: Accepted as in 1.5.7; nothing is drawn.
        label_concat: Keep the findings of each dataset apart: dataset *i* gets columns of its own,
            named ``"Mass [i]"``, and NaN in all others. The findings may then differ.

    Attributes:
        datasets: The datasets.
        length: Number of samples.

    Raises:
        DatasetError: If the findings differ.
        EmptyDatasetError: If there is no dataset.
    """

    def __init__(self, datasets: Iterable[Any], seed: int = 0, label_concat: bool = False) -> None:
        self.datasets = list(datasets)
        self.seed = seed
        self.label_concat = label_concat
        if not self.datasets:
            msg = "MergeDataset needs at least one dataset, got an empty list"
            raise EmptyDatasetError(msg)
        ends = np.cumsum([len(dataset) for dataset in self.datasets])
        self._starts = np.array([0, *ends[:-1]])
        self.length = int(ends[-1])
        self._check_findings()

    def _check_findings(self) -> None:
        if self.label_concat:
            return
        first = [str(name) for name in self.datasets[0].pathologies]
        for i, dataset in enumerate(self.datasets[1:], start=1):
            names = [str(name) for name in dataset.pathologies]
            if names != first:
                msg = (
                    f"datasets 0 ({type(self.datasets[0]).__name__}) and {i} "
                    f"({type(dataset).__name__}) have different findings: {first} and {names}; "
                    f"call relabel_dataset on each first, or pass label_concat=True"
                )
                raise DatasetError(msg)

    def __len__(self) -> int:
        return self.length

    def _inner(self) -> tuple[Any, ...]:
        return tuple(self.datasets)

    @property
    def which_dataset(self) -> NDArray[np.int64]:
        """The dataset of each row, int64 (N,)."""
        return np.repeat(np.arange(len(self._starts)), np.diff([*self._starts, self.length]))

    @property
    def offset(self) -> NDArray[np.int64]:
        """The first row of that dataset, int64 (N,)."""
        return self._starts[self.which_dataset]

    def _parts(self) -> list[list[str]]:
        """The container's names for the findings of each dataset."""
        if not self.label_concat:
            return [[str(name) for name in dataset.pathologies] for dataset in self.datasets]
        return [
            [f"{name} [{i}]" for name in dataset.pathologies]
            for i, dataset in enumerate(self.datasets)
        ]

    def _inner_names(self) -> list[str]:
        parts = self._parts()
        return [name for part in parts for name in part] if self.label_concat else parts[0]

    def _inner_labels(self) -> NDArray[np.float32]:
        self._check_findings()  # one of them may have been relabelled since
        if not self.label_concat:
            return np.concatenate([dataset.labels for dataset in self.datasets])
        names = self._inner_names()
        pairs = zip(self.datasets, self._parts(), strict=True)
        return np.concatenate([align(dataset.labels, part, names) for dataset, part in pairs])

    def _inner_csv(self) -> pd.DataFrame:
        return stacked(dataset.csv for dataset in self.datasets)

    def _take(self, rows: NDArray[np.intp]) -> None:
        msg = (
            f"{type(self).__name__} follows the datasets inside it and drops no rows of theirs; "
            f"choose views when those are made, or take SubsetDataset(merged, rows) of "
            f"{len(rows)} rows"
        )
        raise DatasetError(msg)

    def __getitem__(self, idx: int) -> Sample:
        """One sample, with ``source``: which dataset it comes from."""
        position = self._position(idx)
        source = int(np.searchsorted(self._starts, position, side="right")) - 1
        sample: Sample = self.datasets[source][position - int(self._starts[source])]
        sample["source"] = source
        return self._finish(sample, self._parts()[source], position)


class SubsetDataset(Container):
    """Some rows of a dataset.

    Args:
        dataset: Any dataset or container.
        idxs: Positions in the order wanted; a boolean mask of the dataset's length works too.
            None: all.

    Attributes:
        dataset: The dataset inside.
        idxs: int64 (N,), position in it.

    Raises:
        IndexError: If a position is outside.
    """

    def __init__(self, dataset: Any, idxs: Iterable[int] | NDArray[Any] | None = None) -> None:
        self.dataset = dataset
        chosen = np.arange(len(dataset)) if idxs is None else np.asarray(_listed(idxs))
        if chosen.dtype == bool:
            if len(chosen) != len(dataset):
                msg = f"a mask of {len(chosen)} values does not fit {len(dataset)} samples"
                raise IndexError(msg)
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64, casting="same_kind" if len(chosen) else "unsafe")
        if len(chosen) and (chosen.min() < -len(dataset) or chosen.max() >= len(dataset)):
            msg = f"positions must lie in [0, {len(dataset)}), got up to {chosen.max()}"
            raise IndexError(msg)
        self.idxs = np.where(chosen < 0, chosen + len(dataset), chosen)

    def __len__(self) -> int:
        return len(self.idxs)

    def _inner(self) -> tuple[Any, ...]:
        return (self.dataset,)

    @property
    def which_dataset(self) -> NDArray[np.int64]:
        """The dataset of each row where this is a part of a merge, int64 (N,).

        Raises:
            AttributeError: If it is not.
        """
        which: NDArray[np.int64] = self.dataset.which_dataset
        return which[self.idxs]

    def _inner_labels(self) -> NDArray[np.float32]:
        return np.asarray(self.dataset.labels)[self.idxs]

    def _inner_csv(self) -> pd.DataFrame:
        frame: pd.DataFrame = self.dataset.csv.iloc[self.idxs].reset_index(drop=True)
        return frame

    def _take(self, rows: NDArray[np.intp]) -> None:
        if len(rows) == 0:
            raise EmptyDatasetError(f"{type(self).__name__}: no row is left")
        labels, assigned = self._kept(), self.csv if self._csv is not None else None
        self.idxs = self.idxs[rows]
        self.__dict__.pop("_cache", None)
        if labels is not None:
            self._keep(labels[rows])
        if assigned is not None:
            self.csv = assigned.iloc[rows].reset_index(drop=True)

    def __getitem__(self, idx: int) -> Sample:
        """One sample; its ``idx`` is the position in the innermost dataset."""
        position = self._position(idx)
        sample: Sample = self.dataset[int(self.idxs[position])]
        names = [str(name) for name in self.dataset.pathologies]
        return self._finish(sample, names, position)


def _listed(idxs: Iterable[int] | NDArray[Any]) -> Any:
    return idxs if hasattr(idxs, "__array__") else list(idxs)


class FilterDataset(SubsetDataset):
    """The rows of a dataset that have at least one of some findings, each once, in order.

    Args:
        dataset: Any dataset or container.
        labels: Findings; a row stays if any of them is 1. None: every row.

    Raises:
        UnknownNameError: If the dataset lacks a finding.
        EmptyDatasetError: If no row has one.
    """

    def __init__(self, dataset: Any, labels: str | Iterable[str] | None = None) -> None:
        wanted = [labels] if isinstance(labels, str) else labels
        if wanted is None:
            super().__init__(dataset)
            return
        names = [str(name) for name in dataset.pathologies]
        columns = []
        for name in wanted:
            if name not in names:
                raise UnknownNameError("finding", name, names)
            columns.append(names.index(name))
        rows = np.flatnonzero((np.asarray(dataset.labels)[:, columns] == 1).any(axis=1))
        if len(rows) == 0:
            msg = f"no image of {type(dataset).__name__} has any of {list(wanted)}"
            raise EmptyDatasetError(msg)
        super().__init__(dataset, rows)


Merge_Dataset = MergeDataset
Subset_Dataset = SubsetDataset
Filter_Dataset = FilterDataset
