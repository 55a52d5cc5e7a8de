"""`xrv check`: whether files are frontal chest radiographs, upright and not inverted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    STDOUT,
    console,
    count,
    file_to_write,
    inform,
    named_images,
    print_json,
    read_options,
    refuse,
    refuse_existing,
    require_extension,
    run_progress,
    show_warnings,
)

if TYPE_CHECKING:
    from torchxrayvision.inputs import ReadOptions
    from torchxrayvision.screening import Check, Reference

_COLOURS = {"ok": "green", "noted": "yellow", "refused": "red", "error": "red"}


@opt.reads_images
def check(
    paths: opt.Images = None,
    from_file: opt.FromFile = None,
    output: opt.Output = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Do not refuse for this, such as lateral; may be given several times."),
    ] = None,
    ood: opt.Ood = False,
    reference: opt.ReferencePath = None,
    write_reference: Annotated[
        Path | None,
        typer.Option(
            "--write-reference",
            help="Keep what the images of --reference look like in this file, ending in "
            ".safetensors.",
            callback=file_to_write,
        ),
    ] = None,
    reading: Callable[..., Any] = read_options,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Tell files that models of frontal chest radiographs should not be given.

    Blank images, images of something else, and lateral, rotated or inverted radiographs are
    refused. Mirrored radiographs, bars, burnt-in text, unusual exposure and headers that
    contradict the image are noted. With --ood or --reference an autoencoder says of each image
    how far it lies from known ones, and what lies farther than their limit is refused as
    unfamiliar. The exit code is 1 if a file is refused or cannot be read.
    """
    if write_reference is not None:
        _check_write(write_reference, reference, overwrite)
        if not paths and not from_file:
            _reference(ood, reference, write_reference, reading())
            return
    names = named_images(paths, from_file)
    require_extension(output, ".csv", ".json", ".parquet")
    refuse_existing(output, overwrite)
    from torchxrayvision.inputs import Skipped
    from torchxrayvision.screening import check_to_file, iter_checks

    how = reading()
    skipped: list[str] = []
    with show_warnings():
        far = _reference(ood, reference, write_reference, how)
        if output is not None and output != STDOUT:
            with run_progress() as progress:
                verdicts = check_to_file(
                    names, output, allow=allow or (), reference=far, reading=how,
                    overwrite=overwrite, on_found=progress.found, on_progress=progress.move,
                    on_done=lambda done: skipped.append(done.skipped),
                )  # fmt: skip
        else:
            verdicts = Counter()
            others = Skipped()
            found = iter_checks(
                names, allow=allow or (), reading=how, skipped=others, reference=far
            )
            results = _counted(found, verdicts)
            if as_json:
                print_json([result.to_row() for result in results])
            elif output is None:
                for result in results:
                    _print(result)
            else:
                console()  # which says so if standard output is closed
                _write_rows(sys.stdout, results)
            skipped.append(str(others))
    if not verdicts:
        refuse(f"no image in {', '.join(names)}")
    summary = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
    inform(f"{count(verdicts.total(), 'file')}: {summary}")
    inform("".join(skipped))
    if verdicts["refused"] or verdicts["error"]:
        raise typer.Exit(EXIT_SOME_FAILED)


def _check_write(target: Path, reference: Path | None, overwrite: bool) -> None:
    if reference is None or not reference.is_dir():
        refuse("--write-reference keeps what a folder looks like: name it with --reference")
    if target.suffix.lower() != ".safetensors":
        refuse(f"--write-reference ends in .safetensors, not {target.name}")
    refuse_existing(target, overwrite)


def _reference(
    ood: bool, given: Path | None, target: Path | None, how: ReadOptions
) -> Reference | None:
    """What images are compared with; the images of a folder are read for it."""
    if given is None and not ood:
        return None
    from torchxrayvision.screening import fit_reference, load_reference

    if given is None or not given.is_dir():
        return load_reference(given)
    made = fit_reference(str(given), reading=how)
    inform(f"reference: {count(made.facts['images'], 'image')} of {given}")
    if target is not None:
        made.save(target)
        inform(f"reference in {target}")
    return made


def _counted(results: Iterable[Check], verdicts: Counter[str]) -> Iterator[Check]:
    for result in results:
        verdicts[result.verdict] += 1
        yield result


def _print(result: Check) -> None:
    from rich.text import Text

    said = result.error or "; ".join(remark.message for remark in result.remarks)
    verdict = (f"{result.verdict:8}", _COLOURS[result.verdict])
    console().print(Text.assemble(verdict, result.path, "  ", said), soft_wrap=True)


def _write_rows(file: TextIO, results: Iterable[Check]) -> None:
    from torchxrayvision.runs import CsvTable

    table: CsvTable | None = None
    for result in results:
        row = result.to_row()
        table = table or CsvTable(STDOUT, dict.fromkeys(row, "text"), file=file)
        table.write(row)
    if table is not None:
        table.close()
