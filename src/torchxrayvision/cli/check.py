"""`xrv check`: whether files are frontal chest radiographs, upright and not inverted."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    STDOUT,
    console,
    inform,
    named_images,
    print_json,
    refuse,
    refuse_existing,
    require_ending,
    show_warnings,
)
from torchxrayvision.cli.options import (
    AsJson,
    FromFile,
    Images,
    Output,
    Overwrite,
    Workers,
)

if TYPE_CHECKING:
    from torchxrayvision.screening import Check

__all__ = ["check"]

_COLOURS = {"ok": "green", "noted": "yellow", "refused": "red", "error": "red"}


def check(
    paths: Images = None,
    from_file: FromFile = None,
    output: Output = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Do not refuse for this, such as lateral; may be given several times."),
    ] = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Tell files that models of frontal chest radiographs should not be given.

    Blank images, images of something else, and lateral, rotated or inverted radiographs are
    refused. Mirrored radiographs, bars, burnt-in text, unusual exposure and headers that
    contradict the image are noted. The exit code is 1 if a file is refused or cannot be read.
    """
    names = named_images(paths, from_file)
    require_ending(output, ".csv", ".json")
    refuse_existing(output, overwrite)
    from torchxrayvision.screening import iter_checks

    verdicts: Counter[str] = Counter()
    with show_warnings():
        results = _counted(iter_checks(names, allow=allow or (), workers=workers or 1), verdicts)
        if as_json:
            print_json([result.to_row() for result in results])
        elif output is None or output == STDOUT:
            if output is None:
                for result in results:
                    _print(result)
            else:
                _write_rows(sys.stdout, results)
        elif output.suffix.lower() == ".json":
            _write_json(output, results)
        else:
            _write_csv(output, results)
    if not verdicts:
        refuse(f"no image in {', '.join(names)}")
    summary = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    inform(f"{verdicts.total()} files: {summary}")
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
        _write_rows(file, results)
    part.replace(path)


def _write_rows(file: TextIO, results: Iterable[Check]) -> None:
    writer: csv.DictWriter[str] | None = None
    for result in results:
        row = result.to_row()
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)


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
