"""What every method asks of a network: the number to explain, without leaving a trace."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

from torchxrayvision.errors import ImageShapeError, UnknownNameError
from torchxrayvision.models import XRayClassifier, temporarily_eval

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

Target = str | int

_BOUNDED: Final = "probability"


def target_index(model: nn.Module, target: Target) -> int:
    """The place of a target among the outputs.

    Args:
        model: The network; names are looked up in its `targets`.
        target: A name, or the place itself.

    Raises:
        UnknownNameError: If the network has no such output.

    Example:
        >>> from torchxrayvision.models import get_model
        >>> target_index(get_model("resnet50"), "Atelectasis")
        0
    """
    names = list(getattr(model, "targets", ()))
    if isinstance(target, str):
        if not target or target not in names:
            raise UnknownNameError("target", target, [name for name in names if name])
        return names.index(target)
    if names and not 0 <= target < len(names):
        raise UnknownNameError("target", target, map(str, range(len(names))))
    return target


def value_kind(model: nn.Module) -> str:
    """What `probability` gives: `"probability"`, or `"years"` where that is all there is."""
    if isinstance(model, XRayClassifier) and _BOUNDED not in model.kinds:
        return model.kinds[0]
    return _BOUNDED


def score(model: nn.Module, x: Tensor, index: int) -> Tensor:
    """The number (B,) that is explained: the logit, before any saturation, or years.

    A network that is not of this package gives logits of shape (B, P).
    """
    if isinstance(model, XRayClassifier):
        kind = "logit" if "logit" in model.kinds else model.kinds[0]
        return _column(model(x, output=kind), index)
    return _column(model(x), index)


def probability(model: nn.Module, x: Tensor, index: int) -> Tensor:
    """The number (B,) that a reader is shown, see `value_kind`.

    The logits of a network that is not of this package go through a sigmoid.
    """
    if isinstance(model, XRayClassifier):
        return _column(model(x, output=value_kind(model)), index)
    return score(model, x, index).sigmoid()


def _column(outputs: Tensor, index: int) -> Tensor:
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2:
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs)
        msg = f"only classifiers are explained, with outputs of shape (B, P); this gave {found}"
        raise ImageShapeError(msg)
    if not 0 <= index < outputs.shape[1]:
        raise UnknownNameError("target", index, map(str, range(outputs.shape[1])))
    return outputs[:, index]


def checked(x: Tensor) -> Tensor:
    """A copy of a batch that no graph of the caller reaches.

    Args:
        x: Images, shape (B, C, H, W).

    Raises:
        ImageShapeError: If the shape is another.
    """
    if x.dim() != 4:
        msg = f"expected a batch of shape (B, 1, H, W), got {tuple(x.shape)}"
        raise ImageShapeError(msg + ("; add the batch axis with x[None]" if x.dim() == 3 else ""))
    return x.detach().clone()


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients for a while; afterwards each module is in its own mode."""
    with temporarily_eval(model), torch.inference_mode(mode=False), torch.enable_grad():
        yield
