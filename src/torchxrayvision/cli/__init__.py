"""The command `xrv`: one module per command; nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import typer

from torchxrayvision.cli import app as _app
from torchxrayvision.cli import audit as _audit
from torchxrayvision.cli import benchmark as _benchmark
from torchxrayvision.cli import calibrate as _calibrate
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
from torchxrayvision.cli import probe as _probe
from torchxrayvision.cli import results as _results
from torchxrayvision.cli import segment as _segment
from torchxrayvision.cli import serve as _serve
from torchxrayvision.cli import similar as _similar
from torchxrayvision.cli import train as _train
from torchxrayvision.cli import weights as _weights
from torchxrayvision.cli.console import (
    EXIT_USAGE,
    add_command,
    discard_output,
    force_utf8_streams,
    general_options,
    inform,
    show_error,
    stderr_console,
)
from torchxrayvision.errors import XRVError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app", "main"]

app = typer.Typer(
    name="xrv",
    help="Chest radiographs: findings, datasets and models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Options of 2.0.0a1 by command, and what they are called now.
_RENAMED: Final[dict[str, dict[str, str]]] = {
    "demo": {"--out": "--out-dir", "--films": "--number"},
    "explain": {"--out": "--out-dir", "--film": "--animation"},
    "export": {"--out": "--output"},
    "phantom": {"--out": "--out-dir", "--n": "--number"},
    "predict": {"--restart": "--overwrite"},
    "segment": {"--out": "--out-dir", "--model": "--weights"},
    "train": {"--out": "--out-dir"},
    "datasets": {"--no-all-images": "--one-per-patient"},
}
_ANYWHERE: Final = ("-q", "--quiet", "-v", "--verbose")


app.callback()(general_options)
for _function in (
    _demo.demo,
    _app.app,
    _predict.predict,
    _join.join,
    _export.export,
    _evaluate.evaluate,
    _calibrate.calibrate,
    _explain.explain,
    _check.check,
    _audit.audit,
    _benchmark.benchmark,
    _probe.probe,
    _similar.similar,
    _segment.segment,
    _results.results,
    _train.train,
    _info.info,
    _phantom.phantom,
):
    add_command(app, _function)
for _group, _name in (
    (_serve.app, "serve"),
    (_datasets.app, "datasets"),
    (_weights.app, "weights"),
):
    app.add_typer(_group, name=_name, short_help=_group.info.help)


def main() -> None:
    """Run the command line; errors of this package end it with one line, not a traceback."""
    force_utf8_streams()
    try:
        _command(present_arguments(sys.argv[1:]))
    except BrokenPipeError:  # before OSError, which it is one of
        # The reader of our output has gone, as `| head` does; that is not an error.
        discard_output()
        sys.exit(0)
    except XRVError as error:
        show_error(error)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        # A full disk, a folder without rights: the message names the file.
        show_error(error)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        stderr_console().print("interrupted")
        sys.exit(130)


def present_arguments(given: Sequence[str]) -> list[str]:
    """The arguments as the commands take them: general options first, renamed ones by their name.

    Args:
        given: What the user typed after `xrv`.

    Returns:
        The arguments to parse. Options of an earlier release are replaced and named on standard
        error.

    Example:
        >>> present_arguments(["info", "image.png", "-v"])
        ['-v', 'info', 'image.png']
    """
    end = list(given).index("--") if "--" in given else len(given)
    options, rest = list(given[:end]), list(given[end:])
    first = [word for word in options if word in _ANYWHERE]
    words = [word for word in options if word not in _ANYWHERE]
    renamed = _RENAMED.get(words[0], {}) if words else {}
    for at, word in enumerate(words):
        name, sign, value = word.partition("=")
        if name in renamed:
            inform(f"{name} is now called {renamed[name]}; the old name goes in release 3")
            words[at] = renamed[name] + sign + value
    return [*first, *words, *rest]


def _command(arguments: Sequence[str]) -> None:
    try:
        app(args=list(arguments))
    except SystemExit as ended:
        # Typer and rich make an exit of what they cannot write.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        if sys.stdout is not None:
            sys.stdout.flush()  # a closed pipe is to be met here and not when Python ends
        raise
