"""`xrv check`: whether files are frontal chest radiographs, upright and not inverted."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    console,
    errors,
    file_to_write,
    require_ending,
    show_error,
    show_warnings,
)

if TYPE_CHECKING:
    from torchxrayvision.screening import Check

__all__ = ["check"]

_COLOURS = {"ok": "green", "noted": "yellow", "refused": "red", "error": "red"}


def check(
    paths: Annotated[list[str], typer.Argument(help="Radiographs, or folders of them.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Write the table here: .csv or .json.", callback=file_to_write),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Do not refuse for this, such as lateral; may be given again."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
) -> None:
    """Tell files that models of frontal chest radiographs should not be given.

    Refused are blank pictures, what is not a chest radiograph, lateral, rotated and inverted ones;
    noted are mirrored ones, bars, burnt-in text, unusual exposure and headers that contradict
    the picture. The exit code is 1 if a file is refused or cannot be read.
    """
    from torchxrayvision.screening import iter_checks

    if output is not None:
        require_ending(output, ".csv", ".json")
    verdicts: Counter[str] = Counter()
    with show_warnings():
        results = _counted(iter_checks(paths, allow=allow or (), workers=workers), verdicts)
        if output is None:
            for result in results:
                _print(result)
        elif output.suffix.lower() == ".json":
            _write_json(output, results)
        else:
            _write_csv(output, results)
    if not verdicts:
        show_error(ValueError(f"no image in {', '.join(paths)}"))
        raise typer.Exit(EXIT_USAGE)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    errors().print(f"{verdicts.total()} files: {summary}")
    if verdicts["refused"] or verdicts["error"]:
        raise typer.Exit(EXIT_SOME_FAILED)


def _counted(results: Iterable[Check], verdicts: Counter[str]) -> Iterator[Check]:
    for result in results:
        verdicts[result.verdict] += 1
        yield result


def _print(result: Check) -> None:
    from rich.text import Text

    said = result.error or "; ".join(remark.message for remark in result.remarks)
    verdict = (f"{result.verdict:8}", _COLOURS[result.verdict])
    console().print(Text.assemble(verdict, result.path, "  ", said), soft_wrap=True)


def _write_csv(path: Path, results: Iterable[Check]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for result in results:
            row = result.to_row()
            if writer is None:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
    part.replace(path)


def _write_json(path: Path, results: Iterable[Check]) -> None:
    part = path.with_name(path.name + ".part")
    separator = "[\n"
    with part.open("w", encoding="utf-8") as file:
        for result in results:
            row: dict[str, Any] = result.to_row()
            file.write(separator + json.dumps(row, ensure_ascii=False))
            separator = ",\n"
        file.write("\n]\n" if separator == ",\n" else "[]\n")
    part.replace(path)
