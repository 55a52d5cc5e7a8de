"""`fit`: one recipe, some images, and what came of it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
import os
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import RecipeError, ResumeError, counted, needs_package
from torchxrayvision.training.images.masks import MaskedImages
from torchxrayvision.training.images.prepared import checked_labels
from torchxrayvision.training.parse import recipe_to_dict
from torchxrayvision.training.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd

    from torchxrayvision.models import XRayModel
    from torchxrayvision.training.images.prepared import PreparedImages

_STATE: Final = "resume.safetensors"
# What may differ when a run goes on, because it does not change what the run ends with.
_FREE: Final = ("loggers", "accelerator", "checkpoint_steps", "datasets", "split")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run ended with.

    Attributes:
        best: File of the weights with the largest mean AUROC, PSNR or mean Dice; those of `last`
            if nothing validated. `torchxrayvision.models.load_checkpoint` reads it, that of
            `torchxrayvision.autoencoders`, or `torchxrayvision.models.load_segmenter`.
        last: File of the weights at the end.
        auroc: Finding to the AUROC of `best` on the validation images; NaN where there is no
            positive or no negative case. Empty if nothing validated.
        mean_auroc: Mean of those that are not NaN.
        psnr: Of a reconstruction: mean ratio of peak to error of the validation images, in
            decibels.
        dice: Of a segmentation: structure to the Dice coefficient of `best` on the validation
            images; NaN where no image shows it.
        mean_dice: Mean of those that are not NaN.
        epochs: How many were run.
        history: One dict per epoch: `epoch`, `val_loss`, and `val_auroc` and `auroc`, `val_psnr`
            and `val_ssim`, or `val_dice` and `dice`.
        best_epoch: The epoch of `best`, from 0; None if nothing validated.
        intervals: The table of `auroc.csv`: AUROC with 95 % intervals over patients, one row per
            part (`validation`, `test`) and finding; of a reconstruction that of
            `reconstruction.csv`, one row per part and measure; of a segmentation that of
            `dice.csv`, one row per part and structure. The validation images chose the
            epoch, so their figures are too high for other patients; `note` says so. Those of
            `test` chose nothing. None in processes other than the first.
    """

    best: Path
    last: Path
    auroc: Mapping[str, float] = field(default_factory=dict)
    mean_auroc: float = float("nan")
    psnr: float = float("nan")
    dice: Mapping[str, float] = field(default_factory=dict)
    mean_dice: float = float("nan")
    epochs: int = 0
    history: tuple[Mapping[str, Any], ...] = ()
    best_epoch: int | None = None
    intervals: pd.DataFrame | None = None


