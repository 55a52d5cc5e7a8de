"""From a row of the table to masks and boxes.

Every annotation is a table with one row per annotation and a column that names its image. It is
grouped once for an object, so that finding those of one image takes microseconds. Several
annotations of one finding in one image are united.

Convention: x to the right, y down, boxes half-open, masks (H, W) of 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from torchxrayvision.datasets.release import need_columns
from torchxrayvision.datasets.storage import is_among
from torchxrayvision.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.datasets.images import ImageSource
    from torchxrayvision.datasets.release import Row, SourceContext

Size = tuple[int, int]
Frame = int | Size | tuple[str, str] | None
"""Height and width that coordinates refer to: one number for a square, a pair, a pair of csv
columns, or None where they are pixels of the image itself."""


class MaskSource(Protocol):
    """Anything that gives masks for a row."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Arguments of the tables it reads after construction."""

    def present(self, frame: pd.DataFrame, context: SourceContext) -> NDArray[np.bool_]:
        """Which rows have a mask with at least one pixel set."""

    def masks(self, row: Row, shape: Size, context: SourceContext) -> dict[str, NDArray[Any]]:
        """Finding or structure to its mask of the given shape; only those that are not empty.

        bool, or float32 of 0 and 1, which samples take as it is.
        """


class BoxSource(Protocol):
    """Anything that gives boxes for a row."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Arguments of the tables it reads after construction."""

    def boxes(self, row: Row, shape: Size, context: SourceContext) -> NDArray[np.float32]:
        """Boxes (n, 4) as x, y, width, height in pixels of an image of the given shape."""


@dataclass(frozen=True, kw_only=True)
class TableMasks:
    """What the annotation tables share: grouping, findings, union.

    Args:
        table: Constructor argument of the annotation table.
        image: Column of the csv that names the image.
        key: Column of the annotation table that names the image; None: same as `image`.
        finding: Column of the annotation table with the finding, or the findings themselves
            where each annotation stands for the same ones.
        rename: Finding in the annotation table to finding of the dataset. A finding may stand
            for several.
    """

    table: str
    image: str
    key: str | None = None
    finding: str | tuple[str, ...] = ()
    rename: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    @property
    def tables(self) -> tuple[str, ...]:
        """Arguments of the tables it reads after construction."""
        return (self.table,)

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns of the annotation table that are read."""
        named = (self.finding,) if isinstance(self.finding, str) and self.finding else ()
        return (self.key or self.image, *named)

    def valid(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which annotations cover at least one pixel."""
        raise NotImplementedError

    def prepared(self, table: pd.DataFrame) -> Any:
        """What painting needs of the whole table, computed once for an object; by default it."""
        return table

    def paint(self, prepared: Any, position: int, row: Row, shape: Size) -> Any:
        """Mask of one annotation, at `shape`."""
        raise NotImplementedError

    def present(self, frame: pd.DataFrame, context: SourceContext) -> NDArray[np.bool_]:
        """Which rows have a mask with at least one pixel set."""
        table = context.tables.get(self.table)
        if table is None:
            return np.zeros(len(frame), dtype=bool)
        need_columns(table, self.needed, context, self.table)
        marked = table.loc[self.valid(table), self.key or self.image]
        return is_among(frame[self.image], marked)

    def found(self, row: Row, context: SourceContext) -> tuple[Any, list[int]]:
        """What `prepared` made, and the positions of a row's annotations that are not empty."""
        table = context.tables.get(self.table)
        if table is None:
            msg = f"{context.dataset}: masks need the argument {self.table}"
            raise DatasetError(msg)
        # Masks and boxes may be read of one table in two ways.
        slot = f"groups:{type(self).__name__}:{self.table}:{self.key or self.image}"
        if slot not in context.cache:
            need_columns(table, self.needed, context, self.table)
            groups = table.groupby(self.key or self.image, sort=False, observed=True).indices
            context.cache[slot] = groups, self.valid(table), self.prepared(table)
        groups, valid, prepared = context.cache[slot]
        return prepared, [int(i) for i in groups.get(row[self.image], ()) if valid[i]]

    def findings(self, table: pd.DataFrame, position: int) -> tuple[str, ...]:
        """The dataset's findings that one annotation stands for."""
        if isinstance(self.finding, tuple):
            return self.finding
        raw = str(table[self.finding].iloc[position])
        renamed = self.rename.get(raw, raw)
        return renamed if isinstance(renamed, tuple) else (renamed,)

    def masks(self, row: Row, shape: Size, context: SourceContext) -> dict[str, NDArray[np.bool_]]:
        """Finding to its mask, annotations of one finding united."""
        prepared, positions = self.found(row, context)
        united: dict[str, NDArray[np.bool_]] = {}
        for position in positions:
            mask = np.asarray(self.paint(prepared, position, row, shape), dtype=bool)
            for finding in self.findings(context.tables[self.table], position):
                united[finding] = united[finding] | mask if finding in united else mask
        return {finding: mask for finding, mask in united.items() if mask.any()}


