"""`xrv explain`: pictures of what speaks for a finding."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    end_run,
    load_classifier,
    named_images,
    note_pictures_among,
    read_options,
    refuse_existing,
    run_progress,
    show_error,
    show_warnings,
)

DEFAULT_AUTOENCODER: Final = "101-elastic"
SUMMARY: Final = "explanations.json"
_ANIMATED: Final = "counterfactual"


@opt.reads_images
def explain(
    target: Annotated[
        list[str], typer.Option(help="Finding to explain; may be given several times.")
    ],
    out_dir: opt.OutDir,
    paths: opt.Images = None,
    from_file: opt.FromFile = None,
    method: Annotated[
        Literal[
            "cam",
            "gradcam",
            "gradcam++",
            "gradients",
            "ig",
            "occlusion",
            "rollout",
            "counterfactual",
        ],
        typer.Option(help="How; counterfactual writes an animation."),
    ] = "gradcam",
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    autoencoder: Annotated[
        str, typer.Option(help="Weights of the autoencoder of a counterfactual.")
    ] = DEFAULT_AUTOENCODER,
    animation: Annotated[
        Literal["gif", "webp", "mp4"], typer.Option("--animation", help="Format of an animation.")
    ] = "gif",
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Draw a box around the strongest evidence.")
    ] = False,
    device: opt.Device = "cpu",
    reading: Callable[..., Any] = read_options,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write a heat map over the radiograph for each radiograph and finding.

    OUT_DIR/explanations.json lists what was done: the value of the finding, and the pixel and box
    of the strongest evidence. A file that cannot be read is listed with an error, and the exit
    code is 1.
    """
    names = named_images(paths, from_file)
    table = out_dir / SUMMARY
    refuse_existing(out_dir, overwrite, unfinished=table)
    note_pictures_among(names, out_dir)
    from torchxrayvision.explain import explain_to_folder

    with show_warnings(), run_progress() as progress:
        model, given = _networks(weights, checkpoint, device or "cpu", method, autoencoder)
        done = explain_to_folder(
            names, model, target, out_dir, method, autoencoder=given, animation=animation,
            boxes=boxes, reading=reading(), overwrite=overwrite,
            on_found=progress.found, on_progress=progress.move,
        )  # fmt: skip
    rows = json.loads(table.read_text("utf-8")) if done.images else []
    for row in rows:
        if row["error"]:
            show_error(ValueError(f"{row['path']}: {row['error']}"))
    end_run(done, names, rows=len(rows))


def _networks(
    weights: str | None, checkpoint: Path | None, device: str, method: str, autoencoder: str
) -> tuple[Any, Any]:
    """The network to explain, and the autoencoder of a counterfactual."""
    model = load_classifier(weights, checkpoint)
    if method != _ANIMATED:
        return model.to(device), None
    from torchxrayvision.autoencoders import ResNetAE

    return model.to(device), ResNetAE(autoencoder).to(device)
