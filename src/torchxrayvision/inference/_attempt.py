"""Something made of each file, or the reason why there is none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from torchxrayvision.errors import ImageReadError, XRVError
from torchxrayvision.inference._load import _raster

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchxrayvision.images import Raster
    from torchxrayvision.inference._sources import Source

__all__ = ["attempt"]

_log = logging.getLogger(__name__)
_Out = TypeVar("_Out")


def attempt(source: Source, make: Callable[[Raster], _Out]) -> _Out | str:
    """Read a file and make something of it; never raises.

    Args:
        source: What to read.
        make: Called with the picture.

    Returns:
        What was made; or what is wrong, as one clause.
    """
    try:
        return make(_raster(source, None))
    except ImageReadError as error:
        return error.reason + (f"; {error.advice}" if error.advice else "")
    except (XRVError, OSError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one bad file must not lose the run
        _log.exception("unexpected error on %s", source.given)
        return f"{type(error).__name__}: {error}"
