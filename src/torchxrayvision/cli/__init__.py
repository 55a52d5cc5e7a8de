"""The command `xrv`: one module per command; nothing heavy is imported before it is needed."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

import typer

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

    app: typer.Typer

__all__ = ["app", "main"]

# In the order of the help. A command is the function of its name in the module of its name, a group
# the `app` there; only what is called is loaded.
_COMMANDS: Final = (
    "demo", "app", "predict", "join", "export", "evaluate", "calibrate", "explain", "check",
    "audit", "benchmark", "probe", "similar", "segment", "results", "train", "info", "phantom",
    "serve", "datasets", "weights",
)  # fmt: skip
_GROUPS: Final = ("serve", "datasets", "weights")
_MODULES: Final = {"app": "page"}

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


def _with_commands(names: Sequence[str]) -> typer.Typer:
    """The command line with some of its commands."""
    made = typer.Typer(
        name="xrv",
        help="Chest radiographs: findings, datasets and models.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(general_options)
    for name in names:
        module = importlib.import_module(f"torchxrayvision.cli.{_MODULES.get(name, name)}")
        if name in _GROUPS:
            made.add_typer(module.app, name=name, short_help=module.app.info.help)
        else:
            add_command(made, getattr(module, name))
    return made


def __getattr__(name: str) -> Any:
    """`app`, the command line with all commands, which is put together at its first use."""
    if name != "app":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return _whole()


def _whole() -> typer.Typer:
    """The command line with all commands, made once."""
    made: typer.Typer | None = globals().get("app")
    if made is None:
        globals()["app"] = made = _with_commands(_COMMANDS)
    return made


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
    # General options take no value, so that the first other word is the command.
    word = next((word for word in arguments if not word.startswith("-")), "")
    called = _with_commands([word]) if word in _COMMANDS else _whole()
    try:
        called(args=list(arguments))
    except SystemExit as ended:
        # Typer and rich make an exit of what they cannot write.
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        if sys.stdout is not None:
            sys.stdout.flush()  # a closed pipe is to be met here and not when Python ends
        raise