def frame_size(frame: Frame, row: Row, shape: Size) -> Size:
    """Height and width that the coordinates of a row refer to."""
    if frame is None:
        return shape
    if isinstance(frame, int):
        return frame, frame
    height, width = (row[side] if isinstance(side, str) else side for side in frame)
    return int(height), int(width)


@dataclass(frozen=True, kw_only=True)
class BoxTable(TableMasks):
    """Boxes in a table, for masks and for the sample's ``bbox``.

    Args:
        box: Four columns.
        form: Whether the last two are width and height or the opposite corner.
        frame: What the coordinates refer to.
    """

    box: tuple[str, str, str, str]
    form: Literal["xywh", "xyxy"] = "xywh"
    frame: Frame = None

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns of the annotation table that are read."""
        return (*super().needed, *self.box)

    def valid(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which boxes have an area; a row without coordinates says that nothing was found."""
        boxes = self.prepared(table)
        least = boxes[:, :2] if self.form == "xyxy" else 0
        areas: NDArray[np.bool_] = boxes[:, 2:] > least
        return areas[:, 0] & areas[:, 1]

    def prepared(self, table: pd.DataFrame) -> Any:
        """The numbers of all boxes, (n, 4)."""
        return table[list(self.box)].to_numpy(dtype=np.float64, na_value=np.nan)

    def paint(self, prepared: Any, position: int, row: Row, shape: Size) -> Any:
        """Mask of one box."""
        from torchxrayvision import masks

        frame = frame_size(self.frame, row, shape)
        return masks.boxes_to_mask(prepared[[position]], shape, frame, form=self.form)

    def boxes(self, row: Row, shape: Size, context: SourceContext) -> NDArray[np.float32]:
        """Boxes (n, 4) as x, y, width, height in pixels of an image of the given shape."""
        prepared, positions = self.found(row, context)
        boxes = np.array(prepared[positions], dtype=np.float32).reshape(-1, 4)
        if self.form == "xyxy":
            boxes[:, 2:] -= boxes[:, :2]
        height, width = frame_size(self.frame, row, shape)
        scale = np.array([shape[1] / width, shape[0] / height] * 2, dtype=np.float32)
        return boxes * scale


@dataclass(frozen=True, kw_only=True)
class RleColumn(TableMasks):
    """Run lengths as text, one annotation per row.

    Args:
        column: Column with the runs.
        size: Height and width of the encoded mask, or the columns of the annotation table that
            hold them.
        decode: Text and size to mask, a function of `torchxrayvision.masks`.
        empty: Values that say that nothing is marked; blanks do so too.
    """

    column: str
    size: Size | tuple[str, str]
    decode: Callable[[str, Size], Any]
    empty: tuple[str, ...] = ("-1", "")

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns of the annotation table that are read."""
        sides = (side for side in self.size if isinstance(side, str))
        return (*super().needed, self.column, *sides)

    def valid(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows hold runs."""
        text = table[self.column]
        return (text.notna() & ~text.astype(str).str.strip().isin(self.empty)).to_numpy(dtype=bool)

    def paint(self, prepared: Any, position: int, row: Row, shape: Size) -> Any:  # noqa: ARG002
        """Mask of one annotation."""
        size = tuple(
            int(prepared[side].iloc[position]) if isinstance(side, str) else side
            for side in self.size
        )
        text = str(prepared[self.column].iloc[position])
        return _at(self.decode(text, (size[0], size[1])), shape)


