"""From files to predictions: read, crop, resize, run, calibrate, write.

Example:
    >>> from torchxrayvision.inference import expand
    >>> [source.given for source in expand(["film.png"])]
    ['film.png']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torchxrayvision.inference._pipeline import Result, default_workers, run
    from torchxrayvision.inference._predict import predict
    from torchxrayvision.inference._sources import Source, expand
    from torchxrayvision.inference._writers import CsvWriter, Writer, columns_of, open_writer

__all__ = [
    "CsvWriter",
    "Result",
    "Source",
    "Writer",
    "columns_of",
    "default_workers",
    "expand",
    "open_writer",
    "predict",
    "run",
]

# Loaded at first use: processes that only read files must not wait for torch.
_HOME: Final = {
    "CsvWriter": "_writers",
    "Result": "_pipeline",
    "Source": "_sources",
    "Writer": "_writers",
    "columns_of": "_writers",
    "default_workers": "_pipeline",
    "expand": "_sources",
    "open_writer": "_writers",
    "predict": "_predict",
    "run": "_pipeline",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
