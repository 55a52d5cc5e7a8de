"""One file to its image, or to the reason why there is none; needs no torch."""

from __future__ import annotations

import io
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from torchxrayvision.errors import ImageReadError, XRVError
from torchxrayvision.files import FileState
from torchxrayvision.images import DEFAULT_LIMITS, Limits, load, read_raster
from torchxrayvision.inputs.archives import Archives
from torchxrayvision.transforms import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.images import Raster
    from torchxrayvision.inputs.archives import InputFile

AIR: Final = -1024.0
"""The value of a place without an image."""

# A large JPEG 2000 image takes a second; ten times that on a busy disk, and ten more for doubt.
TIME_LIMIT: Final = 120.0
_TRIES: Final = 2  # of a file that somebody writes to meanwhile

_log = logging.getLogger(__name__)
_Made = TypeVar("_Made")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """How files are read.

    Args:
        workers: Threads that read and prepare images; None for one per processor.
        time_limit: Seconds for one file, after which its row says so.
        isolate: Read in processes that may crash or be killed, instead of on threads.
        frame: Frame or page of files that hold several, counted from 0.
        limits: Refuse files that declare more than this.
        strict: Whether a file of a folder or archive that is no image is a row with an error too.
        least_side: Decode JPEG and JPEG 2000 no further than a network needs whose input has so
            many pixels a side, see `images.read_raster`; None for whole images.
    """

    workers: int | None = None
    time_limit: float = TIME_LIMIT
    isolate: bool = False
    frame: int | None = None
    limits: Limits = DEFAULT_LIMITS
    strict: bool = False
    least_side: int | None = None

    @classmethod
    def of(
        cls, *, time_limit: float | None = None, max_pixels: int | None = None, **options: Any
    ) -> ReadOptions:
        """Options where None stands for the default, as on the command line.

        Args:
            time_limit: Seconds for one file.
            max_pixels: Of `limits`.
            **options: The others.
        """
        limits = DEFAULT_LIMITS if max_pixels is None else Limits(pixels=max_pixels)
        return cls(time_limit=time_limit or TIME_LIMIT, limits=limits, **options)


def default_workers() -> int:
    """Threads that read images: one for each processor this process may use, at most eight.

    Returns:
        1 to 8.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, usable or 1)


def read_file(
    file: InputFile,
    options: ReadOptions | None = None,
    archives: Archives | None = None,
) -> Raster:
    """Read one image, wherever its bytes are.

    Args:
        file: What to read.
        options: `frame` and `limits` count here.
        archives: Those that are open already.

    Returns:
        Stored pixels with their scale and offset.

    Raises:
        ImageReadError: If it cannot be read, or if somebody writes to it meanwhile: half of an old
            and half of a new image is none.
    """
    options = options or ReadOptions()
    source = _source(file, options, archives)
    if isinstance(source, bytes):
        stream = io.BytesIO(source)
        stream.name = file.given  # for the message of an error
        return _raster(stream, options)
    for _ in range(_TRIES):
        before = _state(file.path)
        try:
            raster = _raster(file.path, options)
        except ImageReadError:
            if _state(file.path) == before:
                raise
            continue
        if _state(file.path) == before:
            return raster
    raise ImageReadError(file.path, "the file changed while it was read")


def _raster(source: os.PathLike[str] | io.BytesIO, options: ReadOptions) -> Raster:
    return read_raster(
        source, frame=options.frame, limits=options.limits, least_side=options.least_side
    )


def _source(
    file: InputFile, options: ReadOptions, archives: Archives | None
) -> os.PathLike[str] | bytes:
    if file.problem:
        raise ImageReadError(file.path, file.problem)
    if file.data is None and file.member is not None:
        return (archives or Archives()).read(file.path, file.member, options.limits)
    return file.path if file.data is None else file.data


def read_bytes(file: InputFile, options: ReadOptions | None = None) -> bytes:
    """All bytes of one image, unpacked from its archive; of a `.gz` those within.

    Raises:
        ImageReadError: As `read_file`.
    """
    options = options or ReadOptions()
    return load(_source(file, options, None), options.limits)[0]


def _state(path: os.PathLike[str]) -> FileState | None:
    try:
        return FileState.of(path)
    except (OSError, ValueError):
        return None


def crop_and_resize(file: InputFile, raster: Raster, size: int) -> NDArray[np.float32]:
    """The centre square of an image in the size of a network.

    Args:
        file: Where it is from, for the error.
        raster: The image.
        size: Side of the result in pixels.

    Returns:
        float32, shape (1, size, size), in [-1024, 1024].

    Raises:
        ImageReadError: If a value is NaN or infinite.
    """
    image = prepare(
        raster.pixels, raster.scale, raster.offset, size, raster.info.aspect, raster.reduction
    )
    if not np.isfinite(image).all():  # a float TIFF may hold anything; a batch must not end for it
        raise ImageReadError(file.path, "holds NaN or infinity")
    return image


def read_or_reason(make: Callable[[], _Made], name: object) -> _Made | str:
    """What a function gives, or in one clause why it gives nothing; never raises.

    Args:
        make: Reads a file and makes something of it.
        name: What is read, for the log.

    Returns:
        What `make` gives, or the reason.
    """
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - one bad file must not lose the run
        if not isinstance(error, XRVError | OSError):
            _log.info("unexpected error on %s", name, exc_info=True)
        return reason_of(error)


def reason_of(error: BaseException) -> str:
    """An error as one clause on one line, without the name of the file, which stands beside it."""
    if isinstance(error, ImageReadError):
        return error.reason + (f"; {error.advice}" if error.advice else "")
    text = str(error)
    return text if isinstance(error, XRVError | OSError) else f"{type(error).__name__}: {text}"
