"""A service between modality and archive: images in, results in the same study out.

Needs the extras `serve` and `dicom-results`. `Service` of a `Config` (`read_config`) receives by
C-STORE and from watched folders, decides by `GateRules` what is read, reads in worker processes,
and delivers to any number of `Target`s. Everything that it has accepted survives being killed, and
each instance is answered once by each model. `status`, `retry` and `drain` work from outside.

Example:
    >>> from torchxrayvision import service
    >>> service.config_of({"folder": "/var/lib/xrv"}).results.kinds
    ('sr', 'sc')
"""

from __future__ import annotations

import lazy_loader

# Loaded at first use.
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
