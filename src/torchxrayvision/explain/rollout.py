"""Attention rollout: how much each patch of a transformer reaches what is pooled at its end."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from torchxrayvision.errors import ExplanationError
from torchxrayvision.explain.layers import located
from torchxrayvision.explain.model import at_rest, checked, score, target_index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from torchxrayvision.explain.model import Target


def attention_rollout(
    model: nn.Module, x: Tensor, target: Target, *, upsample: bool = True
) -> Tensor:
    """Follow attention through all blocks of a vision transformer, back to the patches.

    It says where the network looked, for all targets alike, not what speaks for one of them: use
    `grad_cam` for that.

    Args:
        model: The network, with attention as timm's transformers compute it.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output; every target has the same map.
        upsample: False leaves the map at one value per patch.

    Returns:
        float32, shape (B, S, S), or (B, H, W) of the patches; the shares of the patches add to 1.

    Raises:
        ExplanationError: If the network has no attention over square patches.
        UnknownNameError: If the network has no such target.

    Example:
        >>> from torchxrayvision.models import EvaX
        >>> model = EvaX(architecture="evax-tiny", num_classes=1)
        >>> attention_rollout(model, torch.zeros(1, 1, 256, 256), 0, upsample=False).shape
        torch.Size([1, 14, 14])

    Source:
        Abnar, Zuidema. Quantifying attention flow in transformers. ACL 2020, section 3.
        https://arxiv.org/abs/2005.00928
    """
    index = target_index(model, target)
    with at_rest(model), located(model) as positions, _attention(model) as layers, torch.no_grad():
        score(model, checked(x), index)
    if not layers:
        msg = f"{type(model).__name__} has no attention to follow; use grad_cam"
        raise ExplanationError(msg)
    flow = torch.eye(layers[0].shape[-1], device=layers[0].device)
    for layer in layers:
        # Half of what a block gives went past its attention.
        step = (layer + torch.eye(layer.shape[-1], device=layer.device)) / 2
        flow = step / step.sum(-1, keepdim=True) @ flow
    patches = _of_patches(flow, from_class=getattr(model, "pools_class_token", False))
    return positions.enlarged(patches, (x.shape[-2], x.shape[-1])) if upsample else patches


def _of_patches(flow: Tensor, *, from_class: bool) -> Tensor:
    """Share of each patch in what is pooled, (B, H, W): the first token, or the mean of patches."""
    tokens = flow.shape[-1]
    side = int(tokens**0.5)
    others = tokens - side * side  # class and register tokens come first
    shares = flow[:, 0, others:] if from_class else flow[:, others:, others:].mean(1)
    shares = shares / shares.sum(-1, keepdim=True)
    return shares.reshape(-1, side, side)


@contextmanager
def _attention(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keep what every block attends to, the mean of its heads, shape (B, N, N) in float32."""
    kept: list[Tensor] = []

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        kept.append(inputs[0].detach().float().mean(1))

    parts: list[Any] = [
        module
        for module in model.modules()
        if hasattr(module, "attn_drop") and hasattr(module, "fused_attn")
    ]
    # Fused kernels never hold the matrix, so that the plain formula has to run for a while.
    fused = [part.fused_attn for part in parts]
    handles = [part.attn_drop.register_forward_pre_hook(hook) for part in parts]
    try:
        for part in parts:
            part.fused_attn = False
        yield kept
    finally:
        for part, before, handle in zip(parts, fused, handles, strict=True):
            part.fused_attn = before
            handle.remove()
