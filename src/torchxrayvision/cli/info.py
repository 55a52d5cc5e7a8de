"""`xrv info`: what a file says of itself, without decoding its pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    console,
    print_json,
    show_error,
)
from torchxrayvision.cli.options import (
    AsJson,
)


def info(
    files: Annotated[list[Path], typer.Argument(help="PNG, JPEG, TIFF or DICOM files.")],
    as_json: AsJson = False,
) -> None:
    """Show format, size, depth and geometry of radiographs."""
    from rich.table import Table

    from torchxrayvision.errors import ImageReadError
    from torchxrayvision.images import read_info

    failed = False
    shown: list[dict[str, Any]] = []
    for file in files:
        try:
            facts = dataclasses.asdict(read_info(file))
        except ImageReadError as error:
            show_error(error)
            failed = True
            continue
        if as_json:
            shown.append({"path": str(file), **facts})
            continue
        table = Table(box=None, show_header=False)
        for name, value in facts.items():
            if value not in (None, ""):
                table.add_row(name.replace("_", " "), str(value))
        console().print(str(file), markup=False, soft_wrap=True)
        console().print(table)
    if as_json:
        print_json(shown)
    if failed:
        raise typer.Exit(EXIT_SOME_FAILED)
