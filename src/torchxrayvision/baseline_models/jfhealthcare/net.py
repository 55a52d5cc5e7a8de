"""DenseNet-121 with a feature pyramid attention, as the winner of the CheXpert challenge had it.

Sources: Li et al. Pyramid attention network for semantic segmentation. BMVC 2018,
https://arxiv.org/abs/1805.10180, section 3.1; Huang et al., CVPR 2017, for the DenseNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from torchxrayvision.baseline_models.published import densenet121_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_CHANNELS = 1024


class _Unit(nn.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.conv(x))


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class _PyramidAttention(nn.Module):
    """Weigh a map by a pyramid of its own context, and add the context of the whole."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gap_branch = nn.Sequential(nn.AdaptiveAvgPool2d(1), _Unit(channels, channels, 1))
        self.mid_branch = _Unit(channels, channels, 1)
        self.downsample1 = _Unit(channels, 1, 7, 2)
        self.downsample2 = _Unit(1, 1, 5, 2)
        self.downsample3 = _Unit(1, 1, 3, 2)
        self.scale1 = _Unit(1, 1, 7)
        self.scale2 = _Unit(1, 1, 5)
        self.scale3 = _Unit(1, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        coarse1 = self.downsample1(x)
        coarse2 = self.downsample2(coarse1)
        coarse3 = self.downsample3(coarse2)
        context = self.scale3(coarse3)
        context = _enlarge(context, coarse2) + self.scale2(coarse2)
        context = _enlarge(context, coarse1) + self.scale1(coarse1)
        return cast("Tensor", _enlarge(context, x) * self.mid_branch(x) + self.gap_branch(x))


class _Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pyramid_attention = _PyramidAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.pyramid_attention(x))


class _Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = densenet121_features()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.features(x))


class Network(nn.Module):
    """One output a head, and one more pass through the attention for each head.

    The attention takes what it gave for the head before, so it is applied once for the first head
    and `heads` times for the last: so the published network was trained and evaluated.

    Args:
        heads: Number of outputs.
    """

    width = 2 * _CHANNELS  # of what each head sees

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.backbone = _Backbone()
        self.attention_map = _Attention(_CHANNELS)
        for i in range(heads):
            setattr(self, f"fc_{i}", nn.Conv2d(2 * _CHANNELS, 1, kernel_size=1))
            setattr(self, f"bn_{i}", nn.BatchNorm2d(2 * _CHANNELS))

    def pool(self, x: Tensor) -> list[Tensor]:
        """What each head sees: mean and maximum of its map, of shape (B, 2048, 1, 1)."""
        pooled = []
        attended = self.backbone(x)
        for _ in range(self.heads):
            attended = self.attention_map(attended)
            mean = functional.adaptive_avg_pool2d(attended, 1)
            pooled.append(torch.cat([mean, functional.adaptive_max_pool2d(attended, 1)], 1))
        return pooled

    def logits(self, pooled: Sequence[Tensor]) -> Tensor:
        """Logits, shape (B, heads), of what `pool` gives."""
        logits = [
            getattr(self, f"fc_{i}")(getattr(self, f"bn_{i}")(seen))
            for i, seen in enumerate(pooled)
        ]
        return torch.cat(logits, 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (B, heads), of a prepared input."""
        return self.logits(self.pool(x))
