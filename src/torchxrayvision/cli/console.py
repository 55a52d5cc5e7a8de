"""What the commands share: consoles, exit codes, the way errors are shown."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.text import Text

__all__ = [
    "EXIT_SOME_FAILED",
    "EXIT_USAGE",
    "checked_device",
    "console",
    "errors",
    "file_to_write",
    "folder_to_write",
    "progress_of",
    "require_ending",
    "show_error",
    "show_warnings",
    "ungarbled",
    "unread",
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


def ungarbled() -> None:
    """Let the streams of this process take every file name; as files and pipes they are UTF-8.

    What goes on to another program is then the same bytes on every system, and those of a table
    written with `--output`.
    """
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):  # closed, or of whoever calls us
            continue
        if stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def unread() -> None:
    """Throw away what is still to be written to streams that nobody reads any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def show_error(error: Exception) -> None:
    """Print one error; never as markup, for a file name may hold brackets."""
    errors().print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)


def file_to_write(path: Path | None) -> Path | None:
    """Refuse a folder in place of a file before anything is computed; make the folder around it."""
    if path is None:
        return None
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder, name a file")
    folder_to_write(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def require_ending(path: Path, *endings: str) -> None:
    """Refuse a file whose name promises another format than it would get."""
    if path.suffix.lower() not in endings:
        show_error(ValueError(f"--output ends in {' or '.join(endings)}, not {path.name}"))
        raise typer.Exit(EXIT_USAGE)


def folder_to_write(path: Path | None) -> Path | None:
    """Refuse a file in place of a folder before anything is computed; nothing is made yet."""
    there = next((p for p in (path, *path.parents) if p.exists()), None) if path else None
    if there is not None and not there.is_dir():
        raise typer.BadParameter(f"{there} is a file, name a folder")
    return path


def checked_device(name: str | None) -> str | None:
    """Refuse a device that torch cannot use here, before a network is loaded."""
    if name not in (None, "cpu"):
        import torch

        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:  # the second where torch has no CUDA at all
            reason = str(error).partition("\n")[0]
            raise typer.BadParameter(f"{name} cannot be used here: {reason}") from None
    return name


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
