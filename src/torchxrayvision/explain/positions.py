"""Where on an image the positions of a map lie."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_WINDOWED: Final = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Axis:
    """One direction of a map: position `i` looks at the pixel `start + i * step` and around it."""

    start: float
    step: float

    def after(self, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
        """The axis of what a layer with that window gives."""
        first = dilation * (kernel - 1) / 2 - padding
        return Axis(self.start + self.step * first, self.step * stride)

    def resized(self, scale: float) -> Axis:
        """The axis in pixels of an image that many times as large."""
        return Axis((self.start + 0.5) * scale - 0.5, self.step * scale)


_PIXELS: Final = Axis(0.0, 1.0)


class Positions:
    """Where the positions of maps of each size lie, from the windows of the layers before.

    A window of 3 pixels that moves by 2 and is padded by 1 on both sides lies around pixels 0, 2,
    4 and so on: the positions of a ResNet's last map look at the upper left quarter of the cell
    that they get when the map is enlarged over the image, half a cell from its middle.
    """

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._axes: dict[tuple[int, int], tuple[Axis, Axis]] = {}

    def watch(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Learn from one layer that ran; a forward hook."""
        before, after = _size(inputs[0]), _size(output)
        if self._size is None:
            self._size = before
            self._axes[before] = (_PIXELS, _PIXELS)
        known = self._axes.get(before)
        if known is None or after in self._axes:
            return
        windows = zip(
            *(_pair(module, n) for n in ("kernel_size", "stride", "padding", "dilation")),
            strict=True,
        )
        down, across = (axis.after(*window) for axis, window in zip(known, windows, strict=True))
        self._axes[after] = (down, across)

    def axes(self, cells: tuple[int, int], size: tuple[int, int]) -> tuple[Axis, Axis]:
        """Both axes of a map, in pixels of the image.

        Args:
            cells: Height and width of the map.
            size: Those of the image, which the network may have resized.

        Returns:
            Down, across. Cells of equal size where a layer of another kind came between.
        """
        seen = self._size or size
        down, across = self._axes.get(cells) or (
            _equal(seen[0], cells[0]),
            _equal(seen[1], cells[1]),
        )
        return down.resized(size[0] / seen[0]), across.resized(size[1] / seen[1])

    def enlarged(self, heat: Tensor, size: tuple[int, int]) -> Tensor:
        """A map as large as the image, linear between positions.

        Args:
            heat: Shape (B, H, W).
            size: Height and width of the image.

        Returns:
            Shape (B, height, width); the outermost positions reach to the edges.
        """
        cells = _size(heat)
        grid = [
            # As `grid_sample` counts: cell i of n reaches from 2i / n - 1 to 2(i + 1) / n - 1.
            (2 * (torch.arange(side, device=heat.device) - axis.start) / axis.step + 1) / count - 1
            for axis, side, count in zip(self.axes(cells, size), size, cells, strict=True)
        ]
        down, across = torch.meshgrid(*grid, indexing="ij")
        places = torch.stack([across, down], dim=-1).to(heat.dtype).expand(len(heat), -1, -1, -1)
        sampled = functional.grid_sample(
            heat[:, None], places, padding_mode="border", align_corners=False
        )
        return sampled[:, 0]


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]


def _equal(side: int, count: int) -> Axis:
    step = side / count
    return Axis((step - 1) / 2, step)


def _pair(module: nn.Module, name: str) -> tuple[int, int]:
    value = getattr(module, name, 1)  # pools have no dilation, or one
    if isinstance(value, str):  # the padding of a convolution
        kernels, dilations = _pair(module, "kernel_size"), _pair(module, "dilation")
        same = [d * (k - 1) // 2 for k, d in zip(kernels, dilations, strict=True)]
        return (same[0], same[1]) if value == "same" else (0, 0)
    return (value, value) if isinstance(value, int) else (value[0], value[1])


@contextmanager
def located(model: nn.Module) -> Iterator[Positions]:
    """Learn where the positions of maps lie while the network runs.

    Args:
        model: The network; its hooks are as before afterwards.

    Yields:
        To be asked after the run.
    """
    positions = Positions()
    layers = [module for module in model.modules() if isinstance(module, _WINDOWED)]
    handles = [layer.register_forward_hook(positions.watch) for layer in layers]
    try:
        yield positions
    finally:
        for handle in handles:
            handle.remove()
