"""ResNet on one grey channel: that of the 512-pixel core weights, and small ones to train.

The layers have the names of the published tensors. No operation writes over its input, so what a
hook on a layer keeps, Grad-CAM's among them, stays what the layer gave. torchvision's do, and
importing it takes two seconds (see `densenet`).

Source: He et al. Deep residual learning for image recognition. CVPR 2016, section 3.3 and table 1.
https://arxiv.org/abs/1512.03385. The stride of a bottleneck is in its 3 x 3 convolution, where the
published tensors were trained with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final, cast

import torch.fx
from torch import Tensor, nn

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.models.base import XRayClassifier, default_targets, draw_convolutions
from torchxrayvision.models.loading import (
    load_core_weights,
    network_device,
    resolve_weights_argument,
    split_width,
)
from torchxrayvision.models.scaling import standardize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models.scaling import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

torch.fx.wrap("standardize")  # one step of a traced graph

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
    """Two 3 x 3 convolutions: the block of 18 and 34 layers; its stride shrinks the side."""

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
        """Features (B, channels, H, W), at half the side if the stride is 2."""
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        result: Tensor = self.relu(out + identity)
        return result


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1: the block of 50 layers and more.

    `channels` are those inside, a quarter of the output's.
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
        """Features (B, 4 x channels, H, W), at half the side if the stride is 2."""
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
            x = getattr(self, name)(x)  # torch 2.7 cannot export `get_submodule`
        result: Tensor = self.avgpool(x)
        return result.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, P) of prepared images (B, 1, R, R)."""
        logits: Tensor = self.fc(self.pooled(x))
        return logits


RESNETS: Final[dict[str, list[int]]] = {
    "resnet18": [2, 2, 2, 2],
    "resnet34": [3, 4, 6, 3],
    "resnet50": [3, 4, 6, 3],
    "resnet101": [3, 4, 23, 3],
}
SMALL: Final = ("resnet18", "resnet34")
WIDTH: Final = 64  # channels after the first layer, as published


def _shape_of(architecture: str) -> tuple[str, int]:
    """Depth and width of a name such as `"resnet18-width32"`."""
    name, width = split_width(architecture, WIDTH)
    if name not in RESNETS or not width:
        raise UnknownNameError("ResNet", architecture, RESNETS)
    return name, width


def _network(architecture: str, num_classes: int) -> ResidualNetwork:
    name, width = _shape_of(architecture)
    block = BasicBlock if name in SMALL else Bottleneck
    return ResidualNetwork(block, RESNETS[name], num_classes, in_channels=1, width=width)


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
        entry = resolve_weights_argument(weights, family="resnet")
        if entry is not None:
            architecture, num_classes = entry.architecture, len(entry.targets)
        super().__init__(
            targets=default_targets(num_classes),
            input_resolution=None,
            op_threshs=op_threshs if entry is None else None,
            apply_sigmoid=apply_sigmoid,
            resize_route=resize_route,
            output=output,
        )
        with network_device(entry, compat):
            self.model = _network(architecture, num_classes)
        self._standardize = _shape_of(architecture)[0] in SMALL
        if entry is not None:
            load_core_weights(
                self, self.model, entry, cache_dir=cache_dir, compat=compat, op_threshs=op_threshs
            )

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
