"""Sex from a chest radiograph, of the group for medical image analysis at Imperial College.

Example:
    >>> from torchxrayvision.baseline_models import mira
    >>> mira.SexModel(weights=False).targets
    ['Male', 'Female']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torchxrayvision.baseline_models.published import ResidualClassifier, resnet34
from torchxrayvision.checkpoints import state_dict_of, strip_prefix

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint

__all__ = ["SexModel"]


class SexModel(ResidualClassifier):
    """Whether a radiograph looks like that of a man or of a woman, by a ResNet-34.

    Published to show that networks see such attributes, not as a medical finding.

    The arguments are those of `PublishedClassifier`.

    Example:
        >>> model = SexModel(weights=False)
        >>> model.embed(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 512])

    Source:
        Glocker et al. Algorithmic encoding of protected characteristics in chest X-ray disease
        detection models. eBioMedicine 89, 2023. https://doi.org/10.1016/j.ebiom.2023.104467
    """

    targets = ["Male", "Female"]  # noqa: RUF012 - a list, as in 1.5.7
    published: ClassVar = "mira-sex-resnet34"
    side: ClassVar = 224
    kinds: ClassVar = ("logit", "probability")
    exclusive: ClassVar = True
    label: ClassVar = "MIRA-SexModel-resnet34"

    def _network(self) -> nn.Module:
        return resnet34(2)

    def _names(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        # Those of the network, which is the attribute `model` of what Lightning trained.
        return strip_prefix(state_dict_of(checkpoint), "model.")

    def _rescale(self, x: Tensor) -> Tensor:
        return ((x + 1024) / 2048 * 255).expand(-1, 3, -1, -1)
