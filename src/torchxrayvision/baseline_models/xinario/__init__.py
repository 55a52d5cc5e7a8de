"""Frontal or lateral: the view classifier of chestViewSplit.

Example:
    >>> from torchxrayvision.baseline_models import xinario
    >>> xinario.ViewModel(weights=None).targets
    ['Frontal', 'Lateral']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torchxrayvision.baseline_models.published import ResidualClassifier, resnet50

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint

__all__ = ["ViewModel"]

_IMAGENET_CLASSES = 1000


class ViewModel(ResidualClassifier):
    """Whether a radiograph is frontal or lateral, by a ResNet-50 on 224 pixels.

    The published file kept the 1000 outputs of ImageNet, of which the first two were trained; the
    others are left out here.

    The arguments are those of `PublishedClassifier`. Probabilities weigh the two views against each
    other only.

    Example:
        >>> ViewModel(weights=None)(torch.full((3, 1, 64, 64), -1024.0)).shape
        torch.Size([3, 2])

    Source:
        https://github.com/xinario/chestViewSplit
    """

    targets = ["Frontal", "Lateral"]  # noqa: RUF012 - a list, as in 1.5.7
    published: ClassVar = "xinario-view-resnet50"
    side: ClassVar = 224
    kinds: ClassVar = ("logit", "probability")
    exclusive: ClassVar = True
    label: ClassVar = "xinario-view-prediction"

    def _network(self) -> nn.Module:
        return resnet50(2)

    def _names(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        tensors = super()._names(checkpoint)
        for name in ("fc.weight", "fc.bias"):
            if name in tensors and tensors[name].shape[:1] == (_IMAGENET_CLASSES,):
                tensors[name] = tensors[name][:2].clone()
        return tensors
