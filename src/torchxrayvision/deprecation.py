"""What code written for other versions finds.

Names that moved work for a while, and say where they are now. Functions that clients of 1.5.7
replace in its modules (`xrv.utils.get_cache_dir = ...`) count here too: the replacement is put
where the package looks the function up.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from torchxrayvision.errors import caller_stacklevel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["carried_names", "count_replacements", "with_former_names", "with_moved_names"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


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
            value = vars(sys.modules[package])[name] = otherwise(name)  # found at once from now on
            return value
        msg = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(msg)

    return find


_CARRIED = {
    "F": "torch.nn.functional",
    "datasets": "torchxrayvision.datasets",
    "imread": "skimage.io:imread",
    "nn": "torch.nn",
    "np": "numpy",
    "pd": "pandas",
    "transforms": "torchvision.transforms",
    "utils": "torchxrayvision.utils",
    "xrv": "torchxrayvision",
}


def carried_names(
    package: str,
    names: str,
    otherwise: Callable[[str], Any] | None = None,
    lazy: Collection[str] = (),
) -> Callable[[str], Any]:
    """A module's `__getattr__` for modules that the one of 1.5.7 had imported, as `models.nn`.

    Args:
        package: The module's `__name__`.
        names: What clients took from it, in one line.
        otherwise: The module's other `__getattr__`, for the names of `__all__`.
        lazy: More names for it.
    """

    def find(name: str) -> Any:
        known = getattr(sys.modules[package], "__all__", ())
        if otherwise is not None and (name in known or name in lazy):
            value = vars(sys.modules[package])[name] = otherwise(name)  # found at once from now on
            return value
        if name in names.split():
            with contextlib.suppress(ModuleNotFoundError):  # not all of them are needed here
                module, _, attribute = _CARRIED.get(name, name).partition(":")
                found = importlib.import_module(module)
                return getattr(found, attribute) if attribute else found
        msg = f"module {package!r} has no attribute {name!r}"
        if close := difflib.get_close_matches(name, known):
            msg += f"; did you mean {' or '.join(close)}?"
        raise AttributeError(msg)

    return find


# Module, function that clients replace, and where the package looks it up; "" where it does not.
_REPLACED: dict[str, dict[str, str]] = {
    "torchxrayvision.utils": {
        "download": "torchxrayvision.weights.registry.download",
        "fix_resolution": "torchxrayvision.models.scaling.fix_resolution",
        "get_cache_dir": "torchxrayvision.remote.cache.get_cache_dir",
        "warn_normalization": "torchxrayvision.models.scaling.warn_normalization",
    },
    "torchxrayvision.models": {"op_norm": "torchxrayvision.models.scaling.op_norm"},
    "torchxrayvision.datasets": {
        "apply_transforms": "torchxrayvision.datasets.pipeline.apply_transforms",
        "normalize": "",
    },
}
_originals: dict[str, tuple[Any, Any]] = {}


class _Replaceable(types.ModuleType):
    """A module whose functions clients may replace."""

    def __setattr__(self, name: str, value: Any) -> None:
        place = _REPLACED[self.__name__].get(name)
        if place is None:
            super().__setattr__(name, value)
            return
        if not place:
            warnings.warn(
                f"a replaced {self.__name__}.{name} is not used: images are scaled as they are "
                "read; pass the change as transform= of the dataset",
                stacklevel=caller_stacklevel(),
            )
        else:
            module, _, attribute = place.rpartition(".")
            user = importlib.import_module(module)
            key = f"{self.__name__}.{name}"
            before = _originals.setdefault(key, (getattr(self, name), getattr(user, attribute)))
            setattr(user, attribute, before[1] if value is before[0] else value)
        super().__setattr__(name, value)


def count_replacements(package: str) -> None:
    """Let functions that a client puts into a module in place of its own count for the package.

    Args:
        package: The module's `__name__`, one of those listed above.
    """
    sys.modules[package].__class__ = _Replaceable


_FORMER: Final = {"groups": "patient_ids", "n": "replicates"}
# Arguments of resampling, which intervals with a formula do not need.
_RESAMPLING: Final = ("replicates", "seed")


def with_former_names(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function take the keyword arguments of 2.0.0a1: ``groups`` and ``n``.

    A function whose interval has a formula takes ``replicates`` and ``seed`` too and needs neither:
    the interval is the same whatever they are.

    Args:
        function: One that takes ``patient_ids``.

    Returns:
        The function; it warns with `DeprecationWarning` where a former name is used.
    """
    taken = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        named: dict[str, Any] = dict(kwargs)
        for former in [name for name in _FORMER if name in named and name not in taken]:
            new = _FORMER[former]
            warnings.warn(
                f"{function.__name__}: the argument {former} is now {new}; "
                "the old name goes in release 3",
                DeprecationWarning,
                stacklevel=2,
            )
            if new in named:
                msg = f"{function.__name__}() got both {former} and {new}; give {new} alone"
                raise TypeError(msg)
            named[new] = named.pop(former)
        for name in _RESAMPLING:
            if name not in taken:
                named.pop(name, None)
        return function(*args, **named)

    return call
