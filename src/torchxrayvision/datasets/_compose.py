"""Containers: merge, subset, filter.

A container follows the datasets inside it: its ``labels`` and ``csv`` are gathered when first
read, and again after one of those datasets was relabelled. Relabelling a container leaves the
datasets inside as they are. An item's ``lab`` is always the container's row of labels, and mask
keys are indices into the container's own findings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets._dataset import Dataset, Sample
from torchxrayvision.datasets._relabel import align
from torchxrayvision.errors import DatasetError, EmptyDatasetError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "Container",
    "FilterDataset",
    "Filter_Dataset",
    "MergeDataset",
    "Merge_Dataset",
    "SubsetDataset",
    "Subset_Dataset",
]

_GUARDED = ("transform", "data_aug", "labels", "pathologies", "targets", "csv")


class Container(Dataset):
    """What all containers share; use `MergeDataset`, `SubsetDataset` or `FilterDataset`."""

    _wanted: list[str] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _GUARDED:
            msg = (
                f"{type(self).__name__}.{name} follows the datasets inside it; set it on those, "
                f"or use relabel_dataset for the findings"
            )
            raise NotImplementedError(msg)
        object.__setattr__(self, name, value)

    def _inner(self) -> tuple[Any, ...]:
        """The datasets inside."""
        raise NotImplementedError

    def _inner_names(self) -> list[str]:
        """The findings before this container was relabelled."""
        return [str(name) for name in self._inner()[0].pathologies]

    def _inner_labels(self) -> NDArray[np.float32]:
        """The labels before this container was relabelled, (N, len(self._inner_names()))."""
        raise NotImplementedError

    def _inner_csv(self) -> pd.DataFrame:
        """The rows of the datasets inside, index 0 to N-1."""
        raise NotImplementedError

    def _cached(self, slot: str, sources: tuple[Any, ...], make: Any) -> Any:
        """What `make` gives, made again when one of the sources was replaced by another object."""
        cache = self.__dict__.setdefault("_cache", {})
        kept, result = cache.get(slot, ((), None))
        if len(kept) != len(sources) or any(a is not b for a, b in zip(kept, sources, strict=True)):
            result = make()
            cache[slot] = (sources, result)
        return result

    @property
    def pathologies(self) -> list[str]:  # type: ignore[override]
        """Findings, in the order of the columns of `labels`."""
        return self._inner_names() if self._wanted is None else self._wanted

    @property  # type: ignore[misc]
    def labels(self) -> NDArray[np.float32]:
        """float32 (N, P): 1 present, 0 absent, NaN unknown."""

        def gather() -> NDArray[np.float32]:
            labels = self._inner_labels()
            if self._wanted is None:
                return np.asarray(labels, dtype=np.float32)
            return align(labels, self._inner_names(), self._wanted)

        sources = (self._wanted, *(inner.labels for inner in self._inner()))
        labels: NDArray[np.float32] = self._cached("labels", sources, gather)
        return labels

    @property  # type: ignore[misc]
    def csv(self) -> pd.DataFrame:
        """One row an image, aligned with `labels`."""
        sources = tuple(inner.csv for inner in self._inner())
        frame: pd.DataFrame = self._cached("csv", sources, self._inner_csv)
        return frame

    def _stored(self) -> NDArray[Any]:
        return self.labels

    def _relabel(self, pathologies: list[str]) -> None:
        self._wanted = list(pathologies)

    def _finish(self, sample: Sample, names: Sequence[str]) -> Sample:
        """A sample of a dataset inside, with this container's labels and mask keys.

        Args:
            sample: From the dataset inside.
            names: The container's finding of each label and mask key of `sample`.
        """
        own = self.pathologies
        if list(names) == own:
            return sample
        sample["lab"] = align(np.asarray(sample["lab"]), names, own)
        if "pathology_masks" in sample:
            index = {name: j for j, name in enumerate(own)}
            sample["pathology_masks"] = {
                index[names[key]]: mask
                for key, mask in sample["pathology_masks"].items()
                if names[key] in index
            }
        return sample

    def string(self) -> str:
        """This container and the datasets inside, as a tree."""
        inner = self._inner()
        lines = [f"{type(self).__name__} num_samples={len(self)}"]
        for i, dataset in enumerate(inner):
            corner = "└" if i == len(inner) - 1 else "├"
            prefix = f"{corner}{i} " if len(inner) > 1 else f"{corner} of "
            text = dataset.string() if hasattr(dataset, "string") else repr(dataset)
            first, *rest = text.splitlines() or [""]
            lines.append(prefix + first)
            lines += [("  " if corner == "└" else "│ ") + line for line in rest]
        return "\n".join(lines)

    def check_paths_exist(self) -> None:
        """Raise if an image of a dataset inside is missing."""
        for dataset in self._inner():
            dataset.check_paths_exist()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


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
        import pandas as pd

        parts: list[pd.DataFrame] = [dataset.csv for dataset in self.datasets]
        return pd.concat(parts, ignore_index=True)

    def __getitem__(self, idx: int) -> Sample:
        """One sample, with ``source``: which dataset it comes from."""
        position = self._position(idx)
        source = int(np.searchsorted(self._starts, position, side="right")) - 1
        sample: Sample = self.datasets[source][position - int(self._starts[source])]
        sample["source"] = source
        return self._finish(sample, self._parts()[source])


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

    def _inner_labels(self) -> NDArray[np.float32]:
        return np.asarray(self.dataset.labels)[self.idxs]

    def _inner_csv(self) -> pd.DataFrame:
        frame: pd.DataFrame = self.dataset.csv.iloc[self.idxs].reset_index(drop=True)
        return frame

    def _take(self, rows: NDArray[np.intp]) -> None:
        if len(rows) == 0:
            raise EmptyDatasetError(f"{type(self).__name__}: no row is left")
        self.idxs = self.idxs[rows]
        self.__dict__.pop("_cache", None)

    def __getitem__(self, idx: int) -> Sample:
        """One sample; its ``idx`` is the position in the innermost dataset."""
        position = self._position(idx)
        sample: Sample = self.dataset[int(self.idxs[position])]
        return self._finish(sample, [str(name) for name in self.dataset.pathologies])


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
