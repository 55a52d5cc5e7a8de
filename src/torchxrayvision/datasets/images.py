"""From a row of the table to its pixels.

Sources are declarations and hold no state; what they find out about one dataset object (the index
of a folder, an open archive) goes into ``release.cache``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from torchxrayvision.errors import DatasetError, DatasetNotFoundError, ImageReadError
from torchxrayvision.inputs import Archives, InputFile
from torchxrayvision.transforms import from_raster, square_image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from torchxrayvision.datasets.release import Row, SourceContext
    from torchxrayvision.images import Raster
    from torchxrayvision.inputs import Member

T = TypeVar("T")

Template = str | Callable[["Row"], str]
"""Path below the folder: a format string over columns and arguments, or a function of the row."""


def _read(source: Path | BinaryIO) -> NDArray[np.float32]:
    from torchxrayvision import images

    raster = images.read_raster(source)
    return square_image(raster.to_array(), raster.info.aspect)


@dataclass(frozen=True)
class ImageSource:
    """Where the pixels of a row are; the base of the three kinds.

    Args:
        path: Path below the folder or inside the archive, ``"{Image Index}"`` or a function of
            the row. Columns and constructor arguments may both be named.
        argument: Constructor argument that names the folder or archive.
        layout: How the release is laid out, for the message when a file is missing.
        reader: Path or open file to float32 (1, H, W) in [-1024, 1024]. The default,
            `torchxrayvision.images.read_image`, reads PNG, JPEG, TIFF and DICOM of any depth;
            pixels that are not square are resampled to square ones.
    """

    path: Template
    argument: str = "imgpath"
    layout: str = ""
    reader: Callable[[Any], NDArray[np.float32]] = _read

    def name(self, row: Row) -> str:
        """The relative path of a row's image."""
        return self.path(row) if callable(self.path) else self.path.format_map(row)

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns and constructor arguments that a template names; a function names none."""
        if callable(self.path):
            return ()
        return tuple(name for _, name, _, _ in Formatter().parse(self.path) if name)

    def place(self, context: SourceContext) -> Path:
        """The folder or archive.

        Raises:
            DatasetNotFoundError: If it was not given or does not exist.
        """
        place = context.roots.get(self.argument)
        if place is None or not place.exists():
            advice = self.layout and f"expected there: {self.layout}"
            if place is None:
                advice = f"pass {self.argument} to read images" + (advice and f"; {advice}")
            raise DatasetNotFoundError(context.dataset, self.argument, str(place), advice)
        return place

    def missing(self, row: Row, context: SourceContext) -> DatasetNotFoundError:
        """The error for an image that is not where the release has it."""
        place = context.roots.get(self.argument)
        path = str(place / self.name(row)) if place else self.name(row)
        advice = f"row {row.position} of the csv names it"
        if self.layout:
            advice += f"; expected below {place}: {self.layout}"
        return DatasetNotFoundError(context.dataset, self.argument, path, advice)

    def exists(self, row: Row, context: SourceContext) -> bool:
        """Whether the image of a row is there."""
        raise NotImplementedError

    @property
    def plain(self) -> bool:
        """Whether images are files that `torchxrayvision.images` reads, and nothing else does."""
        return self.reader is _read and type(self).read is ImageSource.read

    def input_file(self, row: Row, context: SourceContext) -> InputFile:
        """Where the bytes of a row's image are.

        Raises:
            DatasetNotFoundError: If it is missing.
        """
        raise NotImplementedError

    def open(self, row: Row, context: SourceContext) -> Path | BinaryIO:
        """Path of a row's image, or the bytes of one that is no file of its own.

        Raises:
            DatasetNotFoundError: If it is missing.
            ImageReadError: If its archive cannot be read.
        """
        file = self.input_file(row, context)
        if file.problem:
            raise ImageReadError(file.given, file.problem)
        if file.data is not None:
            return io.BytesIO(file.data)
        if file.member is None:
            return file.path
        return io.BytesIO(archives(context).read(file.path, file.member))

    def read(self, row: Row, context: SourceContext) -> NDArray[np.float32]:
        """Pixels of a row's image, float32 (1, H, W) in [-1024, 1024].

        Raises:
            DatasetNotFoundError: If it is missing.
            ImageReadError: If it cannot be decoded.
        """
        return self._decoded(row, context, self.reader)

    def raster(self, row: Row, context: SourceContext) -> Raster | None:
        """Pixels of a row's image as they are stored; None where only `read` knows how.

        Raises:
            DatasetNotFoundError: If it is missing.
            ImageReadError: If it cannot be decoded.
        """
        if not self.plain:
            return None
        from torchxrayvision import images

        return self._decoded(row, context, images.read_raster)

    def _decoded(self, row: Row, context: SourceContext, reader: Callable[[Any], T]) -> T:
        source = self.open(row, context)
        try:
            return reader(source)
        except ImageReadError as error:
            if isinstance(source, Path):
                raise
            place = context.roots.get(self.argument)
            raise type(error)(f"{place}/{self.name(row)}", error.reason, error.advice) from error


def transformed_image(
    images: ImageSource, row: Row, context: SourceContext, transform: object
) -> tuple[NDArray[np.float32], tuple[int, int], bool, float]:
    """The image of a row, made of stored pixels in one step where the transform offers that.

    Returns:
        float32 (1, H, W) in [-1024, 1024]; height and width of the stored image; whether the
        transform was applied; height of a pixel over its width where it was not.
    """
    raster = images.raster(row, context)
    if raster is None:
        image = images.read(row, context)
        return image, (int(image.shape[-2]), int(image.shape[-1])), False, 1.0
    prepare = from_raster(transform)
    if prepare is None:
        return raster.to_array(), raster.shape, False, raster.info.aspect
    return prepare(raster), raster.shape, True, 1.0


def _the_one(found: Collection[str], name: str, context: SourceContext) -> str | None:
    """The only file that was found, or None.

    Raises:
        DatasetError: If there are several: which of them is the image cannot be told.
    """
    if len(found) > 1:
        shown = " and ".join(sorted(found)[:3])
        msg = (
            f"{context.dataset}: {name!r} is the name of {len(found)} files, such as {shown}; pass "
            f"the folder that holds the images alone"
        )
        raise DatasetError(msg)
    return next(iter(found), None)


def stem(name: str) -> str:
    """File name without its last extension."""
    return PurePosixPath(name).stem


@dataclass(frozen=True)
class _FilesBelow(ImageSource):
    """What `Files` and `IndexedFiles` share."""

    def _find(self, row: Row, context: SourceContext) -> Path | None:
        raise NotImplementedError

    def exists(self, row: Row, context: SourceContext) -> bool:
        """Whether the image of a row is there."""
        return self._find(row, context) is not None

    def input_file(self, row: Row, context: SourceContext) -> InputFile:
        """See `ImageSource`."""
        path = self._find(row, context)
        if path is None:
            raise self.missing(row, context)
        return InputFile(path, str(path))


@dataclass(frozen=True)
class Files(_FilesBelow):
    """Files at a known path below the folder.

    Args:
        path, argument, layout, reader: See `ImageSource`.
        folders: Where the path does not exist, the bare file name is looked for in these folders
            below the given one, as patterns such as ``"images_*/images"``: those that the release
            unpacks into, and ``"."`` for the folder itself. No other folder is searched, for it may
            hold something else under the same name, such as overlays.
    """

    folders: tuple[str, ...] = ()

    def _find(self, row: Row, context: SourceContext) -> Path | None:
        root, name = self.place(context), self.name(row)
        path = root / name
        if path.is_file():
            return path
        bare = PurePosixPath(name).name
        places = self._places(root, context) if self.folders else ()
        there = [str(p) for place in places if (p := Path(place, bare)).is_file()]
        found = _the_one(there, bare, context)
        return Path(found) if found else None

    def _places(self, root: Path, context: SourceContext) -> list[str]:
        """The folders of the release that are there, looked for once per object."""
        slot = f"folders:{root}:{self.folders}"
        if slot not in context.cache:
            # Path.glob finds the folder itself under no pattern.
            globbed = ([root] if p == "." else sorted(root.glob(p)) for p in self.folders)
            found = (place for places in globbed for place in places)
            context.cache[slot] = list(dict.fromkeys(str(p) for p in found if p.is_dir()))
        places: list[str] = context.cache[slot]
        return places


@dataclass(frozen=True)
class IndexedFiles(_FilesBelow):
    """Files anywhere below the folder, known by their names.

    ``path`` gives the key of a row. The folder is walked once for an object, at the first access.

    Args:
        path, argument, layout, reader: See `ImageSource`.
        key: File name to key; the default is the name without its extension.
        extensions: Extensions that files of the release may have, in lower case; empty: any.
    """

    key: Callable[[str], str] = stem
    extensions: tuple[str, ...] = ()

    def _find(self, row: Row, context: SourceContext) -> Path | None:
        root, name = self.place(context), self.name(row)
        slot = f"index:{root}:{self.key.__name__}"
        if slot not in context.cache:
            context.cache[slot] = self._walk(root)
        found = _the_one(context.cache[slot].get(name, ()), name, context)
        return root / found if found else None

    def _walk(self, root: Path) -> dict[str, list[str]]:
        """Key to the files that have it, paths from the root."""
        found: dict[str, list[str]] = {}
        for folder, _, files in os.walk(root):
            for name in files:
                if not self.extensions or name.lower().endswith(self.extensions):
                    path = Path(folder, name).relative_to(root)
                    found.setdefault(self.key(name), []).append(str(path))
        return found


def archives(context: SourceContext) -> Archives:
    """The open archives of a dataset object."""
    found: Archives = context.cache.setdefault("archives", Archives())
    return found


@dataclass(frozen=True)
class ZipFiles(ImageSource):
    """Members of a zip archive.

    Args:
        folders: Where the name is no member, it is looked for in these folders of the archive.
    """

    folders: tuple[str, ...] = ()

    def _member(self, row: Row, context: SourceContext) -> Member | None:
        name, place, files = self.name(row), self.place(context), archives(context)
        member = files.find(place, name)
        if member is not None:
            return member
        bare = PurePosixPath(name).name
        there = [f for folder in self.folders if files.find(place, f := f"{folder}/{bare}")]
        found = _the_one(there, bare, context)
        return None if found is None else files.find(place, found)

    def exists(self, row: Row, context: SourceContext) -> bool:
        """Whether the image of a row is there."""
        return self._member(row, context) is not None

    def input_file(self, row: Row, context: SourceContext) -> InputFile:
        """See `ImageSource`."""
        member = self._member(row, context)
        if member is None:
            raise self.missing(row, context)
        place = self.place(context)
        return InputFile(place, f"{place}/{self.name(row)}", member)
