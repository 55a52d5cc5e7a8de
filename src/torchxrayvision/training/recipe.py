"""A training run as data: frozen dataclasses, checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - recipes are parsed by their annotations
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from torchxrayvision.errors import RecipeError

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def _one_of(owner: object, name: str, known: tuple[str, ...]) -> None:
    value = getattr(owner, name)
    if value not in known:
        msg = f"{type(owner).__name__}.{name} must be one of {', '.join(known)}, got {value!r}"
        raise RecipeError(msg)


def _within(owner: object, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not low <= value <= high:
            msg = f"{type(owner).__name__}.{name} must lie in [{low:g}, {high:g}], got {value!r}"
            raise RecipeError(msg)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset of a run.

    Args:
        name: A class of `torchxrayvision.datasets`, such as `"NIH_Dataset"`.
        args: Its constructor's arguments. Transforms belong to the recipe, not here.
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which images train and which validate; a patient is never on both sides.

    Args:
        kind: `"patients"`: random, by patient. `"official"`: the release's own parts.
            `"images"`: random, by image, for sources that do not say whose their images are.
        fractions: Shares of the patients, or images, that train and that validate; the rest, if
            any, is left out of the run, for a test.
        train: Name of the official part that trains.
        validation: Name of the official part that validates.
        seed: Of the random split.
    """

    kind: str = "patients"
    fractions: tuple[float, float] = (0.8, 0.2)
    train: str = "train"
    validation: str = "val"
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of(self, "kind", ("patients", "official", "images"))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training images; every amount is the largest, drawn uniformly.

    Args:
        rotation: Degrees either way.
        translation: Share of the side, either way, along each axis.
        scale: Share of the size, either way.
        aspect: Share by which the width grows and the height shrinks, or the reverse.
        flip: Probability of a horizontal flip. It mirrors the heart, so it is off by default.
        gamma: Log of the exponent on grey values, either way.
        contrast: Share of the contrast about mid-grey, either way.
        noise: Standard deviation of Gaussian noise as a share of the range of grey values.
        erase: Probability that a rectangle is replaced by the image's mean.
        mixup: Parameter of the Beta distribution that mixes pairs of images and their labels; 0
            for none. A label that is missing in one of a pair is missing in the mixture.

    Source:
        Mixup: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412. Erasing: Zhong et al.,
        AAAI 2020, https://arxiv.org/abs/1708.04896.
    """

    rotation: float = 0.0
    translation: float = 0.0
    scale: float = 0.0
    aspect: float = 0.0
    flip: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        _within(self, 0, 180, "rotation")
        _within(self, 0, 0.9, "translation", "scale", "aspect", "contrast")
        _within(self, 0, 1, "flip", "erase", "noise")
        _within(self, 0, 10, "gamma", "mixup")


PUBLISHED: Final = Augmentation(rotation=45, translation=0.15, scale=0.15)
"""That of the published core models: Cohen et al., MIDL 2020, https://arxiv.org/abs/2002.02497."""

