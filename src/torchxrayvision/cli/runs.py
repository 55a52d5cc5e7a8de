"""What `xrv predict` does with results: rows on the terminal, or a long run into a file."""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from torchxrayvision.cli.console import console, inform, refuse, show_error, stderr_console
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
_LOG_EVERY: Final = 30.0  # seconds between lines where no bar can be drawn
_INTERRUPTED: Final = 130
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
    with _progress() as progress:
        try:
            done = predict_to_file(
                names, net, output, kind=how.kind, embeddings=embeddings,
                batch_size=how.batch_size, engine=how.engine, precision=how.precision,
                shard=part, overwrite=overwrite, reading=how.reading, device=how.device,
                cluster=how.cluster, check=how.check,
                on_found=progress.found, on_progress=progress.move,
            )  # fmt: skip
        except KeyboardInterrupt:
            progress.close()
            inform("interrupted; the same command resumes the run from here")
            raise typer.Exit(_INTERRUPTED) from None
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


class _Progress:
    """A bar with the time left on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._began = self._said = time.monotonic()
        self._from: int | None = None

    def found(self, count: int) -> None:
        """While the images are listed."""
        if self._due():
            inform(f"listing: {count:,} images so far")

    def move(self, done: int, total: int) -> None:
        """After each batch."""
        if self._from is None:  # what an earlier run did says nothing of this one's speed
            self._from, self._began = done, time.monotonic()
            if stderr_console().is_terminal:
                self._bar = _bar()
                self._bar.start()
                self._task = self._bar.add_task("", total=total, completed=done)
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif self._due():
            inform(self._line(done, total))

    def _line(self, done: int, total: int) -> str:
        rate = (done - (self._from or 0)) / max(1e-9, time.monotonic() - self._began)
        left = f", {_clock((total - done) / rate)} left" if rate > 0 else ""
        return f"{done:,} of {total:,} images, {rate:.1f} a second{left}"

    def _due(self) -> bool:
        now = time.monotonic()
        due = now - self._said >= _LOG_EVERY
        if due:
            self._said = now
        return due

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr_console(), transient=True)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}"


@contextmanager
def _progress() -> Iterator[_Progress]:
    progress = _Progress()
    try:
        yield progress
    finally:
        progress.close()


def show(net: XRayClassifier, names: list[str], how: How, *, form: str = "") -> Summary:
    """Predict onto standard output, as `"csv"`, `"json"` or, by default, as suits what it is."""
    skipped = Skipped()
    sources = list(expand(names, strict=how.reading.strict, skipped=skipped))
    count = len(sources)
    if not sources:
        return Summary(0, 0, 0, 0, _STDOUT, str(skipped))
    results = predictions(
        net, sources, kind=how.kind, batch_size=how.batch_size, engine=how.engine,
        precision=how.precision, reading=how.reading, check=how.check,
    )  # fmt: skip
    # Lines that run over a terminal are their own progress.
    if stderr_console().is_terminal and not console().is_terminal:
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
    with _progress() as progress:
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
