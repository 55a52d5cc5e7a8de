"""Age from a chest radiograph, of RIKEN.

Example:
    >>> from torchxrayvision.baseline_models import riken
    >>> riken.AgeModel.kinds
    ('years',)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from torchxrayvision.baseline_models.published import PublishedClassifier
from torchxrayvision.baseline_models.riken.names import head_for, own_names
from torchxrayvision.baseline_models.riken.net import LAYERS, Network, concat_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from torchxrayvision.checkpoints import Checkpoint

__all__ = ["AgeModel"]


class AgeModel(PublishedClassifier):
    """Age in years by a SENet-154 with 113 million parameters, on 320 pixels.

    The published file is a TorchScript archive, a program; only its tensors are read, and put into
    the network of this package.

    The arguments are those of `PublishedClassifier`.

    Example:
        >>> with torch.device("meta"):  # names and shapes only
        ...     model = AgeModel(weights=None)
        >>> model.model.layer3[35].conv2.groups
        64

    Source:
        Ieki et al. Deep learning-based age estimation from chest X-rays indicates cardiovascular
        prognosis. Communications Medicine 2, 159, 2022. https://doi.org/10.1038/s43856-022-00220-6
    """

    targets = ["Age"]  # noqa: RUF012 - a list, as in 1.5.7
    published: ClassVar = "riken-age-senet154"
    side: ClassVar = 320
    kinds: ClassVar = ("years",)
    raw_kind: ClassVar = "years"
    default_kind: ClassVar = "years"
    predicted_kind: ClassVar = "years"
    label: ClassVar = "riken-age-prediction"

    def _network(self) -> nn.Module:
        return Network(LAYERS, concat_head(512))

    def fit_to(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the head that tensors are for: fastai's usual one, or a plain layer.

        Args:
            tensors: By any names.
        """
        with torch.device("meta"):
            self.model.head = head_for(tensors)

    def _names(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        # Not state_dict_of: every tensor of the archive belongs to the network.
        self.fit_to(checkpoint.tensors)
        return own_names(checkpoint.tensors, self.model)

    def _embed(self, x: Tensor) -> Tensor:
        features: Tensor = self.model.pool(x)
        return features

    def _last(self, features: Tensor) -> Tensor:
        years: Tensor = self.model.head(features)
        return years

    @property
    def features_width(self) -> int:
        """Number of features that `embed` gives, D."""
        first = next(m for m in self.model.head if isinstance(m, nn.Linear | nn.BatchNorm1d))
        return first.in_features if isinstance(first, nn.Linear) else first.num_features
