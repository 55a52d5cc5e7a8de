"""What the classifiers of other groups share: a set of published weights, and backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from torchxrayvision.checkpoints import state_dict_of
from torchxrayvision.models import (
    BasicBlock,
    Bottleneck,
    ResidualNetwork,
    XRayClassifier,
    dense_features,
    get_densenet_params,
    imagenet_scale,
    initialise,
    load_weights,
    network_device,
    resolve_weights_argument,
)

if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

_DEPTHS = (3, 4, 6, 3)  # of ResNet-34 and ResNet-50


class PublishedClassifier(XRayClassifier):
    """Base of the classifiers of which one set of weights is published; the network is `model`.

    Args:
        weights: True for the published weights, False or None for an untrained network, or an
            entry, enum member or name of weights for this network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        output: What `forward` gives by default, one of `kinds`; None for the first of them, which
            is that of 1.5.7.
        resize_route: How inputs are brought to `side` pixels, see `XRayModel`.

    Attributes:
        published: Name of the weights.
        side: Rows and columns of the images that the network was trained on.

    Raises:
        UnknownNameError: If no such weights or output exist.
        RemoteError: If the weights cannot be fetched.
        CheckpointError: If the file holds other tensors.
    """

    targets: list[str]
    published: ClassVar[str]
    side: ClassVar[int]
    predicted_kind: ClassVar = "probability"
    takes_planes: ClassVar = True

    def __init__(
        self,
        weights: bool | str | Weights | WeightsEnum | None = True,
        *,
        cache_dir: str | None = None,
        output: str | None = None,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        entry = resolve_weights_argument(weights, default=self.published)
        super().__init__(
            targets=self.targets,
            input_resolution=self.side,
            output=output,
            resize_route=resize_route,
        )
        with network_device(entry):
            self.model: Any = self._network()
        load_weights(self, self.model, entry, cache_dir=cache_dir, names=self._names)

    def _network(self) -> nn.Module:
        """The network with random tensors."""
        raise NotImplementedError

    def _names(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """The tensors of the published file under the names of the network."""
        return state_dict_of(checkpoint)

    def _rescale(self, x: Tensor) -> Tensor:
        return imagenet_scale(x)


class ResidualClassifier(PublishedClassifier):
    """Base of those that are a `ResidualNetwork`, whose last layer is `fc`."""

    def _embed(self, x: Tensor) -> Tensor:
        features: Tensor = self.model.pooled(x)
        return features

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""
        return cast("nn.Linear", self.model.fc)


def densenet121_features() -> nn.Sequential:
    """DenseNet-121 before its last ReLU, with random tensors; it gives 1,024 channels."""
    features = dense_features(**get_densenet_params("densenet121"), in_channels=3)
    initialise(features)
    return features


def resnet34(num_classes: int) -> ResidualNetwork:
    """ResNet-34 with random tensors, and so many outputs of the layer `fc`."""
    return ResidualNetwork(BasicBlock, _DEPTHS, num_classes)


def resnet50(num_classes: int) -> ResidualNetwork:
    """ResNet-50 with random tensors, and so many outputs of the layer `fc`."""
    return ResidualNetwork(Bottleneck, _DEPTHS, num_classes)
