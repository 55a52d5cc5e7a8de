"""Names that moved: they keep working for a while, and say where they are now."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["with_moved_names"]


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
