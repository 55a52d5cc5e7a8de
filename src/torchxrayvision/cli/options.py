"""The options that several commands have, each written once: name, letter, help and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from torchxrayvision.cli.console import (
    DEFAULT_WEIGHTS,
    checked_device,
    checked_devices,
    decodes_in_parallel,
    file_to_write,
    folder_to_write,
    read_options,
    refuse,
    takes_fields,
)

Images = Annotated[
    list[str] | None,
    typer.Argument(
        help="Radiographs; folders, zip or tar archives of them; quoted patterns; @list.txt or a "
        ".csv or .parquet file with a column path; - for a list on standard input."
    ),
]
FromFile = Annotated[
    list[Path] | None,
    typer.Option("--from-file", help="A list of paths, one per line; the same as @FILE."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write the table to this file, in the format of its ending; - for CSV on standard "
        "output.",
        callback=file_to_write,
    ),
]
OutDir = Annotated[
    Path,
    typer.Option("--out-dir", help="Folder for the results.", callback=folder_to_write),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist already.")]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights", "-w", help=f"Published weights, see `xrv weights list` [{DEFAULT_WEIGHTS}]."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Weights in a file of your own; with --weights, tensors in place of those.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="Images per batch.")]
GrowingBatch = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        help="Images per batch. Without it: 8, or 1 to segment, and on a GPU batches then grow "
        "while that makes it faster.",
    ),
]
Engine = Annotated[
    Literal["auto", "torch", "onnx", "openvino"],
    typer.Option("--engine", help="What computes the network; auto takes the fastest here."),
]
Precision = Annotated[
    Literal["exact", "fast"],
    typer.Option("--precision", help="fast: probabilities within 0.01 of exact."),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1 or mps; the fastest one if not given.",
        callback=checked_device,
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1 or mps; several as cuda:0,cuda:1, or all; the fastest one if not "
        "given.",
        callback=checked_devices,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", "-j", min=1, help="Images read at once; one per processor."),
]
TimeLimit = Annotated[
    float | None,
    typer.Option("--time-limit", min=0.001, help="Seconds allowed for reading one file."),
]
Isolate = Annotated[
    bool,
    typer.Option("--isolate", help="Read files in separate processes, which may crash."),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Make a row of every file in a folder that is no image."),
]
Frame = Annotated[
    int | None,
    typer.Option("--frame", min=0, help="Frame or page of files that hold several, from 0."),
]
MaxPixels = Annotated[
    int | None,
    typer.Option("--max-pixels", min=1, help="Most pixels of an image; larger ones are refused."),
]
Structures = Annotated[
    list[str] | None,
    typer.Option(
        "--structure",
        help='Only this one, such as "Lungs"; may be given several times.',
    ),
]
Upright = Annotated[
    bool, typer.Option("--upright", help="Turn rotated radiographs upright for the network.")
]
Ood = Annotated[
    bool,
    typer.Option(
        "--ood", help="Refuse what lies far from the frontal radiographs that the package knows."
    ),
]
ReferencePath = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        help="As --ood, but far from these images: a file of `xrv check --write-reference`, or, "
        "for xrv check, a folder.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random numbers.")]
Count = Annotated[
    int | None, typer.Option("--number", "-n", min=1, help="Number of radiographs to simulate.")
]
Views = Annotated[
    list[str] | None,
    typer.Option("--view", help="View to keep, * for all; may be given several times."),
]
Patient = Annotated[
    str | None,
    typer.Option(
        "--patient",
        help="Column of the labels that names the patient "
        "[patientid, Patient ID, PatientID or subject_id if there is one].",
    ),
]
Kind = Annotated[
    Literal["logit", "probability", "operating-point", "zero-shot", "similarity"] | None,
    typer.Option("--kind", help="What the numbers are, where the predictions do not say."),
]
GraphFile = Annotated[
    Path | None,
    typer.Option(
        "--graph",
        help="A network that `xrv export` wrote as ONNX or OpenVINO, instead of weights; needs no "
        "PyTorch.",
    ),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option("--calibration", help="What `xrv calibrate` wrote for these weights."),
]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a command reads images."""

    workers: Workers = None
    time_limit: TimeLimit = None
    isolate: Isolate = False
    strict: Strict = False
    frame: Frame = None
    max_pixels: MaxPixels = None


_takes_reading = takes_fields("reading", Reading, read_options)


def reads_images(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Reading`, and as `reading` what makes `ReadOptions` of them.

    A few single images are decoded in parallel, see `decodes_in_parallel`.
    """
    return _takes_reading(decodes_in_parallel(command))


def refuse_torch_where_missing(engine: str) -> None:
    """Refuse `--engine torch` where PyTorch is not installed."""
    from torchxrayvision.inference import torch_version

    if engine == "torch" and torch_version() is None:
        refuse("PyTorch is not installed; --engine auto takes ONNX Runtime or OpenVINO")