def _from_coco(text: str, size: Size) -> NDArray[np.bool_]:
    from torchxrayvision import masks

    return masks.decode_coco_rle(text, size)


@dataclass(frozen=True, kw_only=True)
class CocoRle(RleColumn):
    """COCO's compressed run lengths, one annotation per row."""

    column: str = "counts"
    size: Size | tuple[str, str] = ("height", "width")
    decode: Callable[[str, Size], Any] = _from_coco

    def valid(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which annotations have a pixel, told from the runs without decoding them."""
        return np.array([_has_ones(counts) for counts in table[self.column]], dtype=bool)


def _at(mask: NDArray[np.bool_], shape: Size) -> NDArray[np.bool_]:
    """A mask at the shape of the image that was read; releases come in several sizes."""
    from torchxrayvision import masks

    return mask if mask.shape == shape else masks.resize_mask(mask, shape)


def _has_ones(counts: object) -> bool:
    """Whether a compressed text has a second run, the first of ones.

    Each number takes one or more characters; bit 5 of a character, counted from "0", says that
    the number goes on.
    """
    if not isinstance(counts, str):
        return False
    return sum(not (ord(character) - 48) & 0x20 for character in counts) > 1


@dataclass(frozen=True, kw_only=True)
class Shapes(TableMasks):
    """Anything drawn by a function: polygons, ellipses, several shapes in one text.

    Args:
        draw: Annotation (a row of the annotation table), its frame (height, width) and the shape
            wanted, to a mask of that shape.
        column: Column that is blank where nothing is marked; None: every row is marked.
        frame: What the coordinates refer to.
    """

    draw: Callable[[Mapping[str, Any], Size, Size], Any]
    column: str | None = None
    frame: Frame = None

    def valid(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows hold a shape."""
        if self.column is None:
            return np.ones(len(table), dtype=bool)
        marked = table[self.column]
        text = marked.astype(str).str.strip()
        # A copy, because pandas lends its memory read-only and a subclass may say no to more rows.
        return (marked.notna() & (text != "") & (text != "[]")).to_numpy(dtype=bool, copy=True)

    def paint(self, prepared: Any, position: int, row: Row, shape: Size) -> Any:
        """Mask of one annotation."""
        annotation = {str(name): prepared[name].iloc[position] for name in prepared.columns}
        return self.draw(annotation, frame_size(self.frame, row, shape), shape)


@dataclass(frozen=True, kw_only=True)
class MaskFiles:
    """Masks as image files, such as lung masks; the files of one structure are united.

    Args:
        files: Structure or finding to the sources of its masks.
        threshold: Pixels above it, in [-1024, 1024], are marked.
    """

    files: Mapping[str, Sequence[ImageSource]]
    threshold: float = 0.0

    @property
    def tables(self) -> tuple[str, ...]:
        """Arguments of the tables it reads after construction."""
        return ()

    def present(self, frame: pd.DataFrame, context: SourceContext) -> NDArray[np.bool_]:
        """Which rows have a file for some structure; False everywhere without the folder."""
        from torchxrayvision.datasets.release import Row

        if not any(
            (place := context.roots.get(source.argument)) is not None and place.exists()
            for source in self._sources()
        ):
            return np.zeros(len(frame), dtype=bool)
        rows = (Row(frame, i, context.arguments) for i in range(len(frame)))
        return np.array(
            [any(source.exists(row, context) for source in self._sources()) for row in rows],
            dtype=bool,
        )

    def _sources(self) -> Iterable[ImageSource]:
        return (source for sources in self.files.values() for source in sources)

    def masks(self, row: Row, shape: Size, context: SourceContext) -> dict[str, NDArray[np.bool_]]:
        """Structure to its mask."""
        united: dict[str, NDArray[np.bool_]] = {}
        for name, sources in self.files.items():
            for source in sources:
                if not source.exists(row, context):
                    continue
                mask = _at(source.read(row, context)[0] > self.threshold, shape)
                united[name] = united[name] | mask if name in united else mask
        return {name: mask for name, mask in united.items() if mask.any()}
