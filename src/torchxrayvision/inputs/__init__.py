"""From what a user names to images: expand, open archives, read ahead with limits.

Example:
    >>> from torchxrayvision.inputs import expand
    >>> [file.given for file in expand(["image.png"])]
    ['image.png']
"""

from __future__ import annotations

import lazy_loader

# Loaded at first use.
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
