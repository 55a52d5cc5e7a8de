"""What the commands share: consoles, exit codes, the way errors are shown."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import io
import json
import logging
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, get_type_hints

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.text import Text

if TYPE_CHECKING:
    from torchxrayvision.inputs import ReadOptions
    from torchxrayvision.models import XRayClassifier, XRayModel
    from torchxrayvision.runs import Summary

from torchxrayvision import __version__
from torchxrayvision.errors import DeviceError, OutputError, counted

EXIT_SOME_FAILED: Final = 1
EXIT_USAGE: Final = 2
STDOUT: Final = Path("-")
DEFAULT_WEIGHTS: Final = "densenet121-res224-all"
_PIPE_WIDTH: Final = 160
_DEVICE: Final = re.compile(r"(cpu|cuda|mps|xpu|hpu|mtia)(:\d+)?")


@cache
def console() -> Console:
    """Standard output; wide where it is a file or a pipe, so that tables keep whole names.

    Raises:
        OutputError: If it is closed.
    """
    if sys.stdout is None:
        msg = "standard output is closed; open it, or name a file with --output"
        raise OutputError(msg)
    return _guarded(Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH))


@cache
def stderr_console() -> Console:
    """Standard error, for what is not the result: progress, summaries, errors."""
    return _guarded(Console(stderr=True, highlight=False))


def harmless(text: str) -> str:
    r"""Text without what a terminal would obey: names of files and words of others hold anything.

    Example:
        >>> harmless("a\x1b[2J.png")
        'a\\x1b[2J.png'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


