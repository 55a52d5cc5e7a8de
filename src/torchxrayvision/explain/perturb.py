"""Methods that change the image and see what the network says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, get_args

import torch
from torch.nn import functional

from torchxrayvision.errors import DependencyError, UnknownNameError
from torchxrayvision.explain.model import at_rest, checked, score, target_index

if TYPE_CHECKING:
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
    """The image without evidence.

    Args:
        x: Images, shape (B, C, H, W).
        baseline: `"blur"`, `"mirror"`, a grey value, or images that broadcast to `x`.

    Returns:
        Shape and dtype of `x`.

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
    try:
        from captum.attr import Occlusion
    except ImportError as error:
        raise DependencyError("captum", "occlusion", "explain") from error
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
