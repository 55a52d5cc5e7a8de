"""ResNet on one grey channel: that of the 512-pixel core weights, and small ones to train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import torch
from torch import Tensor, nn

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.models._base import XRayClassifier, default_targets
from torchxrayvision.models._input import standardize
from torchxrayvision.models._pretrained import apply_weights, resolve, split_width
from torchxrayvision.models._residual import BasicBlock, Bottleneck, ResidualNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models._input import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

__all__ = ["ResNet"]

_LAYERS: Final[dict[str, list[int]]] = {
    "resnet18": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
    "resnet50": [3, 4, 6, 3],
    "resnet101": [3, 4, 23, 3],
}
_SMALL: Final = ("resnet18", "resnet34")
_WIDTH: Final = 64  # channels after the first layer, as published


def _shape_of(architecture: str) -> tuple[str, int]:
    """Depth and width of a name such as `"resnet18-width32"`."""
    name, width = split_width(architecture, _WIDTH)
    if name not in _LAYERS or not width:
        raise UnknownNameError("ResNet", architecture, _LAYERS)
    return name, width


def _network(architecture: str, num_classes: int) -> ResidualNetwork:
    name, width = _shape_of(architecture)
    block = BasicBlock if name in _SMALL else Bottleneck
    return ResidualNetwork(block, _LAYERS[name], num_classes, in_channels=1, width=width)


class ResNet(XRayClassifier):
    """Residual network for grey radiographs; the network itself is `model`.

    The small ones, of 18 and 34 layers, are there to be trained on few images from several places:
    they bring every image to mean 0 and standard deviation 1 first, so that exposure and window do
    not matter.

    Args:
        weights: Published weights by name, alias or enum member; None for an untrained network.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        cache_dir: Folder for downloaded weights; None for the usual one.
        architecture: `"resnet18"`, `"resnet34"`, `"resnet50"` or `"resnet101"`, for an untrained
            network; `"resnet18-width32"` has 32 channels after the first layer instead of 64, and
            so half of all channels.
        num_classes: Number of outputs P, for an untrained network.
        op_threshs: Operating points, shape (P,); None takes those of the weights.
        output: What `forward` gives by default; None decides as 1.5.7 does.
        compat: `"xrv-1.5"` takes the operating points of 1.5.7, which were computed on a sigmoid
            applied twice. The default is their logit, the point that was meant.
        resize_route: How inputs are brought to the trained resolution, see `XRayClassifier`.

    Raises:
        UnknownNameError: If no such weights or architecture exist.
        RemoteError: If they cannot be fetched.

    Example:
        >>> model = ResNet(num_classes=3)
        >>> model.embed(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 2048])

    Source:
        He et al. Deep residual learning for image recognition. CVPR 2016.
        https://arxiv.org/abs/1512.03385
    """

    architecture = "ResNet"
    # Of the class, as in 1.5.7; each network has its own.
    targets = list(DEFAULT_PATHOLOGIES)  # noqa: RUF012 - a list there

    def __init__(
        self,
        weights: str | Weights | WeightsEnum | None = None,
        apply_sigmoid: bool = False,
        cache_dir: str | None = None,
        *,
        architecture: str = "resnet50",
        num_classes: int = 18,
        op_threshs: Tensor | Sequence[float] | None = None,
        output: str | None = None,
        compat: str | None = None,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        entry = None if weights is None else resolve(weights, "resnet")
        if entry is not None:
            architecture, num_classes = entry.architecture, len(entry.targets)
        super().__init__(
            targets=default_targets(num_classes),
            input_resolution=None,
            op_threshs=op_threshs,
            apply_sigmoid=apply_sigmoid,
            resize_route=resize_route,
            output=output,
        )
        with torch.device("meta" if entry is not None else torch.get_default_device()):
            self.model = _network(architecture, num_classes)
        self._standardize = _shape_of(architecture)[0] in _SMALL
        if entry is not None:
            apply_weights(self, self.model, entry, cache_dir=cache_dir, compat=compat)

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""
        return cast("nn.Linear", self.model.fc)

    def _replace_head(self, layer: nn.Linear) -> None:
        self.model.fc = layer

    @property
    def _channels(self) -> int:
        channels: int = getattr(self.model.conv1, "in_channels", 1)
        return channels

    def _rescale(self, x: Tensor) -> Tensor:
        return standardize(x) if self._standardize else x

    def _embed(self, x: Tensor) -> Tensor:
        return self.model.pooled(x)

    def features(self, x: Tensor) -> Tensor:
        """Pooled features, under the name of 1.5.7; the same as `embed`.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, D); D is 2048 for 50 layers and more, 512 for fewer, at the usual width.
        """
        return self.embed(x)

    features2 = features
