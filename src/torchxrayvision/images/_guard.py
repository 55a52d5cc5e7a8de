"""Decoders of other packages, run so that they can neither warn nor raise anything untyped."""

from __future__ import annotations

import sys
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torchxrayvision.errors import ImageReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["foreign", "quiet"]

_NOISY = r"(PIL|pydicom|openjpeg|pylibjpeg|jpeg_ls|gdcm|torchxrayvision\.images)(\.|$)"
_lock = threading.Lock()
_depth = 0
_saved: warnings.catch_warnings[None] | None = None


def _enter() -> None:
    global _depth, _saved
    with _lock:
        if _depth == 0:
            _saved = warnings.catch_warnings()
            _saved.__enter__()
            warnings.filterwarnings("ignore", module=_NOISY)
        _depth += 1


def _leave() -> None:
    global _depth, _saved
    with _lock:
        _depth -= 1
        if _depth == 0 and _saved is not None:
            _saved.__exit__(None, None, None)
            _saved = None


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings that image libraries give about a file; ours and everyone else's stay.

    ``warnings.catch_warnings`` alone is not safe in threads: two that overlap may leave the
    filter behind. So the first reader to enter installs it and the last one to leave removes it.
    """
    if getattr(sys.flags, "context_aware_warnings", False):  # Python 3.14: local to the thread
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=_NOISY)
            yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


@contextmanager
def foreign(path: str, reason: str) -> Iterator[None]:
    """Turn whatever a third-party reader raises on a bad file into an `ImageReadError`.

    Args:
        path: The file, for the error.
        reason: What failed, one clause; the library's own words follow it.

    Nothing may be imported inside: filters that a module installs for itself would be lost.
    """
    with quiet():
        try:
            yield
        except ImageReadError:
            raise
        except MemoryError as error:
            raise ImageReadError(path, "not enough memory to decode it") from error
        except Exception as error:  # the readers raise anything from struct.error to SyntaxError
            words = " ".join(str(error).split())[:200] or type(error).__name__
            raise ImageReadError(path, f"{reason} ({words})") from error
