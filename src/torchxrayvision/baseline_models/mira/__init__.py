"""Sex from a chest radiograph, of the group for medical image analysis at Imperial College.

Example:
    >>> from torchxrayvision.baseline_models import mira
    >>> mira.SexModel(weights=False).targets
    ['Male', 'Female']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from torchxrayvision.baseline_models.backbones import resnet34
from torchxrayvision.checkpoints import state_dict_of, strip_prefix
from torchxrayvision.models import (
    XRayClassifier,
    load_weights,
    network_device,
    resolve_weights_argument,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

__all__ = ["SexModel"]

WEIGHTS = "mira-sex-resnet34"


class SexModel(XRayClassifier):
    """Whether a radiograph looks like that of a man or of a woman, by a ResNet-34.

    Published to show that networks see such attributes, not as a medical finding.

    Args:
        weights: True for the published weights, False or None for an untrained network, or an
            entry, enum member or name of weights for this network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        output: What `forward` gives by default: `"logit"` (as in 1.5.7) or `"probability"`.
        resize_route: How inputs are brought to 224 pixels, see `XRayModel`.

    Raises:
        UnknownNameError: If no such weights or output exist.
        RemoteError: If the weights cannot be fetched.
        CheckpointError: If the file holds other tensors.

    Example:
        >>> model = SexModel(weights=False)
        >>> model.embed(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 512])

    Source:
        Glocker et al. Algorithmic encoding of protected characteristics in chest X-ray disease
        detection models. eBioMedicine 89, 2023. https://doi.org/10.1016/j.ebiom.2023.104467
    """

    targets = ["Male", "Female"]  # noqa: RUF012 - a list, as in 1.5.7
    kinds: ClassVar = ("logit", "probability")
    exclusive: ClassVar = True
    predicted_kind: ClassVar = "probability"
    takes_planes: ClassVar = True
    label: ClassVar = "MIRA-SexModel-resnet34"

    def __init__(
        self,
        weights: bool | str | Weights | WeightsEnum | None = True,
        *,
        cache_dir: str | None = None,
        output: str | None = None,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        entry = resolve_weights_argument(weights, default=WEIGHTS)
        super().__init__(
            targets=type(self).targets,
            input_resolution=224,
            output=output,
            resize_route=resize_route,
        )
        with network_device(entry):
            self.model = resnet34(2)
        load_weights(self, self.model, entry, cache_dir=cache_dir, names=_names)

    def _rescale(self, x: Tensor) -> Tensor:
        return ((x + 1024) / 2048 * 255).expand(-1, 3, -1, -1)

    def _embed(self, x: Tensor) -> Tensor:
        return self.model.pooled(x)

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""
        return cast("nn.Linear", self.model.fc)


def _names(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Those of the network, which is the attribute `model` of what Lightning trained."""
    return strip_prefix(state_dict_of(checkpoint), "model.")
