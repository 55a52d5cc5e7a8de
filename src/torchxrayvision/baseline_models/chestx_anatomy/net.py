"""U-Net (Ronneberger et al. 2015) whose way down is a ResNet-50.

The names of the layers are those of the published tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.baseline_models.published import resnet50


class Backbone(nn.Module):
    """ResNet-50 that gives the maps of its five stages."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential()
        for number, stage in enumerate(resnet50(num_classes=1).stages()):
            self.backbone.add_module(f"layer{number}", stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of images (B, 3, S, S), at 1/4, 1/4, 1/8, 1/16 and 1/32 of their side."""
        maps = []
        for layer in self.backbone:
            x = layer(x)
            maps.append(x)
        return maps


def _unit(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]


class _Single(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*_unit(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class _Double(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = max(inputs // 2, 64)
        self.double_conv = nn.Sequential(*_unit(inputs, middle), *_unit(middle, outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.double_conv(x)
        return out


def _joined(coarse: Tensor, skip: Tensor) -> Tensor:
    """Bring the coarse map to the size of the other, and put it behind that one."""
    fine = functional.interpolate(coarse, skip.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([skip, fine], 1)


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _Double(inputs, outputs)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.conv(_joined(coarse, skip))
        return out


class _FirstUp(nn.Module):
    """The lowest map has more channels than the rest of the way up, so it is thinned first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Single(2048, 1024)
        self.conv2 = _Double(2048, 512)

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.conv2(_joined(self.conv1(coarse), skip))
        return out


class _Out(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Head(nn.Module):
    """The way up.

    Args:
        classes: Number of structures P.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.up1 = _FirstUp()
        self.up2 = _Up(1024, 256)
        self.up3 = _Up(512, 64)
        self.up4 = _Up(128, 128)
        self.out = _Out(128, classes)

    def maps(self, stages: list[Tensor]) -> Tensor:
        """Features (B, 128, S/4, S/4) from the maps of the backbone."""
        first, second, third, fourth, x = stages
        ups = (self.up1, self.up2, self.up3, self.up4)
        for up, skip in zip(ups, (fourth, third, second, first), strict=True):
            x = up(x, skip)
        return x

    def forward(self, maps: Tensor, side: int) -> Tensor:
        """Logits (B, P, side, side) of features."""
        fine = functional.interpolate(maps, (side, side), mode="bilinear", align_corners=False)
        out: Tensor = self.out(fine)
        return out
