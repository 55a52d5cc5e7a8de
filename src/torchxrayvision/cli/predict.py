"""`xrv predict`: findings for files, folders, lists and archives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    checked_device,
    errors,
    file_to_write,
    show_error,
    show_warnings,
)
from torchxrayvision.errors import RemoteError

if TYPE_CHECKING:
    from torchxrayvision.models import XRayClassifier

__all__ = ["predict"]

DEFAULT_WEIGHTS: Final = "densenet121-res224-all"


def predict(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Radiographs; folders, zip or tar archives of them; quoted patterns; "
            "@list.txt or a .csv or .parquet with a column path."
        ),
    ] = None,
    from_file: Annotated[
        list[Path] | None, typer.Option(help="A list of paths, one a line; as @FILE.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help=f"Published weights, see `xrv weights list` [{DEFAULT_WEIGHTS}]."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A file of your own; with --weights, in the place of that file."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the table here: .csv, .parquet or .json.", callback=file_to_write),
    ] = None,
    output_kind: Annotated[
        str | None, typer.Option(help="logit, probability or operating-point.")
    ] = None,
    embeddings: Annotated[bool, typer.Option(help="Write the features too.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 8,
    engine: Annotated[
        str, typer.Option(help="torch, onnx, openvino, or auto for the fastest here.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="exact, or fast: probabilities within 0.01 of exact.")
    ] = "exact",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the fastest there is if not given.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read images; one a processor.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds for reading one file.")
    ] = None,
    isolate: Annotated[
        bool, typer.Option(help="Read in processes of their own, which may crash.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(help="Do part 2 of 8 with 2/8; `xrv join` makes the table.")
    ] = None,
    restart: Annotated[
        bool, typer.Option(help="Throw away the rows of an unfinished run.")
    ] = False,
    compat: Annotated[
        str | None, typer.Option(help="xrv-1.5 for that version's operating points.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="ray: compute on the nodes of a Ray cluster.")
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

    Files that cannot be read become rows with an error, and the exit code is 1. With --output
    the same command goes on after whatever stopped it.
    """
    names = [*(paths or []), *(f"@{path}" for path in from_file or [])]
    _check_usage(names, output, embeddings=embeddings, shard=shard, restart=restart)
    if cluster is None:  # nodes of a cluster have devices of their own
        checked_device(device)
    _check_cluster(cluster, output, address is not None or cpus is not None or actors is not None)
    if checkpoint is None:
        _require_weights(weights)  # before the seconds that torch takes to load
    with show_warnings():
        from torchxrayvision.cli import runs as _run
        from torchxrayvision.inference import RayCluster, Reading

        net = _load(weights, checkpoint, compat)
        if cluster is None:
            device = device or _best_device()
        reading = Reading(
            workers=workers, time_limit=time_limit or Reading().time_limit, isolate=isolate
        )
        how = _run.How(
            kind=output_kind, batch_size=batch_size, engine=engine, precision=precision,
            reading=reading, device=device,
            cluster=RayCluster(address=address, cpus=cpus, actors=actors) if cluster else None,
        )  # fmt: skip
        if output is None:
            done = _run.show(net.to(how.device), names, how)
        else:
            done = _run.write(
                net, names, output, how, embeddings=embeddings, shard=shard, restart=restart
            )
    if done.images == 0:
        show_error(ValueError(f"no image in {', '.join(names)}"))
        raise typer.Exit(EXIT_USAGE)
    if done.failed:
        errors().print(f"{done.failed} of {done.total} files could not be read")
        raise typer.Exit(EXIT_SOME_FAILED)


def _check_usage(
    names: list[str], output: Path | None, *, embeddings: bool, shard: str | None, restart: bool
) -> None:
    wrong = ""
    if not names:
        wrong = "name radiographs, folders or archives, or a list with --from-file"
    elif output is None and embeddings:
        wrong = "--embeddings needs --output FILE, a terminal cannot show them"
    elif output is None and (shard or restart):
        wrong = "--shard and --restart need --output FILE, where the rows are kept"
    if wrong:
        show_error(ValueError(wrong))
        raise typer.Exit(EXIT_USAGE)


def _check_cluster(cluster: str | None, output: Path | None, detailed: bool) -> None:
    wrong = ""
    if cluster not in (None, "ray"):
        wrong = f"--cluster {cluster}: only ray is known"
    elif cluster is None and detailed:
        wrong = "--address, --cpus and --actors need --cluster ray"
    elif cluster is not None and output is None:
        wrong = "--cluster needs --output FILE, where the rows are kept"
    if wrong:
        show_error(ValueError(wrong))
        raise typer.Exit(EXIT_USAGE)


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
