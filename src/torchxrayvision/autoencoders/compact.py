"""A small autoencoder, for one processor and for a thumbnail of each image."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from torch import nn
from torch.nn import functional

from torchxrayvision.autoencoders.base import Autoencoder

if TYPE_CHECKING:
    from torch import Tensor

LIMITS: Final = {"width": 256, "code": 512, "levels": 7, "dense": 4096, "input_resolution": 1024}
"""The largest value of each argument; the least is 1, of `dense` 0."""

_DEEPEST: Final = 4  # channels grow with the levels up to so many widths


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class CompactAE(Autoencoder):
    """Convolutional autoencoder in which no convolution sees the full side of the image.

    Four neighbouring pixels become the channels of one place, on the way in and on the way out;
    every further level halves the side. A projection to `code` channels is the bottleneck: a code
    for each place, by which many kinds of images can be drawn. With `dense` all places together
    are projected to so many numbers, which only draw images like those of the training. Images of
    another size are resized to the resolution of the network.

    Args:
        width: Channels of the first level; the next have two and four times as many.
        code: Channels of the code.
        levels: How often the side is halved.
        dense: Numbers of a code for the whole image; 0 for a code of each place.
        input_resolution: Side in pixels, a multiple of 2 to the power of `levels`.

    Raises:
        ValueError: If an argument is out of its range, or the side does not halve so often.

    Example:
        >>> import torch
        >>> model = CompactAE(width=4, code=2, levels=3, input_resolution=32)
        >>> result = model(torch.zeros(1, 1, 32, 32))
        >>> result["z"].shape, result["out"].shape
        (torch.Size([1, 2, 4, 4]), torch.Size([1, 1, 32, 32]))
    """

    def __init__(
        self,
        *,
        width: int = 16,
        code: int = 16,
        levels: int = 4,
        dense: int = 0,
        input_resolution: int = 64,
    ) -> None:
        shape: dict[str, Any] = {
            "width": width, "code": code, "levels": levels, "dense": dense,
        }  # fmt: skip
        for name, value in {**shape, "input_resolution": input_resolution}.items():
            least = int(name != "dense")
            if type(value) is not int or not least <= value <= LIMITS[name]:
                msg = f"CompactAE: {name} is a whole number from {least} to {LIMITS[name]}, "
                msg += f"got {value!r}"
                raise ValueError(msg)
        if input_resolution % 2**levels:
            msg = f"CompactAE: a side of {input_resolution} pixels cannot be halved {levels} times"
            raise ValueError(f"{msg}; choose a multiple of {2**levels}, or fewer levels")
        super().__init__(targets=["Reconstruction"], input_resolution=input_resolution)
        self.architecture = "autoencoder-compact"
        self._arguments = shape
        sizes = [width * min(2**level, _DEEPEST) for level in range(levels)]
        self.inside = _layer(4, sizes[0])
        self.down = nn.Sequential(*(_layer(a, b, 2) for a, b in itertools.pairwise(sizes)))
        self.to_code = nn.Conv2d(sizes[-1], code, 1)
        cells = input_resolution // 2**levels
        self.to_dense = nn.Linear(code * cells**2, dense) if dense else None
        self.from_dense = nn.Linear(dense, code * cells**2) if dense else None
        self._places = (code, cells, cells)
        self.from_code = _layer(code, sizes[-1])
        above = sizes[::-1]
        self.up = nn.ModuleList(_layer(a, b) for a, b in itertools.pairwise(above))
        self.outside = nn.Conv2d(sizes[0], 4, 3, padding=1)

    @property
    def arguments(self) -> dict[str, Any]:
        """Width, code, levels and dense."""
        return dict(self._arguments)

    def _rescale(self, x: Tensor) -> Tensor:
        return x / 1024

    def _code(self, x: Tensor) -> Tensor:
        code: Tensor = self.to_code(self.down(self.inside(functional.pixel_unshuffle(x, 2))))
        if self.to_dense is None:
            return code
        whole: Tensor = self.to_dense(code.flatten(1))
        return whole[:, :, None, None]

    def _image(self, z: Tensor) -> Tensor:
        if self.from_dense is not None:
            z = self.from_dense(z.flatten(1)).unflatten(1, self._places)
        x = self.from_code(z)
        for level in self.up:
            x = level(functional.interpolate(x, scale_factor=2.0))
        return functional.pixel_shuffle(self.outside(x), 2) * 1024

    def _embed(self, x: Tensor) -> Tensor:
        # What stands where is most of what a code of so few channels says.
        return self._code(x).flatten(1)
