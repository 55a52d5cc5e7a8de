"""Networks of other groups behind the same interface; each module loads when it is first used.

Example:
    >>> from torchxrayvision import baseline_models
    >>> baseline_models.mira.SexModel(weights=False).targets
    ['Male', 'Female']
"""

from __future__ import annotations

import lazy_loader

from torchxrayvision.deprecation import carried_names

# Loaded at first use.
# The names are those of `__init__.pyi`.
_find, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = carried_names(__name__, "", _find)
