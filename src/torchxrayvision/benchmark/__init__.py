"""The field's benchmarks: rows fixed by hash, intervals, and published numbers beside ours.

`list_protocols` names them, `run` carries one out, `xrv benchmark` is both.

Example:
    >>> from torchxrayvision import benchmark
    >>> benchmark.get_protocol("nih-official").part
    'test'
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
