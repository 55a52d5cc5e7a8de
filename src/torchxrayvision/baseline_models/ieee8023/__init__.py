"""Radiographs as words of a learned codebook: VQGANs of the authors of TorchXRayVision.

Example:
    >>> from torchxrayvision.baseline_models.ieee8023 import model_urls
    >>> list(model_urls)
    ['cxr2-vqgan-768-sd', 'cxr2-vqgan-768-msdd']
"""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch

from torchxrayvision.baseline_models.ieee8023.net import Config, Net
from torchxrayvision.checkpoints import Checkpoint, load_checkpoint, state_dict_of, strip_prefix
from torchxrayvision.models import (
    Prediction,
    XRayModel,
    load_strictly,
    resolve_weights_argument,
)
from torchxrayvision.weights import (
    VQGAN_Weights,
    Weights,
    WeightsEnum,
    fetch_weights,
    warn_of_terms,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from torchxrayvision.models import ResizeRoute

__all__ = ["VQGAN", "VQGAN_Weights", "model_urls"]

# The discriminator and the perceptual network of training lie in the same file.
_TRAINING_ONLY: Final = "loss."
_WHOLE = "model."  # in front of the names of a saved model


def _names(checkpoint: Checkpoint) -> dict[str, Tensor]:
    tensors = state_dict_of(checkpoint)
    if all(name.startswith(_WHOLE) for name in tensors):
        tensors = strip_prefix(tensors, _WHOLE)
    return {name: value for name, value in tensors.items() if not name.startswith(_TRAINING_ONLY)}


def _resolution(yaml_path: str | None, published: int) -> int:
    """The one line of a training configuration that the tensors do not tell."""
    if yaml_path is None:
        return published
    found = re.search(r"(?m)^\s*resolution:\s*(\d+)\s*$", Path(yaml_path).read_text("utf-8"))
    return int(found[1]) if found else published


class VQGAN(XRayModel):
    """Autoencoder with a codebook, at 768 x 768 pixels; the network itself is `model`.

    The sizes of the network are read off the tensors of the checkpoint.

    Args:
        weights: `"cxr2-vqgan-768-sd"` (words of 64 numbers on a grid of 24 x 24) or
            `"cxr2-vqgan-768-msdd"` (128, 12 x 12), or an entry.
        ckpt_path: A checkpoint of your own instead.
        yaml_path: Configuration that it was trained with; only its `resolution` is read. Without
            it the resolution is that of `weights`.
        cache_dir: Folder for downloaded weights; None for the usual one.
        resize_route: How inputs are brought to the resolution, see `XRayModel`; 1.5.7 samples
            without a filter, `"bilinear"`.

    Raises:
        UnknownNameError: If no such weights exist.
        RemoteError: If they cannot be fetched.
        CheckpointError: If their file holds other tensors.

    Source:
        Esser et al. Taming transformers for high-resolution image synthesis. CVPR 2021.
        https://arxiv.org/abs/2012.09841
    """

    output_kind = "image"

    def __init__(
        self,
        weights: str | Weights | WeightsEnum = "cxr2-vqgan-768-sd",
        ckpt_path: str | None = None,
        yaml_path: str | None = None,
        cache_dir: str | None = None,
        *,
        resize_route: ResizeRoute = "antialias",
    ) -> None:
        entry = (
            resolve_weights_argument(weights, default="cxr2-vqgan-768-sd") or VQGAN_Weights.SD.value
        )
        super().__init__(
            targets=["Reconstruction"],
            input_resolution=_resolution(yaml_path, entry.input_resolution),
            resize_route=resize_route,
        )
        if ckpt_path is None:
            warn_of_terms(entry)
            path = fetch_weights(entry, cache=cache_dir)
        else:
            path = Path(ckpt_path)
        tensors = _names(load_checkpoint(path))
        self.config = Config.of(tensors, str(path))
        with torch.device("meta"):  # every tensor is about to be replaced
            self.model = Net(self.config)
        load_strictly(self.model, tensors, source=str(path))
        self.weights = path.stem if ckpt_path is not None else entry.name
        self.weights_filename_local = str(path)
        self.eval()

    def _rescale(self, x: Tensor) -> Tensor:
        return (x / 1024).expand(-1, self.config.image, -1, -1)

    def _embed(self, x: Tensor) -> Tensor:
        return self.model.encode(x).mean((2, 3))

    def encode(self, x: Tensor) -> Tensor:
        """The words of each image.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, D, H, W): at each position one word of the codebook. Gradients pass as if
            nothing had been rounded to a word.
        """
        return self.model.encode(self.prepare(x))

    def tokens(self, x: Tensor) -> Tensor:
        """The numbers of the words of each image.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, H, W), int64, positions in the codebook.
        """
        net = self.model
        return net.quantize.indices(net.quant_conv(net.encoder(self.prepare(x))))

    def decode(self, z: Tensor) -> Tensor:
        """The image of each grid of words.

        Args:
            z: Words, shape (B, D, H, W), as `encode` gives them.

        Returns:
            Shape (B, 1, S, S), clipped to [-1024, 1024].
        """
        return self.model.decode(z)[:, :1].clamp(-1, 1) * 1024

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Shape (B, 1, R, R) at the resolution R of the network, clipped to [-1024, 1024].
        """
        prepared = self.prepare(x)
        return self.decode(self.model.encode(prepared))

    def predict(self, x: Tensor) -> Prediction:
        """The reconstruction, by name.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            `"Reconstruction"`, shape (B, R, R), of kind `"image"`.
        """
        return Prediction("image", {"Reconstruction": self(x)[:, 0]})


def _urls() -> Mapping[str, Mapping[str, Any]]:
    return MappingProxyType(
        {
            member.value.name: MappingProxyType(
                {
                    "description": member.value.description,
                    "weights_url": member.value.url,
                    "config_url": member.value.url.removesuffix("ckpt") + "yaml",
                    "image_range": [int(v) for v in member.value.pixel_range],
                    "resolution": member.value.input_resolution,
                }
            )
            for member in VQGAN_Weights
        }
    )


model_urls = _urls()
"""The published weights in the form that 1.5.7 has them; read-only."""
