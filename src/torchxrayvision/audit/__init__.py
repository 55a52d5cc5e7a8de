"""Whether a collection of radiographs can be trusted: duplicates, leaks, confounding, drift.

`audit` reads every file once and looks for what would make results on it wrong; `write_report`
makes one HTML page and CSV tables of it; `xrv audit` is both. Nothing leaves the machine, and
nothing is changed.

Example:
    >>> import torchxrayvision as xrv
    >>> xrv.audit.Issue(severity="note", kind="public images", count=2, text="Two.").severity
    'note'
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
