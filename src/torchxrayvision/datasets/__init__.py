"""Public chest X-ray datasets behind one interface.

Every dataset yields dicts with ``idx``, ``lab``, ``img`` (float32 (1, H, W) in [-1024, 1024]) and
has ``.pathologies``, ``.labels`` and ``.csv``, aligned by row. Constructing one, its labels and
its totals need neither images nor torch.

Example:
    >>> import torchxrayvision as xrv
    >>> dataset = xrv.datasets.NIH_Dataset(views=["PA", "AP"], unique_patients=False)
    >>> len(dataset)
    112120
"""

from __future__ import annotations

import lazy_loader

from torchxrayvision.deprecation import carried_names, count_replacements

# Each dataset is loaded at its first use. The names are those of `__init__.pyi`, a line each.
_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__getattr__ = carried_names(
    __name__,
    "collections imageio imread json np os pd pprint random skimage sys tarfile torch transforms "
    "warnings xrv zipfile",
    _find,
)
count_replacements(__name__)
