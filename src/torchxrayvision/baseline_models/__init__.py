"""Networks of other groups behind the same interface; each module loads when it is first used.

Example:
    >>> from torchxrayvision import baseline_models
    >>> baseline_models.mira.SexModel(weights=False).targets
    ['Male', 'Female']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchxrayvision.baseline_models import (
        chestx_anatomy,
        chestx_det,
        chexpert,
        emory_hiti,
        ieee8023,
        jfhealthcare,
        mira,
        riken,
        xinario,
    )

__all__ = [
    "chestx_anatomy",
    "chestx_det",
    "chexpert",
    "emory_hiti",
    "ieee8023",
    "jfhealthcare",
    "mira",
    "riken",
    "xinario",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
