"""Chest X-ray Anatomy Segmentation (CXAS): 159 structures, for non-commercial use.

Example:
    >>> from torchxrayvision.baseline_models.chestx_anatomy import UNetResNet50
    >>> UNetResNet50.targets[:2], len(UNetResNet50.targets)
    (['spine', 'cervical spine'], 159)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, overload

import torch

from torchxrayvision.baseline_models.chestx_anatomy.net import Backbone, Head
from torchxrayvision.checkpoints import Checkpoint, state_dict_of
from torchxrayvision.errors import CheckpointError, ImageShapeError
from torchxrayvision.models import (
    Segmenter,
    imagenet_scale,
    load_weights,
    network_device,
    resolve_weights_argument,
)
from torchxrayvision.weights import UNetResNet50_Weights, Weights, WeightsEnum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from torchxrayvision.models import ResizeRoute

__all__ = ["TARGETS", "UNetResNet50", "UNetResNet50_Weights"]

TARGETS: Final = tuple(UNetResNet50_Weights.DEFAULT.value.targets)
"""The 159 structures, in the order of the outputs."""

_WRAPPERS: Final = ("module.", "model.", "net.")


def _names(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Names as the network has them; the authors' files and the repacked one differ in layers."""
    tensors = state_dict_of(checkpoint)
    while prefix := next((p for p in _WRAPPERS if all(n.startswith(p) for n in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
        if not tensors:
            raise CheckpointError(f"{checkpoint.path}: holds no tensors")
    return {_renamed(name): value for name, value in tensors.items()}


def _renamed(name: str) -> str:
    if name.startswith("backbone.") and not name.startswith("backbone.backbone."):
        return f"backbone.{name}"
    return name


class UNetResNet50(Segmenter):
    """Segments 159 structures at 512 x 512 pixels.

    The published weights may not be used commercially; loading them warns of it.

    Args:
        weights: True for the published ones, a name or entry, or False for an untrained network.
        cache_dir: Folder for downloaded weights; None for the usual one.
        resize_route: How inputs are brought to 512 x 512 pixels, see `XRayModel`.

    Attributes:
        threshold: Probability above which `segmentation_preds` holds a structure.

    Raises:
        UnknownNameError: If no such weights exist.
        RemoteError: If they cannot be fetched.
        CheckpointError: If their file holds other tensors.

    Warns:
        LicenseWarning: When the published weights are loaded.

    Example:
        >>> model = UNetResNet50(weights=False)
        >>> model.input_resolution, len(model.targets)
        (512, 159)

    Source:
        Seibold et al. Accurate fine-grained segmentation of human anatomy in radiographs via
        volumetric pseudo-labeling. 2023. https://arxiv.org/abs/2306.03934
    """

    targets = list(TARGETS)  # noqa: RUF012 - a list, as in 1.5.7
    takes_planes = True

    def __init__(
        self,
        weights: bool | str | Weights | WeightsEnum = True,
        cache_dir: str | None = None,
        *,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        default: Weights = UNetResNet50_Weights.DEFAULT.value
        entry = resolve_weights_argument(weights, default=default.name)
        facts = default if entry is None else entry
        super().__init__(
            targets=facts.targets,
            input_resolution=facts.input_resolution,
            resize_route=resize_route,
        )
        self.threshold = 0.5
        with network_device(entry):
            self.backbone = Backbone()
            self.head = Head(len(facts.targets))
        load_weights(self, self, entry, cache_dir=cache_dir, names=_names)
        self.eval()  # as in 1.5.7, also without weights

    def _last_layers(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.head.out, "conv"),)

    def _rescale(self, x: Tensor) -> Tensor:
        return imagenet_scale(x)

    def _maps(self, x: Tensor) -> Tensor:
        return self.head.maps(self.backbone(x))

    def _logits(self, maps: Tensor, side: int) -> Tensor:
        logits: Tensor = self.head(maps, side)
        return logits

    @overload
    def forward(self, x: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]: ...

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """Segment.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024]. Or, as the authors' program passes
                them, a dictionary with `"data"`: images (B, 3, S, S) in ImageNet's
                normalisation, which are neither resized nor rescaled.

        Returns:
            Logits, shape (B, 159, 512, 512): above 0 where a structure is likelier than not. For
            a dictionary another one: `"logits"`, `"segmentation_preds"` (bool), `"feats"` (B, 128,
            S/4, S/4) and `"data"`.

        Raises:
            ImageShapeError: If the shape is another, or the dictionary lacks `"data"`.
        """
        if isinstance(x, torch.Tensor):
            return super().forward(x)
        data = x.get("data")
        if data is None or data.dim() != 4 or data.shape[1] != 3 or data.shape[2] != data.shape[3]:
            found = sorted(x) if data is None else tuple(data.shape)
            msg = (
                f"expected a dictionary with 'data' of shape (B, 3, S, S), got {found}; "
                "pass a tensor (B, 1, S, S) in [-1024, 1024] to have it prepared"
            )
            raise ImageShapeError(msg)
        feats = self._maps(data)
        logits = self._logits(feats, data.shape[-1])
        preds = logits.sigmoid() > self.threshold
        return {"feats": feats, "logits": logits, "data": data, "segmentation_preds": preds}
