"""What a run learns, what it is judged by and how its network is kept.

Findings of an image, the image itself, or the outlines of structures in it.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxrayvision import autoencoders, models
from torchxrayvision.errors import EvaluationError
from torchxrayvision.evaluation import auroc
from torchxrayvision.training.loss import (
    dice_of,
    masked_bce,
    mean_of_images,
    mean_of_known,
    outline_errors,
    positive_weights,
    reconstruction_errors,
    task_weights,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torchxrayvision.training.images.prepared import PreparedImages
    from torchxrayvision.training.recipe import Recipe

    Total = Callable[[Tensor], Tensor]

PSNR_LIMIT = 120.0
"""Decibels of an image that is drawn without any error, whose ratio is infinite."""


class Objective(nn.Module, abc.ABC):
    """One kind of task.

    Attributes:
        monitored: The figure of an epoch that is larger where weights are better.
        numbers: How many numbers per image an epoch is judged by.
    """

    monitored: ClassVar[str]
    numbers: int

    @abc.abstractmethod
    def loss(self, network: Any, images: Tensor, truth: Tensor, total: Total | None) -> Tensor:
        """What a step makes smaller.

        Args:
            network: The network in training.
            images: (B, 1, S, S) in [-1024, 1024], augmented.
            truth: Labels (B, P), or masks (B, P, S, S) moved as the images; NaN is not known.
            total: See `masked_bce`.
        """

    @abc.abstractmethod
    def judge(self, network: Any, images: Tensor, truth: Tensor) -> Tensor:
        """What an epoch is judged by: (B, `numbers`) of a batch that is not augmented."""

    @abc.abstractmethod
    def figures(
        self, values: Tensor, labels: Tensor
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Figures of an epoch, `val_loss` and `monitored` among them, and those by finding.

        Args:
            values: (N, `numbers`) of all images.
            labels: (N, P).
        """

    @abc.abstractmethod
    def save(self, network: Any, path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the network, and give what its header says."""


def objective_of(recipe: Recipe, train: PreparedImages) -> Objective:
    """What a recipe asks for, over the images that it trains on."""
    if recipe.task == "reconstruction":
        return Reconstruct(recipe)
    if recipe.task == "segmentation":
        return Segment(recipe, train.names)
    return Classify(recipe, train)


class Classify(Objective):
    """Findings by binary cross-entropy, judged by their mean AUROC."""

    monitored = "val_auroc"
    task_weight: Tensor
    positive_weight: Tensor

    def __init__(self, recipe: Recipe, train: PreparedImages) -> None:
        super().__init__()
        self._smoothing = recipe.loss.smoothing
        self._names = train.names
        self.numbers = len(train.names)
        weights = {
            "task_weight": task_weights(train.labels, recipe.loss.task_weights),
            "positive_weight": positive_weights(train.labels, recipe.loss.positive_weights),
        }
        for name, values in weights.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def loss(self, network: Any, images: Tensor, truth: Tensor, total: Total | None) -> Tensor:
        """Masked cross-entropy of smoothed labels."""
        labels = truth * (1 - self._smoothing) + self._smoothing / 2
        logits = network(images, output="logit").float()
        return masked_bce(logits, labels, self.task_weight, self.positive_weight, total)

    def judge(self, network: Any, images: Tensor, truth: Tensor) -> Tensor:  # noqa: ARG002
        """Logits."""
        logits: Tensor = network(images, output="logit").float()
        return logits

    def figures(
        self, values: Tensor, labels: Tensor
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Loss and mean AUROC; AUROC of each finding."""
        areas = auroc_of(values, labels)
        figures = {"val_loss": masked_bce(values, labels).item(), "val_auroc": _mean(areas)}
        return figures, {"auroc": dict(zip(self._names, areas, strict=True))}

    def save(self, network: Any, path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A file for `models.load_checkpoint`."""
        return models.save_checkpoint(network, path, facts=facts)


class Reconstruct(Objective):
    """The image itself, judged by the mean ratio of peak to error (PSNR) of the images."""

    monitored = "val_psnr"
    numbers = 4  # loss, squared error, absolute error, structural similarity

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._how, self._side = recipe.reconstruction, recipe.resolution

    def loss(
        self,
        network: Any,
        images: Tensor,
        truth: Tensor,  # noqa: ARG002 - an image is its own
        total: Total | None,
    ) -> Tensor:
        """Mean over the images of what the recipe weighs."""
        drawn = network(images)["out"].float()
        return mean_of_images(reconstruction_errors(drawn, images, self._how)["loss"], total)

    def judge(self, network: Any, images: Tensor, truth: Tensor) -> Tensor:  # noqa: ARG002
        """Errors of each image."""
        images = models.resize(images, self._side)
        drawn = network(images)["out"].float()
        errors = reconstruction_errors(drawn, images, self._how, every=True)
        return torch.stack([errors[key] for key in ("loss", "squared", "absolute", "ssim")], dim=1)

    def figures(
        self,
        values: Tensor,
        labels: Tensor,  # noqa: ARG002
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Loss, PSNR in decibels and structural similarity, each the mean over the images."""
        figures = {
            "val_loss": values[:, 0].mean().item(),
            "val_psnr": psnr_of(values[:, 1]).mean().item(),
            "val_ssim": values[:, 3].mean().item(),
        }
        return figures, {}

    def save(self, network: Any, path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A file for `autoencoders.load_checkpoint`."""
        return autoencoders.save_checkpoint(network, path, facts=facts)


class Segment(Objective):
    """Outlines of structures, judged by the Dice coefficient.

    That of an epoch is the mean over the structures of the mean over the images that have one.
    """

    monitored = "val_dice"

    def __init__(self, recipe: Recipe, names: Sequence[str]) -> None:
        super().__init__()
        self._how, self._side, self._names = recipe.segmentation, recipe.resolution, names
        self.numbers = 2 * len(names)  # loss and Dice of each

    def loss(self, network: Any, images: Tensor, truth: Tensor, total: Total | None) -> Tensor:
        """Mean over the structures of the mean over the images whose mask is known."""
        each = outline_errors(network(images).float(), truth, self._how)
        return mean_of_known(each, ~each.isnan(), total=total)

    def judge(self, network: Any, images: Tensor, truth: Tensor) -> Tensor:
        """Loss and Dice of each structure in each image."""
        logits = network(images).float()
        masks = masks_at(truth, logits.shape[-1])
        each = outline_errors(logits, masks, self._how)
        return torch.cat([each, dice_of(logits > 0, masks).float()], dim=1)

    def figures(
        self,
        values: Tensor,
        labels: Tensor,  # noqa: ARG002 - what is not known is NaN already
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Loss and mean Dice; Dice of each structure."""
        each, dice = values.double().chunk(2, dim=1)
        by_name = dice.nanmean(0).tolist()
        figures = {"val_loss": mean_of_known(each, ~each.isnan()).item(),
                   "val_dice": _mean(by_name)}  # fmt: skip
        return figures, {"dice": dict(zip(self._names, by_name, strict=True))}

    def save(self, network: Any, path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """A file for `models.load_segmenter`, and so for `xrv weights add`."""
        return models.save_segmenter(network, path, facts=facts)


def masks_at(masks: Tensor, side: int) -> Tensor:
    """Masks of another size, softly: each pixel is the share of it that lies inside.

    Args:
        masks: (B, P, S, S); NaN throughout where one is not known.
        side: Of the result in pixels.
    """
    if masks.shape[-1] == side:
        return masks
    return functional.interpolate(masks, (side, side), mode="bilinear", antialias=True)


def psnr_of(squared: Tensor) -> Tensor:
    """Ratio of the range of grey values to the error, in decibels.

    Args:
        squared: Mean squared error as a share of the squared range.

    Returns:
        The same shape; at most `PSNR_LIMIT`.

    Example:
        >>> round(psnr_of(torch.tensor([0.001])).item(), 3)
        30.0
    """
    return -10 * squared.double().clamp(min=10 ** (-PSNR_LIMIT / 10)).log10()


def auroc_of(scores: Tensor, labels: Tensor) -> list[float]:
    """Area under the ROC curve of each finding.

    Args:
        scores: (N, P).
        labels: (N, P): 1, 0, NaN unknown.

    Returns:
        P values; NaN for a finding without a positive or without a negative label, or with a
        score that is NaN.
    """
    areas = []
    for score, label in zip(scores.double().T.cpu(), labels.double().T.cpu(), strict=True):
        try:
            areas.append(auroc(label.numpy(), score.numpy()))
        except EvaluationError:  # rows of one class only, or scores that are not numbers
            areas.append(math.nan)
    return areas


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
