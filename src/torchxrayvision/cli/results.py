"""`xrv results`: what the networks say, as DICOM objects of the study of each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    inform,
    load_classifier,
    named_images,
    progress_of,
    refuse,
    refuse_existing,
    show_warnings,
)
from torchxrayvision.cli.options import (
    Checkpoint,
    Device,
    FromFile,
    Images,
    OutDir,
    Overwrite,
    Structures,
    Upright,
    Weights,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torchxrayvision.inputs import InputFile
    from torchxrayvision.provenance import Provenance
    from torchxrayvision.results import Reader

_TABLE = "results.csv"


def results(
    out_dir: OutDir,
    paths: Images = None,
    from_file: FromFile = None,
    kinds: Annotated[
        str,
        typer.Option(
            "--as",
            help="Objects to make, with commas: sr (report), sc (picture), seg (masks), gsps "
            "(outlines to lay over), pm (heat maps), ko (selection).",
        ),
    ] = "sr,sc",
    weights: Weights = None,
    checkpoint: Checkpoint = None,
    segmenter: Annotated[
        str | None,
        typer.Option(help="Segmentation network, such as chestx_det; no masks if not given."),
    ] = None,
    structure: Structures = None,
    upright: Upright = False,
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
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Write DICOM objects with findings, masks and evidence for each radiograph.

    The objects belong to the study of their image, in series of their own, and are for research
    only. OUT_DIR/results.csv has one row per file with the names of its objects. A file that is no
    DICOM radiograph becomes a row with an error, and the exit code is 1.
    """
    from torchxrayvision.errors import UnknownNameError

    wanted = [word.strip() for word in kinds.split(",") if word.strip()]
    names = named_images(paths, from_file)
    refuse_existing(out_dir, overwrite)
    from torchxrayvision.inputs import expand
    from torchxrayvision.results import KINDS, check_kinds

    if not wanted:
        refuse(f"--as takes {', '.join(KINDS)}, with commas")
    try:
        chosen = check_kinds(wanted)
    except UnknownNameError as error:
        refuse(str(error))
    if "seg" in chosen and segmenter is None:
        refuse("seg holds masks: name a network with --segmenter, such as chestx_det")
    with show_warnings():
        reader = _reader(
            weights, checkpoint, segmenter, structure, upright, target, method, device, chosen
        )
        files = list(expand(names))
        if not files:
            refuse(f"no image in {', '.join(names)}")
        options = {"segmentation_type": segmentation_type, "key_threshold": key_threshold}
        failed = _write(files, reader, chosen, out_dir, options, _provenance(reader, options))
    inform(f"{len(files)} rows in {out_dir / _TABLE}")
    if failed:
        inform(f"{failed} of {len(files)} files have no results")
        raise typer.Exit(EXIT_SOME_FAILED)


def _reader(
    weights: str | None,
    checkpoint: Path | None,
    segmenter: str | None,
    structure: list[str] | None,
    upright: bool,
    target: list[str] | None,
    method: str,
    device: str | None,
    kinds: tuple[str, ...],
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
        structures=structure,
        upright=upright,
        targets=target or None,
        most=1 if drawn else 0,
        method=method,
    )


def _provenance(reader: Reader, options: dict[str, Any]) -> Provenance:
    from torchxrayvision.provenance import Provenance
    from torchxrayvision.runs import fingerprint

    model = reader.classifier
    return Provenance(
        command="xrv results",
        weights=None if model is None else model.weights,
        weights_sha256=None if model is None else fingerprint(model),
        options=options,
    )


def _write(
    files: list[InputFile],
    reader: Reader,
    kinds: tuple[str, ...],
    out_dir: Path,
    options: dict[str, Any],
    provenance: Provenance,
) -> int:
    """Write the objects and rows of all files; returns how many files have none."""
    from torchxrayvision.runs import open_table

    out_dir.mkdir(parents=True, exist_ok=True)
    columns = dict.fromkeys(["path", "error", "check", *kinds], "text")
    failed = 0
    place = out_dir / _TABLE
    with (
        open_table(place, columns, provenance=provenance) as table,
        progress_of(len(files)) as advance,
    ):
        for done, file in enumerate(files, start=1):
            row = _row(file, reader, kinds, out_dir, options)
            failed += bool(row["error"])
            table.write(row)
            advance(done, len(files))
    return failed


def _row(
    file: InputFile,
    reader: Reader,
    kinds: tuple[str, ...],
    out_dir: Path,
    options: dict[str, Any],
) -> dict[str, str]:
    from torchxrayvision.errors import ImageReadError
    from torchxrayvision.inputs import reason_of
    from torchxrayvision.results import make_objects, save_objects

    row = {"path": file.given, "error": file.problem, "check": ""}
    if row["error"]:
        return row
    if file.member is not None:
        return row | {"error": "is in an archive; results takes files, unpack it first"}
    try:
        reading = reader.read(file.path)
        objects = make_objects(reading, kinds, **options)
    except ImageReadError as error:
        return row | {"error": reason_of(error)}
    names = save_objects(objects, out_dir)
    return row | {"check": reading.check} | {kind: " ".join(n) for kind, n in names.items()}
