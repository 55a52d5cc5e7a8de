"""Five findings of CheXpert, by the network of JF Healthcare.

Example:
    >>> from torchxrayvision.baseline_models import jfhealthcare
    >>> jfhealthcare.DenseNet(weights=None).targets[:2]
    ['Cardiomegaly', 'Edema']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from torchxrayvision.baseline_models.jfhealthcare.net import Network
from torchxrayvision.checkpoints import state_dict_of
from torchxrayvision.models import (
    XRayClassifier,
    load_weights,
    network_device,
    register_stand_ins,
    resolve_weights_argument,
)

if TYPE_CHECKING:
    from torch import Tensor

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

__all__ = ["DenseNet"]

WEIGHTS = "jfhealthcare-densenet121"
# Layers of the published file that no output depends on.
_UNUSED = (
    "backbone.classifier.",
    "attention_map.channel_attention.",
    "attention_map.spatial_attention.",
)


register_stand_ins(f"{__name__}.model", f"{__name__}.model.classifier", Classifier=Network)


class DenseNet(XRayClassifier):
    """Five findings by a DenseNet-121 with attention, trained on CheXpert, on 512 pixels.

    The five heads look at maps that went through the attention one to five times, in the order of
    the targets.

    Args:
        apply_sigmoid: Whether `forward` gives probabilities by default, or logits.
        weights: True for the published weights, False or None for an untrained network, or an
            entry, enum member or name of weights for this network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        output: What `forward` gives by default, `"probability"` or `"logit"`; None leaves it to
            `apply_sigmoid`.
        resize_route: How inputs are brought to 512 pixels, see `XRayModel`.

    Raises:
        UnknownNameError: If no such weights or output exist.
        RemoteError: If the weights cannot be fetched.
        CheckpointError: If the file holds other tensors.

    Example:
        >>> model = DenseNet(weights=None, apply_sigmoid=False)
        >>> model.output_kind
        'logit'

    Source:
        Ye et al. Weakly supervised lesion localization with probabilistic-CAM pooling. 2020.
        https://arxiv.org/abs/2005.14480. The published network pools mean and maximum.
    """

    targets = ["Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Effusion"]  # noqa: RUF012 - a list, as in 1.5.7
    kinds: ClassVar = ("probability", "logit")
    predicted_kind: ClassVar = "probability"
    takes_planes: ClassVar = True
    label: ClassVar = "jfhealthcare-DenseNet121"

    def __init__(
        self,
        apply_sigmoid: bool = True,
        *,
        weights: bool | str | Weights | WeightsEnum | None = True,
        cache_dir: str | None = None,
        output: str | None = None,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        entry = resolve_weights_argument(weights, default=WEIGHTS)
        super().__init__(
            targets=type(self).targets,
            input_resolution=512,
            output=output,
            apply_sigmoid=apply_sigmoid,
            resize_route=resize_route,
        )
        with network_device(entry):
            self.model = Network(len(self.targets))
        load_weights(self, self.model, entry, cache_dir=cache_dir, names=_names)

    def _rescale(self, x: Tensor) -> Tensor:
        return (x / 512).expand(-1, 3, -1, -1)

    def _embed(self, x: Tensor) -> Tensor:
        return torch.cat(self.model.pool(x), 1).flatten(1)

    def embed(self, x: Tensor) -> Tensor:
        """Pooled features of the five heads, one after the other.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, 5 * 2048); 1024 means and 1024 maxima for each head.
        """
        return super().embed(x)

    @property
    def features_width(self) -> int:
        """Number of features that `embed` gives, D."""
        return self.model.heads * self.model.width

    def _last(self, features: Tensor) -> Tensor:
        return self.model.logits(list(features[..., None, None].chunk(self.model.heads, 1)))


def _names(checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = state_dict_of(checkpoint)
    return {name: value for name, value in tensors.items() if not name.startswith(_UNUSED)}
