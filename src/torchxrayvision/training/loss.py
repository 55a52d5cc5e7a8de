"""Losses: cross-entropy over the labels that are there, and how far an image is from its copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.training.recipe import Reconstruction, Segmentation


def masked_bce(
    logits: Tensor,
    labels: Tensor,
    task_weight: Tensor | None = None,
    positive_weight: Tensor | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean over the findings of the mean over the labels that each has; NaN labels are left out.

    A finding without a label in the batch has no part in the mean, and a batch without any label
    gives 0, with a gradient of 0.

    Args:
        logits: (B, P).
        labels: (B, P) in [0, 1], NaN unknown.
        task_weight: Weight of each finding in the mean, (P,); None for equal ones.
        positive_weight: Weight of a positive label, (P,); None for 1.
        total: Sums counts over all processes, so that the mean of the processes' gradients is
            that of the whole batch; None for one process.

    Returns:
        A scalar. Over several processes, their mean is the loss of the whole batch.

    Example:
        >>> labels = torch.tensor([[1.0, float("nan")]])
        >>> round(masked_bce(torch.zeros(1, 2), labels).item(), 4)
        0.6931
    """
    known = ~torch.isnan(labels)
    filled = torch.where(known, labels, torch.zeros_like(labels)).to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(
        logits, filled, pos_weight=positive_weight, reduction="none"
    )
    return mean_of_known(each, known, task_weight, total)


