"""Whether a map is true to the network: what happens when its pixels go, or come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.explain.model import at_rest, checked, probability, target_index
from torchxrayvision.explain.perturb import baseline_for

if TYPE_CHECKING:
    from torch import Tensor, nn

    from torchxrayvision.explain.model import Target
    from torchxrayvision.explain.perturb import Baseline


@dataclass(frozen=True)
class Curves:
    """Probability of a target while pixels are deleted or inserted, strongest evidence first.

    Attributes:
        fractions: Share of the pixels, shape (N,), from 0 to 1.
        deletion: Probabilities, shape (B, N); the sooner they fall, the better the map.
        insertion: Probabilities, shape (B, N); the sooner they rise, the better the map.
    """

    fractions: Tensor
    deletion: Tensor
    insertion: Tensor

    @property
    def deletion_auc(self) -> Tensor:
        """Area under each deletion curve, shape (B,); small for a good map."""
        return torch.trapezoid(self.deletion, self.fractions)

    @property
    def insertion_auc(self) -> Tensor:
        """Area under each insertion curve, shape (B,); large for a good map."""
        return torch.trapezoid(self.insertion, self.fractions)


def deletion_insertion(
    model: nn.Module,
    x: Tensor,
    target: Target,
    heat: Tensor,
    *,
    steps: int = 20,
    baseline: Tensor | float | Baseline = "blur",
    batch_size: int = 8,
) -> Curves:
    """Replace pixels by those of a baseline, and the other way round, in the order of a map.

    Compare maps of one network on the same images; the areas of two networks do not compare.

    Args:
        model: The network.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        heat: Evidence for the target, shape (B, S, S).
        steps: Points of a curve besides the first.
        baseline: `"blur"`, `"mirror"`, a grey value, or images.
        batch_size: Images that go through the network together.

    Returns:
        Both curves.

    Raises:
        ImageShapeError: If the maps are not of the shape of the images.
        UnknownNameError: If the network has no such target.

    Source:
        Petsiuk et al. RISE: randomized input sampling for explanation of black-box models. BMVC
        2018, section 4.2. https://arxiv.org/abs/1806.07421
    """
    if heat.shape != (x.shape[0], *x.shape[-2:]):
        msg = f"maps of shape {tuple(heat.shape)} do not fit images of shape {tuple(x.shape)}"
        raise ImageShapeError(msg)
    index = target_index(model, target)
    fractions = torch.linspace(0, 1, steps + 1)
    with at_rest(model), torch.no_grad():
        images = checked(x)
        empty = baseline_for(images, baseline)
        curves = [
            _curves(model, index, image, none, order, fractions, batch_size)
            for image, none, order in zip(images, empty, _ranks(heat), strict=True)
        ]
    deletion, insertion = zip(*curves, strict=True)
    return Curves(fractions, torch.stack(deletion), torch.stack(insertion))


def _ranks(heat: Tensor) -> Tensor:
    """For each pixel the share of pixels with stronger evidence, shape of `heat`."""
    flat = heat.detach().float().flatten(1)
    order = flat.argsort(stable=True, dim=1, descending=True)
    ranks = torch.empty_like(flat)
    places = torch.arange(flat.shape[1], device=flat.device, dtype=flat.dtype) / flat.shape[1]
    ranks.scatter_(1, order, places.expand_as(flat))
    return ranks.reshape(heat.shape)


def _curves(
    model: nn.Module,
    index: int,
    image: Tensor,
    empty: Tensor,
    ranks: Tensor,
    fractions: Tensor,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """Deletion and insertion curve of one image."""
    ranks = ranks.to(image.device)
    deletion, insertion = [], []
    for some in torch.split(fractions, batch_size):
        gone = ranks[None, None] < some.to(ranks)[:, None, None, None]
        deletion.append(probability(model, torch.where(gone, empty, image), index))
        insertion.append(probability(model, torch.where(gone, image, empty), index))
    return torch.cat(deletion).float().cpu(), torch.cat(insertion).float().cpu()
