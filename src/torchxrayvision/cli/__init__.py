"""The command `xrv`. One module a command; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from torchxrayvision import __version__
from torchxrayvision.cli import check as _check
from torchxrayvision.cli import datasets as _datasets
from torchxrayvision.cli import demo as _demo
from torchxrayvision.cli import evaluate as _evaluate
from torchxrayvision.cli import explain as _explain
from torchxrayvision.cli import export as _export
from torchxrayvision.cli import info as _info
from torchxrayvision.cli import join as _join
from torchxrayvision.cli import phantom as _phantom
from torchxrayvision.cli import predict as _predict
from torchxrayvision.cli import segment as _segment
from torchxrayvision.cli import train as _train
from torchxrayvision.cli import weights as _weights
from torchxrayvision.cli.console import EXIT_USAGE, errors, show_error, ungarbled, unread
from torchxrayvision.errors import XRVError

__all__ = ["app", "main"]

app = typer.Typer(
    name="xrv",
    help="Chest radiographs: findings, datasets and models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"torchxrayvision {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Chest radiographs: findings, datasets and models."""


app.command("demo")(_demo.demo)
app.command("predict")(_predict.predict)
app.command("join")(_join.join)
app.command("export")(_export.export)
app.command("evaluate")(_evaluate.evaluate)
app.command("explain")(_explain.explain)
app.command("check")(_check.check)
app.command("segment")(_segment.segment)
app.command("train")(_train.train)
app.command("info")(_info.info)
app.command("phantom")(_phantom.phantom)
app.add_typer(_datasets.app, name="datasets")
app.add_typer(_weights.app, name="weights")


def main() -> None:
    """Run the command line; errors of this package end it with one line, not a traceback."""
    ungarbled()
    try:
        _command()
    except BrokenPipeError:  # before OSError, which it is one of
        # The reader of our output has gone, as `| head` does; that is not an error.
        unread()
        sys.exit(0)
    except XRVError as error:
        show_error(error)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        # A full disk, a folder without rights: the message names the file.
        show_error(error)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        errors().print("interrupted")
        sys.exit(130)


def _command() -> None:
    try:
        app()
    except SystemExit as ended:
        # Typer and rich make an exit of what they cannot write.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        if sys.stdout is not None:
            sys.stdout.flush()  # a closed pipe is to be met here and not when Python ends
        raise
