"""What every dataset and container offers: `Dataset`, and the sample."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, Required, SupportsIndex, TypedDict, overload

import numpy as np

from torchxrayvision.datasets.storage import (
    align,
    is_coded_text,
    is_value,
    label_row,
    pack_frame,
    pack_labels,
    unpack_frame,
    unpack_labels,
)
from torchxrayvision.errors import DatasetError, EmptyDatasetError, ViewError
from torchxrayvision.labels import CANONICAL_VIEWS, UNKNOWN_VIEW

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch.utils.data import ConcatDataset
    from torch.utils.data import Dataset as TorchDataset

    # What a DataLoader takes, for type checkers alone: labels and images are made without torch.
    _TorchDataset = TorchDataset[Any]
    Positions = slice | Sequence[int] | NDArray[Any]
else:
    _TorchDataset = object

# ---- The view of an image: which views a caller asks for, and which rows have them.

ALL_VIEWS = "*"


def view_list(views: str | Iterable[str] | None, default: Iterable[str]) -> list[str]:
    """The requested views as a list of the caller's own; None asks for the default.

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
    """A column of views with a name in every row, "UNKNOWN" for blanks.

    It is text, or categorical text where it was that.
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
    """Which rows have one of the wanted views, bool (N,).

    A view that other datasets have and this one lacks selects nothing, so that one list serves a
    merge; a name that no dataset has is a slip.

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


Transform = Callable[..., Any]
"""A callable on one array (1, H, W), as in 1.5.7, or a torchvision v2 transform, which is joint."""

Sample = TypedDict(
    "Sample",
    {
        "idx": Required[int],
        "lab": Required["NDArray[np.float32]"],
        "img": Required[Any],
        "pathology_masks": NotRequired[dict[int, Any]],
        "semantic_masks": NotRequired[dict[str, Any]],
        "bbox": NotRequired[Any],
        "source": NotRequired[int],
        "lab-old": NotRequired[Any],
        "site": NotRequired[int],
    },
    total=False,
)
"""One item: ``idx`` in the leaf dataset, ``lab`` float32 (P,), ``img`` float32 (1, H, W) in
[-1024, 1024] unless a transform changed it."""


MAKING = threading.RLock()
"""Held while labels and tables are made that are made when first looked at."""


class NoTableError(DatasetError, AttributeError):
    """A dataset of a class of the caller's own has no csv; `hasattr` says so too."""


