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

from torchxrayvision.baseline_models.riken.names import head_for, own_names
from torchxrayvision.baseline_models.riken.net import LAYERS, Network, concat_head
from torchxrayvision.models import (
    XRayClassifier,
    imagenet_scale,
    load_weights,
    network_device,
    resolve_weights_argument,
)

if TYPE_CHECKING:
    from torch import Tensor

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

__all__ = ["AgeModel"]

WEIGHTS = "riken-age-senet154"


class AgeModel(XRayClassifier):
    """Age in years by a SENet-154 with 113 million parameters, on 320 pixels.

    The published file is a TorchScript archive, a program; only its tensors are read, and put into
    the network of this package.

    Args:
        weights: True for the published weights, False or None for an untrained network, or an
            entry, enum member or name of weights for this network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        output: What `forward` gives; `"years"` is all there is.
        resize_route: How inputs are brought to 320 pixels, see `XRayModel`.

    Raises:
        UnknownNameError: If no such weights or output exist.
        RemoteError: If the weights cannot be fetched.
        CheckpointError: If the file holds other tensors.

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
    kinds: ClassVar = ("years",)
    raw_kind: ClassVar = "years"
    default_kind: ClassVar = "years"
    predicted_kind: ClassVar = "years"
    takes_planes: ClassVar = True
    label: ClassVar = "riken-age-prediction"

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
            self.model = Network(LAYERS, concat_head(512))
        load_weights(self, self.model, entry, cache_dir=cache_dir, names=self._names)

    def _names(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        # Not state_dict_of: every tensor of the archive belongs to the network.
        with torch.device("meta"):
            self.model.head = head_for(checkpoint.tensors)
        return own_names(checkpoint.tensors, self.model)

    def _rescale(self, x: Tensor) -> Tensor:
        return imagenet_scale(x)

    def _embed(self, x: Tensor) -> Tensor:
        return self.model.pool(x)

    def _last(self, features: Tensor) -> Tensor:
        years: Tensor = self.model.head(features)
        return years

    @property
    def features_width(self) -> int:
        """Number of features that `embed` gives, D."""
        first = next(m for m in self.model.head if isinstance(m, nn.Linear | nn.BatchNorm1d))
        return first.in_features if isinstance(first, nn.Linear) else first.num_features
