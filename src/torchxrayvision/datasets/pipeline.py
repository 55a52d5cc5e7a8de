"""The one pipeline that every dataset runs: `SpecDataset`."""

from __future__ import annotations

import contextlib
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import numpy as np

from torchxrayvision.datasets.base import (
    ALL_VIEWS,
    Sample,
    Transform,
    named_views,
    rows_with_views,
    view_list,
)
from torchxrayvision.datasets.constructors import (
    SHARED_DEFAULTS,
    Arguments,
    Compat,
    PathLike,
    Views,
    complete_docstring,
    described_arguments,
    of_method,
    signature,
    signature_of,
)
from torchxrayvision.datasets.containers import Sliceable
from torchxrayvision.datasets.images import transformed_image
from torchxrayvision.datasets.reading import is_packaged, read_tables
from torchxrayvision.datasets.release import (
    SHARED_COLUMNS,
    USE_INCLUDED_FILE,
    Row,
    Rule,
    SourceContext,
    need_columns,
)
from torchxrayvision.datasets.spec import USUAL_PARAMETERS, DatasetSpec
from torchxrayvision.datasets.split import official_split
from torchxrayvision.datasets.storage import (
    LazyTable,
    as_text,
    ordinary,
    pack_labels,
    release_unused,
    row_numbers,
    whole_numbers,
)
from torchxrayvision.errors import DatasetError, EmptyDatasetError, XRVError
from torchxrayvision.transforms import SeedSource, apply_transforms, square_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.annotations import MaskSource
    from torchxrayvision.datasets.containers import SubsetDataset
    from torchxrayvision.inputs import InputFile


def as_place(path: str | os.PathLike[str] | None) -> Path | None:
    """A folder or archive argument as a path; nothing is checked before an image is read."""
    return None if path is None else Path(path).expanduser()


@contextlib.contextmanager
def _typed(dataset: str) -> Iterator[None]:
    """Make a `DatasetError` of what a table with odd content makes the rules of a spec raise."""
    try:
        yield
    except XRVError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {str(error)[:200]}"
        msg = f"{dataset}: a table holds what does not belong there ({said})"
        raise DatasetError(msg) from error


_OWN = apply_transforms
COMPAT = "xrv-1.5"
"""Value of ``compat`` that asks for the rows, order and labels of torchxrayvision 1.5.7."""


class Masks(dict[Any, Any]):
    """The masks of a sample; torch's own batching asks each sample for those of the first."""

    def __missing__(self, key: Any) -> Any:
        msg = (
            f"this sample has no mask {key!r}; samples have the masks of their findings only, so "
            f"batch them with DataLoader(..., collate_fn=torchxrayvision.datasets.collate)"
        )
        raise KeyError(msg)


