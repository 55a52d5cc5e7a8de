"""Models by name, and models from a file of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.models._network import load_strictly
from torchxrayvision.models._pretrained import (
    architecture_of,
    describe_as,
    normalise_names,
    resolve,
)
from torchxrayvision.models.densenet import DenseNet, get_densenet_params
from torchxrayvision.models.resnet import ResNet
from torchxrayvision.weights import fetch_weights, list_weights
from torchxrayvision.weights import get as get_entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.models._base import XRayClassifier
    from torchxrayvision.weights import Weights, WeightsEnum

__all__ = ["get_model", "get_weights", "list_models", "load_checkpoint"]

_UNTRAINED = ("densenet121", "densenet161", "densenet169", "densenet201", "resnet50", "resnet101")


def list_models() -> list[str]:
    """Every name that `get_model` takes: published weights first, then bare architectures.

    Example:
        >>> list_models()[0]
        'densenet121-res224-all'
    """
    return [w.name for w in list_weights() if w.architecture in _UNTRAINED] + list(_UNTRAINED)


def _build(architecture: str, **kwargs: Any) -> XRayClassifier:
    if architecture.startswith("resnet"):
        return ResNet(architecture=architecture, **kwargs)
    return DenseNet(**get_densenet_params(architecture), **kwargs)


def get_model(weights: str | Weights | WeightsEnum, **kwargs: Any) -> XRayClassifier:
    """A model by the name of its weights, or an untrained one by its architecture.

    Args:
        weights: A name of `list_models`, an alias, or an enum member.
        **kwargs: Passed to `DenseNet` or `ResNet`.

    Returns:
        The model; in evaluation mode if it has weights.

    Raises:
        UnknownNameError: If nothing has that name.

    Example:
        >>> get_model("resnet50", num_classes=2).targets
        ['', '']
    """
    if isinstance(weights, str) and weights in _UNTRAINED:
        return _build(weights, **kwargs)
    entry = get_entry(weights)
    if entry.architecture.startswith("resnet"):
        return ResNet(weights=entry, **kwargs)
    if entry.architecture.startswith("densenet"):
        return DenseNet(weights=entry, **kwargs)
    raise UnknownNameError("model", entry.name, list_models())


def get_weights(weights: str, cache_dir: str | None = None) -> str:
    """Fetch published weights without building the model.

    Args:
        weights: Name or alias.
        cache_dir: Folder; None for the usual one.

    Returns:
        Path of the local file.
    """
    return str(fetch_weights(get_entry(weights), cache=cache_dir))


def load_checkpoint(
    path: str | Path,
    *,
    weights: str | Weights | WeightsEnum | None = None,
    targets: Sequence[str] | None = None,
    input_resolution: int | None = None,
    compat: str | None = None,
) -> XRayClassifier:
    """Load a DenseNet or ResNet from a file of your own, without executing anything in it.

    Reads whole pickled modules, state dictionaries, DataParallel and Lightning checkpoints and
    safetensors; the architecture is recognised by the tensors.

    Args:
        path: The file.
        weights: Published weights whose targets, resolution and operating points apply.
        targets: Names of the outputs, if `weights` is not given; None takes the 18 findings of
            the core models if there are 18 outputs, else numbered names.
        input_resolution: Side in pixels that the network was trained at, if `weights` is not
            given; None takes 224 for a DenseNet and 512 for a ResNet.
        compat: `"xrv-1.5"` for 1.5.7's operating points, with `weights`.

    Returns:
        The model in evaluation mode. Without `weights` its outputs are probabilities.

    Raises:
        CheckpointError: If the file is not one of these networks, or does not fit `weights`.
    """
    from torchxrayvision.weights import store
    from torchxrayvision.weights.checkpoint import state_dict_of

    tensors = normalise_names(state_dict_of(store.load_checkpoint(path)))
    found = architecture_of(tensors, str(path))
    entry = None if weights is None else resolve(weights, "")
    if entry is not None:
        found = {"architecture": entry.architecture, "num_classes": len(entry.targets)}
    with torch.device("meta"):  # every tensor is about to be replaced
        model = _build(found["architecture"], num_classes=found["num_classes"], apply_sigmoid=True)
    network = model.model if isinstance(model, ResNet) else model
    load_strictly(network, tensors, source=str(path))
    if entry is not None:
        describe_as(model, entry, compat)
    else:
        numbered = [t or f"output {i}" for i, t in enumerate(model.targets)]
        model.targets = numbered if targets is None else list(targets)
        native = 512 if isinstance(model, ResNet) else 224
        model.input_resolution = input_resolution or native
    model.weights = Path(path).stem
    return model.eval()
