"""`xrv predict`: findings for files and folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from torchxrayvision.cli._console import (
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    console,
    errors,
    progress_of,
    show_error,
    show_warnings,
)

if TYPE_CHECKING:
    from torchxrayvision.inference import Result
    from torchxrayvision.models import XRayClassifier

__all__ = ["predict"]

DEFAULT_WEIGHTS: Final = "densenet121-res224-all"
_SIDE_BY_SIDE: Final = 4
_TOP: Final = 3


def predict(
    paths: Annotated[list[Path], typer.Argument(help="Radiographs, or folders of them.")],
    weights: Annotated[
        str | None,
        typer.Option(help=f"Published weights, see `xrv weights list` [{DEFAULT_WEIGHTS}]."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A file of your own; with --weights, in the place of that file."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the table here: .csv, .parquet or .json.")
    ] = None,
    output_kind: Annotated[
        str | None, typer.Option(help="logit, probability or operating-point.")
    ] = None,
    embeddings: Annotated[bool, typer.Option(help="Write the features too.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 8,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the fastest there is if not given.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read images; one a processor.")
    ] = None,
    compat: Annotated[
        str | None, typer.Option(help="xrv-1.5 for that version's operating points.")
    ] = None,
) -> None:
    """Print or write the findings of radiographs: PNG, JPEG, TIFF or DICOM.

    Files that cannot be read become rows with an error, and the exit code is 1.
    """
    if embeddings and output is None:
        show_error(ValueError("--embeddings needs --output FILE, a terminal cannot show them"))
        raise typer.Exit(EXIT_USAGE)
    if checkpoint is None:
        _require_weights(weights or DEFAULT_WEIGHTS)  # before the seconds that torch takes to load
    with show_warnings():
        net = _load(weights, checkpoint, compat)
        failed, total = _run(
            net.to(device or _best_device()),
            paths,
            output,
            output_kind,
            embeddings,
            batch_size,
            workers,
        )
    if total == 0:
        show_error(ValueError(f"no image in {', '.join(map(str, paths))}"))
        raise typer.Exit(EXIT_USAGE)
    if output is not None:
        errors().print(f"{total} rows in {output}", markup=False, soft_wrap=True)
    if failed:
        errors().print(f"{failed} of {total} files could not be read")
        raise typer.Exit(EXIT_SOME_FAILED)


def _require_weights(name: str) -> None:
    from torchxrayvision.weights import fetch_weights, get

    fetch_weights(get(name))


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


def _run(
    net: XRayClassifier,
    paths: list[Path],
    output: Path | None,
    output_kind: str | None,
    embeddings: bool,
    batch_size: int,
    workers: int | None,
) -> tuple[int, int]:
    """Predict everything; returns the number of failed and of all files."""
    from torchxrayvision.inference import default_workers, expand, run
    from torchxrayvision.models import check_output_kind

    kind = net.default_output if output_kind is None else check_output_kind(output_kind)
    sources = list(expand(paths))
    results = run(
        net,
        sources,
        kind=kind,
        batch_size=batch_size,
        workers=workers or default_workers(),
        embeddings=embeddings,
    )
    # Lines that run over a terminal are their own progress.
    if errors().is_terminal and (output is not None or not console().is_terminal):
        results = _progress(results, len(sources))
    failed = 0
    with ExitStack() as stack:
        write = _sink(net, output, embeddings, len(sources), stack)
        for result in results:
            write(result)
            failed += bool(result.error)
    return failed, len(sources)


def _progress(results: Iterator[Result], total: int) -> Iterator[Result]:
    """The results, under a bar on a terminal."""
    with progress_of(total) as advance:
        for done, result in enumerate(results, start=1):
            yield result
            advance(done, total)


def _sink(
    net: XRayClassifier, output: Path | None, embeddings: bool, count: int, stack: ExitStack
) -> Any:
    """Where results go: the file, a table on a terminal, or CSV on standard output."""
    from torchxrayvision.inference import CsvWriter, columns_of, open_writer

    columns = columns_of(net.targets, net.trained)
    if output is not None:
        return stack.enter_context(open_writer(output, columns, embeddings)).write
    if not console().is_terminal:
        writer = CsvWriter(Path("-"), columns, embeddings=False, file=sys.stdout)
        stack.callback(writer.close)
        return writer.write
    if count <= _SIDE_BY_SIDE:
        shown: list[Result] = []
        stack.callback(lambda: _print_side_by_side(shown, columns))
        return shown.append
    return lambda result: _print_line(result, columns)


def _print_side_by_side(results: list[Result], columns: dict[str, int]) -> None:
    """A few files: one row a finding, one column a file."""
    from rich.table import Table
    from rich.text import Text

    good = [r for r in results if r.outputs is not None]
    table = Table(box=None, pad_edge=False)
    table.add_column("finding")
    for result in good:
        table.add_column(Text(Path(result.path).name), justify="right")
    for name, index in columns.items():
        table.add_row(name, *(f"{r.outputs[index]:.5f}" for r in good if r.outputs is not None))
    if good:
        console().print(table)
    for result in results:
        if result.error:
            show_error(ValueError(f"{result.path}: {result.error}"))


def _print_line(result: Result, columns: dict[str, int]) -> None:
    """Many files: one line each with the highest findings."""
    from rich.text import Text

    values = result.outputs
    if values is None:
        line = Text.assemble(result.path, "  ", (result.error, "red"))
    else:
        top = sorted(columns, key=lambda name: -values[columns[name]])[:_TOP]
        line = Text(f"{result.path}  " + ", ".join(f"{n} {values[columns[n]]:.2f}" for n in top))
    console().print(line, soft_wrap=True)
