"""Containers: merge, subset, filter."""

from __future__ import annotations

import difflib
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets.base import MAKING, Dataset, Sample
from torchxrayvision.datasets.release import SHARED_COLUMNS
from torchxrayvision.datasets.storage import (
    LabelRow,
    align,
    label_row,
    pack_labels,
    unpack_labels,
)
from torchxrayvision.errors import (
    DatasetError,
    DataWarning,
    EmptyDatasetError,
    UnknownNameError,
    caller_stacklevel,
    counted,
)
from torchxrayvision.labels import DEFAULT_PATHOLOGIES, is_known

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

# ---- What merge, subset and filter share: `Container`.
#
# A container follows the datasets inside it: its ``labels`` and ``csv`` are gathered when first
# read, and again after one of those datasets was relabelled. Relabelling a container leaves the
# datasets inside as they are. An item's ``lab`` is always the container's row of labels, also where
# somebody changed them, and mask keys are indices into the container's own findings. Labels that
# nobody read are neither gathered for items nor pickled: a worker needs only those of the datasets
# inside.

_GUARDED = ("transform", "data_aug", "labels", "pathologies", "targets")


def stacked(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Tables of several sources one under another, index 0 to N-1.

    Where a source does not tell the sex, both of its columns are False, as they are for a patient
    whose sex is unknown.
    """
    import pandas as pd

    frame: pd.DataFrame = pd.concat(list(frames), ignore_index=True)
    for name, kind in SHARED_COLUMNS.items():
        if kind == "bool" and name in frame.columns and frame[name].dtype != bool:
            frame[name] = frame[name].eq(other=True)  # NaN as a bool would be True
    return frame


def _state(dataset: Any) -> tuple[Any, ...]:
    """What differs once labels inside were replaced or relabelled.

    A class of a caller's own counts no versions; its arrays and lists are compared as objects.
    """
    if isinstance(dataset, Container):
        inside = (part for inner in dataset._inner() for part in _state(inner))
        return (dataset._labels_version, *inside)
    if isinstance(dataset, Dataset):
        return (dataset, dataset._labels_version)
    own = getattr(dataset, "__dict__", {})
    return (dataset, own.get("labels"), own.get("pathologies"))


def _same(first: Sequence[Any], second: Sequence[Any]) -> bool:
    """Whether two states, or lists of tables, are of the same objects and versions."""
    pairs = zip(first, second, strict=False)
    return len(first) == len(second) and all(
        a == b if isinstance(a, int) and isinstance(b, int) else a is b for a, b in pairs
    )


class Sliceable(Dataset):
    """A dataset of which a slice, a list of positions or a mask is a `SubsetDataset`."""

    def _subset(self, idx: Any) -> Dataset:
        return SubsetDataset(self, range(len(self))[idx] if isinstance(idx, slice) else idx)


class Container(Sliceable):
    """What all containers share; use `MergeDataset`, `SubsetDataset` or `FilterDataset`."""

    _wanted: list[str] | None = None
    _gathered: tuple[tuple[Any, ...], NDArray[Any]] | None = None
    _gathered_csv: tuple[tuple[pd.DataFrame, ...], pd.DataFrame] | None = None

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

    @property
    def pathologies(self) -> list[str]:  # type: ignore[override]
        """Findings, in the order of the columns of `labels`."""
        return self._inner_names() if self._wanted is None else self._wanted

    @property  # type: ignore[misc]
    def labels(self) -> NDArray[np.float32]:
        """float32 (N, P): 1 present, 0 absent, NaN unknown."""
        kept = self._kept()
        with MAKING:
            labels = self._gather() if kept is None else unpack_labels(kept)
            self._keep(labels)
        return labels

    def _gather(self) -> NDArray[np.float32]:
        labels = self._inner_labels()
        if self._wanted is None:
            return np.asarray(labels, dtype=np.float32)
        return align(labels, self._inner_names(), self._wanted)

    def _keep(self, labels: NDArray[Any]) -> None:
        self._gathered = (_state(self), labels)

    def _kept(self) -> NDArray[Any] | None:
        """Labels that were gathered, as `pack_labels` packs them or float; None: none that hold."""
        if self._gathered is None or not _same(self._gathered[0], _state(self)):
            return None
        return self._gathered[1]

    @property
    def csv(self) -> pd.DataFrame:
        """One row per image, aligned with `labels`; a table that was assigned stays."""
        if self._csv is not None:
            return self._csv
        sources = tuple(inner.csv for inner in self._inner())
        if self._gathered_csv is None or not _same(self._gathered_csv[0], sources):
            self._gathered_csv = (sources, self._inner_csv())
        return self._gathered_csv[1]

    @csv.setter
    def csv(self, frame: pd.DataFrame) -> None:
        rows = len(frame) if hasattr(frame, "columns") else None
        if rows != len(self):
            got = f"a {type(frame).__name__}" if rows is None else f"{rows} rows"
            msg = (
                f"{type(self).__name__}.csv must be a DataFrame of {len(self)} rows, one per "
                f"sample, got {got}; for fewer samples use SubsetDataset"
            )
            raise DatasetError(msg)
        self._csv = frame

    def _stored(self) -> NDArray[Any]:
        return self.labels

    def _relabel(self, pathologies: list[str]) -> None:
        had, kept = self.pathologies, self._kept()
        self._wanted = list(pathologies)
        self._labels_version += 1
        if kept is None:
            return
        labels = self.labels
        for j, name in enumerate(self._wanted):  # somebody may have changed what was gathered
            if name in had:
                labels[:, j] = unpack_labels(kept[:, had.index(name)])

    def _finish(self, sample: Sample, names: Sequence[str], position: int) -> Sample:
        """A sample of a dataset inside, with this container's labels and mask keys.

        Args:
            sample: From the dataset inside.
            names: The container's finding of each label and mask key of `sample`.
            position: Row of the container.
        """
        own, kept = self.pathologies, self._kept()
        same = list(names) == own
        if kept is not None:
            sample["lab"] = label_row(kept, position)
        elif not same:
            sample["lab"] = align(np.asarray(sample["lab"]), names, own).view(LabelRow)
        if "pathology_masks" in sample and not same:
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
        state = super().__getstate__()
        kept = self._kept()
        for key in ("_gathered_csv", "_gathered"):
            state.pop(key, None)
        if kept is not None:
            state["_gathered"] = (_state(self), pack_labels(kept))
        return state


# ---- Bringing datasets to one list of findings: `relabel_dataset`.

logger = logging.getLogger(__name__)


def relabel_dataset(pathologies: Iterable[str], dataset: Any, silent: bool = False) -> None:
    """Reorder, add and remove findings of a dataset, in place.

    A finding that the dataset lacks gets NaN, which losses and metrics leave out. The caller's
    list is copied. A container that is relabelled leaves the datasets inside it as they are.

    Args:
        pathologies: Findings wanted, in order; ``xrv.labels.DEFAULT_PATHOLOGIES`` for the order
            of the core models. ``""`` stands for an output without meaning.
        dataset: Any dataset or container; anything with ``pathologies`` and ``labels``.
        silent: Do not log what was added and dropped.

    Raises:
        DatasetError: If `pathologies` is one text, which is hardly ever meant, or a dataset.

    Warns:
        DataWarning: If a name is in no vocabulary and not `silent`.

    Example:
        >>> import numpy as np
        >>> from torchxrayvision.datasets import Dataset
        >>> tiny = Dataset()
        >>> tiny.pathologies, tiny.labels = ["Mass"], np.array([[1.0]], dtype=np.float32)
        >>> relabel_dataset(["Edema", "Mass"], tiny, silent=True)
        >>> tiny.labels.tolist()
        [[nan, 1.0]]
    """
    if isinstance(pathologies, str):
        msg = f"pathologies must be a list of findings, got the text {pathologies!r}"
        raise DatasetError(msg)
    if hasattr(pathologies, "pathologies"):
        msg = (
            f"relabel_dataset takes the findings first and then the dataset, got "
            f"{type(pathologies).__name__} as findings; call relabel_dataset(findings, dataset)"
        )
        raise DatasetError(msg)
    wanted = [str(name) for name in pathologies]
    had = [str(name) for name in dataset.pathologies]
    if not silent:
        _warn_of_unknown(wanted, had)
        added = [name for name in wanted if name and name not in had]
        dropped = [name for name in had if name not in wanted]
        logger.info(
            "relabel %s: unknown here %s, dropped %s", type(dataset).__name__, added, dropped
        )
    relabel = getattr(dataset, "_relabel", None)
    if relabel is not None:
        relabel(wanted)
    else:
        labels = align(np.asarray(dataset.labels), had, wanted)
        dataset.pathologies, dataset.labels = wanted, labels


def _warn_of_unknown(wanted: Sequence[str], had: Sequence[str]) -> None:
    """Warn of a finding that no vocabulary has, and say which is meant."""
    for name in wanted:
        if name and name not in had and not is_known(name):
            close = difflib.get_close_matches(name, [*had, *DEFAULT_PATHOLOGIES], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            msg = f"{name!r} is a finding of no dataset, so every label of it is NaN{hint}"
            warnings.warn(msg, DataWarning, stacklevel=caller_stacklevel())


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
                    f"incorrect pathology alignment: datasets 0 "
                    f"({type(self.datasets[0]).__name__}) and {i} "
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
            f"{counted(len(rows), 'row')}"
        )
        raise DatasetError(msg)

    def _sample(self, position: int) -> Sample:
        """With ``source``: which dataset it comes from."""
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
        self._labels_version += 1
        self._gathered_csv = None
        if labels is not None:
            self._keep(labels[rows])
        if assigned is not None:
            self.csv = assigned.iloc[rows].reset_index(drop=True)

    def _sample(self, position: int) -> Sample:
        """Its ``idx`` is the position in the innermost dataset."""
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
