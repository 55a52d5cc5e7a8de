"""Names that moved: they keep working for a while, and say where they are now."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["caller_stacklevel", "with_moved_names"]

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep  # noqa: PTH100, PTH120 - of each frame
# Through whose frames a call of a user goes on its way into this package.
_BETWEEN = (f"{os.sep}torch{os.sep}", f"{os.sep}contextlib.py")


def caller_stacklevel() -> int:
    """`stacklevel` for a warning that names the line outside this package that led here.

    Example:
        >>> warnings.warn("look", UserWarning, stacklevel=caller_stacklevel())  # doctest: +SKIP
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_HERE) and not any(part in name for part in _BETWEEN):
            break
        frame, level = frame.f_back, level + 1
    return level


def with_moved_names(
    package: str, moved: Mapping[str, str], otherwise: Callable[[str], Any] | None = None
) -> Callable[[str], Any]:
    """A module's `__getattr__` that still finds names under their old place.

    Args:
        package: The module's `__name__`.
        moved: Old name to the full new one, such as `"torchxrayvision.screening.check"`; a module
            or something in one.
        otherwise: The module's other `__getattr__`, asked for every other name.

    Returns:
        The function. It gives the object and warns with `DeprecationWarning`, at the line that
        used the old name.

    Example:
        >>> find = with_moved_names("old", {"pi": "math.pi"})
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     round(find("pi"), 2)
        3.14
    """

    def find(name: str) -> Any:
        if name in moved:
            message = f"{package}.{name} is now {moved[name]}; the old name goes in release 3"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            module, _, attribute = moved[name].rpartition(".")
            return getattr(importlib.import_module(module), attribute)
        if otherwise is not None:
            return otherwise(name)
        msg = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(msg)

    return find
