"""Race as recorded in the hospital, of the HITI laboratory at Emory University.

Example:
    >>> from torchxrayvision.baseline_models import emory_hiti
    >>> emory_hiti.RaceModel(weights=None).output_kind
    'log-probability'
"""

from __future__ import annotations

from typing import ClassVar, cast

from torch import nn

from torchxrayvision.baseline_models.published import ResidualClassifier, resnet34

__all__ = ["RaceModel"]


class RaceModel(ResidualClassifier):
    """Which of three recorded races a radiograph's patient belongs to, by a ResNet-34.

    Published to show that networks see what experts cannot, a source of hidden bias; not as a
    medical finding.

    The arguments are those of `PublishedClassifier`.

    Example:
        >>> probabilities = RaceModel(weights=None, output="probability")
        >>> round(probabilities(torch.full((1, 1, 64, 64), -1024.0)).sum().item(), 3)
        1.0

    Source:
        Gichoya et al. AI recognition of patient race in medical imaging: a modelling study. Lancet
        Digital Health 4, 2022. https://doi.org/10.1016/S2589-7500(22)00063-2
    """

    targets = ["Asian", "Black", "White"]  # noqa: RUF012 - a list, as in 1.5.7
    published: ClassVar = "emory_hiti-race-resnet34"
    side: ClassVar = 320
    kinds: ClassVar = ("log-probability", "probability", "logit")
    exclusive: ClassVar = True
    default_kind: ClassVar = "log-probability"
    label: ClassVar = "Emory-HITI-RaceModel-resnet34"

    def _network(self) -> nn.Module:
        network = resnet34(3)
        # The published head is the first layer of a pair whose second takes the logarithm.
        network.fc = nn.Sequential(nn.Linear(512, 3))
        return network

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""
        return cast("nn.Linear", cast("nn.Sequential", self.model.fc)[0])
