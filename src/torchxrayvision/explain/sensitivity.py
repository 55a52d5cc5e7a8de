"""Methods that follow gradients down to the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchxrayvision.errors import DependencyError
from torchxrayvision.explain.model import at_rest, checked, score, target_index
from torchxrayvision.explain.perturb import baseline_for

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchxrayvision.explain.model import Target
    from torchxrayvision.explain.perturb import Baseline


def input_gradients(model: nn.Module, x: Tensor, target: Target, *, signed: bool = False) -> Tensor:
    """How much the logit changes with each pixel.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        signed: False gives absolute values, as published.

    Returns:
        float32, shape (B, S, S), in logits a grey unit.

    Raises:
        UnknownNameError: If the network has no such target.

    Source:
        Simonyan et al. Deep inside convolutional networks. 2013. https://arxiv.org/abs/1312.6034
    """
    index = target_index(model, target)
    with at_rest(model):
        pixels = checked(x).requires_grad_()
        (gradient,) = torch.autograd.grad(score(model, pixels, index).sum(), pixels)
    gradient = gradient.float()
    return gradient.sum(1) if signed else gradient.abs().amax(1)


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    baseline: Tensor | float | Baseline = "blur",
    steps: int = 32,
    batch_size: int = 8,
) -> Tensor:
    """Share the difference in logit between an image and a baseline out over the pixels.

    The sum over pixels is that difference, up to the error of `steps`.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        baseline: An image without the evidence. `"blur"` blurs each image until no small finding
            is left: a black one would hide whatever is dark, such as a pneumothorax. `"mirror"`
            exchanges left and right, so that each lung is compared with the other, as readers do;
            it shows large findings, which a blur leaves, but not what is the same on both sides.
        steps: Points of the integral, by Gauss and Legendre.
        batch_size: Images that go through the network together.

    Returns:
        float32, shape (B, S, S), in logits.

    Raises:
        DependencyError: If Captum is missing.
        UnknownNameError: If the network has no such target.

    Source:
        Sundararajan et al. Axiomatic attribution for deep networks. ICML 2017.
        https://arxiv.org/abs/1703.01365. On blurred baselines: Sturmfels et al. Visualizing the
        impact of feature attribution baselines. Distill 2020. https://doi.org/10.23915/distill.00022
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise DependencyError("captum", "integrated_gradients", "explain") from error
    index = target_index(model, target)
    with at_rest(model):
        pixels = checked(x).requires_grad_()
        shares = IntegratedGradients(lambda batch: score(model, batch, index)).attribute(
            pixels,
            baselines=baseline_for(pixels.detach(), baseline),
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=max(batch_size, len(pixels)),
        )
    total: Tensor = shares.detach().float().sum(1)
    return total
