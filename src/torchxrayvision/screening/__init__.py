"""Whether an image is an upright frontal chest radiograph."""

from __future__ import annotations

from typing import Final

import lazy_loader

from torchxrayvision.deprecation import with_moved_names

# Loaded at first use.
# The names are those of `__init__.pyi`.
_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_MOVED: Final = {"Remark": "torchxrayvision.screening.Finding"}
__getattr__ = with_moved_names(__name__, _MOVED, _find)
