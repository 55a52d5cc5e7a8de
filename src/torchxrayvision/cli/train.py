"""`xrv train`: carry out a recipe."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import console, inform, progress_of, show_warnings
from torchxrayvision.errors import counted
from torchxrayvision.inputs import ReadOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from torchxrayvision.training import Result


def train(
    config: Annotated[Path, typer.Option(help="The recipe: .toml or .json, see docs/training.md.")],
    out_dir: Annotated[
        Path | None,
        typer.Option("--out-dir", help="Folder of the run; by default named as the recipe."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in that folder.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared images; the package's if not given.")
    ] = None,
    workers: opt.Workers = None,
    time_limit: opt.TimeLimit = None,
    isolate: opt.Isolate = False,
) -> None:
    """Train a network from a recipe: decode every image once, fit, keep the best weights.

    Findings from labels; with task = "reconstruction" in the recipe an autoencoder, which needs no
    labels; with task = "segmentation" outlines of structures, from datasets with masks.
    """
    from torchxrayvision.training import load_recipe

    recipe = load_recipe(config)  # before the seconds that torch takes to load
    from torchxrayvision.training import fit, prepare_parts, state_to_resume

    folder = config.with_suffix("") if out_dir is None else out_dir
    state_to_resume(folder, resume)
    with show_warnings():
        reading = ReadOptions.of(workers=workers, time_limit=time_limit, isolate=isolate)
        with progress_of(0) as prepared:
            *images, test = prepare_parts(recipe, cache=cache, reading=reading, progress=prepared)
        result = fit(
            recipe, *images, test=test, out=folder, resume=resume,
            on_epoch=None if sys.stderr.isatty() else _print_epoch,  # a terminal has the bar
        )  # fmt: skip
    if os.environ.get("RANK", "0") != "0":  # one of several processes speaks
        return
    for part, table in () if result.intervals is None else result.intervals.groupby("part"):
        _print_part(str(part), table, result)
    best, tables = {
        "classification": (f"mean AUROC {result.mean_auroc:.3f}", "predictions"),
        "reconstruction": (f"PSNR {result.psnr:.1f} dB", "reconstructions"),
        "segmentation": (f"mean Dice {result.mean_dice:.3f}", "Dice of each image"),
    }[recipe.task]
    _print(f"{best}, {counted(result.epochs, 'epoch')}")
    _print(f"weights: {result.best}")
    _print(f"split, {tables} and intervals: {folder}")
    if recipe.task == "segmentation":
        _print(f"to use it: xrv weights add {result.best} --name NAME; xrv segment --weights NAME")


def _print(line: str) -> None:
    console().print(line, markup=False, highlight=False, soft_wrap=True)


def _print_epoch(figures: Mapping[str, Any]) -> None:
    line = f"epoch {figures['epoch'] + 1}: training loss {figures['train_loss']:.4f}"
    if "val_loss" in figures:
        line += f", validation loss {figures['val_loss']:.4f}"
    if "val_auroc" in figures:
        line += f", mean AUROC {figures['val_auroc']:.3f}"
    if "val_psnr" in figures:
        line += f", PSNR {figures['val_psnr']:.2f} dB"
    if "val_dice" in figures:
        line += f", mean Dice {figures['val_dice']:.3f}"
    inform(line)


def _print_part(part: str, table: pd.DataFrame, result: Result) -> None:
    if part == "validation" and result.best_epoch is not None:
        _print(
            f"validation, which chose epoch {result.best_epoch + 1} of {result.epochs}: "
            "expect less for other patients"
        )
    else:
        _print(f"{part}, which chose nothing")
    for row in table.to_dict("records"):
        name = next(row[key] for key in ("finding", "structure", "measure") if key in row)
        number = row["mean"] if "mean" in row else row["auroc"]
        value = "no case" if math.isnan(number) else f"{number:.3f}"
        known = not math.isnan(row["low"])
        interval = f" ({row['low']:.3f} to {row['high']:.3f})" if known else ""
        _print(f"  {name}: {value}{interval}")
