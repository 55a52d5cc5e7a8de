"""`xrv app`: a page to look at radiographs with what the networks say of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    DEFAULT_WEIGHTS,
    decoder_threads,
    graph_faults,
    inform,
    refuse,
    show_warnings,
)

if TYPE_CHECKING:
    from torchxrayvision.app import Classifier, Networks
    from torchxrayvision.inference import Graph
    from torchxrayvision.models import XRayClassifier

_MEGABYTE: Final = 2**20
_DEMO: Final = ("demo", "demo-anatomy")
_SEGMENTER: Final = "chestx_det"
_NONE: Final = "none"
_SECONDS_BETWEEN: Final = 10.0  # new addresses


def app(
    folder: Annotated[
        Path | None, typer.Argument(help="Radiographs to browse; archives in it are opened too.")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            help="Published weights, see `xrv weights list`; several to compare "
            f"[{DEFAULT_WEIGHTS}].",
        ),
    ] = None,
    checkpoint: opt.Checkpoint = None,
    graph: opt.GraphFile = None,
    engine: opt.Engine = "auto",
    calibration: opt.CalibrationFile = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            help=f"Segmentation network, or {_NONE} [{_SEGMENTER}; {_DEMO[1]} with demo weights]."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 0,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than loopback need a password.")
    ] = "127.0.0.1",
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the password of the page.")
    ] = None,
    allow_name: Annotated[
        list[str] | None,
        typer.Option(help="Host name under which a proxy reaches the page; may be repeated."),
    ] = None,
    dicomweb: Annotated[
        str | None,
        typer.Option(help="Address of a DICOMweb archive that the page may send results to."),
    ] = None,
    memory: Annotated[
        int, typer.Option(min=16, help="Megabytes for images that are given to the page.")
    ] = 2048,
    largest: Annotated[
        int, typer.Option("--max-file", min=1, help="Megabytes of the largest file it takes.")
    ] = 512,
    max_pixels: opt.MaxPixels = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
) -> None:
    """Open a page that shows radiographs, findings, heat maps and measures.

    The page is served to this machine only and asks no other host for anything. Images stay in
    memory, and nothing is written. The address that is printed lets in one browser, once. Ctrl-C
    ends the command.

    With a graph, in the cache or by --graph, the page starts without PyTorch, which is loaded when
    a heat map or structures are first asked for.
    """
    password = _password(password_file)
    if calibration is not None and weights and len(weights) > 1:
        refuse("--calibration is for one network: give one --weights")
    for wrong, reason in graph_faults(graph, weights, checkpoint):
        if wrong:
            refuse(reason)
    _check(folder, host, password, checkpoint, weights)
    from torchxrayvision.app import Settings, serve

    inform("loading networks ...")
    with show_warnings():
        classifiers = _classifiers(weights or [], checkpoint, graph, engine, calibration)
        networks = _networks(classifiers, segmenter)
    settings = Settings(
        folder=folder, dicomweb=dicomweb, memory=memory * _MEGABYTE, largest=largest * _MEGABYTE,
        **({} if max_pixels is None else {"pixels": max_pixels}),
    )  # fmt: skip
    with decoder_threads(1):  # the page shows one image at a time
        serve(
            networks, settings, host=host, port=port, password=password, names=allow_name or (),
            on_ready=_Announcing(browser),
        )  # fmt: skip


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    first = file.read_text("utf-8").partition("\n")[0].strip()
    if len(first) < 8:
        refuse(f"{file}: its first line is the password; it needs 8 characters or more")
    return first


def _check(
    folder: Path | None, host: str, password: str | None, checkpoint: Path | None,
    weights: list[str] | None,
) -> None:  # fmt: skip
    """Refuse what cannot work before a network is loaded."""
    import importlib.util

    from torchxrayvision.errors import DependencyError
    from torchxrayvision.remote import is_loopback

    if folder is not None and not folder.is_dir():
        refuse(f"{folder} is no folder; drop single files onto the page")
    if checkpoint is not None and weights and len(weights) > 1:
        refuse("--checkpoint goes with at most one --weights")
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise DependencyError(package, "the page", "app")
    if not is_loopback(host) and password is None:
        refuse(
            f"{host} can be reached by other machines: give the page a password with "
            "--password-file, or leave out --host"
        )


def _classifiers(
    weights: list[str],
    checkpoint: Path | None,
    graph: Path | None,
    engine: str,
    calibration: Path | None,
) -> list[Classifier]:
    from torchxrayvision.app import Classifier
    from torchxrayvision.inference import NamedClassifier, calibrated, open_graph

    found: list[XRayClassifier | Graph] = []
    if graph is not None:
        found.append(open_graph(graph, engine))
    else:
        names: list[str | None] = [*weights] or [None if checkpoint else DEFAULT_WEIGHTS]
        named = [NamedClassifier(weights=name, checkpoint=checkpoint) for name in names]
        found += [each.open(engine) for each in named]
    asked = "torch" if engine == "auto" else engine  # of a network that is no graph
    return [
        Classifier(model, checkpoint, calibrated(calibration, model, None)[0], engine=asked)
        for model in found
    ]


def _networks(classifiers: list[Classifier], segmenter: str | None) -> Networks:
    from torchxrayvision.app import Networks

    if segmenter is None:
        demo = any("demo" in classifier.name for classifier in classifiers)
        segmenter = _DEMO[1] if demo else _SEGMENTER
    return Networks(classifiers, None if segmenter == _NONE else segmenter)


class _Announcing:
    """Prints an address, and opens the first one in the browser."""

    def __init__(self, browser: bool) -> None:
        self._browser, self._last = browser, -_SECONDS_BETWEEN

    def __call__(self, address: str) -> None:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN:
            return
        self._last = now
        typer.echo(f"The page is at {address}")
        if self._browser:
            self._browser = False
            import threading
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
