"""Class activation maps: the last map of a network, weighed by what it means for a target."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from torchxrayvision.errors import ExplanationError
from torchxrayvision.explain.layers import CamLayer, Positions, cam_layer, captured, located
from torchxrayvision.explain.model import at_rest, checked, score, target_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from torchxrayvision.explain.model import Target

    _Explain = Callable[[Tensor, CamLayer | None], tuple[Tensor, Positions]]

_FEWEST: Final = 7  # positions a side: what ResNets and DenseNets have of 224 pixels
_TINY: Final = 1e-20  # a map without evidence stays 0


def class_activation_map(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: CamLayer | None = None,
    upsample: bool = True,
) -> Tensor:
    """Share the logit out over positions, exactly, where it is linear in the mean of the last map.

    The mean of the map over its positions plus the bias of the target is its logit. Positive
    values speak for the target, negative ones against it.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        layer: Layer and head; None for those declared for networks of this package.
        upsample: False leaves the map at its own resolution, where it is exact.

    Returns:
        float32, shape (B, S, S), or (B, H, W) of the last map.

    Raises:
        ExplanationError: If the logit is another function of the map; use `grad_cam` then.
        UnknownNameError: If the network has no such target.

    Example:
        >>> from torchxrayvision.models import DenseNet
        >>> model = DenseNet(num_classes=1).eval()
        >>> x = torch.rand(1, 1, 64, 64) * 2048 - 1024
        >>> heat = class_activation_map(model, x, 0, upsample=False)
        >>> bool(torch.isclose(heat.mean() + model.classifier.bias, model(x), atol=1e-4))
        True

    Source:
        Zhou et al. Learning deep features for discriminative localization. CVPR 2016.
        https://arxiv.org/abs/1512.04150
    """
    index = target_index(model, target)
    layer = cam_layer(model) if layer is None else layer
    weight = _head(model, layer).weight[index].detach().float()
    with (
        at_rest(model),
        _located(model, layer) as positions,
        captured(model, layer) as maps,
        torch.no_grad(),
    ):
        score(model, checked(x), index)
        (last,) = maps.of(index)
        if last.shape[1] != len(weight):
            msg = (
                f"{layer.head!r} takes {len(weight)} features, {layer.path!r} gives {last.shape[1]}"
            )
            raise ExplanationError(msg)
        heat = torch.einsum("k,bkhw->bhw", weight, last.detach().float())
    return positions.enlarged(heat, _sides(x)) if upsample else heat


def _head(model: nn.Module, layer: CamLayer) -> nn.Linear:
    if layer.head is None:
        msg = (
            f"the outputs of {type(model).__name__} are not linear in the mean of its last map, "
            "so there is no exact class activation map; use grad_cam"
        )
        raise ExplanationError(msg)
    head = model.get_submodule(layer.head)
    if not isinstance(head, nn.Linear):
        msg = f"{layer.head!r} is a {type(head).__name__}, not a linear layer; use grad_cam"
        raise ExplanationError(msg)
    return head


def grad_cam(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: CamLayer | Sequence[CamLayer] | None = None,
    shifts: int = 1,
) -> Tensor:
    """Weigh the channels of the last map by their mean gradient; keep what speaks for the target.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        layer: The layer; None for the one declared for networks of this package. Of several, each
            map is divided by its maximum, and the mean is taken: an early layer says exactly
            where, a late one what.
        shifts: How many shifts of the image, within one position of the map, are averaged in each
            direction. Networks for small images have maps of few positions, between which a small
            finding falls; 4 shows it in a quarter of a position, for 16 times the work.

    Returns:
        float32, shape (B, S, S), at least 0.

    Raises:
        ExplanationError: If no layer is declared or given, or it does not run.
        UnknownNameError: If the network has no such target.

    Source:
        Selvaraju et al. Grad-CAM: visual explanations from deep networks via gradient-based
        localization. ICCV 2017. https://arxiv.org/abs/1610.02391. On shifts: Morbidelli et al.
        Augmented Grad-CAM: heat-maps super resolution through augmentation. ICASSP 2020. On several
        layers: Jiang et al. LayerCAM: exploring hierarchical class activation maps for
        localization. IEEE Transactions on Image Processing 2021, which takes the maximum.
        https://doi.org/10.1109/TIP.2021.3089943
    """
    return _weighed(model, x, target, layer, shifts, lambda _, gradients: gradients.mean((2, 3)))


def grad_cam_plus_plus(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    layer: CamLayer | Sequence[CamLayer] | None = None,
    shifts: int = 1,
) -> Tensor:
    """Like `grad_cam`, with positive gradients that count more where a channel is rarely active.

    Better where a finding is there more than once. The formula is that for the exponential of
    the logit, whose own value only scales the map and is left out.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        layer: See `grad_cam`.
        shifts: See `grad_cam`.

    Returns:
        float32, shape (B, S, S), at least 0.

    Raises:
        ExplanationError: If no layer is declared or given, or it does not run.
        UnknownNameError: If the network has no such target.

    Source:
        Chattopadhay et al. Grad-CAM++: improved visual explanations for deep convolutional
        networks. WACV 2018, equations 10 and 19. https://arxiv.org/abs/1710.11063
    """

    def weigh(maps: Tensor, gradients: Tensor) -> Tensor:
        # Equation 19 is g^2 / (2 g^2 + S g^3), S the sum of a channel; of 10 positive g count.
        g = gradients.relu()
        below = 2 + maps.sum((2, 3), keepdim=True) * g
        return (g / below).sum((2, 3))

    return _weighed(model, x, target, layer, shifts, weigh)


def _maps_and_gradients(
    model: nn.Module, x: Tensor, target: Target, layer: CamLayer | None
) -> tuple[Tensor, Tensor, Positions]:
    """The last maps and the gradients of the logit to them, float32, both (B, K, H, W)."""
    if layer is not None:
        return _at_layer(model, x, target, layer)
    declared = cam_layer(model)
    found = _at_layer(model, x, target, declared)
    if declared.finer is not None and min(found[0].shape[2:]) < _FEWEST:
        return _at_layer(model, x, target, CamLayer(declared.finer, cells=declared.cells))
    return found


def _at_layer(
    model: nn.Module, x: Tensor, target: Target, layer: CamLayer
) -> tuple[Tensor, Tensor, Positions]:
    index = target_index(model, target)
    with at_rest(model), _located(model, layer) as positions, captured(model, layer) as captures:
        total = score(model, checked(x), index).sum()
        maps = captures.of(index)
        gradients = torch.autograd.grad(total, maps)
    # The channels of several networks of an ensemble are those of one wide network.
    joint, slopes = (torch.cat([a.detach().float() for a in each], 1) for each in (maps, gradients))
    return joint, slopes, positions


def _located(model: nn.Module, layer: CamLayer) -> AbstractContextManager[Positions]:
    """Where the positions of the layer lie, once the network has run."""
    return nullcontext(Positions()) if layer.cells else located(model)


def _weighed(
    model: nn.Module,
    x: Tensor,
    target: Target,
    layers: CamLayer | Sequence[CamLayer] | None,
    shifts: int,
    weigh: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The weighed map of one layer, or the mean of those of several, each up to 1.

    `weigh` gives the weights (B, K) of maps and their gradients, both (B, K, H, W).
    """

    def explain(images: Tensor, layer: CamLayer | None) -> tuple[Tensor, Positions]:
        maps, gradients, positions = _maps_and_gradients(model, images, target, layer)
        return torch.einsum("bk,bkhw->bhw", weigh(maps, gradients), maps).relu(), positions

    if layers is None or isinstance(layers, CamLayer):
        return _over_shifts(explain, x, layers, shifts)
    if not layers:
        raise ExplanationError("no layer was given; layer=None takes the one that is declared")
    heats = [_over_shifts(explain, x, layer, shifts) for layer in layers]
    largest = [heat.amax((1, 2), keepdim=True).clamp_min(_TINY) for heat in heats]
    return torch.stack([h / most for h, most in zip(heats, largest, strict=True)]).mean(0)


def _over_shifts(explain: _Explain, x: Tensor, layer: CamLayer | None, shifts: int) -> Tensor:
    """Average the maps of shifted images, each map shifted back."""
    coarse, positions = explain(x, layer)
    size = _sides(x)
    if shifts <= 1:
        return positions.enlarged(coarse, size)
    down, across = positions.axes((coarse.shape[-2], coarse.shape[-1]), size)
    parts = [(i + 0.5) / shifts - 0.5 for i in range(shifts)]
    total = torch.zeros(len(x), *size, device=coarse.device)
    for y, z in itertools.product(parts, parts):
        below, right = round(y * down.step), round(z * across.step)
        heat = positions.enlarged(explain(_shifted(x, below, right), layer)[0], size)
        total += _shifted(heat[:, None], -below, -right)[:, 0]
    return total / shifts**2


def _shifted(x: Tensor, down: int, right: int) -> Tensor:
    """Move images; what comes in at an edge is what the outermost pixels are."""
    rows = (torch.arange(x.shape[-2], device=x.device) - down).clamp(0, x.shape[-2] - 1)
    columns = (torch.arange(x.shape[-1], device=x.device) - right).clamp(0, x.shape[-1] - 1)
    return x[..., rows, :][..., columns]


def _sides(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
