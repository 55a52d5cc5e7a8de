"""`xrv predict`: findings for files, folders, lists and archives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    STDOUT,
    checked_device,
    inform,
    named_images,
    refuse,
    show_warnings,
)
from torchxrayvision.cli.options import (
    DEFAULT_WEIGHTS,
    AsJson,
    BatchSize,
    Checkpoint,
    Device,
    Engine,
    Frame,
    FromFile,
    Images,
    Isolate,
    MaxPixels,
    Output,
    Overwrite,
    Precision,
    Strict,
    TimeLimit,
    Weights,
    Workers,
)
from torchxrayvision.errors import RemoteError

if TYPE_CHECKING:
    from torchxrayvision.models import XRayClassifier

__all__ = ["predict"]


def predict(
    paths: Images = None,
    from_file: FromFile = None,
    weights: Weights = None,
    checkpoint: Checkpoint = None,
    output: Output = None,
    output_kind: Annotated[
        Literal["logit", "probability", "operating-point"] | None,
        typer.Option(help="What the numbers are; operating-point unless the weights say else."),
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Write the features of the images too.")
    ] = False,
    batch_size: BatchSize = 8,
    engine: Engine = "auto",
    precision: Precision = "exact",
    device: Device = None,
    workers: Workers = None,
    time_limit: TimeLimit = None,
    isolate: Isolate = False,
    strict: Strict = False,
    frame: Frame = None,
    max_pixels: MaxPixels = None,
    check: Annotated[
        Literal["note", "refuse", "off"],
        typer.Option(
            help="Screening of each image: note it in a column, refuse numbers to what is not an "
            "upright frontal chest radiograph, or off."
        ),
    ] = "note",
    shard: Annotated[
        str | None,
        typer.Option(help="2/8 computes part 2 of 8; `xrv join` makes the table of all parts."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    compat: Annotated[
        Literal["xrv-1.5"] | None, typer.Option(help="Operating points of that version.")
    ] = None,
    cluster: Annotated[
        Literal["ray"] | None, typer.Option(help="Compute on the nodes of a Ray cluster.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Of the cluster: auto, ray://HOST:10001, or local for a new one here."),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs of each actor on the cluster.")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Most actors on the cluster; as many as fit.")
    ] = None,
) -> None:
    """Print or write the findings of radiographs: PNG, JPEG, TIFF or DICOM.

    A file that cannot be read becomes a row with an error, and the exit code is 1. With --output
    the same command resumes a run that was stopped, whatever stopped it. The column check holds
    ok, or refused or noted and the reason, by the cheap part of `xrv check`.
    """
    names = named_images(paths, from_file)
    if as_json and output is not None:
        refuse("--json prints the table; for a file name one that ends in .json with --output")
    form = "json" if as_json else "csv" if output == STDOUT else ""
    output = None if output == STDOUT else output
    _check_usage(output, embeddings=embeddings, shard=shard, overwrite=overwrite)
    if cluster is None:  # nodes of a cluster have devices of their own
        checked_device(device)
    _check_cluster(cluster, output, address is not None or cpus is not None or actors is not None)
    if checkpoint is None:
        _require_weights(weights)  # before the seconds that torch takes to load
    with show_warnings():
        from torchxrayvision.cli import runs as _run
        from torchxrayvision.inference import RayCluster
        from torchxrayvision.inputs import ReadOptions

        net = _load(weights, checkpoint, compat)
        if cluster is None:
            device = device or _best_device()
        reading = ReadOptions.of(
            workers=workers, time_limit=time_limit, isolate=isolate, strict=strict, frame=frame,
            max_pixels=max_pixels,
        )  # fmt: skip
        how = _run.How(
            kind=output_kind, batch_size=batch_size, engine=engine, precision=precision,
            reading=reading, device=device, check=check,
            cluster=RayCluster(address=address, cpus=cpus, actors=actors) if cluster else None,
        )  # fmt: skip
        if output is None:
            done = _run.show(net.to(how.device), names, how, form=form)
        else:
            done = _run.write(
                net, names, output, how, embeddings=embeddings, shard=shard, overwrite=overwrite
            )
    if done.images == 0:
        refuse(f"no image in {', '.join(names)}")
    inform(done.skipped)
    if done.failed:
        inform(f"{done.failed} of {done.total} files could not be read")
        raise typer.Exit(EXIT_SOME_FAILED)


def _check_usage(
    output: Path | None, *, embeddings: bool, shard: str | None, overwrite: bool
) -> None:
    wrong = ""
    if output is None and embeddings:
        wrong = "--embeddings needs --output FILE, a terminal cannot show them"
    elif output is None and (shard or overwrite):
        wrong = "--shard and --overwrite need --output FILE, where the rows are kept"
    if wrong:
        refuse(wrong)


def _check_cluster(cluster: str | None, output: Path | None, detailed: bool) -> None:
    wrong = ""
    if cluster is None and detailed:
        wrong = "--address, --cpus and --actors need --cluster ray"
    elif cluster is not None and output is None:
        wrong = "--cluster needs --output FILE, where the rows are kept"
    if wrong:
        refuse(wrong)


def _require_weights(name: str | None) -> None:
    from torchxrayvision.weights import fetch_weights, get

    try:
        fetch_weights(get(name or DEFAULT_WEIGHTS))
    except RemoteError as error:
        if name is not None:
            raise
        advice = "--weights demo takes small demonstration weights that need no download"
        raise type(error)(f"{error}; {advice}") from error


def _load(weights: str | None, checkpoint: Path | None, compat: str | None) -> XRayClassifier:
    from torchxrayvision.models import get_model, load_checkpoint

    if checkpoint is None:
        return get_model(weights or DEFAULT_WEIGHTS, compat=compat)
    return load_checkpoint(checkpoint, weights=weights, compat=compat)


def _best_device() -> str:
    import torch

    if not torch.accelerator.is_available():
        return "cpu"
    accelerator = torch.accelerator.current_accelerator()
    return "cpu" if accelerator is None else accelerator.type
