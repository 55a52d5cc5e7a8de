"""SENet-154, with the head that fastai puts on a network it trains.

Source: Hu et al. Squeeze-and-excitation networks. CVPR 2018, https://arxiv.org/abs/1709.01507,
section 3 for the block and the appendix for SENet-154: a 64x4d ResNeXt-152 whose first 1x1
convolutions are halved, whose first layer is three 3x3 convolutions, whose projections are 3x3, and
with blocks that weigh their channels. Names of layers follow the Caffe release and its ports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

LAYERS: Final = (3, 8, 36, 3)
"""Blocks of the four stages."""
FEATURES: Final = 2048
_GROUPS: Final = 64
_REDUCTION: Final = 16


class _Excitation(nn.Module):
    """Weigh each channel by what all channels are on average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _REDUCTION, kernel_size=1)
        self.fc2 = nn.Conv2d(channels // _REDUCTION, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))


class _Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, projection: int) -> None:
        super().__init__()
        outputs = width * 4
        self.conv1 = nn.Conv2d(inputs, width * 2, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * 2)
        self.conv2 = nn.Conv2d(
            width * 2, outputs, kernel_size=3, stride=stride, padding=1, groups=_GROUPS, bias=False
        )
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(outputs, outputs, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.se_module = _Excitation(outputs)
        self.downsample: nn.Module | None = None
        if projection:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, projection, stride, padding=projection // 2, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.se_module(self.bn3(self.conv3(out)))
        identity = x if self.downsample is None else self.downsample(x)
        return torch.relu(out + identity)


class _Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 64, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 128, kernel_size=3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.bn3(self.conv3(x)))
        # Caffe rounds the size of a pooled map up.
        return functional.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)


def _stage(inputs: int, width: int, blocks: int, stride: int, projection: int) -> nn.Sequential:
    first = _Block(inputs, width, stride, projection)
    return nn.Sequential(first, *(_Block(width * 4, width, 1, 0) for _ in range(blocks - 1)))


def concat_head(hidden: int) -> nn.Sequential:
    """What fastai 1 puts on maxima and means of the last map.

    Args:
        hidden: Width of the layer between.
    """
    return nn.Sequential(
        nn.BatchNorm1d(2 * FEATURES),
        nn.Dropout(0.25),
        nn.Linear(2 * FEATURES, hidden),
        nn.ReLU(),
        nn.BatchNorm1d(hidden),
        nn.Dropout(0.5),
        nn.Linear(hidden, 1),
    )


def plain_head() -> nn.Sequential:
    """The one layer of the paper, on means of the last map."""
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(FEATURES, 1))


class Network(nn.Module):
    """From a standardised image to one number.

    Args:
        layers: Blocks of the four stages.
        head: `concat_head(...)` or `plain_head()`.
    """

    def __init__(self, layers: tuple[int, int, int, int], head: nn.Sequential) -> None:
        super().__init__()
        self.layer0 = _Stem()
        self.layer1 = _stage(128, 64, layers[0], stride=1, projection=1)
        self.layer2 = _stage(256, 128, layers[1], stride=2, projection=3)
        self.layer3 = _stage(512, 256, layers[2], stride=2, projection=3)
        self.layer4 = _stage(1024, 512, layers[3], stride=2, projection=3)
        self.head = head

    def pool(self, x: Tensor) -> Tensor:
        """Maxima and means, shape (B, 4096); means alone, (B, 2048), for the plain head."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.layer0(x)))))
        means = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        if isinstance(self.head[0], nn.Dropout):
            return means
        return torch.cat([functional.adaptive_max_pool2d(x, 1).flatten(1), means], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, 1), of a prepared input."""
        return cast("Tensor", self.head(self.pool(x)))
