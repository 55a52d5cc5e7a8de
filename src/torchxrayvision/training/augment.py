"""Augmentation of whole batches: one `grid_sample`, draws that depend on the sample alone."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.training.recipe import Augmentation

_WIDTH: Final = 16  # numbers per sample, whatever is switched on, so that switches are apart
_AIR: Final = -1024.0
_ERASED: Final = (0.1, 0.3)  # share of the side that an erased rectangle takes


def draw(indices: Sequence[int], *, seed: int, epoch: int) -> Tensor:
    """Uniform numbers of each sample, the same in any batch, on any process and after a resume.

    Args:
        indices: Positions of the samples, B of them.
        seed: Of the run.
        epoch: From 0.

    Returns:
        float32 (B, 16) in [0, 1).

    Example:
        >>> torch.equal(draw([7, 3], seed=0, epoch=1)[1], draw([3], seed=0, epoch=1)[0])
        True
    """
    rows = [np.random.default_rng([seed, epoch, index]).random(_WIDTH) for index in indices]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def augment(images: Tensor, draws: Tensor, what: Augmentation, size: int) -> Tensor:
    """Move and change images, all in one pass, on the device where they are.

    Args:
        images: (B, 1, S, S) in [-1024, 1024].
        draws: What `draw` gave for them, (B, 16).
        what: The amounts.
        size: Side of the result in pixels.

    Returns:
        (B, 1, size, size) in [-1024, 1024]; what lies outside an image is air, -1024.

    Example:
        >>> from torchxrayvision.training import Augmentation
        >>> images = torch.full((2, 1, 8, 8), 100.0)
        >>> augment(images, draw([0, 1], seed=0, epoch=0), Augmentation(), 8).unique()
        tensor([100.])
    """
    draws = draws.to(images.device)
    images = _moved(images, draws, what, size)
    if what.gamma or what.contrast:
        images = _exposed(images, draws, what)
    if what.noise:
        images = _noisy(images, draws, what.noise)
    if what.erase:
        images = _erased(images, draws, what.erase)
    return images


def augment_masks(masks: Tensor, draws: Tensor, what: Augmentation, size: int) -> Tensor:
    """Move masks as `augment` moves the images that they belong to.

    Args:
        masks: (B, P, S, S) of 0 and 1.
        draws: Those of the images.
        what: The amounts; what changes only grey values leaves masks as they are.
        size: Side of the result in pixels.

    Returns:
        float32 (B, P, size, size) in [0, 1]: the share of each pixel that lies inside. Nothing is
        inside where the image was not.

    Example:
        >>> from torchxrayvision.training import Augmentation
        >>> masks = torch.ones(1, 2, 8, 8)
        >>> augment_masks(masks, draw([0], seed=0, epoch=0), Augmentation(), 4).unique()
        tensor([1.])
    """
    # The sampler pads with air, which is the zero of a mask on the scale of images.
    scaled = masks.float() * 2048 + _AIR
    return ((_moved(scaled, draws.to(masks.device), what, size) - _AIR) / 2048).clamp(0, 1)


def _moved(images: Tensor, draws: Tensor, what: Augmentation, size: int) -> Tensor:
    still = not any((what.rotation, what.translation, what.scale, what.aspect, what.flip))
    if still and images.shape[-1] == size:
        return images
    # Moving takes four pixels for each new one, whatever lies between them: what is much larger is
    # filtered to what the largest zoom shows first, as images to judge by are.
    side = size if still else math.ceil(size * (1 + what.scale) * (1 + what.aspect))
    if side < images.shape[-1] or still:
        images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    if still:
        return images
    signed = draws * 2 - 1
    angle = signed[:, 0] * math.radians(what.rotation)
    zoom = 1 / (1 + signed[:, 1] * what.scale)  # the grid moves against the image
    stretch = 1 + signed[:, 2] * what.aspect
    mirror = torch.where(draws[:, 3] < what.flip, -1.0, 1.0)
    across, down = (signed[:, i] * 2 * what.translation for i in (4, 5))
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    rows = (
        torch.stack([cos * mirror * stretch, -sin * stretch, across], dim=1),
        torch.stack([sin * mirror / stretch, cos / stretch, down], dim=1),
    )
    grid = functional.affine_grid(
        torch.stack(rows, dim=1), [len(images), 1, size, size], align_corners=False
    )
    # Air is the zero of the sampler's own padding.
    moved = functional.grid_sample(images - _AIR, grid.to(images.dtype), align_corners=False)
    return moved + _AIR


def _exposed(images: Tensor, draws: Tensor, what: Augmentation) -> Tensor:
    signed = (draws * 2 - 1)[:, :, None, None, None]
    grey = ((images + 1024) / 2048).clamp(0, 1)
    grey = grey ** torch.exp(signed[:, 6] * what.gamma)
    grey = (grey - 0.5) * (1 + signed[:, 7] * what.contrast) + 0.5
    return grey.clamp(0, 1) * 2048 - 1024


def _noisy(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    size = images.shape[-1]
    field = _field(size, images.device)
    corners = (draws[:, 8:10] * size).long().tolist()
    noise = torch.stack([field[None, y : y + size, x : x + size] for y, x in corners])
    spread = draws[:, 15, None, None, None] * amount * 2048
    return (images + noise * spread).clamp(-1024, 1024)


@lru_cache(maxsize=4)
def _field(size: int, device: torch.device) -> Tensor:
    """White noise, of which each sample takes a window; drawing it anew costs more than a step."""
    generator = torch.Generator().manual_seed(size)
    return torch.randn((2 * size, 2 * size), generator=generator).to(device)


def _erased(images: Tensor, draws: Tensor, probability: float) -> Tensor:
    size = images.shape[-1]
    low, high = _ERASED
    height, width = ((low + (high - low) * draws[:, i, None]) * size for i in (11, 12))
    top, left = draws[:, 13, None] * (size - height), draws[:, 14, None] * (size - width)
    at = torch.arange(size, device=images.device, dtype=torch.float32)[None]
    inside = ((at >= top) & (at < top + height))[:, :, None]
    inside = inside & ((at >= left) & (at < left + width))[:, None, :]
    inside = inside & (draws[:, 10] < probability)[:, None, None]
    means = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(inside[:, None], means, images)


def mix(
    images: Tensor, labels: Tensor, indices: Sequence[int], *, alpha: float, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Mix each image with the next one of its batch, and their labels in the same share.

    The shares depend on the sample; the partner depends on the batch that a process holds.

    Args:
        images: (B, 1, S, S).
        labels: (B, P), or masks (B, P, S, S); NaN unknown.
        indices: Positions of the samples.
        alpha: Parameter of the Beta distribution.
        seed: Of the run.
        epoch: From 0.

    Returns:
        Images and labels of the same shapes; a label that one of the two lacks is NaN.
    """
    drawn = [np.random.default_rng([seed, epoch, i, 1]).beta(alpha, alpha) for i in indices]
    share = torch.tensor(drawn, dtype=images.dtype, device=images.device)[:, None]
    partner = images.roll(1, dims=0)
    mixed = share[:, :, None, None] * images + (1 - share[:, :, None, None]) * partner
    share = share if labels.dim() == 2 else share[:, :, None, None]
    return mixed, share * labels + (1 - share) * labels.roll(1, dims=0)
