"""Transforms: crop, resize and augment images, alone or together with their masks and boxes.

- :class:`XRayCenterCrop`, :class:`XRayResizer`, :class:`ToPILImage`: one array at a time, as in
  version 1. They need neither torch nor torchvision.
- :class:`CenterCropSquare`, :class:`ResizeSquare`, :class:`RandomAffineXRay`: transforms of
  ``torchvision.transforms.v2`` that move an image, its masks and its boxes in one call.
- :func:`apply_transforms`: what a dataset does with either kind.

Example:
    >>> import numpy as np
    >>> from torchxrayvision.transforms import XRayCenterCrop, XRayResizer
    >>> XRayResizer(224)(XRayCenterCrop()(np.zeros((1, 2500, 2048), np.float32))).shape
    (1, 224, 224)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from torchxrayvision.transforms.apply import SeedSource, apply_transforms
from torchxrayvision.transforms.arrays import (
    ToPILImage,
    XRayCenterCrop,
    XRayResizer,
    crop_box,
    prepare,
)

if TYPE_CHECKING:
    from torchxrayvision.transforms.joint import CenterCropSquare, RandomAffineXRay, ResizeSquare

# For the other packages of the project.
from torchxrayvision.transforms.apply import from_raster as from_raster
from torchxrayvision.transforms.apply import square_pixels as square_pixels
from torchxrayvision.transforms.placement import Placement as Placement
from torchxrayvision.transforms.placement import resample as resample
from torchxrayvision.transforms.placement import square_image as square_image

__all__ = [
    "CenterCropSquare",
    "RandomAffineXRay",
    "ResizeSquare",
    "SeedSource",
    "ToPILImage",
    "XRayCenterCrop",
    "XRayResizer",
    "apply_transforms",
    "crop_box",
    "prepare",
]

# These need torchvision, whose import takes seconds.
_JOINT = frozenset({"CenterCropSquare", "RandomAffineXRay", "ResizeSquare"})


def __getattr__(name: str) -> Any:
    if name in _JOINT:
        return getattr(importlib.import_module(f"{__name__}.joint"), name)
    msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
