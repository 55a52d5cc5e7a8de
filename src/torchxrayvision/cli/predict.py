"""`xrv predict`: findings for files, folders, lists and archives."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    DEFAULT_WEIGHTS,
    STDOUT,
    checked_devices,
    console,
    end_run,
    graph_faults,
    inform,
    load_classifier,
    named_images,
    print_table,
    read_options,
    refuse,
    run_progress,
    show_error,
    show_warnings,
    stderr_console,
)
from torchxrayvision.errors import RemoteError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchxrayvision.calibration import Calibration
    from torchxrayvision.inference import Graph, NamedClassifier, RayCluster, Result, Shard, Summary
    from torchxrayvision.models import XRayClassifier

    Network = XRayClassifier | Graph

_SIDE_BY_SIDE: Final = 4
_TOP: Final = 3


def write(
    net: Network,
    names: list[str],
    output: Path,
    how: dict[str, Any],
    *,
    shard: str | None,
    **only_for_files: Any,
) -> Summary:
    """Predict into a file; the other arguments are those of `predict_to_file`."""
    from torchxrayvision.inference import predict_to_file

    part = _shard(shard)
    with run_progress() as progress:
        done = predict_to_file(
            names, net, output, shard=part, on_found=progress.found, on_progress=progress.move,
            **how, **only_for_files,
        )  # fmt: skip
    if done.images and part is not None:
        inform(f"when every shard is done: xrv join {output}")
    return done


def _shard(text: str | None) -> Shard | None:
    from torchxrayvision.inference import parse_shard

    try:
        return None if text is None else parse_shard(text)
    except ValueError as error:
        refuse(error)


def show(
    net: Network,
    names: list[str],
    how: dict[str, Any],
    *,
    form: str = "",
    device: str | None = None,
) -> Summary:
    """Predict onto standard output, as `"csv"`, `"json"` or, by default, as suits what it is."""
    from torchxrayvision.inference import Summary, device_names, predictions
    from torchxrayvision.inputs import Skipped, expand

    skipped = Skipped()
    printed = console()  # if standard output is closed, that is said before anything is computed
    sources = list(expand(names, strict=how["reading"].strict, skipped=skipped))
    count = len(sources)
    if not sources:
        return Summary(0, 0, 0, 0, STDOUT, str(skipped))
    results = predictions(net, sources, devices=device_names(device), **how)
    # Lines that run over a terminal are their own progress.
    if stderr_console().is_terminal and not printed.is_terminal:
        results = _followed(results, count)
    first = next(results)  # an engine or a kind that is not there is said before any header
    failed = 0
    with ExitStack() as stack:
        put = _sink(net, count, stack, form, how)
        for result in itertools.chain([first], results):
            put(result)
            failed += bool(result.error)
    return Summary(count, failed, 0, count, STDOUT, str(skipped))


def _followed(results: Iterator[Result], total: int) -> Iterator[Result]:
    with run_progress() as progress:
        progress.move(0, total)
        for done, result in enumerate(results, start=1):
            yield result
            progress.move(done, total)


def _sink(
    net: Network, count: int, stack: ExitStack, form: str, how: dict[str, Any]
) -> Callable[[Result], object]:
    """Where results go: a table or lines on a terminal, CSV elsewhere."""
    calibration = how["calibration"]
    from torchxrayvision.inference import columns_of, open_writer

    columns = columns_of(net.targets, net.trained)
    if form or not console().is_terminal:
        place = Path(f"results.{form or 'csv'}")
        writer = open_writer(
            place, columns, False, file=sys.stdout, checked=how["check"] != "off",
            calibration=calibration,
        )  # fmt: skip
        stack.callback(writer.close)
        return writer.write
    if count <= _SIDE_BY_SIDE:
        shown: list[Result] = []
        stack.callback(lambda: _print_side_by_side(shown, _values(calibration, columns)))
        return shown.append
    names = _values(calibration, columns)
    return lambda result: _print_line(result, names)


Values = dict[str, "Callable[[Result], float]"]


def _values(calibration: Calibration | None, columns: dict[str, int]) -> Values:
    """How to get each finding's number out of a result: its output, or its probability."""
    if calibration is None:
        return {n: partial(_output, index) for n, index in columns.items()}
    made = calibration.columns(list(columns))
    return {name: partial(_calibrated, name) for name, kind in made.items() if kind != "text"}


def _output(index: int, result: Result) -> float:
    return float("nan") if result.outputs is None else float(result.outputs[index])


def _calibrated(name: str, result: Result) -> float:
    return float(result.cells.get(name, float("nan")))


