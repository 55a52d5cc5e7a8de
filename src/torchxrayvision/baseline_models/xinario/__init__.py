"""Frontal or lateral: the view classifier of chestViewSplit.

Example:
    >>> from torchxrayvision.baseline_models import xinario
    >>> xinario.ViewModel(weights=None).targets
    ['Frontal', 'Lateral']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from torchxrayvision.baseline_models.backbones import resnet50
from torchxrayvision.checkpoints import state_dict_of
from torchxrayvision.models import (
    XRayClassifier,
    imagenet_scale,
    load_weights,
    network_device,
    resolve_weights_argument,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models import ResizeRoute
    from torchxrayvision.weights import Weights, WeightsEnum

__all__ = ["ViewModel"]

WEIGHTS = "xinario-view-resnet50"
_IMAGENET_CLASSES = 1000


class ViewModel(XRayClassifier):
    """Whether a radiograph is frontal or lateral, by a ResNet-50 on 224 pixels.

    The published file kept the 1000 outputs of ImageNet, of which the first two were trained; the
    others are left out here.

    Args:
        weights: True for the published weights, False or None for an untrained network, or an
            entry, enum member or name of weights for this network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        output: What `forward` gives by default: `"logit"` (as in 1.5.7) or `"probability"`, in
            which the two views are weighed against each other only.
        resize_route: How inputs are brought to 224 pixels, see `XRayModel`.

    Raises:
        UnknownNameError: If no such weights or output exist.
        RemoteError: If the weights cannot be fetched.
        CheckpointError: If the file holds other tensors.

    Example:
        >>> ViewModel(weights=None)(torch.full((3, 1, 64, 64), -1024.0)).shape
        torch.Size([3, 2])

    Source:
        https://github.com/xinario/chestViewSplit
    """

    targets = ["Frontal", "Lateral"]  # noqa: RUF012 - a list, as in 1.5.7
    kinds: ClassVar = ("logit", "probability")
    exclusive: ClassVar = True
    predicted_kind: ClassVar = "probability"
    takes_planes: ClassVar = True
    label: ClassVar = "xinario-view-prediction"

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
            input_resolution=224,
            output=output,
            resize_route=resize_route,
        )
        with network_device(entry):
            self.model = resnet50(2)
        load_weights(self, self.model, entry, cache_dir=cache_dir, names=_names)

    def _rescale(self, x: Tensor) -> Tensor:
        return imagenet_scale(x)

    def _embed(self, x: Tensor) -> Tensor:
        return self.model.pooled(x)

    @property
    def head(self) -> nn.Linear:
        """The last layer, from embeddings to logits."""
        return cast("nn.Linear", self.model.fc)


def _names(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Those of the file, with the two outputs of its head that were trained."""
    tensors = state_dict_of(checkpoint)
    for name in ("fc.weight", "fc.bias"):
        if name in tensors and tensors[name].shape[:1] == (_IMAGENET_CLASSES,):
            tensors[name] = tensors[name][:2].clone()
    return tensors
