"""Fourteen structures in chest radiographs: the network of the ChestX-Det dataset.

Example:
    >>> from torchxrayvision.baseline_models.chestx_det import PSPNet
    >>> PSPNet.targets[:3]
    ['Left Clavicle', 'Right Clavicle', 'Left Scapula']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchxrayvision.baseline_models.chestx_det.net import PyramidNet
from torchxrayvision.models import (
    Segmenter,
    imagenet_scale,
    imagenet_standardize,
    load_weights,
    network_device,
    register_stand_ins,
    resolve_weights_argument,
)
from torchxrayvision.weights import PSPNet_Weights, Weights, WeightsEnum

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchxrayvision.models import ResizeRoute

__all__ = ["PSPNet", "PSPNet_Weights"]

pspnet = PyramidNet  # under this name in 1.5.7
_PTSEMSEG = f"{__name__}.ptsemseg"
register_stand_ins(_PTSEMSEG, f"{_PTSEMSEG}.pspnet", f"{_PTSEMSEG}.utils", pspnet=PyramidNet)


class PSPNet(Segmenter):
    """Segments 14 structures at 512 x 512 pixels; the network itself is `model`.

    Unlike in 1.5.7 the model is in evaluation mode from the start; `train()` changes that.

    Args:
        cache_dir: Folder for downloaded weights; None for the usual one.
        weights: True for the published ones, a name or entry, or False for an untrained network.
        resize_route: How inputs are brought to 512 x 512 pixels, see `XRayModel`.

    Raises:
        UnknownNameError: If no such weights exist.
        RemoteError: If they cannot be fetched.
        CheckpointError: If their file holds other tensors.

    Example:
        >>> model = PSPNet(weights=False)
        >>> model.input_resolution, len(model.targets)
        (512, 14)

    Source:
        Lian et al. A structure-aware relation network for thoracic diseases detection and
        segmentation. IEEE TMI 2021. https://arxiv.org/abs/2104.10326
    """

    targets = list(PSPNet_Weights.DEFAULT.value.targets)  # noqa: RUF012 - a list, as in 1.5.7
    takes_planes = True

    def __init__(
        self,
        cache_dir: str | None = None,
        *,
        weights: bool | str | Weights | WeightsEnum = True,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        default: Weights = PSPNet_Weights.DEFAULT.value
        entry = resolve_weights_argument(weights, default=default.name)
        facts = default if entry is None else entry
        super().__init__(
            targets=facts.targets,
            input_resolution=facts.input_resolution,
            resize_route=resize_route,
        )
        with network_device(entry):
            self.model = PyramidNet(len(facts.targets))
        load_weights(self, self.model, entry, cache_dir=cache_dir)
        self.eval()  # a grid of one cell cannot be normalised over a batch of one

    @staticmethod
    def transform(x: Tensor) -> Tensor:
        """Standardise three channels in [0, 1] as ImageNet is; under this name in 1.5.7.

        Args:
            x: Shape (B, 3, S, S) or (3, S, S).

        Returns:
            The same shape.
        """
        return imagenet_standardize(x)

    def _last_layers(self) -> tuple[tuple[nn.Module, str], ...]:
        return (self.model, "classification"), (self.model, "aux_cls")

    def _rescale(self, x: Tensor) -> Tensor:
        return imagenet_scale(x)

    def _maps(self, x: Tensor) -> Tensor:
        return self.model.maps(x)

    def _logits(self, maps: Tensor, side: int) -> Tensor:
        return self.model.logits(maps, side)
