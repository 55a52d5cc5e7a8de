"""Train classifiers: a recipe, prepared images, and a run that a kill does not change.

- `Recipe` and its parts say everything that decides the outcome; `load_recipe` reads one from a
  file. `fit` carries it out on Lightning, in one process or several (extra `train`).
- `PreparedImages` holds images that are ready for a network; `ImageCache` decodes those of any
  dataset once.
- `linear_probe` and `few_shot` judge the features of a network without training it.

Example:
    >>> from torchxrayvision.training import STRONG, Recipe
    >>> Recipe(findings=("Mass", "Edema"), augmentation=STRONG).epochs
    20
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torchxrayvision.training._cache import ImageCache
    from torchxrayvision.training._data import prepare
    from torchxrayvision.training._fit import Result, fit
    from torchxrayvision.training._loss import masked_bce, positive_weights, task_weights
    from torchxrayvision.training._parse import load_recipe, recipe_from_dict, recipe_to_dict
    from torchxrayvision.training._prepared import PreparedImages
    from torchxrayvision.training._probe import Probe, embed, few_shot, linear_probe
    from torchxrayvision.training._recipe import (
        PUBLISHED,
        STRONG,
        Augmentation,
        Loss,
        Optimiser,
        Recipe,
        Schedule,
        Source,
        Split,
    )

# Loaded at first use: a recipe needs no torch, and only a run needs Lightning.
_HOME: Final = {
    "PUBLISHED": "_recipe",
    "STRONG": "_recipe",
    "Augmentation": "_recipe",
    "ImageCache": "_cache",
    "Loss": "_recipe",
    "Optimiser": "_recipe",
    "PreparedImages": "_prepared",
    "Probe": "_probe",
    "Recipe": "_recipe",
    "Result": "_fit",
    "Schedule": "_recipe",
    "Source": "_recipe",
    "Split": "_recipe",
    "embed": "_probe",
    "few_shot": "_probe",
    "fit": "_fit",
    "linear_probe": "_probe",
    "load_recipe": "_parse",
    "masked_bce": "_loss",
    "positive_weights": "_loss",
    "prepare": "_data",
    "recipe_from_dict": "_parse",
    "recipe_to_dict": "_parse",
    "task_weights": "_loss",
}

__all__ = [
    "PUBLISHED",
    "STRONG",
    "Augmentation",
    "ImageCache",
    "Loss",
    "Optimiser",
    "PreparedImages",
    "Probe",
    "Recipe",
    "Result",
    "Schedule",
    "Source",
    "Split",
    "embed",
    "few_shot",
    "fit",
    "linear_probe",
    "load_recipe",
    "masked_bce",
    "positive_weights",
    "prepare",
    "recipe_from_dict",
    "recipe_to_dict",
    "task_weights",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
