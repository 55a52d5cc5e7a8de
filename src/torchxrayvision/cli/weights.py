"""`xrv weights`: what there is, what is known of it, what is here, fetch and verify."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli import own_weights as _own
from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    add_command,
    console,
    inform,
    print_json,
    print_table,
    refuse,
    show_warnings,
)

app = typer.Typer(
    help="Weights: list, show, fetch and verify published ones; add, convert and publish others.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Names = Annotated[list[str] | None, typer.Argument(help="Names or aliases; all if none is given.")]


def _entries(names: list[str] | None) -> list[Any]:
    from torchxrayvision.weights import get, list_weights, own_weights

    return [get(name) for name in names] if names else [*list_weights(), *own_weights()]


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.1f} MB"


def list_(as_json: opt.AsJson = False) -> None:
    """List every published weight and those that were added, and whether they are here."""
    from torchxrayvision.weights import locate_weights

    if as_json:
        print_json([_record(entry) for entry in _entries(None)])
        return
    rows = [
        [
            entry.name, ", ".join(entry.aliases), _megabytes(entry.file.size),
            str(sum(entry.trained)), f"{entry.input_resolution} px",
            "yes" if locate_weights(entry) else "no",
            entry.file.certainty if entry.file.sha256 else "none published",
        ]
        for entry in _entries(None)
    ]  # fmt: skip
    heads = ["name", "aliases", "size", "outputs", "input", "here", "checksum"]
    print_table(heads, rows, whole=["name"])


def _record(entry: Any) -> dict[str, Any]:
    """The facts of published weights, and the place of their file, as plain data."""
    from torchxrayvision.weights import locate_weights

    return {
        **dict(_facts(entry)),
        "aliases": entry.aliases,
        "architecture": entry.architecture,
        "input_resolution": entry.input_resolution,
        "targets": entry.targets,
        "trained": entry.trained,
        "operating_points": entry.operating_points,
        "metrics_by_test_set": entry.metrics,
        "trained_on": entry.trained_on,
        "url": entry.url,
        "sha256": entry.file.sha256,
        "bytes": entry.file.size,
        "path": locate_weights(entry),
    }


def show(
    names: Annotated[list[str], typer.Argument(help="Names or aliases.")],
    as_json: opt.AsJson = False,
) -> None:
    """Print the cards of weights: outputs, terms, training data and metrics."""
    from torchxrayvision.weights import card_of

    if as_json:
        print_json([{**_record(entry), "card": card_of(entry)} for entry in _entries(names)])
        return
    for entry in _entries(names):
        for key, value in _facts(entry):
            console().print(f"{key}: {value}", markup=False, soft_wrap=True)
        _print_outputs(entry)
        for key, value in card_of(entry).get("about", {}).items():
            console().print(f"{key}: {value}", markup=False, soft_wrap=True)


def _facts(entry: Any) -> list[tuple[str, str]]:
    facts = [
        ("name", entry.name),
        ("aliases", ", ".join(entry.aliases)),
        ("about", entry.description),
        ("network", f"{entry.architecture}, {entry.input_resolution} px"),
        ("trained on", ", ".join(entry.trained_on)),
        ("licence", f"{entry.license.name} {entry.license.url} {entry.license.note}".strip()),
        ("reference", str(entry.reference)),
        ("metrics", entry.metrics_source),
    ]
    return [(key, value) for key, value in facts if value]


def _print_outputs(entry: Any) -> None:
    """One row a trained output: operating point, and what was measured on each test set."""
    from torchxrayvision.weights import card_of

    card = card_of(entry)
    auroc = {
        test: card.get("auroc", {}).get(test, {k: {"value": v} for k, v in row.items()})
        for test, row in entry.metrics.items()
    }
    columns = {f"AUROC {test}": rows for test, rows in auroc.items()}
    columns |= {f"Dice {test}": rows for test, rows in card.get("dice", {}).items()}
    rows = []
    points = entry.operating_points or [None] * len(entry.targets)
    for target, point, trained in zip(entry.targets, points, entry.trained, strict=True):
        if trained:
            values = [_interval(rows.get(target)) for rows in columns.values()]
            rows.append([target, "" if point is None else f"{point:.3g}", *values])
    numbers = ["operating point", *columns]
    print_table(["output", *numbers], rows, numbers=numbers, whole=["output"])


def _interval(measured: Any) -> str:
    if measured is None:
        return ""
    text = f"{measured['value']:.3f}"
    return (
        f"{text} ({measured['low']:.3f} to {measured['high']:.3f})" if "low" in measured else text
    )


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Names or aliases.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Fetch all published weights, several GB.")
    ] = False,
) -> None:
    """Download weights into the cache and verify them."""
    from torchxrayvision.weights import fetch_weights

    if not names and not everything:
        refuse("name the weights to fetch, see `xrv weights list`, or give --all for all of them")
    for entry in _entries(names):
        with show_warnings():
            path = fetch_weights(entry)
        console().print(f"{entry.name}: {path}", markup=False, soft_wrap=True)


def path(names: Names = None) -> None:
    """Print where weights are stored, or would be; nothing is downloaded."""
    from torchxrayvision.remote import cache_dir
    from torchxrayvision.weights import locate_weights

    for entry in _entries(names):
        place = locate_weights(entry) or cache_dir() / entry.file.filename
        console().print(str(place), markup=False, soft_wrap=True)


def verify(names: Names = None) -> None:
    """Check the files in the cache against what was published, or against the first use."""
    from torchxrayvision.weights import verify_weights

    failed = 0
    for entry in _entries(names):
        outcome = verify_weights(entry)
        if outcome is None:
            console().print(f"{entry.name}: not here", markup=False)
            continue
        failed += not outcome.ok
        console().print(f"{entry.name}: {outcome}", markup=False, soft_wrap=True)
    if failed:
        inform(f"{failed} of the files are not what was published")
        raise typer.Exit(EXIT_SOME_FAILED)


add_command(app, list_, "list")
for _function in (show, fetch, path, verify, _own.add, _own.remove, _own.convert, _own.card):
    add_command(app, _function)
add_command(app, _own.export_hub, "export-hub")
add_command(app, _own.push)
