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
    from torchxrayvision.inference._accelerate import Accelerated, accelerate
    from torchxrayvision.inference._check import Check, Remark, check, checks
    from torchxrayvision.inference._cluster import RayCluster
    from torchxrayvision.inference._export import Exported, export
    from torchxrayvision.inference._longrun import Summary, join_shards, predict_to_file
    from torchxrayvision.inference._pipeline import Reading, Result, default_workers
    from torchxrayvision.inference._predict import predict, predictions
    from torchxrayvision.inference._resume import Shard, parse_shard
    from torchxrayvision.inference._segment import Masks, Segmentation, segment
    from torchxrayvision.inference._segment_files import SegmentationWriter
    from torchxrayvision.inference._sources import Source, expand
    from torchxrayvision.inference._writers import CsvWriter, Writer, columns_of, open_writer

__all__ = [
    "Accelerated",
    "Check",
    "CsvWriter",
    "Exported",
    "Masks",
    "RayCluster",
    "Reading",
    "Remark",
    "Result",
    "Segmentation",
    "SegmentationWriter",
    "Shard",
    "Source",
    "Summary",
    "Writer",
    "accelerate",
    "check",
    "checks",
    "columns_of",
    "default_workers",
    "expand",
    "export",
    "join_shards",
    "open_writer",
    "parse_shard",
    "predict",
    "predict_to_file",
    "predictions",
    "segment",
]

# Loaded at first use: processes that only read files must not wait for torch.
_HOME: Final = {
    "Accelerated": "_accelerate",
    "Check": "_check",
    "CsvWriter": "_writers",
    "Exported": "_export",
    "Masks": "_segment",
    "RayCluster": "_cluster",
    "Reading": "_pipeline",
    "Remark": "_check",
    "Result": "_pipeline",
    "Segmentation": "_segment",
    "SegmentationWriter": "_segment_files",
    "Shard": "_resume",
    "Source": "_sources",
    "Summary": "_longrun",
    "Writer": "_writers",
    "accelerate": "_accelerate",
    "check": "_check",
    "checks": "_check",
    "columns_of": "_writers",
    "default_workers": "_pipeline",
    "expand": "_sources",
    "export": "_export",
    "join_shards": "_longrun",
    "open_writer": "_writers",
    "parse_shard": "_resume",
    "predict": "_predict",
    "predict_to_file": "_longrun",
    "predictions": "_predict",
    "segment": "_segment",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
