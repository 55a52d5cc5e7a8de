"""The layers of ResNets, under the names that published tensors have.

No operation writes over its input, so what a hook on a layer keeps, Grad-CAM's among them, stays
what the layer gave. torchvision's do, and importing it takes two seconds (see `_dense`).

Source: He et al. Deep residual learning for image recognition. CVPR 2016, section 3.3 and table 1.
https://arxiv.org/abs/1512.03385. The stride of a bottleneck is in its 3 x 3 convolution, where
the published tensors were trained with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from torchxrayvision.models._network import draw_convolutions

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BasicBlock", "Bottleneck", "ResidualNetwork"]

_STAGES = ("layer1", "layer2", "layer3", "layer4")


def _wide(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


def _narrow(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The way around a block that changes the shape; None where it does not."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_narrow(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions: the block of 18 and 34 layers.

    Args:
        inputs: Channels of the input.
        channels: Channels inside and of the output.
        stride: By which the side shrinks.
    """

    expansion: ClassVar[int] = 1

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _wide(inputs, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _wide(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(out + identity)
        return result


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1: the block of 50 layers and more.

    Args:
        inputs: Channels of the input.
        channels: Channels inside, a quarter of the output's.
        stride: By which the side shrinks.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = _narrow(inputs, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _wide(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _narrow(channels, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        result: Tensor = self.relu(self.bn3(self.conv3(out)) + identity)
        return result


class ResidualNetwork(nn.Module):
    """A ResNet with random tensors, without any preparation of its input.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        depths: Blocks of each of the four stages.
        num_classes: Outputs of the layer `fc`.
        in_channels: Channels of an image.
        width: Channels after the first layer; each later stage doubles them.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: Sequence[int],
        num_classes: int,
        *,
        in_channels: int = 3,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.block = block
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = width
        for index, (name, depth) in enumerate(zip(_STAGES, depths, strict=True)):
            stage = nn.Sequential()
            for number in range(depth):
                stride = 2 if index > 0 and number == 0 else 1
                stage.append(block(channels, width * 2**index, stride))
                channels = width * 2**index * block.expansion
            self.add_module(name, stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module = nn.Linear(channels, num_classes)
        draw_convolutions(self, mode="fan_out")

    def stages(self) -> list[nn.Module]:
        """What turns an image into maps, part by part: the first layers, and the four stages."""
        first = nn.Sequential(self.conv1, self.bn1, self.relu, self.maxpool)
        return [first, *(self.get_submodule(name) for name in _STAGES)]

    def pooled(self, x: Tensor) -> Tensor:
        """What the layer `fc` sees.

        Args:
            x: Prepared input, shape (B, channels, R, R).

        Returns:
            Shape (B, D).
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in _STAGES:
            x = self.get_submodule(name)(x)
        result: Tensor = self.avgpool(x)
        return result.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pooled(x))
        return logits