def fit(
    recipe: Recipe,
    train: PreparedImages | None = None,
    validation: PreparedImages | None = None,
    *,
    out: str | os.PathLike[str],
    test: PreparedImages | None = None,
    resume: bool = False,
    network: XRayModel | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> Result:
    """Train a classifier, an autoencoder or a segmentation network.

    One process trains on one device; started by `torchrun`, each process takes its share of every
    batch. In `out` appear `best` and `last` (safetensors with a JSON file beside), `recipe.json`,
    the logs of each start, the state to resume from, and in the end `split.csv`, `auroc.csv`,
    `predictions-validation.csv` and `predictions-test.csv`, or, of a reconstruction,
    `reconstruction.csv`, `reconstructions-validation.csv`, `reconstructions-test.csv` and
    `reconstructions.png`, or, of a segmentation, `dice.csv`, `outlines-validation.csv`,
    `outlines-test.csv` and pictures of both. A run that was killed ends, when it is
    resumed, with the weights of an undisturbed one, bit for bit on a CPU with as many threads.

    Args:
        recipe: What to do.
        train: Images to learn from, such as an array in memory or an `ImageCache`, for a
            segmentation `MaskedImages`; None prepares those of `recipe.datasets`, and splits them.
        validation: Images of other patients, to choose the epoch by; None with `train` for none.
        out: Folder of the run.
        test: Images of yet other patients, which the best weights predict once in the end; None
            with `train` for none, without it for those that the recipe's split leaves out.
        resume: Resume the run in `out`, or start it if there is none.
        network: A classifier, autoencoder or `Segmenter` to train in the place of `recipe.model`;
            it is changed.
        cache: Folder of prepared images, where `train` is None; None for the package's.
        progress: Show a bar; None shows it on a terminal.
        on_epoch: Called after each epoch with its figures, in the first process: `epoch`,
            `train_loss`, and those of `Result.history` if there are images to validate on.

    Returns:
        Files and figures.

    Raises:
        RecipeError: If the recipe does not fit the images or the machine, or if two parts have
            images or patients in common.
        DatasetError: If labels are no probabilities, or those to judge by not 0, 1 or NaN.
        ResumeError: If `out` holds a run and `resume` is not set, or holds another run.
        DependencyError: If the extra `train` is not installed.

    Example:
        >>> import tempfile
        >>> from torchxrayvision.training import PreparedImages, Recipe, fit
        >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
        >>> data = PreparedImages(images, np.tile([[0.0], [1.0]], (4, 1)), ["Mass"])
        >>> train, validation = data.subset(range(4)), data.subset(range(4, 8))
        >>> recipe = Recipe(
        ...     model="torchvision:mobilenet_v3_small", resolution=32, epochs=1, batch_size=4
        ... )
        >>> fit(recipe, train, validation, out=tempfile.mkdtemp(), progress=False).epochs
        1
    """
    with needs_package("lightning", "Training", "train"):
        import lightning.pytorch  # noqa: F401
    folder = Path(out)
    state = state_to_resume(folder, resume)
    if train is None:
        from torchxrayvision.training.data import prepare_parts

        if validation is not None or test is not None:
            msg = "validation or test images without images to train on: give both, or neither"
            raise RecipeError(f"{msg}, so that recipe.datasets are prepared and split")
        train, validation, test = prepare_parts(recipe, cache=cache)
    parts = _with_findings(recipe, {"train": train, "validation": validation, "test": test})
    facts = _facts(recipe, parts["train"], parts.get("validation"))
    if state is not None:
        _check_same_run(state, facts, folder)
    _check_apart(parts)
    with _quiet():
        return _run(recipe, parts, folder, network, facts, state, progress, on_epoch)


def _with_findings(
    recipe: Recipe, parts: Mapping[str, PreparedImages | None]
) -> dict[str, PreparedImages]:
    """The parts that there are, with the findings of the recipe and labels that fit."""
    given = {part: images for part, images in parts.items() if images is not None}
    labelled = recipe.task != "reconstruction"
    names = (recipe.findings or given["train"].names) if labelled else ()
    for part, images in given.items():
        if recipe.task == "segmentation" and not isinstance(images, MaskedImages):
            raise RecipeError(f"task = 'segmentation' learns from MaskedImages; those of {part}"
                              " have no masks")  # fmt: skip
        if not len(images):
            raise RecipeError(f"no image is left for the part {part}; check datasets and split")
        given[part] = images if images.names == names else images.with_findings(names)
        checked_labels(given[part].labels, names, soft=part == "train")
    return given


def _check_apart(parts: Mapping[str, PreparedImages]) -> None:
    for (one, first), (other, second) in itertools.combinations(parts.items(), 2):
        shared = first.shared_patients(second)
        alike = len(first) == len(second) and first.fingerprint() == second.fingerprint()
        if shared or alike:
            patients = counted(shared, "patient")
            common = f"{patients} in common" if shared else "the same images"
            msg = f"{one} and {other} have {common}, so the figures would not hold for others"
            advice = "as datasets.split_by_patient does, and give each patient a number of its own"
            raise RecipeError(f"{msg}; split by patient, {advice}")


def _facts(
    recipe: Recipe, train: PreparedImages, validation: PreparedImages | None
) -> dict[str, Any]:
    def described(images: PreparedImages | None) -> dict[str, Any] | None:
        if images is None:
            return None
        positives = [int(n) for n in (images.labels == 1).sum(axis=0)]
        return {
            "images": len(images),
            "patients": len(set(images.patient_ids.tolist())),
            "positives": dict(zip(images.names, positives, strict=True)),
            "fingerprint": images.fingerprint(),
        }

    data = {"train": described(train), "validation": described(validation)}
    return {"recipe": recipe_to_dict(recipe), "data": data}


def state_to_resume(folder: Path, resume: bool) -> Path | None:
    """Where the run in a folder stands, asked before anything takes time.

    Args:
        folder: Of the run.
        resume: Whether it may go on.

    Returns:
        The file of its state, or None if there is none yet.

    Raises:
        ResumeError: If there is one and `resume` is not set.
    """
    state = folder / _STATE
    if state.exists() and not resume:
        msg = f"{folder} holds a run; resume it, or choose another folder"
        raise ResumeError(msg)
    return state if state.exists() else None


def _check_same_run(state: Path, facts: dict[str, Any], folder: Path) -> None:
    from torchxrayvision.training.state import read_state

    kept = read_state(state)["facts"]
    # What an older version did not know was as it is by default.
    old, new = recipe_to_dict(Recipe()) | kept["recipe"], facts["recipe"]
    changed = [key for key in new if key not in _FREE and old.get(key) != new[key]]
    if changed:
        was = ", ".join(f"{key} = {old.get(key)!r}" for key in changed)
        msg = f"the run in {folder} had {was}; resume it with that recipe, or choose another folder"
        raise ResumeError(msg)
    if kept["data"] != facts["data"]:
        msg = f"the run in {folder} was on other images or labels; choose another folder"
        raise ResumeError(msg)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what Lightning says on its own account while a run lasts."""
    from lightning.fabric.utilities.warnings import PossibleUserWarning

    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Advice on workers, intervals and folders, which this package chose on purpose.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # What Lightning's own code does that its dependencies are about to change.
            for kind in (FutureWarning, DeprecationWarning):
                warnings.filterwarnings("ignore", category=kind, module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run(
    recipe: Recipe,
    parts: Mapping[str, PreparedImages],
    folder: Path,
    network: XRayModel | None,
    facts: dict[str, Any],
    state: Path | None,
    progress: bool | None,
    on_epoch: Callable[[Mapping[str, Any]], None] | None,
) -> Result:
    from torchxrayvision.checkpoints import read_tensors
    from torchxrayvision.training.callbacks import EpochFigures, write_json
    from torchxrayvision.training.module import Training
    from torchxrayvision.training.network import network_for
    from torchxrayvision.training.reports import write_reports

    train, validation = parts["train"], parts.get("validation")
    net = network_for(recipe, train.names, network)
    module = Training(net, recipe, train, validation, facts)
    monitored = module.objective.monitored
    trainer = _trainer(recipe, folder, facts, monitored if validation else "", progress)
    if on_epoch is not None:
        trainer.callbacks.append(EpochFigures(on_epoch))
    if recipe.batch_size < trainer.world_size:
        msg = f"batch_size is {recipe.batch_size} for {trainer.world_size} processes; give each one"
        raise RecipeError(f"{msg} image at least")
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.part*"):  # by a process that was killed while it wrote
            left.unlink()
        write_json(folder / "recipe.json", facts["recipe"])
    trainer.fit(module, ckpt_path=state)
    result = _result(folder, module.history, trainer.current_epoch, monitored)
    if not trainer.is_global_zero:
        return result
    kept = copy.deepcopy(module.eval_network)
    kept.load_state_dict(read_tensors(result.best).tensors)
    kept.to(trainer.strategy.root_device)
    table = write_reports(folder, parts, kept, recipe)
    return dataclasses.replace(result, intervals=table)


def _trainer(
    recipe: Recipe, folder: Path, facts: dict[str, Any], monitored: str, progress: bool | None
) -> Any:
    from lightning.pytorch import Trainer

    from torchxrayvision.training.callbacks import KeepWeights, ResumePoints, StopEarly
    from torchxrayvision.training.state import TensorsAndJson

    callbacks: list[Any] = [KeepWeights(folder, facts)]
    if recipe.patience and monitored:
        callbacks.append(
            StopEarly(
                monitored,
                mode="max",
                patience=recipe.patience,
                check_finite=False,
                check_on_train_epoch_end=False,
            )
        )
    callbacks.append(ResumePoints(folder / _STATE, recipe.checkpoint_steps))
    world, local = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    on_gpu = recipe.accelerator in ("auto", "gpu")
    return Trainer(
        accelerator=recipe.accelerator,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        sync_batchnorm=world > 1 and on_gpu and _has_cuda(),
        precision=recipe.precision,  # type: ignore[arg-type] # the recipe knows which there are
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.optimiser.clip or None,
        logger=_loggers(recipe, folder),
        callbacks=callbacks,
        plugins=[TensorsAndJson()],
        limit_val_batches=1.0 if monitored else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty() if progress is None else progress,
        default_root_dir=folder,
    )


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _loggers(recipe: Recipe, folder: Path) -> list[Any]:
    from lightning.pytorch.loggers import CSVLogger

    made: list[Any] = []
    if "csv" in recipe.loggers:
        made.append(CSVLogger(folder, name="csv"))
    if "tensorboard" in recipe.loggers:
        from lightning.pytorch.loggers import TensorBoardLogger

        with needs_package("tensorboard", "The TensorBoard log", "train"):
            made.append(TensorBoardLogger(folder, name="tensorboard"))
    return made


def _result(folder: Path, history: list[dict[str, Any]], epochs: int, monitored: str) -> Result:
    last = folder / "last.safetensors"
    best = folder / "best.safetensors"
    if not history:
        return Result(best=last, last=last, epochs=epochs)
    top = history[0]
    for figures in history[1:]:  # NaN is never larger
        larger = figures[monitored] > top[monitored]
        top = figures if larger or top[monitored] != top[monitored] else top
    return Result(
        best=best,
        last=last,
        auroc=top.get("auroc", {}),
        mean_auroc=top.get("val_auroc", float("nan")),
        psnr=top.get("val_psnr", float("nan")),
        dice=top.get("dice", {}),
        mean_dice=top.get("val_dice", float("nan")),
        best_epoch=top["epoch"],
        epochs=epochs,
        history=tuple(history),
    )