def _print_side_by_side(results: list[Result], columns: Values) -> None:
    """A few files: one row per finding, one column per file."""
    good = [r for r in results if r.outputs is not None]
    if good:
        heads = [Path(result.path).name for result in good]
        rows = [[name, *(f"{of(result):.5f}" for result in good)] for name, of in columns.items()]
        print_table(["finding", *heads], rows, numbers=heads)
    for result in results:
        if result.error:
            show_error(ValueError(f"{result.path}: {result.error}"))
        elif result.check not in ("", "ok"):
            inform(f"{result.path}: {result.check}")


def _print_line(result: Result, columns: Values) -> None:
    """Many files: one line each with the highest findings."""
    from rich.text import Text

    if result.outputs is None:
        line = Text.assemble(result.path, "  ", (result.error, "red"))
    else:
        values = {name: value(result) for name, value in columns.items()}
        top = sorted(values, key=lambda name: -values[name])[:_TOP]
        line = Text(f"{result.path}  " + ", ".join(f"{n} {values[n]:.2f}" for n in top))
        if result.check not in ("", "ok"):
            line.append(f"  {result.check}", "yellow")
    console().print(line, soft_wrap=True)


@opt.reads_images
def predict(
    paths: opt.Images = None,
    from_file: opt.FromFile = None,
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    graph: opt.GraphFile = None,
    output: opt.Output = None,
    output_kind: Annotated[
        Literal["logit", "probability", "operating-point", "zero-shot", "similarity"] | None,
        typer.Option(help="What the numbers are; operating-point unless the weights say else."),
    ] = None,
    zero_shot: Annotated[
        list[str] | None,
        typer.Option(
            "--zero-shot",
            metavar="TEXT",
            help="A finding in words, for weights that compare images with texts; may be given "
            "several times.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help='Texts of your own: JSON of finding to {"positive": [...], "negative": [...]}.'
        ),
    ] = None,
    contrast: Annotated[
        Literal["negation", "findings"],
        typer.Option(
            help="With --zero-shot: compare each finding with its own negative texts, or all "
            "findings with each other, whose shares then add to 1."
        ),
    ] = "negation",
    calibration: opt.CalibrationFile = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Write the features of the images too.")
    ] = False,
    batch_size: opt.GrowingBatch = None,
    engine: opt.Engine = "auto",
    precision: opt.Precision = "exact",
    device: opt.Devices = None,
    reading: Callable[..., Any] = read_options,
    check: Annotated[
        Literal["note", "refuse", "off"],
        typer.Option(
            help="Screening of each image: note it in a column, refuse numbers to what is not an "
            "upright frontal chest radiograph, or off."
        ),
    ] = "note",
    ood: opt.Ood = False,
    reference: opt.ReferencePath = None,
    shard: Annotated[
        str | None,
        typer.Option(help="2/8 computes part 2 of 8; `xrv join` makes the table of all parts."),
    ] = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    compat: Annotated[
        Literal["xrv-1.5"] | None, typer.Option(help="Operating points of that version.")
    ] = None,
    cluster: Annotated[
        Literal["ray"] | None, typer.Option(help="Compute on the nodes of a Ray cluster.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Of the cluster: auto, ray://HOST:10001, or local for a new one here."),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="CPUs of each actor on the cluster.")
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Most actors on the cluster; as many as fit.")
    ] = None,
) -> None:
    """Print or write the findings of radiographs: PNG, JPEG, TIFF or DICOM.

    A file that cannot be read becomes a row with an error, and the exit code is 1. With --output
    the same command resumes a run that was stopped, whatever stopped it. The column check holds
    ok, or refused or noted and the reason, by the cheap part of `xrv check`.
    """
    names = named_images(paths, from_file)
    if as_json and output is not None:
        refuse("--json prints the table; for a file name one that ends in .json with --output")
    form = "json" if as_json else "csv" if output == STDOUT else ""
    output = None if output == STDOUT else output
    shared = address is not None or cpus is not None or actors is not None
    for wrong, reason in (
        (output is None and embeddings, "--embeddings needs --output FILE"),
        (output is None and (shard or overwrite), "--shard and --overwrite need --output FILE"),
        (output is None and cluster, "--cluster needs --output FILE"),
        (shared and not cluster, "--address, --cpus and --actors need --cluster ray"),
        (graph and cluster, "--cluster takes --weights or --checkpoint, not --graph"),
        *graph_faults(graph, weights, checkpoint, compat, device=device),
        *_reference_faults(reference, ood, check),
        (prompts and not zero_shot, "--prompts needs --zero-shot"),
        *_unfit(weights, checkpoint, embeddings, bool(zero_shot)),
    ):
        if wrong:
            refuse(reason)
    if cluster is None:  # nodes of a cluster have devices of their own
        checked_devices(device)
    with show_warnings():
        from torchxrayvision.inference import NamedClassifier, calibrated, open_graph

        default = None if checkpoint else DEFAULT_WEIGHTS
        named = NamedClassifier(weights=weights or default, checkpoint=checkpoint, compat=compat)
        net: Network | None = None
        if graph is not None:
            net = open_graph(graph, engine)
        elif cluster is None and not zero_shot:
            net = named.graph(engine, precision, device)
        if net is None:
            net, device = _loaded(
                named, weights, device, on_nodes=cluster is not None,
                words=(zero_shot or [], prompts, contrast),
            )  # fmt: skip
        made, wanted = calibrated(calibration, net, output_kind)
        how = {
            "kind": wanted, "batch_size": batch_size, "engine": engine,
            "precision": precision, "reading": reading(), "check": check,
            "calibration": made,
            "reference": str(reference) if reference else "packaged" if ood else None,
        }  # fmt: skip
        if output is None:
            done = show(net, names, how, form=form, device=device)
        else:
            done = write(
                net, names, output, how, shard=shard, embeddings=embeddings, overwrite=overwrite,
                device=device, cluster=_cluster(address, cpus, actors) if cluster else None,
            )  # fmt: skip
        if graph is None and cluster is None and not zero_shot:
            named.keep_card(net)
    end_run(done, names)


