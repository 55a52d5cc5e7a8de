"""What only code written for 1.5.7, and whole objects that it pickled, need of the models."""

from __future__ import annotations

import functools
import sys
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from torchxrayvision.weights import DenseNet121_Weights as DenseNet121_Weights
from torchxrayvision.weights import Encoder_Weights as Encoder_Weights
from torchxrayvision.weights import EVAX_Weights as EVAX_Weights
from torchxrayvision.weights import EVAXDenseNet_Weights as EVAXDenseNet_Weights
from torchxrayvision.weights import ResNet50_Weights as ResNet50_Weights
from torchxrayvision.weights import ZeroShot_Weights as ZeroShot_Weights
from torchxrayvision.weights import model_urls_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from torchxrayvision.models.base import XRayModel


model_urls = model_urls_view()
"""The published weights in the form that 1.5.7 has them; read-only."""


def replaced_method(instance: Any, name: str, own: Callable[..., Any]) -> Callable[..., Any] | None:
    """The method that a subclass or an instance has in place of the package's own, if any."""
    # The class is asked, not the bound method: under torch.compile a bound method has no function
    # that could be compared, and the package's own would pass for a replaced one.
    if name not in vars(instance) and getattr(type(instance), name) is own:
        return None
    found: Callable[..., Any] = getattr(instance, name)
    return found


def restore(
    model: XRayModel,
    state: dict[str, Any],
    load: Callable[[nn.Module, dict[str, Tensor], str], None],
) -> None:
    """Fill a model from the attributes of one that 1.5.7 pickled whole.

    The network is built anew, and takes the tensors by name.

    Args:
        model: Made by `torch.load`, still empty.
        state: The attributes that were pickled.
        load: Puts tensors into a network strictly.

    Raises:
        CheckpointError: If the tensors do not fit.
    """
    cls: Any = type(model)
    tensors = _tensors_of(state)
    with torch.device("meta"):
        cls.__init__(model, **_constructor(model, tensors))
    names = {name: value for name, value in tensors.items() if name in model.state_dict()}
    load(model, names, f"a {cls.__name__} that 1.5.7 pickled")
    points = state.get("op_threshs", state.get("_buffers", {}).get("op_threshs"))
    if isinstance(points, torch.Tensor):
        model.op_threshs = points
    for name in ("targets", "apply_sigmoid", "threshold", "input_resolution"):
        if name in state:
            setattr(model, name, state[name])
    model.weights = model.weights or "restored"
    model.train(state.get("training", False))


def _constructor(model: XRayModel, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The arguments for an untrained network of the same layers."""
    if hasattr(model, "decode"):
        deep = "layer3.6.conv1.weight" in tensors
        return {"architecture": f"autoencoder-resnet{101 if deep else 50}"}
    if type(model).__name__ == "ResNet":
        return {"weights": None, "num_classes": len(tensors["model.fc.bias"])}
    return {"weights": None}


def _tensors_of(state: dict[str, Any]) -> dict[str, Tensor]:
    """What `state_dict` gives, of modules whose classes may be of another version."""
    tensors: dict[str, Tensor] = {}
    for part in ("_parameters", "_buffers"):
        tensors |= {k: v for k, v in state.get(part, {}).items() if v is not None}
    modules: dict[str, nn.Module] = state.get("_modules", {})
    for name, module in modules.items():
        tensors |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    return tensors


def register_stand_ins(*modules: str, **real: Any) -> None:
    """Let `torch.load` and clients find modules of 1.5.7 whose classes this package lacks.

    A class of that name stands for each: it holds the tensors of a pickled layer, from which
    `restore` builds the network anew, and computes nothing itself.

    Args:
        *modules: Their full names, outermost first.
        **real: Names that mean something here too.
    """
    for name in modules:
        module = types.ModuleType(name, "Stands for a module of 1.5.7.")
        module.__path__ = []
        module.__dict__.update(real)
        module.__dict__["__getattr__"] = functools.partial(_stand_in, name)
        sys.modules[name] = module


def _stand_in(module: str, name: str) -> type[nn.Module]:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (nn.Module,), {"__module__": module})
