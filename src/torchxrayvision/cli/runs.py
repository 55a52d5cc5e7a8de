"""What `xrv predict` does with results: rows on the terminal, or a long run into a file."""

from __future__ import annotations

import itertools
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from torchxrayvision.cli.console import (
    console,
    inform,
    refuse,
    run_progress,
    show_error,
    stderr_console,
)
from torchxrayvision.inference import (
    RayCluster,
    Shard,
    Summary,
    columns_of,
    join_shards,
    open_writer,
    parse_shard,
    predict_to_file,
    predictions,
)
from torchxrayvision.inputs import ReadOptions, Skipped, expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torchxrayvision.inference import Result
    from torchxrayvision.models import XRayClassifier

__all__ = ["How", "join", "show", "write"]

_SIDE_BY_SIDE: Final = 4
_TOP: Final = 3
_STDOUT: Final = Path("-")


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """Options of a run that `predict_to_file` documents."""

    kind: str | None
    batch_size: int
    engine: str
    precision: str
    reading: ReadOptions
    device: str | None
    check: str
    cluster: RayCluster | None


def write(
    net: XRayClassifier,
    names: list[str],
    output: Path,
    how: How,
    *,
    embeddings: bool,
    shard: str | None,
    overwrite: bool,
) -> Summary:
    """Predict into a file."""
    part = _shard(shard)
    with run_progress() as progress:
        done = predict_to_file(
            names, net, output, kind=how.kind, embeddings=embeddings,
            batch_size=how.batch_size, engine=how.engine, precision=how.precision,
            shard=part, overwrite=overwrite, reading=how.reading, device=how.device,
            cluster=how.cluster, check=how.check,
            on_found=progress.found, on_progress=progress.move,
        )  # fmt: skip
    if done.images:
        inform(f"{done.resumed} rows were there already" if done.resumed else "")
        inform(f"{done.total} rows in {done.place}")
        inform(f"when every shard is done: xrv join {output}" if part is not None else "")
    return done


def _shard(text: str | None) -> Shard | None:
    try:
        return None if text is None else parse_shard(text)
    except ValueError as error:
        refuse(str(error))


def join(output: Path, *, overwrite: bool = False) -> int:
    """Join shards and say what came of it; returns the number of failed images."""
    done = join_shards(output, overwrite=overwrite)
    inform(f"{done.total} rows in {done.place}")
    return done.failed


def show(net: XRayClassifier, names: list[str], how: How, *, form: str = "") -> Summary:
    """Predict onto standard output, as `"csv"`, `"json"` or, by default, as suits what it is."""
    skipped = Skipped()
    printed = console()  # if standard output is closed, that is said before anything is computed
    sources = list(expand(names, strict=how.reading.strict, skipped=skipped))
    count = len(sources)
    if not sources:
        return Summary(0, 0, 0, 0, _STDOUT, str(skipped))
    results = predictions(
        net, sources, kind=how.kind, batch_size=how.batch_size, engine=how.engine,
        precision=how.precision, reading=how.reading, check=how.check,
    )  # fmt: skip
    # Lines that run over a terminal are their own progress.
    if stderr_console().is_terminal and not printed.is_terminal:
        results = _followed(results, count)
    first = next(results)  # an engine or a kind that is not there is said before any header
    failed = 0
    with ExitStack() as stack:
        put = _sink(net, count, stack, form, how.check != "off")
        for result in itertools.chain([first], results):
            put(result)
            failed += bool(result.error)
    return Summary(count, failed, 0, count, _STDOUT, str(skipped))


def _followed(results: Iterator[Result], total: int) -> Iterator[Result]:
    with run_progress() as progress:
        progress.move(0, total)
        for done, result in enumerate(results, start=1):
            yield result
            progress.move(done, total)


def _sink(
    net: XRayClassifier, count: int, stack: ExitStack, form: str, checked: bool
) -> Callable[[Result], object]:
    """Where results go: a table or lines on a terminal, CSV elsewhere."""
    columns = columns_of(net.targets, net.trained)
    if form or not console().is_terminal:
        place = Path(f"results.{form or 'csv'}")
        writer = open_writer(place, columns, False, file=sys.stdout, checked=checked)
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
        elif result.check not in ("", "ok"):
            inform(f"{result.path}: {result.check}")


def _print_line(result: Result, columns: dict[str, int]) -> None:
    """Many files: one line each with the highest findings."""
    from rich.text import Text

    values = result.outputs
    if values is None:
        line = Text.assemble(result.path, "  ", (result.error, "red"))
    else:
        top = sorted(columns, key=lambda name: -values[columns[name]])[:_TOP]
        line = Text(f"{result.path}  " + ", ".join(f"{n} {values[columns[n]]:.2f}" for n in top))
        if result.check not in ("", "ok"):
            line.append(f"  {result.check}", "yellow")
    console().print(line, soft_wrap=True)