def _loaded(
    named: NamedClassifier,
    weights: str | None,
    device: str | None,
    *,
    on_nodes: bool,
    words: tuple[list[str], Path | None, Literal["negation", "findings"]],
) -> tuple[XRayClassifier, str | None]:
    """The network, on the best device of this machine unless nodes run it, and that device."""
    from torchxrayvision.inference import require_torch

    require_torch()
    if named.checkpoint is None:
        _require_weights(weights)  # before the seconds that torch takes to load
    net = load_classifier(weights, named.checkpoint, named.compat)
    if words[0]:
        _look_for(net, *words)
    if on_nodes:
        return net, device
    from torchxrayvision.inference import device_names

    device = device or _best_device()
    return net.to(device_names(device)[0]), device


def _cluster(address: str | None, cpus: int | None, actors: int | None) -> RayCluster:
    from torchxrayvision.inference import RayCluster

    return RayCluster(address=address, cpus=cpus, actors=actors)


def _reference_faults(reference: Path | None, ood: bool, check: str) -> Iterator[tuple[bool, str]]:
    """What cannot be asked of the comparison with known images."""
    if reference is not None:
        write = f"xrv check --reference {reference} --write-reference FILE.safetensors"
        yield reference.is_dir(), f"--reference takes a file here; write it with {write}"
    yield (
        check == "off" and (ood or reference is not None),
        "--ood and --reference are a part of the screening: leave --check off away",
    )


def _unfit(
    weights: str | None, checkpoint: Path | None, embeddings: bool, zero_shot: bool
) -> list[tuple[bool, str]]:
    """What the weights give that the options do not ask for, and the other way round."""
    if weights is None and checkpoint is not None:
        return []  # the file says what is in it
    from torchxrayvision.weights import get

    try:
        entry = get(weights or DEFAULT_WEIGHTS)
    except UnknownNameError:  # which loading says better
        return []
    return [
        (
            entry.output == "embedding" and not embeddings,
            f"{entry.name} gives features and no findings: --embeddings --output FILE.parquet",
        ),
        (
            entry.output == "similarity" and not (zero_shot or entry.targets),
            f"{entry.name} compares images with texts: --zero-shot 'pleural effusion'",
        ),
        (
            entry.output != "similarity" and zero_shot,
            f"{entry.name} has findings of its own; --zero-shot needs weights such as xrayclip",
        ),
    ]


def _look_for(
    net: XRayClassifier,
    findings: list[str],
    prompts: Path | None,
    contrast: Literal["negation", "findings"],
) -> None:
    from torchxrayvision.models import ZeroShot, read_prompts

    if not isinstance(net, ZeroShot):
        refuse(f"--zero-shot needs a network that compares images with texts, not {net!r}")
    own = None if prompts is None else read_prompts(prompts)
    net.set_findings(findings, own, contrast)


def _require_weights(name: str | None) -> None:
    from torchxrayvision.weights import fetch_weights, get

    try:
        fetch_weights(get(name or DEFAULT_WEIGHTS))
    except RemoteError as error:
        if name is not None:
            raise
        advice = "--weights demo takes small demonstration weights that need no download"
        raise type(error)(f"{error}; {advice}") from error


def _best_device() -> str:
    import torch

    if not torch.accelerator.is_available():
        return "cpu"
    accelerator = torch.accelerator.current_accelerator()
    return "cpu" if accelerator is None else accelerator.type
