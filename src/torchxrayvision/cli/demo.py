"""`xrv demo`: simulated radiographs through everything, and a report to look at."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Annotated

import typer

from torchxrayvision.cli.console import console, inform, refuse_existing, show_warnings


def demo(
    out_dir: Annotated[
        Path | None,
        typer.Option("--out-dir", help="New or empty folder [xrv-demo, or xrv-demo-2, ...]."),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", min=12, help="Radiographs to simulate [60]."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the random numbers [2027]."),
    ] = None,
) -> None:
    """Show what the package does, offline, on simulated radiographs; ends with an HTML report."""
    refuse_existing(out_dir, overwrite=False)
    folder = _free() if out_dir is None else out_dir
    start = time.perf_counter()

    def announce(step: str) -> None:
        seconds = time.perf_counter() - start
        inform(f"{seconds:5.1f} s  {step}")

    with show_warnings():
        announce("start")
        from torchxrayvision.demo import IMAGES, SEED, run

        n, chosen = IMAGES if number is None else number, SEED if seed is None else seed
        result = run(folder, n=n, seed=chosen, progress=announce)
    announce("done")
    mean = result.auroc.iloc[-1]
    read = int((result.scores["error"] == "").sum())
    known = math.isfinite(mean["low"])  # no interval where a finding has too few patients
    interval = f" [{mean['low']:.2f}, {mean['high']:.2f}]" if known else ""
    console().print(
        f"{read} of {len(result.scores)} simulated radiographs read, mean AUROC "
        f"{mean['auroc']:.2f}{interval} with demonstration weights",
        markup=False,
    )
    console().print(f"report: {result.report.resolve()}", markup=False, soft_wrap=True)


def _free() -> Path:
    """The first folder of that name that does not exist yet."""
    names = itertools.chain(["xrv-demo"], (f"xrv-demo-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := Path(name)).exists())