STRONG: Final = Augmentation(
    rotation=15, translation=0.08, scale=0.15, aspect=0.08, gamma=0.35, contrast=0.2, noise=0.02,
    erase=0.3,
)  # fmt: skip
"""Smaller moves, as a positioned patient makes them, and changes of exposure."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weights in the masked binary cross-entropy.

    Args:
        task_weights: `"published"` weighs a finding by its rarity among positive labels, as the
            published models were trained; `"equal"` does not.
        positive_weights: Weight of a positive label: `"none"`, `"sqrt"` (of negatives by
            positives) or `"balanced"` (negatives by positives).
        smoothing: Share by which labels are drawn towards 0.5.
    """

    task_weights: str = "published"
    positive_weights: str = "none"
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "task_weights", ("published", "equal"))
        _one_of(self, "positive_weights", ("none", "sqrt", "balanced"))
        _within(self, 0, 0.5, "smoothing")


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How far a drawn image is from the given one, as shares of the range of grey values.

    Args:
        error: `"l1"`, the mean absolute difference, or `"mse"`, the mean of its square, which is
            what the ratio of peak to error (PSNR) counts.
        gradient: Weight of the mean absolute difference of neighbouring pixels' steps, which
            keeps edges.
        ssim: Weight of 1 minus structural similarity.
    """

    error: str = "l1"
    gradient: float = 0.0
    ssim: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "error", ("l1", "mse"))
        _within(self, 0, 1e3, "gradient", "ssim")


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Which masks are learnt, and what counts as an error of an outlined structure.

    Args:
        masks: `"anatomy"`, the datasets' `semantic_masks`, or `"findings"`, their
            `pathology_masks`.
        cross_entropy: Weight of the mean cross-entropy of the pixels.
        dice: Weight of 1 minus the soft Dice coefficient of each image and structure.

    Source:
        Milletari et al. V-Net: fully convolutional neural networks for volumetric medical image
        segmentation. 3DV 2016. https://arxiv.org/abs/1606.04797
    """

    masks: str = "anatomy"
    cross_entropy: float = 1.0
    dice: float = 1.0

    def __post_init__(self) -> None:
        _one_of(self, "masks", ("anatomy", "findings"))
        _within(self, 0, 1e3, "cross_entropy", "dice")
        if not self.cross_entropy + self.dice:
            raise RecipeError("Segmentation: cross_entropy and dice are both 0, so nothing counts")


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """How weights move.

    Args:
        name: `"adamw"`, `"adam"` or `"sgd"` (Nesterov).
        lr: Largest learning rate.
        weight_decay: On matrices and kernels only, not on biases and norms.
        momentum: Of SGD.
        clip: Largest norm of the gradient; 0 for no limit.
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    clip: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "name", ("adamw", "adam", "sgd"))
        _within(self, 0, 1e3, "lr", "weight_decay", "clip")
        _within(self, 0, 1, "momentum")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate moves, step by step.

    Args:
        kind: `"cosine"`, `"linear"` or `"constant"`, after the warm-up.
        warmup: Share of all steps in which it grows from 0.
        floor: Where it ends, as a share of its largest value.
    """

    kind: str = "cosine"
    warmup: float = 0.05
    floor: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "kind", ("cosine", "linear", "constant"))
        _within(self, 0, 1, "warmup", "floor")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a run ends with.

    Args:
        task: `"classification"`: findings from images. `"reconstruction"`: an autoencoder, which
            needs no labels. `"segmentation"`: outlines of structures, from datasets with masks.
        datasets: What it learns from; several are relabelled to `findings` and merged.
        findings: Outputs in order; empty for those of the data, and for a reconstruction. Of a
            segmentation the structures, or findings, that have masks.
        split: Of the datasets.
        model: A name of `torchxrayvision.models.list_models`, `"timm:NAME"` or
            `"torchvision:NAME"`; for a reconstruction one of
            `torchxrayvision.autoencoders.list_autoencoders`; for a segmentation `"unet"`,
            `"pspnet"`, `"unet-resnet50"` or the name of weights of such a network.
        model_args: Further arguments of that model.
        weights: A checkpoint file to start from; its last layer is kept if the findings agree.
        trainable: `"full"`, or `"head"` to train the last layer on frozen features.
        resolution: Side in pixels that the network sees.
        cache_resolution: Side of the prepared images; 0 for `resolution`.
        augmentation: Random changes of training images.
        loss: Weights of labels.
        reconstruction: What counts as an error of a drawn image.
        segmentation: Which masks are learnt, and what counts as an error of an outline.
        optimiser: How weights move.
        schedule: How the learning rate moves.
        epochs: Passes over the training images.
        batch_size: Images per step, over all processes together.
        precision: `"32"`, `"bf16-mixed"` or `"16-mixed"`.
        channels_last: Keep activations in the order that convolutions prefer.
        ema: Decay of the average of the weights that is validated and kept; 0 for none.
        patience: Epochs without a better mean AUROC, PSNR of a reconstruction or mean Dice of a
            segmentation, before the run ends; 0 for never.
        checkpoint_steps: Steps between two states to resume from; 0 for epoch ends only.
        loggers: Of `"csv"` and `"tensorboard"`.
        accelerator: `"auto"`, `"cpu"`, `"gpu"`, `"mps"`.
        seed: Of weights, order, augmentation and dropout.

    Raises:
        RecipeError: If a value is out of its range.

    Example:
        >>> Recipe(findings=("Mass",), epochs=2).model
        'densenet121'
    """

    task: str = "classification"
    datasets: tuple[Source, ...] = ()
    findings: tuple[str, ...] = ()
    split: Split = field(default_factory=Split)
    model: str = "densenet121"
    model_args: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    weights: str = ""
    trainable: str = "full"
    resolution: int = 224
    cache_resolution: int = 0
    augmentation: Augmentation = PUBLISHED
    loss: Loss = field(default_factory=Loss)
    reconstruction: Reconstruction = field(default_factory=Reconstruction)
    segmentation: Segmentation = field(default_factory=Segmentation)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    epochs: int = 20
    batch_size: int = 32
    precision: str = "32"
    channels_last: bool = True
    ema: float = 0.0
    patience: int = 0
    checkpoint_steps: int = 500
    loggers: tuple[str, ...] = ("csv",)
    accelerator: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of(self, "task", ("classification", "reconstruction", "segmentation"))
        _one_of(self, "trainable", ("full", "head"))
        _one_of(self, "precision", ("32", "bf16-mixed", "16-mixed"))
        _one_of(self, "accelerator", ("auto", "cpu", "gpu", "mps"))
        _within(self, 1, 1 << 30, "epochs", "batch_size", "resolution")
        _within(self, 0, 1 << 30, "cache_resolution", "patience", "checkpoint_steps", "seed")
        if not 0 <= self.ema < 1:
            raise RecipeError(f"Recipe.ema must lie in [0, 1), got {self.ema!r}")
        unknown = [name for name in self.loggers if name not in ("csv", "tensorboard")]
        if unknown:
            raise RecipeError(f"Recipe.loggers knows csv and tensorboard, got {unknown}")
        repeated = {name for name in self.findings if self.findings.count(name) > 1}
        if repeated:
            raise RecipeError(f"Recipe.findings names {sorted(repeated)} more than once")
        self._check_task()

    def _check_task(self) -> None:
        if self.task == "classification":
            return
        if self.task == "reconstruction" and self.findings:
            raise RecipeError("task = 'reconstruction' has no findings; leave them out")
        if self.trainable != "full":
            raise RecipeError(f"task = {self.task!r} trains the whole network; leave trainable out")
