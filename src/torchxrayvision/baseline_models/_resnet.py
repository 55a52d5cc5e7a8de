"""ResNets on three channels without in-place additions, under the names of torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torchvision

from torchxrayvision.baseline_models._classifier import without_inplace
from torchxrayvision.models.resnet import _Bottleneck

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pooled", "resnet34", "resnet50"]


class _BasicBlock(torchvision.models.resnet.BasicBlock):  # type: ignore[misc] # untyped package
    """The basic block of torchvision; its addition leaves the operands as hooks saw them."""

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(out + identity)
        return result


def resnet34(num_classes: int) -> Any:
    """ResNet-34 with random tensors.

    Args:
        num_classes: Outputs of the layer `fc`.
    """
    return without_inplace(torchvision.models.ResNet(_BasicBlock, [3, 4, 6, 3], num_classes))


def resnet50(num_classes: int) -> Any:
    """ResNet-50 with random tensors.

    Args:
        num_classes: Outputs of the layer `fc`.
    """
    return without_inplace(torchvision.models.ResNet(_Bottleneck, [3, 4, 6, 3], num_classes))


def pooled(net: Any, x: Tensor) -> Tensor:
    """What the layer `fc` of a ResNet sees.

    Args:
        net: The ResNet.
        x: Prepared input, shape (B, 3, R, R).

    Returns:
        Shape (B, D).
    """
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
    result: Tensor = net.avgpool(x)
    return result.flatten(1)
