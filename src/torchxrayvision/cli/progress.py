"""How far a long run is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer

from torchxrayvision.cli.console import inform, stderr_console

__all__ = ["RunProgress", "run_progress"]

_LOG_EVERY: Final = 30.0  # seconds between lines where no bar can be drawn
_INTERRUPTED: Final = 130


class RunProgress:
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
def run_progress() -> Iterator[RunProgress]:
    """The progress of a run that the same command resumes; Ctrl-C ends the command."""
    progress = RunProgress()
    try:
        yield progress
    except KeyboardInterrupt:
        progress.close()
        inform("interrupted; the same command resumes the run from here")
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        progress.close()
