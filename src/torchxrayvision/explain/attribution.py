"""Methods that give a map of the evidence in an image, and the table of all of them by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import torch
from torch.nn import functional

from torchxrayvision.errors import UnknownNameError, needs_package
from torchxrayvision.explain.cam import class_activation_map, grad_cam, grad_cam_plus_plus
from torchxrayvision.explain.model import at_rest, checked, score, target_index
from torchxrayvision.explain.rollout import attention_rollout

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from torchxrayvision.explain.model import Target

Baseline = Literal["blur", "mirror"]

# Share of the side that hides findings of the size of a lobe and leaves the outline of the body.
_BLUR: Final = 1 / 8
_TAIL: Final = 3.0  # standard deviations of a Gaussian that are kept


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Blur by a Gaussian; beyond its edge an image goes on as its outermost pixels.

    Args:
        x: Shape (B, C, H, W).
        sigma: Standard deviation, pixels.

    Returns:
        Shape and dtype of `x`.

    Example:
        >>> point = torch.zeros(1, 1, 9, 9)
        >>> point[..., 4, 4] = 1
        >>> bool(torch.isclose(blurred(point, 1.0).sum(), torch.tensor(1.0), atol=1e-5))
        True
    """
    if sigma <= 0:
        return x
    radius = max(1, math.ceil(_TAIL * sigma))
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    planes = x.float().reshape(-1, 1, *x.shape[-2:])
    padded = functional.pad(planes, (radius,) * 4, mode="replicate")
    rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1)).reshape(x.shape).to(x.dtype)


def smoothed(heat: Tensor, sigma: float) -> Tensor:
    """Blur maps, so that the evidence of a region counts and not that of its noisiest pixel.

    Args:
        heat: Shape (B, H, W).
        sigma: Standard deviation as a share of the longer side, such as 0.02.

    Returns:
        Shape and dtype of `heat`.

    Example:
        >>> smoothed(torch.ones(2, 8, 8), 0.1).shape
        torch.Size([2, 8, 8])
    """
    return blurred(heat[:, None], sigma * max(heat.shape[-2:]))[:, 0]


def baseline_for(x: Tensor, baseline: Tensor | float | Baseline) -> Tensor:
    """The images without evidence: blurred, mirrored, of a grey value, or as given.

    Raises:
        UnknownNameError: If it is another word.
    """
    if isinstance(baseline, str):
        if baseline not in get_args(Baseline):
            raise UnknownNameError("baseline", baseline, get_args(Baseline))
        return x.flip(-1) if baseline == "mirror" else blurred(x, _BLUR * max(x.shape[-2:]))
    return torch.as_tensor(baseline, dtype=x.dtype, device=x.device).expand_as(x).clone()


def occlusion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: Tensor | float | Baseline = "blur",
    batch_size: int = 8,
) -> Tensor:
    """How far the logit falls when a window of the image is covered.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        window: Side of the window, pixels; None for an eighth of the image.
        stride: Pixels from one window to the next; None for half a window.
        baseline: What covers it: `"blur"`, `"mirror"`, a grey value, or images.
        batch_size: Images that go through the network together.

    Returns:
        float32, shape (B, S, S): for each pixel the mean over the windows that covered it, in
        logits.

    Raises:
        DependencyError: If Captum is missing.
        UnknownNameError: If the network has no such target.

    Source:
        Zeiler, Fergus. Visualizing and understanding convolutional networks. ECCV 2014.
        https://arxiv.org/abs/1311.2901
    """
    with needs_package("captum", "occlusion", "explain"):
        from captum.attr import Occlusion
    index = target_index(model, target)
    side = max(1, min(x.shape[-2:]) // 8) if window is None else window
    step = max(1, side // 2) if stride is None else stride
    with at_rest(model), torch.no_grad():
        pixels = checked(x)
        falls = Occlusion(lambda batch: score(model, batch, index)).attribute(
            pixels,
            sliding_window_shapes=(x.shape[1], side, side),
            strides=(x.shape[1], step, step),
            baselines=baseline_for(pixels, baseline),
            perturbations_per_eval=max(1, batch_size // len(pixels)),
        )
    total: Tensor = falls.float().sum(1)
    return total


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
    with needs_package("captum", "integrated_gradients", "explain"):
        from captum.attr import IntegratedGradients
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


_METHODS: Final[dict[str, Callable[..., Tensor]]] = {
    "cam": class_activation_map,
    "gradcam": grad_cam,
    "gradcam++": grad_cam_plus_plus,
    "gradients": input_gradients,
    "ig": integrated_gradients,
    "occlusion": occlusion,
    "rollout": attention_rollout,
}
METHODS: Final = tuple(_METHODS)
"""Names of the methods that give a map."""


def attribute(
    model: nn.Module,
    x: Tensor,
    target: Target,
    method: str = "gradcam",
    *,
    smooth: float = 0.0,
    **options: Any,
) -> Tensor:
    """Map what speaks for a target, by the name of the method.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        method: One of `METHODS`.
        smooth: Blur of the map, standard deviation as a share of the side; 0 for none.
        **options: Passed to the method.

    Returns:
        float32, shape (B, S, S).

    Raises:
        UnknownNameError: If there is no such method or target.

    Example:
        >>> from torchxrayvision.models import DenseNet
        >>> x = torch.rand(2, 1, 64, 64) * 2048 - 1024
        >>> attribute(DenseNet(), x, "Effusion", "gradients").shape
        torch.Size([2, 64, 64])
    """
    if method not in _METHODS:
        raise UnknownNameError("method", method, METHODS)
    return smoothed(_METHODS[method](model, x, target, **options), smooth)
