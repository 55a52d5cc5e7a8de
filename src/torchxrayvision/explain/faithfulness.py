"""Whether a map is true to the network: its pixels taken away, and its weights made random."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from torchxrayvision.errors import ImageShapeError
from torchxrayvision.explain.attribution import attribute, baseline_for
from torchxrayvision.explain.model import at_rest, checked, probability, score, target_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from torchxrayvision.explain.attribution import Baseline
    from torchxrayvision.explain.model import Target

    Method = str | Callable[[nn.Module, Tensor, Target], Tensor]


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


_SIDE = 64  # maps are compared at this resolution; ranks of more pixels say no more


@dataclass(frozen=True)
class RandomisationReport:
    """How alike the maps stay while the layers of a network become random.

    Attributes:
        stages: Name of the last layer that was made random at each stage, from the output on.
        similarity: Spearman's rank correlation with the map of the trained network, mean over
            the images and the draws, at each stage.
        threshold: What the last stage must stay below.
    """

    stages: tuple[str, ...]
    similarity: tuple[float, ...]
    threshold: float

    @property
    def passed(self) -> bool:
        """Whether the map of a random network is another one, as it must be."""
        return abs(self.similarity[-1]) < self.threshold

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "failed"
        lines = [f"{s:+.3f}  {name}" for s, name in zip(self.similarity, self.stages, strict=True)]
        return "\n".join([f"randomised weights: {verdict} (threshold {self.threshold})", *lines])


def randomisation_check(
    model: nn.Module,
    x: Tensor,
    target: Target,
    method: Method = "gradcam",
    *,
    stages: int = 8,
    threshold: float = 0.5,
    draws: int = 5,
    seed: int = 0,
) -> RandomisationReport:
    """Make a network random from the output to the input, and compare the maps on the way.

    An explanation that stays as it is explains the image, not the network: edge detectors do.

    Args:
        model: The network; a copy is made random.
        x: Images, shape (B, 1, S, S) in [-1024, 1024].
        target: Name or place of the output.
        method: One of `METHODS`, or a function of model, images and target that gives maps.
        stages: Steps from the output to the input; layers are shared out over them.
        threshold: Rank correlation that counts as the same map.
        draws: Random networks that are averaged: one alone may follow brightness by chance, with
            the finding or against it, most of all where a map has few positions.
        seed: Of the random weights.

    Returns:
        The report.

    Raises:
        ValueError: If `stages` or `draws` is below 1.
        UnknownNameError: If there is no such method or target.

    Source:
        Adebayo et al. Sanity checks for saliency maps. NeurIPS 2018, section 3: cascading
        randomization. https://arxiv.org/abs/1810.03292
    """
    if min(stages, draws) < 1:
        msg = f"stages={stages} and draws={draws}: at least 1 of each is needed"
        raise ValueError(msg)
    index = target_index(model, target)

    def explain(network: nn.Module) -> list[NDArray[np.float64]]:
        if callable(method):
            return _ranked(method(network, x, target))
        return _ranked(attribute(network, x, target, method))

    trained = explain(model)
    layers = _from_output_to_input(model, x, index)
    parts = np.array_split(np.arange(len(layers)), min(stages, len(layers)))
    similarity = np.zeros((draws, len(parts)))
    for draw in range(draws):
        network = copy.deepcopy(model)
        modules = dict(network.named_modules())
        generator = torch.Generator().manual_seed(seed + draw)
        for stage, part in enumerate(parts):
            for place in part:
                _make_random(modules[layers[place]], generator)
            pairs = zip(trained, explain(network), strict=True)
            similarity[draw, stage] = np.mean([_correlation(a, b) for a, b in pairs])
    names = tuple(layers[part[-1]] for part in parts)
    return RandomisationReport(names, tuple(similarity.mean(0).tolist()), threshold)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of a network that has learnt nothing.

    Args:
        model: The network.
        seed: Of the random weights.

    Returns:
        The copy. Weights are drawn as by He et al. (ICCV 2015), normalisations do nothing.

    Example:
        >>> copy = randomised(nn.Linear(3, 2))
        >>> copy.bias.tolist()
        [0.0, 0.0]
    """
    network = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        _make_random(module, generator)
    return network


def _from_output_to_input(model: nn.Module, x: Tensor, index: int) -> list[str]:
    """Names of the modules with parameters of their own that run, the last one first."""
    order: dict[nn.Module, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda ran, _inputs: order.setdefault(ran))
        for module in model.modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    try:
        with at_rest(model), torch.no_grad():
            score(model, checked(x[:1]), index)
    finally:
        for handle in handles:
            handle.remove()
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in reversed(order)]


def _make_random(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            nn.modules.batchnorm._NormBase.reset_running_stats(module)
        for name, tensor in module.named_parameters(recurse=False):
            if tensor.dim() > 1:
                deviation = math.sqrt(2 / max(1, tensor[0].numel()))
                drawn = torch.randn(tensor.shape, generator=generator) * deviation
                tensor.copy_(drawn)
            else:
                tensor.fill_(1.0 if name == "weight" else 0.0)  # of a normalisation, if any


def _ranked(heat: Tensor) -> list[NDArray[np.float64]]:
    """Ranks of the pixels of each map; equal ones share their mean rank."""
    ranks = []
    size = (min(heat.shape[1], _SIDE), min(heat.shape[2], _SIDE))
    small = functional.adaptive_avg_pool2d(heat.detach().float().cpu(), size)
    for plane in small.numpy():
        _, inverse, counts = np.unique(plane, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranks.append((ends - (counts - 1) / 2)[inverse.ravel()])
    return ranks


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Pearson's correlation of ranks; 1 for two constant maps, 0 for one."""
    a, b = first - first.mean(), second - second.mean()
    if not a.any() or not b.any():
        return float(not a.any() and not b.any())
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))
