"""Which files of the package one call runs through: what a reader must open to follow it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torchxrayvision

ROOT = Path(torchxrayvision.__file__).parent
_FUNCTION = 0x1  # CO_OPTIMIZED: set for functions, not for the bodies of modules and classes


def files_entered(call: Callable[[], object]) -> list[str]:
    """The files whose functions a call enters, in all threads; `errors.py` does not count.

    The call runs once before, so that what only loads or caches is left out.
    """
    call()
    names: set[str] = set()

    def note(frame, event, _argument):
        if event == "call" and frame.f_code.co_flags & _FUNCTION:
            names.add(frame.f_code.co_filename)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    inside = {Path(name) for name in names if name.startswith(f"{ROOT}/")}
    return sorted({path.relative_to(ROOT).as_posix() for path in inside} - {"errors.py"})
