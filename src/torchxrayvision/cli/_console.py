"""What the commands share: consoles, exit codes, the way errors are shown."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from rich.console import Console
from rich.text import Text

__all__ = [
    "EXIT_SOME_FAILED",
    "EXIT_USAGE",
    "console",
    "errors",
    "progress_of",
    "show_error",
    "show_warnings",
]

EXIT_SOME_FAILED: Final = 1
EXIT_USAGE: Final = 2
_PIPE_WIDTH: Final = 160


@cache
def console() -> Console:
    """Standard output; wide where it is a file or a pipe, so that tables keep whole names."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


@cache
def errors() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False)


def show_error(error: Exception) -> None:
    """Print one error; never as markup, for a file name may hold brackets."""
    errors().print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)


@contextmanager
def show_warnings() -> Iterator[None]:
    """Print warnings as one line each while the command runs, instead of with source lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for item in caught:
        errors().print(Text.assemble(("warning: ", "yellow"), str(item.message)), soft_wrap=True)


@contextmanager
def progress_of(total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, moved by calling with (done, total); silent elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors(), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)
