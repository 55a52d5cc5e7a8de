"""`xrv serve`: the service between modality and archive, and what its operator needs."""

from __future__ import annotations

import logging
import os
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    console,
    count,
    inform,
    print_json,
    refuse,
)

if TYPE_CHECKING:
    from torchxrayvision.service import Config

app = typer.Typer(
    help="Receive radiographs, read them, deliver DICOM results to archives.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[
    Path,
    typer.Option("--config", help="Settings of the service, a TOML file; see docs/hospital.md."),
]


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Settings of the service, a TOML file; see docs/hospital.md."
        ),
    ] = None,
    mercure: Annotated[
        bool,
        typer.Option(
            "--mercure",
            help="Read one folder into another as a module of mercure, and end; settings are those "
            "of task.json.",
        ),
    ] = False,
    in_dir: Annotated[
        Path | None,
        typer.Option("--in-dir", help="With --mercure: the images [MERCURE_IN_DIR]."),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out-dir", help="With --mercure: for the results [MERCURE_OUT_DIR]."),
    ] = None,
) -> None:
    """Receive radiographs, read them, deliver DICOM results to archives.

    Runs until SIGTERM or Ctrl-C, or until it is drained. Log lines are JSON on standard error and
    hold no patient data. What was accepted survives being killed; the same command resumes.
    """
    if context.invoked_subcommand is not None:
        return
    if mercure:
        _mercure(config, in_dir, out_dir)
        return
    if in_dir is not None or out_dir is not None:
        refuse("--in-dir and --out-dir go together with --mercure")
    if config is None:
        refuse("name the settings with --config, or a command: status, retry, drain")
    settings = _settings(config)
    os.umask(0o077)  # this process is the service: whatever it writes is for its user only
    _log_to_stderr()
    from torchxrayvision.service import Service

    Service(settings).run()


def _log_to_stderr() -> None:
    """Log as JSON lines and nothing else: warnings of pydicom quote values of headers."""
    warnings.simplefilter("ignore")
    logger = logging.getLogger("torchxrayvision.service")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _mercure(config: Path | None, in_dir: Path | None, out_dir: Path | None) -> None:
    """Read one folder into another; the exit code is 1 if an image could not be read."""
    from torchxrayvision.service import IN_DIR, OUT_DIR, run_mercure

    if config is not None:
        refuse("--config goes without --mercure, whose settings are those of task.json")
    folders = []
    for given, name in ((in_dir, IN_DIR), (out_dir, OUT_DIR)):
        if given is None and not os.environ.get(name):
            refuse(
                f"name the folder with {'--in-dir' if name == IN_DIR else '--out-dir'} or {name}"
            )
        folders.append(given or Path(os.environ[name]))
    _log_to_stderr()
    done = run_mercure(*folders)
    inform(f"{count(done.read, 'image')} read, {count(done.objects, 'object')} in {folders[1]}")
    if done.failed:
        inform(f"{count(sum(done.failed.values()), 'image')} could not be read; see result.json")
        raise typer.Exit(EXIT_SOME_FAILED)


def _settings(file: Path) -> Config:
    from torchxrayvision.service import read_config

    if not file.is_file():
        refuse(f"{file} does not exist: name the settings of the service with --config")
    return read_config(file)


@app.command()
def status(config: ConfigFile, as_json: opt.AsJson = False) -> None:
    """Show what waits, what was delivered, and what needs somebody."""
    from torchxrayvision import service

    found = service.status(_settings(config))
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    inform(f"{found['model'] or 'never ready'}{', draining' if found['draining'] else ''}")
    table = Table("", *found["jobs"])
    table.add_row("images", *map(str, found["jobs"].values()))
    console().print(table)
    if found["deliveries"]:
        states = ("waiting", "sent", "done", "dead")
        table = Table("target", *states)
        for name, counts in found["deliveries"].items():
            table.add_row(name, *(str(counts.get(state, 0)) for state in states))
        console().print(table)
    if found["troubles"]:
        table = Table("job", "state", "reason")
        for row in found["troubles"]:
            table.add_row(str(row["job"]), row["state"], _reason(row))
        console().print(table)


def _reason(row: dict[str, Any]) -> str:
    targets = "; ".join(f"{name}: {why}" for name, why in row.get("targets", {}).items())
    return row["reason"] or targets


@app.command()
def retry(
    config: ConfigFile,
    state: Annotated[
        Literal["dead", "failed", "refused"] | None,
        typer.Option("--state", help="Only these; dead and failed ones if not given."),
    ] = None,
    job: Annotated[
        int | None, typer.Option("--job", min=1, help="Only this one, as status numbers them.")
    ] = None,
) -> None:
    """Begin anew what failed or could not be delivered; the service may run meanwhile."""
    from torchxrayvision import service

    number = service.retry(_settings(config), (state,) if state else ("dead", "failed"), job)
    inform(f"to be tried again: {count(number, 'image')}")


@app.command()
def drain(
    config: ConfigFile,
    wait: Annotated[
        float | None,
        typer.Option("--wait", min=0, help="Seconds to wait until everything is delivered."),
    ] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Let the service go on.")] = False,
) -> None:
    """Let the service take nothing more and end when everything is delivered.

    The wish is kept over restarts until --cancel. With --wait the exit code is 1 if something is
    left when the time is over.
    """
    from torchxrayvision import service

    settings = _settings(config)
    service.drain(settings, wanted=not cancel)
    if cancel or wait is None:
        return
    until = time.monotonic() + wait
    while left := _left(settings):
        if time.monotonic() >= until:
            inform(f"not delivered yet: {count(left, 'image')}")
            raise typer.Exit(EXIT_SOME_FAILED)
        time.sleep(min(0.5, wait))
    inform("everything is delivered")


def _left(settings: Config) -> int:
    from torchxrayvision import service

    jobs = service.status(settings, troubles=0)["jobs"]
    return sum(jobs[state] for state in ("received", "working", "produced"))
