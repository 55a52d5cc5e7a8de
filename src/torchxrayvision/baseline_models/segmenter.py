"""The segmentation networks of other groups: they start from ImageNet's weights, at its scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchxrayvision.baseline_models.classifier import imagenet_scale
from torchxrayvision.models import Segmenter

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BaselineSegmenter"]


class BaselineSegmenter(Segmenter):
    """Base of the segmentation networks of other groups."""

    def _rescale(self, x: Tensor) -> Tensor:
        return imagenet_scale(x)
