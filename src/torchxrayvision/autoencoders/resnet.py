"""The residual autoencoder that has published weights."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from torchxrayvision.autoencoders.base import Autoencoder
from torchxrayvision.errors import UnknownNameError
from torchxrayvision.models import (
    load_weights,
    network_device,
    resolve_weights_argument,
)
from torchxrayvision.weights import ResNetAE_Weights, Weights, WeightsEnum

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCKS: Final[dict[str, tuple[int, int, int, int]]] = {
    "autoencoder-resnet50": (3, 4, 6, 3),
    "autoencoder-resnet101": (3, 4, 23, 2),
}
# Width inside the blocks of each stage, and its stride; the last leaves 3 x 3 of 14 x 14.
_WIDTHS: Final = (64, 128, 256, 128)
_STRIDES: Final = (1, 2, 2, 6)


class _Block(nn.Module):
    """Bottleneck: narrow, 3 x 3, widen; its sum is of two rectified maps, unlike He et al.'s."""

    def __init__(
        self, narrow: nn.Conv2d, middle: nn.Conv2d | nn.ConvTranspose2d, widen: nn.Conv2d
    ) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = narrow, middle, widen
        self.bn1 = nn.BatchNorm2d(narrow.out_channels)
        self.bn2 = nn.BatchNorm2d(middle.out_channels)
        self.bn3 = nn.BatchNorm2d(widen.out_channels)
        self.relu = nn.ReLU()

    def _shortcut(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.relu(self.bn3(self.conv3(out)))
        result: Tensor = self.relu(out + self._shortcut(x))
        return result


def _pointwise(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class Down(_Block):
    """A block that may halve the side."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, change: bool) -> None:
        middle = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        super().__init__(_pointwise(inputs, width), middle, _pointwise(width, outputs))
        self.downsample = (
            nn.Sequential(_pointwise(inputs, outputs, stride), nn.BatchNorm2d(outputs))
            if change
            else None
        )

    def _shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class Up(_Block):
    """A block that may enlarge the side."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int) -> None:
        # Several sizes shrink to the same one by the stride; one pixel more gives the right one.
        middle = (
            nn.ConvTranspose2d(width, width, 3, stride, padding=1, output_padding=1, bias=False)
            if stride > 1
            else nn.Conv2d(width, width, 3, padding=1, bias=False)
        )
        super().__init__(_pointwise(inputs, width), middle, _pointwise(width, outputs))
        self.upsample = (
            nn.Sequential(
                nn.ConvTranspose2d(inputs, outputs, 1, stride, output_padding=1, bias=False),
                nn.BatchNorm2d(outputs),
            )
            if stride > 1
            else None
        )

    def _shortcut(self, x: Tensor) -> Tensor:
        return x if self.upsample is None else self.upsample(x)


def _down_stage(inputs: int, width: int, blocks: int, stride: int) -> tuple[nn.Sequential, int]:
    outputs = 4 * width
    change = stride != 1 or inputs != outputs
    layers = [Down(inputs, width, outputs, stride, change)]
    layers += [Down(outputs, width, outputs, 1, False) for _ in range(blocks - 1)]
    return nn.Sequential(*layers), outputs


def _up_stage(inputs: int, blocks: int, stride: int) -> nn.Sequential:
    layers = [Up(inputs, inputs // 4, inputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(*layers, Up(inputs, inputs // 4, inputs // 2, stride))


class ResNetAE(Autoencoder):
    """Autoencoder of a ResNet and its mirror image: 224 x 224 pixels to 512 x 3 x 3 and back.

    As in 1.5.7, images of another size are refused with weights and taken as they are without, so
    that the reconstruction is compared with the image that was given.

    Args:
        weights: Published weights by name, alias or enum member; None for an untrained network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        architecture: `"autoencoder-resnet50"` or `"autoencoder-resnet101"`, for an untrained
            network.

    Raises:
        UnknownNameError: If no such weights or architecture exist.
        RemoteError: If they cannot be fetched.
        CheckpointError: If their file holds other tensors.

    Example:
        >>> model = ResNetAE()
        >>> result = model(torch.full((1, 1, 224, 224), -1024.0))
        >>> result["z"].shape, result["out"].shape
        (torch.Size([1, 512, 3, 3]), torch.Size([1, 1, 224, 224]))

    Source:
        Cohen et al. Gifsplanation via latent shift. MIDL 2021. https://arxiv.org/abs/2102.09475
    """

    resizes = False

    def __init__(
        self,
        weights: str | Weights | WeightsEnum | None = None,
        cache_dir: str | None = None,
        *,
        architecture: str = "autoencoder-resnet101",
    ) -> None:
        entry = resolve_weights_argument(weights, default="101-elastic", family="autoencoder")
        architecture = architecture if entry is None else entry.architecture
        if architecture not in BLOCKS:
            raise UnknownNameError("autoencoder", architecture, BLOCKS)
        super().__init__(
            targets=["Reconstruction"],
            input_resolution=None if entry is None else entry.input_resolution,
        )
        self.architecture = architecture
        with network_device(entry):
            self._build(BLOCKS[architecture])
        load_weights(self, self, entry, cache_dir=cache_dir)

    def _build(self, blocks: tuple[int, int, int, int]) -> None:
        self.conv1 = nn.Conv2d(1, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for stage, facts in enumerate(zip(_WIDTHS, blocks, _STRIDES, strict=True), start=1):
            layer, channels = _down_stage(channels, *facts)
            setattr(self, f"layer{stage}", layer)
        # The last stage of the way up doubles the side, as the pooling halved it on the way down.
        strides = (*reversed(_STRIDES[1:]), 2)
        for stage, (count, stride) in enumerate(zip(reversed(blocks), strides, strict=True), 1):
            setattr(self, f"uplayer{stage}", _up_stage(channels, count, stride))
            channels //= 2
        self.uplayer_top = Up(channels, 64, 64, 2)
        self.conv1_1 = nn.ConvTranspose2d(64, 1, 1, bias=False)

    @property
    def weights_metadata(self) -> Mapping[str, Any]:
        """The facts of the weights, under the name of 1.5.7; empty without weights."""
        return model_urls["101-elastic"] if self.weights is not None else {}

    @weights_metadata.setter
    def weights_metadata(self, facts: Mapping[str, Any]) -> None:
        self.input_resolution = facts["resolution"]

    def _code(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x

    def _embed(self, x: Tensor) -> Tensor:
        return self._code(x).mean((2, 3))

    def _image(self, z: Tensor) -> Tensor:
        for stage in range(1, 5):
            z = getattr(self, f"uplayer{stage}")(z)
        image: Tensor = self.conv1_1(self.uplayer_top(z))
        return image


def ResNetAE50() -> ResNetAE:  # noqa: N802 - public name of 1.5.7
    """An untrained autoencoder with the block counts of ResNet-50.

    Returns:
        The network.

    Example:
        >>> len(ResNetAE50().state_dict())
        655
    """
    return ResNetAE(architecture="autoencoder-resnet50")


def ResNetAE101() -> ResNetAE:  # noqa: N802 - public name of 1.5.7
    """An untrained autoencoder of the depth that has published weights.

    Returns:
        The network.

    Example:
        >>> len(ResNetAE101().state_dict())
        1231
    """
    return ResNetAE(architecture="autoencoder-resnet101")


def _urls() -> Mapping[str, Mapping[str, Any]]:
    entry: Weights = ResNetAE_Weights.ELASTIC_101.value
    facts = {
        "description": entry.description,
        "weights_url": entry.url,
        "image_range": [int(v) for v in entry.pixel_range],
        "resolution": entry.input_resolution,
        "class": "ResNetAE101",
    }
    return MappingProxyType({"101-elastic": MappingProxyType(facts)})


model_urls = _urls()
"""The published weights in the form that 1.5.7 has them; read-only."""
