"""Train networks: a recipe, prepared images, and a run that a kill does not change.

- `Recipe` and its parts say everything that decides the outcome; `load_recipe` reads one from a
  file. `fit` carries it out on Lightning, in one process or several (extra `train`).
- `PreparedImages` holds images that are ready for a network; `ImageCache` decodes those of any
  dataset once. `MaskedImages` has masks too.
- `linear_probe`, `few_shot` and `learning_curve` judge the features of a network without training
  it.

Example:
    >>> from torchxrayvision.training import STRONG, Recipe
    >>> Recipe(findings=("Mass", "Edema"), augmentation=STRONG).epochs
    20
"""

from __future__ import annotations

import lazy_loader

# Loaded at first use: a recipe needs no torch, and only a run needs Lightning.
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
