"""`xrv info`: what a file says of itself, without decoding its pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import EXIT_SOME_FAILED, console, print_json, show_error

_RESULTS: Final = (".csv", ".parquet", ".json", ".html", ".htm")
_UNKNOWN: Final = "not said, or changed since it was written"


def info(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="PNG, JPEG, TIFF or DICOM files; tables and reports that this program wrote."
        ),
    ],
    as_json: opt.AsJson = False,
) -> None:
    """Show format, size, depth and geometry of radiographs, and what made a result.

    Tables, masks, maps and reports say which command, version and weights made them, what the
    numbers are, and how images were prepared.
    """
    from torchxrayvision.errors import ImageReadError

    failed = False
    shown: list[dict[str, Any]] = []
    for file in files:
        try:
            facts = _facts(file)
        except (ImageReadError, OSError) as error:
            show_error(error)
            failed = True
            continue
        if as_json:
            shown.append({"path": str(file), **facts})
        else:
            _print(file, facts)
    if as_json:
        print_json(shown)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)


def _facts(file: Path) -> dict[str, Any]:
    """Of a radiograph its format and geometry, of a result what made it, of a mask both."""
    from torchxrayvision.images import read_info
    from torchxrayvision.provenance import read

    if file.suffix.lower() in _RESULTS:
        return {"made_by": read(file) or _UNKNOWN}
    facts = dataclasses.asdict(read_info(file))
    made_by = read(file)
    return facts if made_by is None else {**facts, "made_by": made_by}


def _print(file: Path, facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for name, value in _lines(facts):
        table.add_row(name.replace("_", " "), Text(value))
    console().print(str(file), markup=False, soft_wrap=True)
    console().print(table)


def _lines(facts: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Names and values, those of nested facts after the name of what holds them."""
    lines: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{above}{name} ")
        elif value not in (None, ""):
            lines.append((f"{above}{name}", str(value)))
    return lines
