"""A model of a caller, who gets it back as it was."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from torchxrayvision.models import XRayModel

__all__ = ["borrowed"]


@contextlib.contextmanager
def borrowed(model: XRayModel, device: str | torch.device | None = None) -> Iterator[None]:
    """A model in evaluation mode; then each of its parts is as it was, on the device of before.

    Args:
        model: The model of a caller, who may be training it.
        device: Where it is to run; None leaves it where it is.
    """
    modes = [(part, part.training) for part in model.modules()]
    before = next(model.parameters()).device
    try:
        model.eval()
        if device is not None:
            model.to(device)
        yield
    finally:
        if device is not None:
            model.to(before)
        for part, training in modes:
            part.training = training  # not `train`, which sets the parts below too
