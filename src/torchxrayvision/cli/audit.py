"""`xrv audit`: whether a collection can be trusted."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    console,
    count,
    folder_to_write,
    inform,
    load_classifier,
    named_images,
    print_json,
    refuse,
    refuse_existing,
    run_progress,
    show_warnings,
)

_COLOURS = {"blocker": "red", "warning": "yellow", "note": "cyan"}


def audit(
    paths: opt.Images = None,
    from_file: opt.FromFile = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table with one row per image: a column that names it, findings as 1, 0 or "
            "empty, and what else is known."
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option("--patient", help="Column of the labels that names the patient."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Column of the labels that names the part, such as train."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Reference: a folder of images, a table of labels, or a dataset and its "
            "arguments, as 'nih imgpath=FOLDER'; without a folder its packaged table."
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option("--weights", "-w", help="Network whose features are compared; none for none."),
    ] = "demo",
    checkpoint: opt.Checkpoint = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out-dir",
            help="Folder for audit.html and the tables; without it issues are printed only.",
            callback=folder_to_write,
        ),
    ] = None,
    workers: opt.Workers = None,
    time_limit: opt.TimeLimit = None,
    isolate: opt.Isolate = False,
    strict: opt.Strict = False,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Look for duplicates, leaks between splits, contradictions, confounding and drift.

    Images of one exposure are found also after encoding, resizing, cropping, windowing,
    inversion, mirroring or rotation by a few degrees. Nothing is changed. The exit code is 1 if a
    blocker is found: something that makes results on this collection wrong.
    """
    names = named_images(paths, from_file)
    for option, given in (("--patient", patient), ("--split", split)):
        if given is not None and labels is None:
            refuse(f"{option} names a column of a table: give --labels TABLE too")
    if labels is not None and not labels.is_file():
        refuse(f"{labels} is no file; --labels takes a .csv, .parquet or .json table")
    if out_dir is not None:
        refuse_existing(out_dir, overwrite)
    from torchxrayvision.audit import audit as look
    from torchxrayvision.audit import write_report
    from torchxrayvision.errors import EvaluationError
    from torchxrayvision.inputs import ReadOptions

    reading = ReadOptions.of(workers=workers, time_limit=time_limit, isolate=isolate, strict=strict)
    reference = None if against is None else _reference(against)
    with show_warnings(), run_progress() as progress:
        plain = weights == "none" and checkpoint is None
        model = None if plain else load_classifier(weights, checkpoint).eval()
        try:
            done = look(
                names, labels, patient=patient, split=split, against=reference, model=model,
                reading=reading,
                on_progress=lambda stage, at, total: progress.move(at, total, stage),
            )  # fmt: skip
        except EvaluationError as error:
            refuse(error)
    if not len(done.images):
        refuse(f"no image in {', '.join(names)}")
    if out_dir is not None:
        page = write_report(done, out_dir)
        inform(f"report in {page}")
    _print(done, as_json)
    inform(done.skipped)
    if done.blockers:
        raise typer.Exit(EXIT_SOME_FAILED)


def _reference(against: str) -> Any:
    """What `--against` names: files that are there, or a dataset."""
    from torchxrayvision.cli.datasets import typed_arguments
    from torchxrayvision.datasets import find_dataset_class
    from torchxrayvision.errors import UnknownNameError

    if Path(against).exists() or any(sign in against for sign in "*?["):
        return against
    word, *rest = shlex.split(against) or [""]
    try:
        cls = find_dataset_class(word)
    except UnknownNameError:
        refuse(
            f"--against {against!r} is neither a file or folder that is there nor a dataset; "
            "`xrv datasets list` names them, and one with images is written as 'nih imgpath=FOLDER'"
        )
    given = typed_arguments(cls, rest)
    for name, every in (("views", "*"), ("unique_patients", False)):
        if name in inspect.signature(cls).parameters:
            given.setdefault(name, every)
    try:
        return cls(**given)
    except TypeError as error:  # an argument without a default
        refuse(f"--against {against!r}: {error}; give it as {word} NAME=VALUE")


def _print(done: Any, as_json: bool) -> None:
    from rich.text import Text

    if as_json:
        print_json(done.to_dict())
        return
    for found in done.issues:
        word = (f"{found.severity:8}", _COLOURS[found.severity])
        console().print(Text.assemble(word, found.text), soft_wrap=True)
    console().print(f"{count(len(done.images), 'image')}, {count(len(done.blockers), 'blocker')}")
