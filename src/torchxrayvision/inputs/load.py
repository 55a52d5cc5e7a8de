"""One source to one prepared image, or to the reason why there is none; needs no torch."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from torchxrayvision.errors import ImageReadError, XRVError
from torchxrayvision.images import read_raster
from torchxrayvision.inputs.archives import read_member
from torchxrayvision.transforms import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from torchxrayvision.images import Raster
    from torchxrayvision.inputs.source import Source

__all__ = ["AIR", "attempt", "load", "prepared"]

AIR = -1024.0
"""The value of a place without an image."""

_log = logging.getLogger(__name__)
_Made = TypeVar("_Made")


def load(source: Source, size: int, data: bytes | None = None) -> NDArray[np.float32] | str:
    """Read, crop and resize one image; never raises.

    Args:
        source: What to read.
        size: Side of the result in pixels.
        data: Its bytes, where they were read already.

    Returns:
        float32, shape (1, size, size), in [-1024, 1024]; or what is wrong, as one clause.
    """
    return attempt(source, lambda raster: prepared(source, raster, size), data)


def prepared(source: Source, raster: Raster, size: int) -> NDArray[np.float32]:
    """Crop and resize a picture.

    Args:
        source: Where it is from, for the error.
        raster: The picture.
        size: Side of the result in pixels.

    Returns:
        float32, shape (1, size, size), in [-1024, 1024].

    Raises:
        ImageReadError: If a value is NaN or infinite.
    """
    image = prepare(raster.pixels, raster.scale, raster.offset, size)
    if not np.isfinite(image).all():  # a float TIFF may hold anything; a batch must not end for it
        raise ImageReadError(source.path, "holds NaN or infinity")
    return image


def attempt(
    source: Source, make: Callable[[Raster], _Made], data: bytes | None = None
) -> _Made | str:
    """Read a file and make something of the picture; never raises.

    Args:
        source: What to read.
        make: Called with the picture.
        data: The bytes of the file, where they were read already.

    Returns:
        What was made; or what is wrong, as one clause.
    """
    try:
        return make(_raster(source, data))
    except ImageReadError as error:
        return error.reason + (f"; {error.advice}" if error.advice else "")
    except (XRVError, OSError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one bad file must not lose the run
        _log.exception("unexpected error on %s", source.given)
        return f"{type(error).__name__}: {error}"


def _raster(source: Source, data: bytes | None) -> Raster:
    if source.problem:
        raise ImageReadError(source.path, source.problem)
    if data is not None:
        return read_raster(data)
    if source.member is not None:
        return read_raster(read_member(source.path, source.member))
    return _unchanged(source.path)


def _unchanged(path: Path) -> Raster:
    """Read a file that nobody writes to meanwhile; half of an old and half of a new one is none."""
    for _ in range(2):
        before = _state(path)
        try:
            raster = read_raster(path)
        except ImageReadError:
            if _state(path) == before:
                raise
            continue
        if _state(path) == before:
            return raster
    raise ImageReadError(path, "the file changed while it was read")


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - twice a file, and a Path adds nothing
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
