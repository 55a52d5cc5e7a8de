"""Every number that decides what the demonstration weights are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchxrayvision import phantom
from torchxrayvision.labels import DEFAULT_PATHOLOGIES
from torchxrayvision.training import Augmentation, Loss, Optimiser, Recipe, Schedule

SEED = 0
FOLDS = 5
SIX = ("Cardiomegaly", "Effusion", "Edema", "Consolidation", "Emphysema", "Pneumothorax")
"""The findings that the aim on real patients is about."""

# Of the 18 findings of the core models, all but the two that neither source labels.
TARGETS = (
    *(n for n in DEFAULT_PATHOLOGIES if n not in ("Lung Lesion", "Enlarged Cardiomediastinum")),
    "Support Devices",
)
AP = "AP"
"""A further output while training, for the view tells a bedside film; it does not ship."""
OUTPUTS = (*TARGETS, AP)

STRUCTURES = ("Left Lung", "Right Lung", "Heart", "Aorta", "Mediastinum", "Spine")

# What pre-training learns the place of. A mirrored film has its lungs on the wrong sides.
PLACES = (*phantom.FINDINGS, "Heart", "Lungs")
MASK_SIDE = 40  # of their masks

FRONTAL = ("PA", "AP")
TRAIN_SEED, TEST_SEED = 2017, 2018  # of the simulations; no case is in both

RENDERED = 160  # side of a simulated film in pixels, and of the anatomy network's input
KEPT = 160  # side of the films that the classifier's augmentation starts from
SEEN = 144  # side that the classifier sees

MODEL = "resnet18-width24"
ANATOMY_WIDTH = 12


@dataclass(frozen=True)
class Lesson:
    """Networks that teach another one.

    Args:
        name: Of the stage, whose network it leaves.
        start: Stage whose weights the student begins with.
        teachers: Stages whose networks teach; each heard on a film and on its mirror image.
    """

    name: str
    start: str
    teachers: tuple[str, ...]


# The first hears two that err differently. Then the student teaches the next, which knows from the
# start what its teacher says, and learns to say of one film what that says of two.
LESSONS = (
    Lesson("first", "pretrain", ("scratch", "tuned")),
    Lesson("second", "first", ("scratch", "tuned", "first")),
    Lesson("third", "second", ("second",)),
    Lesson("fourth", "third", ("third",)),
)
SHIPS = LESSONS[-1].name

ENOUGH = Augmentation(
    rotation=15, translation=0.08, scale=0.15, aspect=0.08, flip=0.5, gamma=0.35, contrast=0.2,
    noise=0.02, erase=0.3, mixup=0.3,
)  # fmt: skip
_LOSS = Loss(task_weights="equal", positive_weights="sqrt")
_SCHEDULE = Schedule(kind="cosine", warmup=0.1)


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Args:
        work: Folder of the intermediate results.
        nih: Folder of the real films.
        simulator: What the cards call the program that rendered the simulations.
        simulations: Simulated films to train on.
        outlined: How many of them train the anatomy network too.
        held_out: Simulated films to test on.
        scratch_epochs: Passes over the real films without pre-training.
        pretrain_epochs: Passes over the simulations.
        tune_epochs: Passes over the mixture of real and simulated films.
        repeats: How often each real film is in the mixture.
        mixed_in: Simulations in the mixture.
        lesson_steps: Batches of each lesson.
        anatomy_epochs: Passes of the anatomy network.
    """

    work: Path
    nih: Path
    simulator: str = "this package"
    simulations: int = 5000
    outlined: int = 1600
    held_out: int = 500
    scratch_epochs: int = 40
    pretrain_epochs: int = 10
    tune_epochs: int = 6
    repeats: int = 4
    mixed_in: int = 1500
    lesson_steps: int = 1300
    anatomy_epochs: int = 8

    def recipe(self, epochs: int, lr: float, seed: int, weights: Path | None = None) -> Recipe:
        """The recipe of the classifier; only length, rate and start differ between the stages."""
        return Recipe(
            findings=OUTPUTS,
            model=MODEL,
            weights="" if weights is None else str(weights),
            resolution=SEEN,
            augmentation=ENOUGH,
            loss=_LOSS,
            optimiser=Optimiser(name="adamw", lr=lr, weight_decay=0.05, clip=2.0),
            schedule=_SCHEDULE,
            epochs=epochs,
            batch_size=32,
            ema=0.99,
            checkpoint_steps=100_000,  # a stage is short enough to start again
            loggers=(),
            accelerator="cpu",
            seed=seed,
        )