class Dataset(_TorchDataset):
    """Images with labels: the interface of every dataset and container of this package.

    It is map-style and goes into a ``torch.utils.data.DataLoader`` as it is, although it does not
    import torch.

    Attributes:
        pathologies: Findings, in the order of the columns of `labels`.
        labels: float32 (N, P): 1 present, 0 absent, NaN unknown.
        csv: One row per image, index 0 to N-1, aligned with `labels`.
        views: The views that were asked for, where the source has views.
    """

    pathologies: list[str]
    views: list[str]

    # Both are unpacked when somebody looks at them; items and totals need neither.
    _labels: NDArray[Any]
    _csv: pd.DataFrame | None = None
    _labels_version = 0  # counts replaced labels, which containers must notice

    @property
    def labels(self) -> NDArray[np.float32]:
        """float32 (N, P): 1 present, 0 absent, NaN unknown."""
        with MAKING:  # two threads would each change an array of their own
            self._labels = unpack_labels(self._labels)
            return self._labels

    @labels.setter
    def labels(self, labels: NDArray[np.float32]) -> None:
        self._labels_version += 1
        # int8 is how labels are packed here; those of a caller are plain numbers, in an array or
        # in whatever a class of his own works with.
        packed = getattr(labels, "dtype", None) == np.int8
        self._labels = labels.astype(np.float32) if packed else labels

    @property
    def csv(self) -> pd.DataFrame:
        """One row per image, index 0 to N-1, aligned with `labels`."""
        with MAKING:
            if self._csv is None:
                self._csv = self._make_csv()
            return self._csv

    @csv.setter
    def csv(self, frame: pd.DataFrame) -> None:
        self._csv = frame

    def _make_csv(self) -> pd.DataFrame:
        """The table, when it is first looked at."""
        msg = f"{type(self).__name__} has no csv"
        raise NoTableError(msg)

    def _stored(self) -> NDArray[Any]:
        """Labels as they are kept: float, or int8 with -1 for NaN."""
        kept: NDArray[Any] | None = self.__dict__.get("_labels")
        return self.labels if kept is None else kept

    def _lab(self, position: int) -> NDArray[np.float32]:
        """The labels of one row, a copy."""
        return label_row(self._stored(), position)

    def __len__(self) -> int:
        return len(self._stored())

    @overload
    def __getitem__(self, idx: int | np.integer[Any]) -> Sample: ...
    @overload
    def __getitem__(self, idx: Positions) -> Dataset: ...
    def __getitem__(self, idx: int | np.integer[Any] | Positions) -> Sample | Dataset:
        """One sample, or a part of the dataset.

        Args:
            idx: Position, negative ones count from the end. A slice, or a list, array or mask of
                positions, gives a `SubsetDataset`; nothing is read then.

        Returns:
            Dict with ``idx``, ``lab``, ``img`` and, where asked for and offered,
            ``pathology_masks``, ``semantic_masks``, ``bbox``; or the part.

        Raises:
            IndexError: If a position is outside.
            DatasetNotFoundError: If the image is missing.
            ImageReadError: If it cannot be decoded.
        """
        if isinstance(idx, slice | list | tuple | range) or getattr(idx, "ndim", 0) == 1:
            return self._subset(idx)
        return self._sample(self._position(idx))  # type: ignore[arg-type]

    def _sample(self, position: int) -> Sample:
        """The sample at a position from 0."""
        raise NotImplementedError

    def _subset(self, idx: Any) -> Dataset:
        """The samples at several positions."""
        msg = f"{type(self).__name__} takes one position, got {type(idx).__name__}"
        raise TypeError(msg)

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples, as a DataLoader asks for them."""
        return [self[index] for index in indices]

    def __add__(self, other: TorchDataset[Any]) -> ConcatDataset[Any]:
        """Both, one after the other, as torch's datasets add; `MergeDataset` keeps labels too."""
        from torch.utils.data import ConcatDataset

        return ConcatDataset([self, other])

    def __repr__(self) -> str:
        return self.string()

    def plot(self, idx: int, ax: Any = None, size: int = 512) -> Any:
        """Draw one sample with the outlines of its masks and with its boxes.

        Args:
            idx: Index of the sample.
            ax: Axes of matplotlib to draw on; None for a figure of its own.
            size: Longer side of the picture, pixels.

        Returns:
            The axes; ``.figure`` is the figure. Without `ax` a notebook shows them where they are
            the last value of a cell.

        Raises:
            DependencyError: If matplotlib is missing.
        """
        from torchxrayvision.pictures import draw_sample, picture_axes

        picture, title = draw_sample(self[idx], self.pathologies, size)
        return picture_axes(picture, f"{idx}: {title}", ax)

    def _position(self, idx: SupportsIndex) -> int:
        """An index as a position from 0, negative ones counted from the end.

        Raises:
            IndexError: If it is outside.
            TypeError: If it is no integer.
        """
        import operator

        position = operator.index(idx)
        length = len(self)
        if not -length <= position < length:
            msg = f"index {position} is outside {type(self).__name__} of {length} samples"
            raise IndexError(msg)
        return position % length

    def string(self) -> str:
        """One line: class, number of samples, views, augmentation."""
        parts = [type(self).__name__, f"num_samples={len(self)}"]
        if hasattr(self, "views"):
            parts.append(f"views={self.views}")
        parts.append(f"data_aug={getattr(self, 'data_aug', None)}")
        return " ".join(parts)

    def totals(self) -> dict[str, dict[float, int]]:
        """How often each label occurs.

        Returns:
            Finding to label to count; labels are Python floats, NaN is not counted.

        Example:
            >>> import numpy as np
            >>> tiny = Dataset()
            >>> tiny.pathologies, tiny.labels = ["Mass"], np.array([[1.0], [0.0], [np.nan]])
            >>> tiny.totals()
            {'Mass': {0.0: 1, 1.0: 1}}
        """
        labels = np.asarray(self._stored())
        packed = labels.dtype == np.int8
        absent, present = (labels == 0).sum(axis=0), (labels == 1).sum(axis=0)
        if packed or int(absent.sum() + present.sum() + np.isnan(labels).sum()) == labels.size:
            pairs = zip(absent.tolist(), present.tolist(), strict=True)
            counted = [{label: n for label, n in ((0.0, a), (1.0, p)) if n} for a, p in pairs]
        else:
            counted = [_counts(column) for column in labels.T]
        return dict(zip(map(str, self.pathologies), counted, strict=True))

    def describe(self, by: str | None = None) -> pd.DataFrame:
        """Counts per finding as a table.

        Args:
            by: A column of the csv such as ``"view"``; or ``"sex"``, ``"age"`` (decades), which
                are made of the shared columns. None for the whole.

        Returns:
            One row per finding. Without `by`: present, absent, unknown, prevalence (of the known).
            With it: images with the finding in each group.

        Raises:
            DatasetError: If the csv lacks what `by` needs.
        """
        import pandas as pd

        labels = np.asarray(self.labels, dtype=np.float32)
        present = labels == 1
        if by is not None:
            groups = self._groups(by)
            frame = pd.DataFrame(present, columns=pd.Index(self.pathologies))
            return frame.groupby(groups.to_numpy(), sort=True).sum().T.rename_axis("finding")
        absent = labels == 0
        n_present, n_absent = present.sum(axis=0), absent.sum(axis=0)
        known = n_present + n_absent
        return pd.DataFrame(
            {
                "present": n_present,
                "absent": n_absent,
                "unknown": len(labels) - known,
                "prevalence": np.divide(
                    n_present, known, out=np.full(len(known), np.nan), where=known > 0
                ),
            },
            index=pd.Index(self.pathologies, name="finding"),
        )

    def _groups(self, by: str) -> pd.Series[Any]:
        import pandas as pd

        csv = self.csv
        if by == "sex" and {"sex_male", "sex_female"} <= set(csv.columns):
            male, female = (
                csv["sex_male"].fillna(value=False),
                csv["sex_female"].fillna(value=False),
            )
            names = np.select(
                [male.astype(bool), female.astype(bool)], ["male", "female"], "unknown"
            )
            return pd.Series(names)
        if by == "age" and "age_years" in csv.columns:
            decade = csv["age_years"] // 10 * 10
            text = decade.map(lambda low: f"{low:03.0f}-{low + 9:03.0f}", na_action="ignore")
            return text.astype(object).where(decade.notna(), "unknown")
        if by in csv.columns:
            return csv[by].astype(object).where(csv[by].notna(), "unknown").astype(str)
        msg = f"{type(self).__name__} cannot be grouped by {by!r}; its csv has {list(csv.columns)}"
        raise DatasetError(msg)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{counts.get(1.0, 0):,}</td>"
            f"<td>{counts.get(0.0, 0):,}</td><td>{len(self) - sum(counts.values()):,}</td></tr>"
            for name, counts in self.totals().items()
        )
        return (
            f"<pre>{html.escape(self.string())}</pre><table><thead><tr><th>finding</th>"
            f"<th>present</th><th>absent</th><th>unknown</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )

    def check_paths_exist(self) -> None:
        """Raise if an image of some row is missing.

        Raises:
            DatasetNotFoundError: Naming the first one and how many there are.
        """
        raise NotImplementedError

    def limit_to_selected_views(self, views: str | Iterable[str]) -> None:
        """Keep only the rows with some of the views, in place.

        Args:
            views: One view, several, or ``"*"``.

        Raises:
            ViewError: If a view is unknown, or the source has none of them.
            DatasetError: If the source has no views.
        """
        if "view" not in self.csv.columns:
            msg = f"{type(self).__name__} has no views"
            raise DatasetError(msg)
        wanted = view_list(views, [])
        self._take(np.flatnonzero(rows_with_views(self.csv["view"], wanted, type(self).__name__)))
        self.views = wanted

    def _take(self, rows: NDArray[np.intp]) -> None:
        """Keep some rows, in place; a refusal changes nothing."""
        if len(rows) == 0:
            raise EmptyDatasetError(f"{type(self).__name__}: no row is left")
        self.csv = self.csv.iloc[rows].reset_index(drop=True)
        if "_labels" in self.__dict__:  # a class of a caller's own may choose views first
            self._labels = np.asarray(self._labels)[rows]
        self._labels_version += 1

    def _relabel(self, pathologies: list[str]) -> None:
        """Take on other findings, in place; see `relabel_dataset`."""
        self._labels = align(np.asarray(self._stored()), self.pathologies, pathologies)
        self.pathologies = list(pathologies)
        self._labels_version += 1

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "labels" in state and type(self).__module__.startswith("torchxrayvision."):
            msg = (
                f"this pickle of {type(self).__name__} was written by torchxrayvision 1.5.7, whose "
                f"datasets have other attributes; make the dataset anew with the same arguments, "
                f"such as imgpath={state.get('imgpath')!r}, and compat='xrv-1.5' for the same rows"
            )
            raise DatasetError(msg)
        self.__dict__.update(state)
        if self._csv is not None:
            self._csv = unpack_frame(self._csv)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if "_labels" in state:
            state["_labels"] = pack_labels(state["_labels"])
        if state.get("_csv") is not None:
            state["_csv"] = pack_frame(state["_csv"])
        return state


def _counts(column: NDArray[np.float32]) -> dict[float, int]:
    values, counts = np.unique(column[~np.isnan(column)], return_counts=True)
    return {float(value): int(count) for value, count in zip(values, counts, strict=True)}
