"""`xrv results`: what the networks say, as DICOM objects of the study of each image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    DEFAULT_WEIGHTS,
    decodes_in_parallel,
    end_run,
    graph_faults,
    named_images,
    refuse,
    refuse_existing,
    run_progress,
    show_warnings,
)

if TYPE_CHECKING:
    from torchxrayvision.inference import Graph, MaskGraph
    from torchxrayvision.models import Segmenter, XRayClassifier


_CPU_ONLY: Final = ("onnx", "openvino")


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
    graph: opt.GraphFile = None,
    calibration: opt.CalibrationFile = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            help="Segmentation network, such as chestx_det, or a file of `xrv export` with its "
            "graph; no masks if not given."
        ),
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
    no_evidence: Annotated[
        bool, typer.Option("--no-evidence", help="Show no evidence, which needs PyTorch.")
    ] = False,
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
    engine: opt.Engine = "torch",
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
    elsewhere = device not in (None, "cpu")
    for wrong, reason in (
        ("seg" in chosen and segmenter is None,
         "seg holds masks: name a network with --segmenter, such as chestx_det"),
        *graph_faults(graph, weights, checkpoint, device=device),
        (engine in _CPU_ONLY and elsewhere, f"--engine {engine} runs on the CPU, not on {device}"),
        (no_evidence and target, "--evidence and --no-evidence exclude each other"),
        (no_evidence and "pm" in chosen, "pm holds evidence: leave --no-evidence away"),
    ):  # fmt: skip
        if wrong:
            refuse(reason)
    reading = ReadOptions.of(
        workers=workers, time_limit=time_limit, isolate=isolate, strict=strict,
        max_pixels=max_pixels,
    )  # fmt: skip
    from torchxrayvision.results import Reader, results_to_folder

    with show_warnings(), run_progress() as progress:
        engine = "torch" if elsewhere else engine
        drawn = not no_evidence and bool({"sc", "gsps", "pm"} & set(chosen))
        reader = Reader(
            classifier=_classifier(weights, checkpoint, graph, engine, device, drawn=drawn),
            segmenter=_segmenter(segmenter, engine, device),
            checkpoint=checkpoint,
            calibration=calibration,
            structures=structure,
            upright=upright,
            targets=target or None,
            most=1 if drawn else 0,
            method=method,
            batch_size=batch_size,
        )
        done = results_to_folder(
            names, reader, out_dir, chosen, segmentation_type=segmentation_type,
            key_threshold=key_threshold, reading=reading, overwrite=overwrite,
            on_found=progress.found, on_progress=progress.move,
        )  # fmt: skip
    end_run(done, names, failure="have no results")


def _classifier(
    weights: str | None,
    checkpoint: Path | None,
    graph: Path | None,
    engine: str,
    device: str | None,
    *,
    drawn: bool,
) -> XRayClassifier | Graph:
    """What finds; heat maps that are to be drawn need the network besides a graph."""
    from torchxrayvision.inference import Graph, NamedClassifier, open_graph

    if graph is not None:
        found = open_graph(graph, "auto" if engine == "torch" else engine)
    else:
        opt.refuse_torch_where_missing(engine)
        name = weights or (None if checkpoint else DEFAULT_WEIGHTS)
        opened = NamedClassifier(weights=name, checkpoint=checkpoint).open(engine)
        if not isinstance(opened, Graph):
            return opened if device is None else opened.to(device)
        found = opened
    if drawn and not found.has_network:
        refuse(
            "evidence needs PyTorch and the weights, and there is a graph alone: --no-evidence "
            "leaves it out"
        )
    return found


def _segmenter(named: str | None, engine: str, device: str | None) -> Segmenter | MaskGraph | None:
    """What outlines: a network by its name, or the graph in a file."""
    from torchxrayvision.inference import MaskGraph, open_mask_graph
    from torchxrayvision.segmentation import NamedSegmenter

    if named is None:
        return None
    if Path(named).suffix in (".onnx", ".xml"):
        return open_mask_graph(Path(named), "auto" if engine == "torch" else engine)
    found = NamedSegmenter.of(named).open(engine)
    if device is None or isinstance(found, MaskGraph):
        return found
    return found.to(device)
