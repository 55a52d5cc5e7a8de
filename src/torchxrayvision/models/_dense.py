"""The layers of DenseNets, under the names that published tensors have.

torchvision has them too, but importing it loads the compiler of torch: two seconds, of the six that
a command takes for one film.

Source: Huang et al. Densely connected convolutional networks. CVPR 2017, section 3 and table 1.
https://arxiv.org/abs/1608.06993
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.models._network import draw_convolutions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Layer", "Transition", "dense_features", "initialise", "pooled"]


class Layer(nn.Module):
    """Adds channels to those that it is given (DenseNet-B: a 1 x 1 convolution, then 3 x 3)."""

    def __init__(self, channels: int, growth: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        middle = bn_size * growth
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, middle, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNorm2d(middle)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(middle, growth, kernel_size=3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(self.relu1(self.norm1(x)))
        new = self.conv2(self.relu2(self.norm2(new)))
        if self.drop_rate:
            new = functional.dropout(new, self.drop_rate, training=self.training)
        return torch.cat([x, new], 1)


class Transition(nn.Sequential):
    """Halves channels and side between two blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(channels, channels // 2, kernel_size=1, bias=False)
        self.pool = nn.AvgPool2d(kernel_size=2, stride=2)


def dense_features(
    growth_rate: int,
    block_config: Sequence[int],
    num_init_features: int,
    bn_size: int = 4,
    drop_rate: float = 0.0,
    *,
    in_channels: int,
) -> nn.Sequential:
    """Everything of a DenseNet before the last ReLU, `features` of the published ones.

    Args:
        growth_rate: Channels that each layer adds.
        block_config: Layers of each block.
        num_init_features: Channels of the first convolution.
        bn_size: Channels between the two convolutions of a layer, in multiples of `growth_rate`.
        drop_rate: Dropout after each layer.
        in_channels: Channels of an image.

    Returns:
        The layers; their last one, `norm5`, tells how many channels there are.
    """
    features = nn.Sequential()
    channels = num_init_features
    stem = nn.Conv2d(in_channels, channels, kernel_size=7, stride=2, padding=3, bias=False)
    features.add_module("conv0", stem)
    features.add_module("norm0", nn.BatchNorm2d(channels))
    features.add_module("relu0", nn.ReLU())
    features.add_module("pool0", nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    for number, depth in enumerate(block_config, start=1):
        block = nn.Sequential()
        for layer in range(1, depth + 1):
            added = Layer(channels, growth_rate, bn_size, drop_rate)
            block.add_module(f"denselayer{layer}", added)
            channels += growth_rate
        features.add_module(f"denseblock{number}", block)
        if number < len(block_config):
            features.add_module(f"transition{number}", Transition(channels))
            channels //= 2
    features.add_module("norm5", nn.BatchNorm2d(channels))
    return features


def initialise(network: nn.Module) -> None:
    """Draw the convolutions as the published networks began; biases of a classifier become zero."""
    draw_convolutions(network, mode="fan_in")
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def pooled(features: nn.Module, x: Tensor) -> Tensor:
    """What the classifier of a DenseNet sees.

    Args:
        features: What `dense_features` gave.
        x: Prepared input, shape (B, channels, R, R).

    Returns:
        Shape (B, D).
    """
    return functional.adaptive_avg_pool2d(torch.relu(features(x)), 1).flatten(1)
