"""DenseNet on one grey channel: the architecture of seven of the eight core weights.

The layers have the names of the published tensors. torchvision has them too, but importing it loads
the compiler of torch: two seconds, of the six that a command takes for one image.

Source: Huang et al. Densely connected convolutional networks. CVPR 2017, section 3 and table 1.
https://arxiv.org/abs/1608.06993
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.models.base import XRayClassifier, default_targets, draw_convolutions
from torchxrayvision.models.compat import replaced_method
from torchxrayvision.models.loading import (
    load_core_weights,
    network_device,
    resolve_weights_argument,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models.scaling import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum


class Layer(nn.Sequential):
    """Adds channels to those that it is given (DenseNet-B: a 1 x 1 convolution, then 3 x 3).

    Args:
        channels: Channels of the input.
        growth: Channels that are added.
        bn_size: Channels between the two convolutions, in multiples of `growth`.
        drop_rate: Dropout of what is added.
    """

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
        """The input (B, C, H, W) with `growth` further channels."""
        new = self.conv1(self.relu1(self.norm1(x)))
        new = self.conv2(self.relu2(self.norm2(new)))
        if self.drop_rate:
            new = functional.dropout(new, self.drop_rate, training=self.training)
        return torch.cat([x, new], 1)


class Block(nn.Sequential):
    """Layers that each see the channels of all before them; the sizes are those of `Layer`."""

    def __init__(
        self, depth: int, channels: int, bn_size: int, growth: int, drop_rate: float
    ) -> None:
        super().__init__()
        for number in range(depth):
            layer = Layer(channels + number * growth, growth, bn_size, drop_rate)
            self.add_module(f"denselayer{number + 1}", layer)


class Transition(nn.Sequential):
    """Halves the side between two blocks, and takes fewer channels along."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(channels, outputs, kernel_size=1, bias=False)
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
        block = Block(depth, channels, bn_size, growth_rate, drop_rate)
        channels += depth * growth_rate
        features.add_module(f"denseblock{number}", block)
        if number < len(block_config):
            features.add_module(f"transition{number}", Transition(channels, channels // 2))
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


DENSENETS: Final[dict[str, dict[str, Any]]] = {
    "densenet121": {"growth_rate": 32, "block_config": (6, 12, 24, 16), "num_init_features": 64},
    "densenet161": {"growth_rate": 48, "block_config": (6, 12, 36, 24), "num_init_features": 96},
    "densenet169": {"growth_rate": 32, "block_config": (6, 12, 32, 32), "num_init_features": 64},
    "densenet201": {"growth_rate": 32, "block_config": (6, 12, 48, 32), "num_init_features": 64},
}


def get_densenet_params(arch: str) -> dict[str, Any]:
    """Sizes of a published DenseNet.

    Args:
        arch: `"densenet121"`, `"densenet161"`, `"densenet169"` or `"densenet201"`; `"densenet"` is
            the first.

    Returns:
        Keyword arguments of `DenseNet`: growth_rate, block_config, num_init_features.

    Raises:
        UnknownNameError: For any other name.

    Example:
        >>> get_densenet_params("densenet161")["growth_rate"]
        48

    Source:
        Huang et al. Densely connected convolutional networks. CVPR 2017, table 1.
    """
    name = "densenet121" if arch == "densenet" else arch
    if name not in DENSENETS:
        raise UnknownNameError("DenseNet", arch, DENSENETS)
    return dict(DENSENETS[name])


class DenseNet(XRayClassifier):
    """Densely connected network for grey radiographs.

    Args:
        growth_rate: Channels that each layer adds (k in the paper).
        block_config: Layers in each of the four blocks.
        num_init_features: Channels of the first convolution.
        bn_size: Factor of the bottleneck layers.
        drop_rate: Dropout after each layer.
        num_classes: Number of outputs P.
        in_channels: Channels of the images, each in [-1024, 1024].
        weights: Published weights by name, alias or enum member; None for an untrained network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        op_threshs: Operating points, shape (P,); None takes those of the weights.
        apply_sigmoid: Whether `forward` gives probabilities where there are no operating points.
        output: What `forward` gives by default; None decides as 1.5.7 does.
        compat: `"xrv-1.5"` takes operating points exactly as 1.5.7 has them.
        resize_route: How inputs are brought to the trained resolution, see `XRayClassifier`.

    Raises:
        UnknownNameError: If no such weights exist.
        RemoteError: If they cannot be fetched.
        ValueError: If `num_classes` is not the number of outputs that the weights have.

    Example:
        >>> model = DenseNet(num_classes=18)
        >>> model(torch.zeros(2, 1, 224, 224)).shape
        torch.Size([2, 18])

    Source:
        Huang et al. Densely connected convolutional networks. CVPR 2017.
        https://arxiv.org/abs/1608.06993
    """

    architecture = "DenseNet121"
    layers_of_157 = True
    # Of the class, as in 1.5.7; each network has its own.
    targets = list(DEFAULT_PATHOLOGIES)  # noqa: RUF012 - a list there

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: tuple[int, int, int, int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0,
        num_classes: int = 18,
        in_channels: int = 1,
        weights: str | Weights | WeightsEnum | None = None,
        cache_dir: str | None = None,
        op_threshs: Tensor | Sequence[float] | None = None,
        apply_sigmoid: bool = False,
        *,
        output: str | None = None,
        compat: str | None = None,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        entry = resolve_weights_argument(weights, family="densenet")
        if entry is not None:
            if num_classes not in (18, len(entry.targets)):
                msg = f"{entry.name} has {len(entry.targets)} outputs, num_classes={num_classes}"
                raise ValueError(f"{msg}: leave it out, then model.reset_classifier({num_classes})")
            sizes = get_densenet_params(entry.architecture)
            growth_rate, block_config = sizes["growth_rate"], sizes["block_config"]
            num_init_features, num_classes = sizes["num_init_features"], len(entry.targets)
        super().__init__(
            targets=default_targets(num_classes),
            input_resolution=None,
            op_threshs=op_threshs if entry is None else None,
            apply_sigmoid=apply_sigmoid,
            resize_route=resize_route,
            output=output,
        )
        with network_device(entry, compat):
            self.features = dense_features(
                growth_rate, block_config, num_init_features, bn_size, drop_rate,
                in_channels=in_channels,
            )  # fmt: skip
            last = cast("nn.BatchNorm2d", self.features[-1])
            self.classifier = nn.Linear(last.num_features, num_classes)
            initialise(self)
        if entry is not None:
            load_core_weights(
                self, self, entry, cache_dir=cache_dir, compat=compat, op_threshs=op_threshs
            )

    @property
    def _channels(self) -> int:
        first = next((m for m in self.features.modules() if isinstance(m, nn.Conv2d)), None)
        return 1 if first is None else first.in_channels

    def _embed(self, x: Tensor) -> Tensor:
        return pooled(self.features, x)

    def _pooled(self, x: Tensor) -> Tensor:
        # 1.5.7 computes through the method, which code for it replaces.
        replaced = replaced_method(self, "features2", _FEATURES2)
        return self._embed(x) if replaced is None else replaced(x)

    def features2(self, x: Tensor) -> Tensor:
        """Pooled features, under the name of 1.5.7; the same as `embed`.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, 1024) for DenseNet121.
        """
        return self.embed(x)


_FEATURES2: Final = DenseNet.features2


# Under these names 1.5.7 has them, and pickled whole modules name them.
_DenseBlock, _DenseLayer, _Transition = Block, Layer, Transition