class _Harmless(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


class _Guard(RenderHook):
    """Shows whatever is printed with `harmless` text."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Guarded(item) for item in renderables]


class _Guarded:
    def __init__(self, item: ConsoleRenderable) -> None:
        self._item = item

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._item, options):
            plain = segment.control or segment.text.isprintable()
            yield segment if plain else Segment(harmless(segment.text), segment.style)


def _guarded(console: Console) -> Console:
    console.push_render_hook(_Guard())
    return console


def add_command(app: typer.Typer, function: Callable[..., None], name: str = "") -> None:
    """Register a command; its summary is the whole first sentence of the docstring, uncut.

    Args:
        app: Where to.
        function: What the command does.
        name: What it is called, if not as the function.
    """
    summary = (function.__doc__ or "").partition("\n\n")[0]
    settings = {"help_option_names": ["-h", "--help"]}
    word = name or function.__name__
    app.command(word, short_help=summary, context_settings=settings)(function)


def takes_fields(
    argument: str, record: type[Any], make: Callable[..., Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command the fields of a dataclass as options.

    Args:
        argument: Of the command: the options take its place, and it gets `make` with their values.
        record: The dataclass; its annotations are those of options.
        make: Called by the command when it needs what the options mean.
    """
    hints = get_type_hints(record, include_extras=True)
    options = dataclasses.fields(record)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += [
                parameter.replace(name=o.name, default=o.default, annotation=hints[o.name])
                for o in (options if parameter.name == argument else ())
            ] or [parameter]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            values = {option.name: given.pop(option.name) for option in options}
            command(**given, **{argument: functools.partial(make, **values)})

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


_OPENJPEG_THREADS: Final = "OPJ_NUM_THREADS"


def decodes_in_parallel(command: Callable[..., None]) -> Callable[..., None]:
    """A decorator that lets a command for a few single images decode each on several processors.

    A folder is read by as many workers as there are processors, a single image by one of them:
    JPEG 2000 keeps it busy for longer than all the rest. The command needs the arguments `paths`
    and `from_file`.
    """

    @functools.wraps(command)
    def run(**given: Any) -> None:
        with decoder_threads(_single_images(given["paths"], given["from_file"])):
            command(**given)

    return run


@contextmanager
def decoder_threads(images: int) -> Iterator[None]:
    """Share the processors between images that are read at the same time, while a command runs.

    OpenJPEG takes the number of its threads from the environment only. What the user has set there
    stays.

    Args:
        images: How many; 0 where there are more than processors.
    """
    if not images or _OPENJPEG_THREADS in os.environ:
        yield
        return
    from torchxrayvision.inputs import default_workers

    os.environ[_OPENJPEG_THREADS] = str(max(1, default_workers() // images))
    try:
        yield
    finally:
        os.environ.pop(_OPENJPEG_THREADS, None)


def _single_images(paths: Sequence[str] | None, lists: Sequence[Path] | None) -> int:
    """The number of images where a few files are named; 0 for folders, archives and lists."""
    if lists or not paths or len(paths) > _MOST_ALONE or not all(map(os.path.isfile, paths)):
        return 0
    from torchxrayvision.inputs import is_container

    return 0 if any(is_container(Path(path)) for path in paths) else len(paths)


_MOST_ALONE: Final = 4  # images that leave processors for the decoder


def read_options(**given: Any) -> ReadOptions:
    """How images are read, by the options of a command."""
    from torchxrayvision.inputs import ReadOptions

    return ReadOptions.of(**given)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"torchxrayvision {__version__}")
        raise typer.Exit


def general_options(
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and errors only.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log in detail what is done.")
    ] = False,
) -> None:
    """Chest radiographs: findings, datasets and models.

    --quiet and --verbose may stand before or after the command.
    """
    set_verbosity(quiet=quiet, verbose=verbose)


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Say only results and errors, or log in detail what the package does.

    Args:
        quiet: Leave out progress, summaries and warnings.
        verbose: Print the log of the package from INFO on, with times.
    """
    stderr_console().quiet = quiet
    if verbose:
        logger = logging.getLogger("torchxrayvision")
        handler = logging.StreamHandler()
        handler.setFormatter(_Harmless("%(asctime)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def inform(text: str) -> None:
    """Print one line that is not part of the result on standard error; `--quiet` leaves it out."""
    if text:
        stderr_console().print(text, markup=False, soft_wrap=True)


def count(number: int, noun: str, plural: str = "") -> str:
    """A number and what is counted: "1 row", "2 rows"."""
    return counted(number, noun, plural)


def end_run(
    done: Summary,
    names: Sequence[str],
    *,
    rows: int | None = None,
    failure: str = "could not be read",
) -> None:
    """Say what became of the images of a run, and exit with 1 if some failed.

    Args:
        done: The run.
        names: What the command was given.
        rows: Rows of its table; None for one per image.
        failure: What happened to the files that failed.
    """
    if not done.images:
        refuse(f"no image in {', '.join(names)}")
    if done.resumed:
        were = "was" if done.resumed == 1 else "were"
        inform(f"{count(done.resumed, 'row')} {were} there already")
    if done.place != STDOUT:
        inform(f"{count(done.total if rows is None else rows, 'row')} in {done.place}")
    inform(done.skipped)
    if done.failed:
        inform(f"{done.failed:,} of {count(done.total, 'file')} {failure}")
        raise typer.Exit(EXIT_SOME_FAILED)


def print_json(value: object) -> None:
    """Print a result as JSON; a number that does not exist is null."""
    console()  # which says so if standard output is closed
    text = json.dumps(_without_nan(value), indent=1, ensure_ascii=False)
    typer.echo(text.translate({code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    whole: Collection[str] = (),
    **style: Any,
) -> None:
    """Print a table; names of files and findings are shown as they are, never as markup.

    Args:
        columns: The heads.
        rows: A text per column.
        numbers: Heads of the columns that are aligned to the right.
        whole: Heads of the columns whose texts are not broken where a terminal is narrow.
        **style: Of `rich.table.Table`.
    """
    from rich.table import Table

    shown = Table(**{"box": None, "pad_edge": False, **style})
    for head in columns:
        justify: Literal["left", "right"] = "right" if head in numbers else "left"
        # What does not fit goes on in the next line: half a number would be another number.
        shown.add_column(Text(head), justify=justify, no_wrap=head in whole, overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    if shown.__rich_measure__(console(), console().options).minimum > console().width:
        for column in shown.columns:
            column.no_wrap = False
    console().print(shown)


def with_ends(value: float, low: float, high: float, sign: str = "") -> str:
    """A measure and its interval, "0.812 [0.780, 0.841]"; empty for what is NaN.

    Args:
        value: The measure.
        low: Lower end.
        high: Upper end.
        sign: `"+"` for differences.
    """
    if math.isnan(value):
        return ""
    shown = f"{value:{sign}.3f}"
    return shown if math.isnan(low) else f"{shown} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if hasattr(value, "item") and not getattr(value, "ndim", 0):  # a number of NumPy
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def named_images(paths: Sequence[str] | None, lists: Sequence[Path] | None) -> list[str]:
    """What a command that reads images was given, `-` replaced by the lines of standard input."""
    names = [*(paths or ()), *("-" if path == STDOUT else f"@{path}" for path in lists or ())]
    if not names:
        refuse("name radiographs, folders or archives, or a list with --from-file")
    if "-" not in names:
        return names
    if sys.stdin is None or sys.stdin.isatty():
        refuse("- reads a list of paths from standard input: pipe one into the command")
    lines = [line.rstrip("\r\n") for line in sys.stdin]
    listed = [line for line in lines if line]
    return [given for name in names for given in (listed if name == "-" else [name])]


def note_pictures_among(names: Sequence[str], out_dir: Path) -> None:
    """Say that pictures are written into a folder that is read, where the next run finds them."""
    place = out_dir.resolve()
    for name in names:
        if Path(name).is_dir() and place.is_relative_to(Path(name).resolve()):
            inform(
                f"warning: {out_dir} lies in {name}, so a later run over {name} takes the pictures "
                "written there for radiographs; name a folder elsewhere with --out-dir"
            )
            return


def force_utf8_streams() -> None:
    """Let the streams of this process take every file name; as files and pipes they are UTF-8.

    What goes on to another program is then the same bytes on every system, and those of a table
    written with `--output`.
    """
    for number in range(3):  # a file that is opened later must not become standard output
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):  # closed, or of whoever calls us
            continue
        if stream.isatty():
            stream.reconfigure(errors="backslashreplace")
        else:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def discard_output() -> None:
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
    _guarded(Console(stderr=True, highlight=False)).print(
        Text.assemble(("error: ", "bold red"), _in_words(error)), soft_wrap=True
    )


def _in_words(error: Exception) -> str:
    """An error as a sentence; the system's own errors as theirs of ours, without a number."""
    if isinstance(error, OSError) and error.filename and str(error).startswith("[Errno"):
        return f"{error.filename}: {str(error.strerror).lower()}"
    return str(error)


def file_to_write(path: Path | None) -> Path | None:
    """Refuse a folder in place of a file before anything is computed; make the folder around it."""
    if path is None or path == STDOUT:
        return path
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder, name a file")
    folder_to_write(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def refuse(reason: str | Exception) -> NoReturn:
    """End the command, and say what was given, what was expected and what to do."""
    show_error(reason if isinstance(reason, Exception) else ValueError(reason))
    raise typer.Exit(EXIT_USAGE)


def graph_faults(
    graph: Path | None, *others: object, device: str | None = None
) -> Iterator[tuple[bool, str]]:
    """What a command with `--graph` cannot be asked besides: whether, and what is wrong.

    Args:
        graph: The file, if one was given.
        others: What names or changes a network.
        device: Where it is to run.
    """
    yield graph is not None and any(others), "--graph stands alone: it is the network"
    elsewhere = graph is not None and device not in (None, "cpu")
    yield elsewhere, f"--graph runs on the CPU, not on {device}"


def require_extension(path: Path | None, *extensions: str) -> None:
    """Refuse a file whose name promises another format than it would get."""
    if path is not None and path != STDOUT and path.suffix.lower() not in extensions:
        refuse(f"--output ends in {' or '.join(extensions)}, not {path.name}")


def refuse_existing(path: Path | None, overwrite: bool, *, unfinished: Path | None = None) -> None:
    """Refuse to write over a result that exists; every command follows this one rule.

    Args:
        path: File or folder of the results; a folder counts as a result if anything is in it.
        overwrite: Whether `--overwrite` was given.
        unfinished: The table of a run that the command resumes where its rows lie beside it.
    """
    if path is None or path == STDOUT or overwrite or not path.exists():
        return
    if unfinished is not None and unfinished.with_name(f"{unfinished.name}.part").is_dir():
        return
    if path.is_dir() and not any(path.iterdir()):
        return
    held = "is not empty" if path.is_dir() else "exists"
    refuse(f"{path} {held}: name another one or replace it with --overwrite")


def load_classifier(
    weights: str | None, checkpoint: Path | None, compat: str | None = None
) -> XRayClassifier:
    """The classifier, in evaluation mode, that `--weights` and `--checkpoint` name."""
    from torchxrayvision.models import get_model, load_checkpoint

    if checkpoint is not None:
        return load_checkpoint(checkpoint, weights=weights, compat=compat)
    asked = {} if compat is None else {"compat": compat}  # networks of other groups have none
    return get_model(weights or DEFAULT_WEIGHTS, **asked)


def load_network(weights: str | None, checkpoint: Path | None) -> XRayModel:
    """The network with `embed`, in evaluation mode, that the options name: `demo` if none does."""
    from torchxrayvision.autoencoders import is_autoencoder_file
    from torchxrayvision.autoencoders import load_checkpoint as load_autoencoder

    if checkpoint is not None and weights is None and is_autoencoder_file(checkpoint):
        return load_autoencoder(checkpoint)
    return load_classifier(weights or (None if checkpoint else "demo"), checkpoint)


def folder_to_write(path: Path | None) -> Path | None:
    """Refuse a file in place of a folder before anything is computed; nothing is made yet."""
    there = next((p for p in (path, *path.parents) if p.exists()), None) if path else None
    if there is not None and not there.is_dir():
        raise typer.BadParameter(f"{there} is a file, name a folder")
    if there is not None and not os.access(there, os.W_OK):
        raise typer.BadParameter(f"{there} cannot be written in; name another place")
    return path


def checked_device(name: str | None) -> str | None:
    """Refuse a device that torch cannot use here, before a network is loaded."""
    if name is not None and not _DEVICE.fullmatch(name):
        raise typer.BadParameter(f"{name} cannot be used here: devices are cpu, cuda, cuda:1, mps")
    if name not in (None, "cpu"):
        import torch

        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:  # the second where torch has no CUDA at all
            reason = str(error).partition("\n")[0]
            raise typer.BadParameter(f"{name} cannot be used here: {reason}") from None
    return name


def checked_devices(names: str | None) -> str | None:
    """Refuse devices that torch cannot use here: one, several between commas, or all."""
    if names is None or ("," not in names and names != "all"):
        return checked_device(names)
    from torchxrayvision.inference import device_names

    try:
        for name in device_names(names):
            checked_device(name)
    except DeviceError as error:
        raise typer.BadParameter(str(error)) from None
    return names


@contextmanager
def show_warnings() -> Iterator[None]:
    """Print warnings as one line each while the command runs, instead of with source lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield
    for item in caught:
        stderr_console().print(
            Text.assemble(("warning: ", "yellow"), str(item.message)), soft_wrap=True
        )


@contextmanager
def progress_of(total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, moved by calling with (done, total); silent elsewhere."""
    with _bar() as bar:
        task = bar.add_task("", total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)


_LOG_EVERY: Final = 30.0  # seconds between lines where no bar can be drawn
_INTERRUPTED: Final = 130


class RunProgress:
    """A bar with the time left on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._began = self._said = time.monotonic()
        self._from: int | None = None
        self._stage = ""

    def found(self, count: int) -> None:
        """While the images are listed."""
        if self._due():
            inform(f"listing: {count:,} images so far")

    def move(self, done: int, total: int, stage: str = "") -> None:
        """After each batch; a stage of another name has a bar and a pace of its own."""
        if stage != self._stage:
            self.close()
            self._bar, self._from, self._stage = None, None, stage
        if self._from is None:  # what an earlier run did says nothing of this one's speed
            self._from, self._began = done, time.monotonic()
            if stderr_console().is_terminal:
                self._bar = _bar()
                self._bar.start()
                self._task = self._bar.add_task(stage, total=total, completed=done)
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif self._due():
            inform(self._line(done, total))

    def _line(self, done: int, total: int) -> str:
        rate = (done - (self._from or 0)) / max(1e-9, time.monotonic() - self._began)
        left = f", {_clock((total - done) / rate)} left" if rate > 0 else ""
        what = "" if self._stage else " images"
        stage = f"{self._stage}: " if self._stage else ""
        return f"{stage}{done:,} of {total:,}{what}, {rate:.1f} per second{left}"

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
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
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
