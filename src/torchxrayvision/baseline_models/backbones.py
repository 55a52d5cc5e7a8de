"""The networks that other groups took whole, on three channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchxrayvision.models import (
    BasicBlock,
    Bottleneck,
    ResidualNetwork,
    dense_features,
    get_densenet_params,
    initialise,
)

if TYPE_CHECKING:
    from torch import nn

_DEPTHS = (3, 4, 6, 3)  # of ResNet-34 and ResNet-50


def densenet121_features() -> nn.Sequential:
    """DenseNet-121 before its last ReLU, with random tensors; it gives 1,024 channels."""
    features = dense_features(**get_densenet_params("densenet121"), in_channels=3)
    initialise(features)
    return features


def resnet34(num_classes: int) -> ResidualNetwork:
    """ResNet-34 with random tensors.

    Args:
        num_classes: Outputs of the layer `fc`.
    """
    return ResidualNetwork(BasicBlock, _DEPTHS, num_classes)


def resnet50(num_classes: int) -> ResidualNetwork:
    """ResNet-50 with random tensors.

    Args:
        num_classes: Outputs of the layer `fc`.
    """
    return ResidualNetwork(Bottleneck, _DEPTHS, num_classes)
