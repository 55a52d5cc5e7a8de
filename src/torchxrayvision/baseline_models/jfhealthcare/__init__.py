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
from torchxrayvision.baseline_models.published import PublishedClassifier
from torchxrayvision.models import register_stand_ins

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

__all__ = ["DenseNet"]

# Layers of the published file that no output depends on.
_UNUSED = (
    "backbone.classifier.",
    "attention_map.channel_attention.",
    "attention_map.spatial_attention.",
)


register_stand_ins(f"{__name__}.model", f"{__name__}.model.classifier", Classifier=Network)


class DenseNet(PublishedClassifier):
    """Five findings by a DenseNet-121 with attention, trained on CheXpert, on 512 pixels.

    The five heads look at maps that went through the attention one to five times, in the order of
    the targets.

    Args:
        apply_sigmoid: Whether `forward` gives probabilities by default, or logits.
        weights: See `PublishedClassifier`; so are the arguments that follow.
        cache_dir: Folder for downloaded weights.
        output: What `forward` gives by default; None leaves it to `apply_sigmoid`.
        resize_route: How inputs are brought to 512 pixels.

    Example:
        >>> model = DenseNet(weights=None, apply_sigmoid=False)
        >>> model.output_kind
        'logit'

    Source:
        Ye et al. Weakly supervised lesion localization with probabilistic-CAM pooling. 2020.
        https://arxiv.org/abs/2005.14480. The published network pools mean and maximum.
    """

    targets = ["Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Effusion"]  # noqa: RUF012 - a list, as in 1.5.7
    published: ClassVar = "jfhealthcare-densenet121"
    side: ClassVar = 512
    kinds: ClassVar = ("probability", "logit")
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
        super().__init__(weights, cache_dir=cache_dir, output=output, resize_route=resize_route)
        self.apply_sigmoid = apply_sigmoid

    def _network(self) -> nn.Module:
        return Network(len(self.targets))

    def _names(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        tensors = super()._names(checkpoint)
        return {name: value for name, value in tensors.items() if not name.startswith(_UNUSED)}

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
        width: int = self.model.heads * self.model.width
        return width

    def _last(self, features: Tensor) -> Tensor:
        maps = features[..., None, None].chunk(self.model.heads, 1)
        logits: Tensor = self.model.logits(list(maps))
        return logits