def mean_of_known(
    each: Tensor,
    known: Tensor,
    task_weight: Tensor | None = None,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean over the findings of the mean over the images that each is known of.

    Args:
        each: One number per image and finding, (B, P); anything where it is not known.
        known: (B, P), bool.
        task_weight: See `masked_bce`.
        total: See `masked_bce`.

    Returns:
        A scalar. Over several processes, their mean is that of the whole batch.

    Example:
        >>> each = torch.tensor([[1.0, float("nan")], [3.0, 4.0]])
        >>> mean_of_known(each, ~each.isnan()).item()
        3.0
    """
    # The unknown are cut off before the sum: 0 times an infinite loss would be NaN.
    sums = torch.where(known, each, torch.zeros_like(each)).sum(dim=0)
    here = known.sum(dim=0).to(sums.dtype)
    counts, processes = here, 1.0
    if total is not None:
        summed = total(torch.cat([here, here.new_ones(1)]))
        counts, processes = summed[:-1], float(summed[-1].item())
    weight = torch.ones_like(sums) if task_weight is None else task_weight.to(sums)
    weight = weight * (counts > 0)
    means = sums * processes / counts.clamp(min=1)
    whole = weight.sum()
    return (weight * means).sum() / torch.where(whole > 0, whole, torch.ones_like(whole))


def task_weights(labels: NDArray[Any], kind: str = "published") -> NDArray[np.float32]:
    """Weight of each finding in the loss.

    Args:
        labels: (N, P) of the training images.
        kind: `"published"`: with n positives of a finding, max n - n + mean n, divided by the
            largest of these; rare findings weigh most. `"equal"`: 1.

    Returns:
        float32 (P,) in (0, 1].

    Example:
        >>> task_weights(np.array([[1.0, 0.0], [1.0, 1.0], [1.0, np.nan], [1.0, 0.0]])).tolist()
        [0.4545454680919647, 1.0]

    Source:
        The training script that the authors of the published models distribute with
        Cohen et al., On the limits of cross-domain generalization in automated X-ray prediction,
        MIDL 2020, https://arxiv.org/abs/2002.02497.
    """
    if kind == "equal":
        return np.ones(labels.shape[1], dtype=np.float32)
    positives = np.nansum(labels, axis=0, dtype=np.float64)
    weights = positives.max(initial=0) - positives + positives.mean()
    largest = weights.max(initial=0)
    scaled = weights / largest if largest > 0 else np.ones_like(weights)
    return np.asarray(scaled, dtype=np.float32)


def positive_weights(labels: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """Weight of a positive label of each finding.

    Args:
        labels: (N, P) of the training images.
        kind: `"none"`, `"sqrt"` or `"balanced"`, see `Loss`.

    Returns:
        float32 (P,); 1 for a finding that has no positive or no negative label.
    """
    present, absent = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    if kind == "none":
        return np.ones(labels.shape[1], dtype=np.float32)
    both = (present > 0) & (absent > 0)
    ratio = np.divide(absent, present, out=np.ones(labels.shape[1]), where=both)
    return np.asarray(np.sqrt(ratio) if kind == "sqrt" else ratio, dtype=np.float32)


def reconstruction_errors(
    drawn: Tensor, images: Tensor, how: Reconstruction, *, every: bool = False
) -> dict[str, Tensor]:
    """How far images that a network drew are from those that it was given, each on its own.

    Args:
        drawn: (B, 1, S, S).
        images: (B, 1, S, S) in [-1024, 1024].
        how: What counts in the loss.
        every: Whether errors that do not count are wanted too.

    Returns:
        `"loss"`, and with `every` `"squared"` and `"absolute"`, means as shares of the range and
        of its square, and `"ssim"`, structural similarity; each (B,).

    Example:
        >>> from torchxrayvision.training import Reconstruction
        >>> black, grey = torch.full((1, 1, 8, 8), -1024.0), torch.zeros(1, 1, 8, 8)
        >>> reconstruction_errors(grey, black, Reconstruction())["loss"].item()
        0.5
    """
    away = (drawn - images) / 2048
    found = {}
    if every or how.error == "mse":
        found["squared"] = away.square().mean((1, 2, 3))
    if every or how.error == "l1":
        found["absolute"] = away.abs().mean((1, 2, 3))
    if every or how.ssim:
        found["ssim"] = ssim(drawn / 2048 + 0.5, images / 2048 + 0.5)
    loss = found["squared" if how.error == "mse" else "absolute"]
    if how.gradient:
        down, across = away.diff(dim=2).abs(), away.diff(dim=3).abs()
        loss = loss + how.gradient * (down.mean((1, 2, 3)) + across.mean((1, 2, 3)))
    if how.ssim:
        loss = loss + how.ssim * (1 - found["ssim"])
    return {"loss": loss, **found}


_WINDOW, _SIGMA = 11, 1.5
_STABLE = (0.01**2, 0.03**2)  # of a range of 1


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity of pairs of images.

    Args:
        one: (B, 1, S, S) in [0, 1].
        other: The same.

    Returns:
        (B,), at most 1.

    Example:
        >>> grey = torch.rand(2, 1, 16, 16)
        >>> ssim(grey, grey).tolist()
        [1.0, 1.0]

    Source:
        Wang et al. Image quality assessment: from error visibility to structural similarity. IEEE
        Transactions on Image Processing 2004. https://doi.org/10.1109/TIP.2003.819861
    """
    side = min(_WINDOW, one.shape[-1] - (one.shape[-1] + 1) % 2)
    steps = torch.arange(side, dtype=one.dtype, device=one.device) - side // 2
    line = torch.exp(-steps.square() / (2 * _SIGMA**2))
    line = line / line.sum()

    def around(x: Tensor) -> Tensor:
        down = functional.conv2d(x, line.view(1, 1, -1, 1))
        both: Tensor = functional.conv2d(down, line.view(1, 1, 1, -1))
        return both

    mean, mean_other = around(one), around(other)
    spread = around(one.square()) - mean.square()
    spread_other = around(other.square()) - mean_other.square()
    together = around(one * other) - mean * mean_other
    light, structure = _STABLE
    alike = (2 * mean * mean_other + light) * (2 * together + structure)
    most = (mean.square() + mean_other.square() + light) * (spread + spread_other + structure)
    means: Tensor = (alike / most).mean((1, 2, 3))
    return means


def mean_of_images(each: Tensor, total: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Mean of one number per image over the whole batch.

    Args:
        each: (B,), of this process.
        total: See `masked_bce`.

    Returns:
        A scalar. Over several processes, their mean is that of the whole batch.

    Example:
        >>> mean_of_images(torch.tensor([1.0, 3.0])).item()
        2.0
    """
    if total is None:
        return each.mean()
    images, processes = total(each.new_tensor([float(len(each)), 1.0])).tolist()
    mean: Tensor = each.sum() * processes / images
    return mean


_PIXEL = 1.0  # added to both areas, so that empty masks have a Dice coefficient


def outline_errors(logits: Tensor, masks: Tensor, how: Segmentation) -> Tensor:
    """How far outlined structures are from their masks, each image and structure on its own.

    Args:
        logits: (B, P, S, S).
        masks: (B, P, S, S) in [0, 1]; NaN throughout for a mask that nobody knows.
        how: What counts.

    Returns:
        (B, P); NaN where the mask is not known.

    Example:
        >>> from torchxrayvision.training import Segmentation
        >>> inside = torch.zeros(1, 1, 8, 8)
        >>> inside[..., :4] = 1
        >>> logits = inside * 200 - 100
        >>> outline_errors(logits, inside, Segmentation()).item() < 1e-4
        True
    """
    known = known_masks(masks)[:, :, None, None]
    filled = torch.where(known, masks, torch.zeros_like(masks)).to(logits.dtype)
    entropy = functional.binary_cross_entropy_with_logits(logits, filled, reduction="none")
    inside = logits.sigmoid()
    areas = inside.sum((2, 3)) + filled.sum((2, 3))
    dice = (2 * (inside * filled).sum((2, 3)) + _PIXEL) / (areas + _PIXEL)
    each = how.cross_entropy * entropy.mean((2, 3)) + how.dice * (1 - dice)
    return each.masked_fill(~known[:, :, 0, 0], float("nan"))


def dice_of(inside: Tensor, masks: Tensor) -> Tensor:
    """Dice coefficient of each image and structure.

    Args:
        inside: (B, P, S, S), bool.
        masks: (B, P, S, S), half or more of a pixel counts; NaN where nothing is known.

    Returns:
        (B, P); NaN where the mask is not known, or both are empty and there is nothing to agree on.

    Example:
        >>> one = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
        >>> one[..., :2] = True
        >>> dice_of(one, one.float()).item()
        1.0
    """
    truth = masks >= 0.5
    shared = (inside & truth).sum((2, 3)).double()
    areas = inside.sum((2, 3)).double() + truth.sum((2, 3))
    return (2 * shared / areas).masked_fill(~known_masks(masks), float("nan"))


def known_masks(masks: Tensor) -> Tensor:
    """Which of (B, P, S, S) masks are known, (B, P); the others are NaN throughout."""
    return ~masks[:, :, 0, 0].isnan()
