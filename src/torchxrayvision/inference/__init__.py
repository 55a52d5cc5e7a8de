"""From files to predictions: read, crop, resize, run, calibrate, write.

Example:
    >>> from torchxrayvision.inference import parse_shard
    >>> parse_shard("2/8").count
    8
"""

from __future__ import annotations

from typing import Final

import lazy_loader

from torchxrayvision.deprecation import with_moved_names

# Loaded at first use: processes that only read files must not wait for torch.
# The names are those of `__init__.pyi`.
_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_MOVED: Final = {
    "Check": "torchxrayvision.screening.Check",
    "Masks": "torchxrayvision.segmentation.Masks",
    "Remark": "torchxrayvision.screening.Finding",
    "Segmentation": "torchxrayvision.segmentation.Segmentation",
    "SegmentationWriter": "torchxrayvision.segmentation.SegmentationWriter",
    "Reading": "torchxrayvision.inputs.ReadOptions",
    "Source": "torchxrayvision.inputs.InputFile",
    "borrowed": "torchxrayvision.models.temporarily_eval",
    "check": "torchxrayvision.screening.check",
    "checks": "torchxrayvision.screening.iter_checks",
    "default_workers": "torchxrayvision.inputs.default_workers",
    "expand": "torchxrayvision.inputs.expand",
    "segment": "torchxrayvision.segmentation.segment",
}
__getattr__ = with_moved_names(__name__, _MOVED, _find)
