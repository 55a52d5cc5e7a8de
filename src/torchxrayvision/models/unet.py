"""Networks that outline what lies in a radiograph: the base of all, and a compact U-Net."""

from __future__ import annotations

import abc
import itertools
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.models.base import Prediction, XRayModel
from torchxrayvision.models.loading import (
    load_weights,
    network_device,
    resolve_weights_argument,
    split_width,
)
from torchxrayvision.models.scaling import standardize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models.scaling import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum


class Segmenter(XRayModel):
    """Base of the networks with a map of logits for each structure.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S. Output is (B, P, R, R),
    one map for each of the P targets at the resolution R of the network; structures overlap, so
    each has a probability of its own.
    """

    @abc.abstractmethod
    def _maps(self, x: Tensor) -> Tensor:
        """The last features (B, D, H, W) of a prepared input."""

    @abc.abstractmethod
    def _logits(self, maps: Tensor, side: int) -> Tensor:
        """Logits (B, P, side, side) from the last features."""

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Logits, shape (B, P, R, R): above 0 where a structure is likelier than not.
        """
        prepared = self.prepare(x)
        return self._logits(self._maps(prepared), prepared.shape[-1])

    def _embed(self, x: Tensor) -> Tensor:
        return self._maps(x).mean((2, 3))

    def _last_layers(self) -> tuple[tuple[nn.Module, str], ...]:
        """The convolutions that have a channel per structure: what holds each, and its name."""
        raise NotImplementedError(f"{type(self).__name__} does not say which layer is its last")

    def reset_outputs(self, targets: Sequence[str]) -> None:
        """Put fresh last layers in place, to train on other structures.

        Args:
            targets: Names of the structures.

        Example:
            >>> model = UNet(targets=["Heart"], width=4)
            >>> model.reset_outputs(["Left Lung", "Right Lung"])
            >>> model(torch.zeros(1, 1, 64, 64)).shape
            torch.Size([1, 2, 64, 64])
        """
        for holder, name in self._last_layers():
            old: nn.Conv2d = getattr(holder, name)
            fresh = nn.Conv2d(
                old.in_channels, len(targets), old.kernel_size[0], bias=old.bias is not None,
                device=old.weight.device, dtype=old.weight.dtype,
            )  # fmt: skip
            setattr(holder, name, fresh)
        self.targets = list(targets)

    def predict(self, x: Tensor) -> Prediction:
        """Probability of each structure in each pixel.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Structure to its map, shape (B, R, R) at the resolution R of the network, in [0, 1];
            nothing if the network is untrained.
        """
        if self.weights is None:
            return Prediction("mask")
        maps = Segmenter.forward(self, x).sigmoid()
        return Prediction("mask", dict(zip(self.targets, maps.unbind(1), strict=True)))


_WIDTH: Final = 16
_GROWTH: Final = (1, 2, 4, 8, 8)  # channels of the levels, in widths
_STRIDE: Final = 2 ** len(_GROWTH)  # from a pixel of the input to one of the deepest level


def _twice(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Two convolutions, each normalised and rectified; the first may halve the picture."""
    layers: list[nn.Module] = []
    for channels, step in ((inputs, stride), (outputs, 1)):
        layers += [
            nn.Conv2d(channels, outputs, 3, step, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class _Net(nn.Module):
    """Levels at half the side of the image and below; the logits are brought to the full side."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        sizes = [width * g for g in _GROWTH]
        self.down = nn.ModuleList(
            _twice(a, b, stride=2) for a, b in itertools.pairwise([1, *sizes])
        )
        below = sizes[::-1]
        self.up = nn.ModuleList(_twice(a + b, b) for a, b in itertools.pairwise(below))
        self.last = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for level in self.down:
            x = level(x)
            seen.append(x)
        for level, skip in zip(self.up, seen[-2::-1], strict=True):
            x = level(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))
        return x


class UNet(Segmenter):
    """Compact U-Net: five levels, the first at half the side of the image; the network is `model`.

    It brings every image to mean 0 and standard deviation 1 first, so that exposure and window do
    not matter, and pads it to a side that halves five times.

    Args:
        weights: Published weights by name, alias or enum member; None for an untrained network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        targets: Names of the structures, for an untrained network.
        width: Channels of the first level, for an untrained network.
        resize_route: How inputs are brought to the trained resolution, see `XRayModel`.

    Raises:
        UnknownNameError: If no such weights exist, or they are of another network.
        RemoteError: If they cannot be fetched.

    Example:
        >>> model = UNet(targets=["Left Lung", "Right Lung"], width=4)
        >>> model(torch.full((1, 1, 64, 64), -1024.0)).shape
        torch.Size([1, 2, 64, 64])

    Source:
        Ronneberger et al. U-Net: convolutional networks for biomedical image segmentation.
        MICCAI 2015. https://arxiv.org/abs/1505.04597
    """

    def __init__(
        self,
        weights: str | Weights | WeightsEnum | None = None,
        cache_dir: str | None = None,
        *,
        targets: Sequence[str] = (),
        width: int = _WIDTH,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        entry = resolve_weights_argument(weights, family="unet")
        if entry is not None:
            name, width = split_width(entry.architecture, _WIDTH)
            if name != "unet":
                raise UnknownNameError("compact U-Net weights", entry.name, ["demo-anatomy"])
            targets = entry.targets
        super().__init__(
            targets=targets,
            input_resolution=None if entry is None else entry.input_resolution,
            resize_route=resize_route,
        )
        with network_device(entry):
            self.model: Any = _Net(width, len(self.targets))
        load_weights(self, self.model, entry, cache_dir=cache_dir)

    def _last_layers(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.model, "last"),)

    def _rescale(self, x: Tensor) -> Tensor:
        return standardize(x)

    def _maps(self, x: Tensor) -> Tensor:
        missing = -x.shape[-1] % _STRIDE
        maps: Tensor = self.model(functional.pad(x, (0, missing, 0, missing)))
        return maps

    def _logits(self, maps: Tensor, side: int) -> Tensor:
        logits = self.model.last(maps)
        whole = functional.interpolate(logits, scale_factor=2.0, mode="bilinear")
        return whole[:, :, :side, :side]
