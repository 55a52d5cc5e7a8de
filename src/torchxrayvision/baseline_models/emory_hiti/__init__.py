"""Race as recorded in the hospital, of the HITI laboratory at Emory University.

Example:
    >>> from torchxrayvision.baseline_models import emory_hiti
    >>> emory_hiti.RaceModel(weights=None).output_kind
    'log-probability'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from torch import nn

from torchxrayvision.baseline_models.backbones import resnet34
from torchxrayvision.models import (
    XRayClassifier,
    imagenet_scale,
    load_weights,
    network_device,
    resolve_weights_argument,
)

if TYPE_CHECKING:
    from torch import Tensor

    from torchxrayvision.models import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

__all__ = ["RaceModel"]

WEIGHTS = "emory_hiti-race-resnet34"


class RaceModel(XRayClassifier):
    """Which of three recorded races a radiograph's patient belongs to, by a ResNet-34.

    Published to show that networks see what experts cannot, a source of hidden bias; not as a
    medical finding.

    Args:
        weights: True for the published weights, False or None for an untrained network, or an
            entry, enum member or name of weights for this network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        output: What `forward` gives by default: `"log-probability"` (as in 1.5.7),
            `"probability"` or `"logit"`.
        resize_route: How inputs are brought to 320 pixels, see `XRayModel`.

    Raises:
        UnknownNameError: If no such weights or output exist.
        RemoteError: If the weights cannot be fetched.
        CheckpointError: If the file holds other tensors.

    Example:
        >>> probabilities = RaceModel(weights=None, output="probability")
        >>> round(probabilities(torch.full((1, 1, 64, 64), -1024.0)).sum().item(), 3)
        1.0

    Source:
        Gichoya et al. AI recognition of patient race in medical imaging: a modelling study. Lancet
        Digital Health 4, 2022. https://doi.org/10.1016/S2589-7500(22)00063-2
    """

    targets = ["Asian", "Black", "White"]  # noqa: RUF012 - a list, as in 1.5.7
    kinds: ClassVar = ("log-probability", "probability", "logit")
    exclusive: ClassVar = True
    default_kind: ClassVar = "log-probability"
    predicted_kind: ClassVar = "probability"
    takes_planes: ClassVar = True
    label: ClassVar = "Emory-HITI-RaceModel-resnet34"

    def __init__(
        self,
        *,
        weights: bool | str | Weights | WeightsEnum | None = True,
        cache_dir: str | None = None,
        output: str | None = None,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        entry = resolve_weights_argument(weights, default=WEIGHTS)
        super().__init__(
            targets=type(self).targets,
            input_resolution=320,
            output=output,
            resize_route=resize_route,
        )
        with network_device(entry):
            self.model = resnet34(3)
            # The published head is the first layer of a pair whose second takes the logarithm.
            self.model.fc = nn.Sequential(nn.Linear(512, 3))
        load_weights(self, self.model, entry, cache_dir=cache_dir)

    def _rescale(self, x: Tensor) -> Tensor:
        return imagenet_scale(x)

    def _embed(self, x: Tensor) -> Tensor:
        return self.model.pooled(x)

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""
        return cast("nn.Linear", cast("nn.Sequential", self.model.fc)[0])
