"""`xrv train`: carry out a recipe."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from torchxrayvision.cli.console import console, progress_of, show_warnings

__all__ = ["train"]


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
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-j", min=0, help="Processes that decode; one per processor."),
    ] = None,
) -> None:
    """Train a classifier: decode every image once, then fit, validate and keep the best weights."""
    from torchxrayvision.training import load_recipe

    recipe = load_recipe(config)  # before the seconds that torch takes to load
    from torchxrayvision.training import fit, prepare, state_to_resume

    folder = config.with_suffix("") if out_dir is None else out_dir
    state_to_resume(folder, resume)
    with show_warnings():
        with progress_of(0) as prepared:
            images = prepare(recipe, cache=cache, workers=workers, progress=prepared)
        result = fit(recipe, *images, out=folder, resume=resume)
    if os.environ.get("RANK", "0") != "0":  # one of several processes speaks
        return
    for name, area in result.auroc.items():
        value = "no case" if math.isnan(area) else f"{area:.3f}"
        console().print(f"{name}: {value}", markup=False)
    console().print(f"mean AUROC {result.mean_auroc:.3f}, {result.epochs} epochs", markup=False)
    console().print(f"weights: {result.best}", markup=False, soft_wrap=True)
