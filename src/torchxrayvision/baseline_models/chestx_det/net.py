"""Pyramid scene parsing network (Zhao et al. 2017) on a dilated ResNet-101.

The names of the layers are those of the published tensors.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_BINS: Final = (6, 3, 2, 1)


class _ConvNorm(nn.Module):
    """Convolution and normalisation, with rectification under another name."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if relu:
            layers.append(nn.ReLU())
        self._unit = "cbr_unit" if relu else "cb_unit"
        setattr(self, self._unit, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = getattr(self, self._unit)(x)
        return out


class _Bottleneck(nn.Module):
    def __init__(
        self, inputs: int, width: int, outputs: int, stride: int, dilation: int, change: bool
    ) -> None:
        super().__init__()
        self.cbr1 = _ConvNorm(inputs, width, 1)
        self.cbr2 = _ConvNorm(width, width, 3, stride=stride, dilation=dilation)
        self.cb3 = _ConvNorm(width, outputs, 1, relu=False)
        self.cb4 = _ConvNorm(inputs, outputs, 1, stride=stride, relu=False) if change else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.cb4 is None else self.cb4(x)
        return functional.relu(self.cb3(self.cbr2(self.cbr1(x))) + identity)


class _Stage(nn.Module):
    def __init__(self, blocks: int, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * width
        layers = [_Bottleneck(inputs, width, outputs, stride, dilation, True)]
        layers += [
            _Bottleneck(outputs, width, outputs, 1, dilation, False) for _ in range(blocks - 1)
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class _Pyramid(nn.Module):
    """Averages over grids of about 6, 3, 2 and 1 cells a side, beside the map itself."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.path_module_list = nn.ModuleList(_ConvNorm(channels, width, 1) for _ in _BINS)

    def coarse(self, x: Tensor) -> list[Tensor]:
        """The grids, (B, width, n, n) each."""
        side = x.shape[-1]
        found = []
        for bins, path in zip(_BINS, self.path_module_list, strict=True):
            # Whole cells only: where the side is no multiple, a grid is finer or leaves a rim out.
            cell = max(1, side // bins)
            found.append(path(functional.avg_pool2d(x, cell, cell)))
        return found

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(_spread(grid, x.shape[-2:]) for grid in self.coarse(x))], 1)


def _spread(grid: Tensor, size: torch.Size) -> Tensor:
    return functional.interpolate(grid, size, mode="bilinear", align_corners=False)


def _convolved(grids: list[Tensor], kernels: Tensor, size: torch.Size) -> Tensor:
    """A 3 x 3 convolution of grids that are spread over a map, without the spread ones.

    Both are linear, so the kernels may come first, one position after the other, on the few cells
    of a grid; what each cell then adds to each pixel does not depend on the image.

    Args:
        grids: (B, C, n, n) each.
        kernels: Of all grids, (O, C of all, 3, 3).
        size: Rows and columns of the map.

    Returns:
        (B, O, rows, columns).
    """
    outputs = kernels.shape[0]
    values, shares = [], []
    parts = torch.split(kernels, [grid.shape[1] for grid in grids], 1)
    for grid, kernel in zip(grids, parts, strict=True):
        cells = grid.shape[-2] * grid.shape[-1]
        by_position = kernel.permute(2, 3, 0, 1).reshape(9 * outputs, -1, 1, 1)
        value = functional.conv2d(grid, by_position).reshape(-1, 9, outputs, cells)
        values.append(value.permute(0, 2, 1, 3).reshape(-1, outputs, 9 * cells))
        one_each = torch.eye(cells, dtype=grid.dtype, device=grid.device)
        spread = _spread(one_each.reshape(cells, 1, *grid.shape[-2:]), size)
        padded = functional.pad(spread[:, 0], (1, 1, 1, 1))
        shares += [
            padded[:, y : y + size[0], x : x + size[1]].reshape(cells, -1)
            for y in range(3)
            for x in range(3)
        ]
    product: Tensor = torch.cat(values, 2) @ torch.cat(shares)
    return product.reshape(-1, outputs, *size)


class PyramidNet(nn.Module):
    """From normalised images (B, 3, S, S) to features at an eighth of their side, and logits.

    Args:
        classes: Number of structures P.

    Source:
        Zhao et al. Pyramid scene parsing network. CVPR 2017. https://arxiv.org/abs/1612.01105
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convbnrelu1_1 = _ConvNorm(3, 64, 3, stride=2)
        self.convbnrelu1_2 = _ConvNorm(64, 64, 3)
        self.convbnrelu1_3 = _ConvNorm(64, 128, 3)
        self.res_block2 = _Stage(3, 128, 64, 1, 1)
        self.res_block3 = _Stage(4, 256, 128, 2, 1)
        self.res_block4 = _Stage(23, 512, 256, 1, 2)
        self.res_block5 = _Stage(3, 1024, 512, 1, 4)
        self.pyramid_pooling = _Pyramid(2048, 512)
        self.cbr_final = _ConvNorm(4096, 512, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classification = nn.Conv2d(512, classes, 1)
        # A second head that only training used; here, so that state dicts of 1.5.7 fit both ways.
        self.convbnrelu4_aux = _ConvNorm(1024, 256, 3)
        self.aux_cls = nn.Conv2d(256, classes, 1)

    def maps(self, x: Tensor) -> Tensor:
        """Features (B, 512, S/8, S/8) of normalised images (B, 3, S, S)."""
        x = self.convbnrelu1_3(self.convbnrelu1_2(self.convbnrelu1_1(x)))
        x = functional.max_pool2d(x, 3, 2, 1)
        x = self.res_block5(self.res_block4(self.res_block3(self.res_block2(x))))
        layers = self._plain_layers
        if torch.is_grad_enabled() or layers is None:
            out: Tensor = self.cbr_final(self.pyramid_pooling(x))
            return out
        # Half the channels of this layer, the largest of all, come from the grids.
        first, *others = layers
        kernels: Tensor = first.weight
        own = x.shape[1]
        whole = functional.conv2d(x, kernels[:, :own], padding=1)
        whole = whole + _convolved(
            self.pyramid_pooling.coarse(x), kernels[:, own:], whole.shape[2:]
        )
        for layer in others:
            whole = layer(whole)
        return whole

    @property
    def _plain_layers(self) -> list[Any] | None:
        """The layers of `cbr_final`, unless others took their place or somebody listens to them."""
        unit = getattr(self.cbr_final, "cbr_unit", None)
        if not isinstance(unit, nn.Sequential) or type(unit[0]) is not nn.Conv2d:
            return None
        parts: list[nn.Module] = [self.cbr_final, unit, unit[0], self.pyramid_pooling]
        heard = any(part._forward_hooks or part._forward_pre_hooks for part in parts)
        return None if heard or type(self.pyramid_pooling) is not _Pyramid else list(unit)

    def logits(self, maps: Tensor, side: int) -> Tensor:
        """Logits (B, P, side, side) of features."""
        coarse = self.classification(self.dropout(maps))
        return functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, P, S, S) of normalised images (B, 3, S, S)."""
        return self.logits(self.maps(x), x.shape[-1])
