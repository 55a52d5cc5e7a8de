"""`xrv evaluate --report` and `xrv probe --report`: one page, with its tables and figures."""

from __future__ import annotations

import lazy_loader

# Loaded at first use.
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
