"""The radiographs of a collection that are most like a given one.

Example:
    >>> import numpy as np
    >>> from torchxrayvision.similarity import Index
    >>> index = Index(["a.png", "b.png"], np.eye(2, dtype=np.float32))
    >>> rows, likeness = index.nearest(np.array([[0.9, 0.1]], np.float32), 1)
    >>> index.paths[rows[0, 0]]
    'a.png'
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
