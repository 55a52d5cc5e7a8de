"""What merge, subset and filter share: `Container`.

A container follows the datasets inside it: its ``labels`` and ``csv`` are gathered when first
read, and again after one of those datasets was relabelled. Relabelling a container leaves the
datasets inside as they are. An item's ``lab`` is always the container's row of labels, also where
somebody changed them, and mask keys are indices into the container's own findings. Labels that
nobody read are neither gathered for items nor pickled: a worker needs only those of the datasets
inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.datasets._dataset import Dataset, Sample
from torchxrayvision.datasets._pack import label_row, pack_labels, unpack_frame, unpack_labels
from torchxrayvision.datasets._relabel import align
from torchxrayvision.datasets._spec import SHARED_COLUMNS
from torchxrayvision.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Container", "stacked"]

_GUARDED = ("transform", "data_aug", "labels", "pathologies", "targets")


def stacked(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Tables one under another, index 0 to N-1.

    Args:
        frames: Tables of several sources.

    Returns:
        New table. Where a source does not tell the sex, both of its columns are False, as they
        are for a patient whose sex is unknown.
    """
    import pandas as pd

    frame: pd.DataFrame = pd.concat(list(frames), ignore_index=True)
    for name, kind in SHARED_COLUMNS.items():
        if kind == "bool" and name in frame.columns and frame[name].dtype != bool:
            frame[name] = frame[name].eq(other=True)  # NaN as a bool would be True
    return frame


def _editions(dataset: Any) -> tuple[Any, ...]:
    """Objects of which one is another once labels inside were replaced or relabelled.

    A pickle of the container keeps what is the same object the same.
    """
    if isinstance(dataset, Container):
        inside = (edition for inner in dataset._inner() for edition in _editions(inner))
        return (dataset._wanted, getattr(dataset, "idxs", None), *inside)
    if isinstance(dataset, Dataset):
        return (dataset, dataset._edition)
    own = getattr(dataset, "__dict__", {})
    return (dataset, own.get("labels"), own.get("pathologies"))


class Container(Dataset):
    """What all containers share; use `MergeDataset`, `SubsetDataset` or `FilterDataset`."""

    _wanted: list[str] | None = None
    _gathered: tuple[tuple[Any, ...], NDArray[Any]] | None = None

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
        kept = self._kept()
        labels = self._gather() if kept is None else unpack_labels(kept)
        self._keep(labels)
        return labels

    def _gather(self) -> NDArray[np.float32]:
        labels = self._inner_labels()
        if self._wanted is None:
            return np.asarray(labels, dtype=np.float32)
        return align(labels, self._inner_names(), self._wanted)

    def _keep(self, labels: NDArray[Any]) -> None:
        self._gathered = (_editions(self), labels)

    def _kept(self) -> NDArray[Any] | None:
        """Labels that were gathered, as `pack_labels` packs them or float; None: none that hold."""
        if self._gathered is None:
            return None
        sources, labels = self._gathered
        now = _editions(self)
        same = len(now) == len(sources) and all(a is b for a, b in zip(now, sources, strict=True))
        return labels if same else None

    @property
    def csv(self) -> pd.DataFrame:
        """One row an image, aligned with `labels`; a table that was assigned stays."""
        if self._csv is not None:
            self._csv = unpack_frame(self._csv)
            return self._csv
        sources = tuple(inner.csv for inner in self._inner())
        frame: pd.DataFrame = self._cached("csv", sources, self._inner_csv)
        return frame

    @csv.setter
    def csv(self, frame: pd.DataFrame) -> None:
        rows = len(frame) if hasattr(frame, "columns") else None
        if rows != len(self):
            got = f"a {type(frame).__name__}" if rows is None else f"{rows} rows"
            msg = (
                f"{type(self).__name__}.csv must be a DataFrame of {len(self)} rows, one a "
                f"sample, got {got}; for fewer samples use SubsetDataset"
            )
            raise DatasetError(msg)
        self._csv = frame

    def _stored(self) -> NDArray[Any]:
        return self.labels

    def _relabel(self, pathologies: list[str]) -> None:
        had, kept = self.pathologies, self._kept()
        self._wanted = list(pathologies)
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
            sample["lab"] = align(np.asarray(sample["lab"]), names, own)
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
        for key in ("_cache", "_gathered"):
            state.pop(key, None)
        if kept is not None:
            state["_gathered"] = (_editions(self), pack_labels(kept))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
