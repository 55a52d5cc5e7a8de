"""`xrv results`: what the networks say, as DICOM objects of the study of each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    decodes_in_parallel,
    end_run,
    load_classifier,
    named_images,
    refuse,
    refuse_existing,
    run_progress,
    show_warnings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torchxrayvision.results import Reader


@decodes_in_parallel
def results(
    out_dir: opt.OutDir,
    paths: opt.Images = None,
    from_file: opt.FromFile = None,
    kinds: Annotated[
        str,
        typer.Option(
            "--as",
            help="Objects to make, with commas: sr (report), sc (picture), seg (masks), gsps "
            "(outlines to lay over), pm (heat maps), ko (selection).",
        ),
    ] = "sr,sc",
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    calibration: opt.CalibrationFile = None,
    segmenter: Annotated[
        str | None,
        typer.Option(help="Segmentation network, such as chestx_det; no masks if not given."),
    ] = None,
    structure: opt.Structures = None,
    upright: opt.Upright = False,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--evidence",
            help="Finding whose evidence is shown; may be given several times; the largest one "
            "that is present if not given.",
        ),
    ] = None,
    method: Annotated[
        Literal["gradcam", "gradcam++", "cam"], typer.Option("--map", help="How evidence is found.")
    ] = "gradcam",
    segmentation_type: Annotated[
        Literal["BINARY", "LABELMAP"],
        typer.Option("--seg-type", help="LABELMAP is smaller and unknown to older software."),
    ] = "BINARY",
    key_threshold: Annotated[
        float,
        typer.Option(
            "--key-threshold", help="Least number of a finding for which ko selects an image."
        ),
    ] = 0.5,
    batch_size: opt.BatchSize = 1,
    device: opt.Device = None,
    workers: opt.Workers = None,
    time_limit: opt.TimeLimit = None,
    isolate: opt.Isolate = False,
    strict: opt.Strict = False,
    max_pixels: opt.MaxPixels = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write DICOM objects with findings, masks and evidence for each radiograph.

    The objects belong to the study of their image, in series of their own, and are for research
    only. OUT_DIR/results.csv has one row per file with the names of its objects. A file that is no
    DICOM radiograph becomes a row with an error, and the exit code is 1. The same command resumes
    a run that was interrupted.
    """
    from torchxrayvision.errors import UnknownNameError

    wanted = [word.strip() for word in kinds.split(",") if word.strip()]
    names = named_images(paths, from_file)
    table = out_dir / "results.csv"
    refuse_existing(out_dir, overwrite, unfinished=table)
    from torchxrayvision.inputs import ReadOptions
    from torchxrayvision.results import KINDS, check_kinds

    if not wanted:
        refuse(f"--as takes {', '.join(KINDS)}, with commas")
    try:
        chosen = check_kinds(wanted)
    except UnknownNameError as error:
        refuse(error)
    if "seg" in chosen and segmenter is None:
        refuse("seg holds masks: name a network with --segmenter, such as chestx_det")
    reading = ReadOptions.of(
        workers=workers, time_limit=time_limit, isolate=isolate, strict=strict,
        max_pixels=max_pixels,
    )  # fmt: skip
    from torchxrayvision.results import results_to_folder

    with show_warnings(), run_progress() as progress:
        reader = _reader(
            weights, checkpoint, calibration, segmenter, structure, upright, target, method, device,
            chosen, batch_size,
        )  # fmt: skip
        done = results_to_folder(
            names, reader, out_dir, chosen, segmentation_type=segmentation_type,
            key_threshold=key_threshold, reading=reading, overwrite=overwrite,
            on_found=progress.found, on_progress=progress.move,
        )  # fmt: skip
    end_run(done, names, failure="have no results")


def _reader(
    weights: str | None,
    checkpoint: Path | None,
    calibration: Path | None,
    segmenter: str | None,
    structure: list[str] | None,
    upright: bool,
    target: list[str] | None,
    method: str,
    device: str | None,
    kinds: tuple[str, ...],
    batch_size: int,
) -> Reader:
    from torchxrayvision.results import Reader
    from torchxrayvision.segmentation import get_segmenter

    model = load_classifier(weights, checkpoint)
    net = None if segmenter is None else get_segmenter(segmenter)
    if device is not None:
        model = model.to(device)
        net = None if net is None else net.to(device)
    drawn = {"sc", "gsps", "pm"} & set(kinds)
    return Reader(
        classifier=model,
        segmenter=net,
        checkpoint=checkpoint,
        calibration=calibration,
        structures=structure,
        upright=upright,
        targets=target or None,
        most=1 if drawn else 0,
        method=method,
        batch_size=batch_size,
    )