class SpecDataset(Sliceable):
    """A dataset that its class attribute `spec` describes.

    Args:
        imgpath: Folder of the images. It need not exist to read labels; it is looked at when the
            first image is.
        csvpath: Table of the release: a path, a DataFrame, or USE_INCLUDED_FILE.
        views: One view, several, or ``"*"`` for all; None: the default of the source.
        transform: Applied to image and masks, see `torchxrayvision.transforms.apply_transforms`.
        data_aug: Applied after `transform`.
        seed: Of the transforms' random numbers; no global generator is touched.
        unique_patients: Keep one image per patient: the first in the table, with its own labels.
        pathology_masks: Add ``pathology_masks`` to the samples.
        compat: ``"xrv-1.5"`` for the rows, order and labels of 1.5.7, where it has the dataset.

    Raises:
        DatasetError: If a table does not fit.
        DatasetNotFoundError: If a table is missing.
        ViewError: If a view is unknown, or the source has none of them.
        EmptyDatasetError: If no row is left.
    """

    spec: ClassVar[DatasetSpec]
    _signature: ClassVar[inspect.Signature]
    anatomy: MaskSource | None = None
    """Masks of anatomy out of another release, such as CheXmask; None where there are none."""
    imgpath: PathLike
    transform: Transform | None
    data_aug: Transform | None
    seed: int
    compat: Compat
    unique_patients: bool
    pathology_masks: bool
    semantic_masks: bool
    _table: LazyTable

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        spec = cls.__dict__.get("spec")
        if spec is not None and not isinstance(spec, DatasetSpec):
            msg = f"{cls.__name__}.spec must be a DatasetSpec, got {type(spec).__name__}"
            raise TypeError(msg)
        own = cls.__module__.startswith("torchxrayvision.")  # users may do as they like
        forbidden = {"__getitem__", "__len__", "string"} & set(cls.__dict__)
        if own and forbidden:
            msg = f"{cls.__name__} must not define {sorted(forbidden)}; the pipeline does"
            raise TypeError(msg)
        if spec is not None:
            cls._signature = signature_of(spec)
            if hasattr(vars(cls).get("__init__", cls.__init__), "__signature__"):
                # Nobody wrote a constructor for this class or one that it inherits from.
                cls._show_signature()
            names, shared = inspect.signature(cls).parameters, SpecDataset.__doc__
            cls.__doc__ = complete_docstring(cls.__doc__, names, described_arguments(shared), spec)

    @classmethod
    def _show_signature(cls) -> None:
        """Give the class a constructor of its own that `inspect.signature` can tell from others."""

        def constructor(self: SpecDataset, *args: Any, **kwargs: Unpack[Arguments]) -> None:
            SpecDataset.__init__(self, *args, **kwargs)

        constructor.__name__ = "__init__"
        constructor.__qualname__ = f"{cls.__qualname__}.__init__"
        constructor.__signature__ = of_method(cls._signature)  # type: ignore[attr-defined]
        cls.__init__ = constructor  # type: ignore[method-assign]

    def __init__(self, *args: Any, **kwargs: Unpack[Arguments]) -> None:
        name, spec = type(self).__name__, self.spec
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        bound.apply_defaults()
        given = dict(bound.arguments)
        for argument, allowed in spec.choices.items():
            if given[argument] not in allowed:
                known = f"{', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}"
                known = known if len(allowed) < 3 else f"one of {known}"
                msg = f"{name}: {argument} must be {known}, got {given[argument]!r}"
                raise DatasetError(msg)
        self._prepare(given)
        self._setup(given)

    def _prepare(self, given: dict[str, Any]) -> None:
        """Check or change the arguments of the constructor, in place, before anything is read.

        Args:
            given: Argument to its value, defaults included.
        """

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; one that says where the files are counts for the next item.

        Folders that were not given and are that of the images follow it.
        """
        before = self.__dict__.get(name)
        super().__setattr__(name, value)
        context = self.__dict__.get("_context")
        if context is not None and name in context.roots:
            context.roots[name] = as_place(value)
            for other in context.roots if name == "imgpath" and before is not None else ():
                if self.__dict__.get(other) is before:
                    setattr(self, other, value)
        elif context is not None and name in context.arguments:
            context.arguments[name] = value

    def _setup(self, given: Mapping[str, Any]) -> None:
        """Build the dataset; every constructor ends here.

        Args:
            given: Argument of the constructor to its value. Each becomes an attribute, as in
                1.5.7, but for tables that are DataFrames; what is no argument of all datasets, no
                table and no folder goes to rules and path templates too.
        """
        name, spec = type(self).__name__, self.spec
        given = {**SHARED_DEFAULTS, **given}
        if given["compat"] not in (None, COMPAT):
            msg = f"{name}: compat must be None or {COMPAT!r}, got {given['compat']!r}"
            raise DatasetError(msg)
        tables = {t.argument: given[t.argument] for t in spec.tables if t.argument in given}
        roots = {key: given[key] for key in ("imgpath", *spec.root_arguments) if key in given}
        arguments = {
            key: value
            for key, value in given.items()
            if key not in tables and key not in roots and key not in SHARED_DEFAULTS
        }
        paths = {key: path for key, path in tables.items() if isinstance(path, (str, os.PathLike))}
        views, nrows = given.pop("views"), given.pop("nrows")
        self.__dict__.update({k: v for k, v in given.items() if k not in tables} | paths)
        self._seeds = SeedSource(self.seed)
        places = {argument: as_place(path) for argument, path in roots.items()}
        compat = self.compat is not None
        self._context = SourceContext(
            dataset=name,
            roots=places,
            tables=read_tables(spec, tables, places["imgpath"], name, whole=compat),
            arguments=arguments,
            compat=compat,
            packaged=frozenset(
                table.argument
                for table in spec.tables
                if is_packaged(table, tables.get(table.argument))
            ),
        )
        if nrows is not None:
            first = spec.tables[0].argument
            self._context.tables[first] = self._context.tables[first].head(nrows)
        with _typed(name):
            self._build(views)
        if self._context.packaged:
            release_unused()

    def _build(self, views: Views) -> None:
        spec, context = self.spec, self._context
        if spec.join is not None:
            frame = spec.join(context)
        else:
            frame = context.tables[spec.tables[0].argument].copy(deep=False)
        kept = spec.kept_tables
        context.tables = {key: table for key, table in context.tables.items() if key in kept}
        if not any(table.argument in context.packaged for table in spec.tables[:1]):
            # Of a packaged table some columns are read later.
            named = (name for name in spec.images.fields if name not in context.arguments)
            need_columns(frame, named, context)
        frame = self._with_views(frame, views)
        if spec.drop is not None:
            frame = frame[~np.asarray(spec.drop(frame, context), dtype=bool)]
        if self.unique_patients and spec.patient is not None:
            frame = self._one_a_patient(frame, spec.patient)
        if spec.keep is not None:
            frame = frame[np.asarray(spec.keep(frame, context), dtype=bool)]
        if len(frame) == 0:
            msg = f"{context.dataset}: no row is left; check the table, views and other filters"
            raise EmptyDatasetError(msg)
        if spec.sort_by is not None:
            frame = frame.sort_values(spec.sort_by, kind="stable")
        deferred = self._deferred
        rows = row_numbers(frame.index) if deferred else range(0)
        frame = frame.reset_index(drop=True)
        names, labels = spec.findings.encode(frame, context)
        self.pathologies = [str(finding) for finding in names]
        self._labels = pack_labels(labels)
        if not self._shares_later:
            frame = frame.assign(**self._shared_columns(frame))
        if spec.masks is not None:  # masks may look at the shared columns
            frame = frame.assign(has_masks=spec.masks.present(frame, context))
        frame = frame.drop(columns=[name for name in deferred if name in frame.columns])
        packaged = str(spec.tables[0].packaged) if deferred else ""
        self._table = LazyTable(frame, packaged, deferred, rows)

    @property
    def _shares_later(self) -> bool:
        """Whether the shared columns are made with ``.csv``.

        Only of packaged tables, which have what the rules need: a table of the caller's that lacks
        it is refused at once.
        """
        packaged = self._context.packaged
        return self.spec.masks is None and 0 < len(packaged) == len(self.spec.tables)

    @property
    def _deferred(self) -> Sequence[str]:
        """Columns of the first table that are read again when asked for.

        None in compat mode, where 1.5.7 mixes values of all columns, see `_one_a_patient`.
        """
        table = next(iter(self.spec.tables), None)
        if table is None or not table.deferred_columns or self.compat is not None:
            return ()
        if table.argument not in self._context.packaged:
            return ()
        from torchxrayvision import tables

        return table.columns or tables.info(str(table.packaged)).columns

    def _make_csv(self) -> pd.DataFrame:
        frame = self.__dict__.pop("_table").whole()
        if self._shares_later:
            frame = frame.assign(**self._shared_columns(frame))
        made = frozenset({"view", *self.spec.columns})
        return ordinary(frame, made, bool(self._context.packaged))

    @property
    def _frame(self) -> pd.DataFrame | LazyTable:
        """The table that items are read from: the caller's, once somebody looked at it."""
        table: LazyTable | None = self.__dict__.get("_table")  # another thread may be making it
        return self.csv if self._csv is not None or table is None else table

    def _with_views(self, frame: pd.DataFrame, views: Views) -> pd.DataFrame:
        rule = self.spec.view
        if rule is None:
            return frame
        raw = self._raw(frame, rule)
        frame = frame.assign(view=named_views(_as_column(raw, frame)))
        self.views = view_list(views, self.spec.default_views)
        if ALL_VIEWS in self.views:
            return frame
        return frame[rows_with_views(frame["view"], self.views, self._context.dataset)]

    def _raw(self, frame: pd.DataFrame, rule: str | Rule) -> Any:
        """What a rule says, or the column that stands for one."""
        if isinstance(rule, str):
            need_columns(frame, [rule], self._context)
            return frame[rule]
        return rule(frame, self._context)

    def _one_a_patient(self, frame: pd.DataFrame, patient: str) -> pd.DataFrame:
        need_columns(frame, [patient], self._context)
        ordered = self.spec.patient_order == "sorted"
        if self._context.compat and not self.spec.compat_keeps_whole_rows:
            # 1.5.7 takes the first value that is not blank, column by column, so that a row may
            # hold values of several images of the patient.
            return frame.groupby(patient, sort=ordered, observed=True).first().reset_index()
        first = frame[frame[patient].notna()].drop_duplicates(patient)
        return first.sort_values(patient, kind="stable") if ordered else first

    def _shared_columns(self, frame: pd.DataFrame) -> dict[str, Any]:
        """The columns that every dataset has, by name."""
        columns = self.spec.columns.items()
        return {name: self._column(frame, name, rule) for name, rule in columns}

    def _column(self, frame: pd.DataFrame, name: str, rule: str | Rule) -> Any:
        import pandas as pd

        raw = self._raw(frame, rule)
        kind = SHARED_COLUMNS[name]
        if kind == "bool":
            return np.asarray(raw, dtype=bool)
        column = _as_column(raw, frame)
        if kind == "str":
            return as_text(column if self._context.compat else whole_numbers(column))
        numeric = pd.to_numeric(column, errors="coerce")
        whole = kind == "number" and not numeric.isna().any()
        return numeric.astype(np.int64 if whole else np.float64)

    def _sample(self, position: int) -> Sample:
        row = self._row(position)
        # Masks, and what a client put in the place of apply_transforms, need the whole image.
        whole = self.pathology_masks or self.semantic_masks or apply_transforms is not _OWN
        image, shape, prepared, aspect = transformed_image(
            self.spec.images, row, self._context, None if whole else self.transform
        )
        sample: Sample = {"idx": position, "lab": self._lab(position), "img": image}
        if self.pathology_masks and self.spec.masks is not None:
            sample["pathology_masks"] = self._pathology_masks(row, shape)
        if self.semantic_masks and (self.spec.semantic or self.anatomy) is not None:
            sample["semantic_masks"] = self._semantic_masks(row, shape)
        if self.spec.boxes is not None:
            sample["bbox"] = self.spec.boxes.boxes(row, shape, self._context)
        square: Any = square_pixels(sample, aspect)  # type: ignore[arg-type]
        return self._transformed(square, prepared=prepared)

    def _transformed(self, sample: Sample, *, prepared: bool) -> Sample:
        for transform, done in ((self.transform, prepared), (self.data_aug, False)):
            if transform is not None:
                seed = self._seeds.next()  # drawn in any case, so that data_aug's do not depend
                if not done:
                    sample = apply_transforms(sample, transform, seed=seed)  # type: ignore[assignment, arg-type]
        return sample

    def _row(self, position: int) -> Row:
        return Row(self._frame, position, self._context.arguments)

    @property
    def _cohort(self) -> object:
        """Whose patients these are; datasets of one cohort number them alike."""
        return self.spec.cohort or self.spec.title

    @property
    def _cohort_name(self) -> str:
        """The cohort by a name that is the same in every process."""
        return str(self._cohort)

    def _semantic_masks(self, row: Row, shape: tuple[int, int]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for source in (self.spec.semantic, self.anatomy):
            if source is not None:
                found |= source.masks(row, shape, self._context)
        return Masks({name: _as_image(mask) for name, mask in found.items()})

    def _pathology_masks(self, row: Row, shape: tuple[int, int]) -> dict[int, Any]:
        if self.spec.masks is None:
            msg = f"{type(self).__name__} has no masks"
            raise DatasetError(msg)
        index = {finding: j for j, finding in enumerate(self.pathologies)}
        found = self.spec.masks.masks(row, shape, self._context)
        # Masks may name findings that the labels leave out, or that were relabelled away.
        named = {index[name]: _as_image(mask) for name, mask in found.items() if name in index}
        return Masks(named)

    def get_mask_dict(self, image_name: str, this_size: int | Sequence[int]) -> dict[int, Any]:
        """Masks of an image by its name, without reading the image.

        Args:
            image_name: Value of the column that names images, such as "00000150_002.png".
            this_size: Height and width of the masks, the shape (1, H, W) of an image, or one
                number for a square.

        Returns:
            Index of the finding to its mask, float32 (1, H, W) of 0 and 1.

        Raises:
            DatasetError: If the dataset has no masks, or no image of that name.
        """
        column = getattr(self.spec.masks, "image", None)
        position = None
        if column is not None:
            position = self._context.position(self._frame, column, image_name)
        if position is None:
            msg = f"{type(self).__name__} has no masks for {image_name!r}"
            raise DatasetError(msg)
        height, width = [this_size] * 2 if isinstance(this_size, int) else this_size[-2:]
        return self._pathology_masks(self._row(position), (height, width))

    def image_path(self, idx: int) -> str:
        """Path of an image below its folder or inside its archive.

        Args:
            idx: Position of the sample.

        Returns:
            Relative path.
        """
        return self.spec.images.name(self._row(self._position(idx)))

    def image_file(self, idx: int) -> InputFile | None:
        """Where the bytes of an image are, for whoever reads images without their labels.

        Args:
            idx: Position of the sample.

        Returns:
            A file, or a member of an archive; None if it is not there.

        Raises:
            DatasetNotFoundError: If the folder itself is missing.
        """
        images, row = self.spec.images, self._row(self._position(idx))
        images.place(self._context)
        if not images.exists(row, self._context):
            return None
        return images.input_file(row, self._context)

    def official_split(self, part: str) -> SubsetDataset:
        """One part that the release itself defines.

        Args:
            part: Its name, such as ``"test"``; `official_splits` has all.

        Returns:
            Its rows. With ``views="*"`` and ``unique_patients=False`` it is the whole part.

        Raises:
            DatasetError: If the release has no split, or none of these rows is in that part.
        """
        return official_split(self, part)

    def only_available(self) -> Self:
        """Keep only the rows whose image is on disk, in place.

        Returns:
            This dataset.

        Raises:
            DatasetNotFoundError: If the folder itself is missing.
            EmptyDatasetError: If no image of it is there.
        """
        images, context = self.spec.images, self._context
        images.place(context)
        there = [i for i in range(len(self)) if images.exists(self._row(i), context)]
        self._take(np.array(there, dtype=np.intp))
        return self

    def check_paths_exist(self) -> None:
        """Raise if an image of some row is missing.

        Raises:
            DatasetNotFoundError: Naming the first one.
        """
        images = self.spec.images
        for position in range(len(self)):
            row = self._row(position)
            if not images.exists(row, self._context):
                raise images.missing(row, self._context)


SpecDataset.__init__.__signature__ = of_method(  # type: ignore[attr-defined]
    signature(USUAL_PARAMETERS, {"csvpath": USE_INCLUDED_FILE})
)


def _as_column(raw: Any, frame: pd.DataFrame) -> pd.Series[Any]:
    """What a rule returned, one value per row, as a column of the frame."""
    import pandas as pd

    if isinstance(raw, pd.Series) and raw.index.is_(frame.index):
        return raw
    return pd.Series(raw, index=frame.index)


def _as_image(mask: NDArray[Any]) -> NDArray[np.float32]:
    if mask.dtype == np.float32:  # painted so
        return mask[None]
    image = np.zeros((1, *mask.shape), dtype=np.float32)
    np.copyto(image[0], 1, where=mask)  # leaves the memory of empty parts untouched
    return image
