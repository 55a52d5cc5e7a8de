"""Autoencoders for radiographs: from an image to a small code and back.

`ResNetAE` is the published one, `CompactAE` a small one to train on a processor. `xrv train` with
``task = "reconstruction"`` trains either; `load_checkpoint` reads what it writes.

Example:
    >>> import torch
    >>> from torchxrayvision.autoencoders import ResNetAE50
    >>> model = ResNetAE50()
    >>> model.encode(torch.full((1, 1, 224, 224), -1024.0)).shape
    torch.Size([1, 512, 3, 3])
"""

from torchxrayvision.autoencoders.base import Autoencoder
from torchxrayvision.autoencoders.compact import CompactAE
from torchxrayvision.autoencoders.files import autoencoder_of_header as autoencoder_of_header
from torchxrayvision.autoencoders.files import (
    get_autoencoder,
    list_autoencoders,
    load_checkpoint,
    save_checkpoint,
)
from torchxrayvision.autoencoders.files import is_autoencoder_file as is_autoencoder_file
from torchxrayvision.autoencoders.resnet import (
    Down,
    ResNetAE,
    ResNetAE50,
    ResNetAE101,
    Up,
    model_urls,
)
from torchxrayvision.deprecation import carried_names
from torchxrayvision.weights import ResNetAE_Weights

__all__ = [
    "Autoencoder",
    "CompactAE",
    "ResNetAE",
    "ResNetAE50",
    "ResNetAE101",
    "ResNetAE_Weights",
    "get_autoencoder",
    "list_autoencoders",
    "load_checkpoint",
    "model_urls",
    "save_checkpoint",
]

# Under these names 1.5.7 has them, and pickled whole modules name them.
_ResNetAE, Bottleneck, DeconvBottleneck = ResNetAE, Down, Up
__getattr__ = carried_names(__name__, "nn os pathlib requests sys torch utils")
