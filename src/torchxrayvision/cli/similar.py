"""`xrv similar`: the radiographs of a collection that are most like a given one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    STDOUT,
    console,
    count,
    file_to_write,
    inform,
    load_network,
    named_images,
    print_json,
    print_table,
    read_options,
    refuse,
    refuse_existing,
    require_extension,
    run_progress,
    show_warnings,
)

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.inputs import ReadOptions
    from torchxrayvision.similarity import Encoder, Index


@opt.reads_images
def similar(
    paths: opt.Images = None,
    from_file: opt.FromFile = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", help="The radiograph to look for; may be given several times."),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            help="Keep what is known of the collection in this file, ending in .parquet; without "
            "images, search in it.",
            callback=file_to_write,
        ),
    ] = None,
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Neighbours to show.")] = 10,
    features: Annotated[
        Literal["both", "network", "appearance"] | None,
        typer.Option(
            help="What is compared: features of the network, what the image shows where, or both "
            "[both, or as the index]."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", "-w", help="Whose features are compared [demo]."),
    ] = None,
    checkpoint: opt.Checkpoint = None,
    device: opt.Device = None,
    method: Annotated[
        Literal["exact", "usearch", "faiss"],
        typer.Option(help="exact compares with every image; the others pay beyond 100,000."),
    ] = "exact",
    output: opt.Output = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="Draw the neighbours in this PNG.", callback=file_to_write),
    ] = None,
    reading: Callable[..., Any] = read_options,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Find the radiographs of a collection that are most like a given one.

    xrv similar FOLDER --to FILE searches at once; xrv similar FOLDER --index FILE.parquet keeps
    what is known of the folder, and xrv similar --index FILE.parquet --to FILE searches in that.
    Whatever stops the writing of an index, the same command resumes. A file is not shown as its
    own neighbour.
    """
    given = bool(paths or from_file)
    _check_arguments(given, to, index, sheet)
    require_extension(output, ".csv", ".json", ".parquet")
    refuse_existing(output, overwrite)
    refuse_existing(sheet, overwrite)
    if given:
        refuse_existing(index, overwrite, unfinished=index)
    how = reading()
    with show_warnings():
        known = _read(index) if index is not None and not given else None
        encoder = _encoder(known, features, weights, checkpoint, device)
        collection: Any = known
        if given:
            collection = named_images(paths, from_file)
            if index is not None:
                _write(collection, index, encoder, how, overwrite)
                if not to:
                    return
                collection = _read(index)
        from torchxrayvision.similarity import similar as find

        table = find(collection, to or [], encoder, n=number, method=method, reading=how)
        if table.empty:
            refuse("no other image to compare with: name more, or write the index again")
        _show(table, output, as_json)
        if sheet is not None:
            _draw(table, sheet, how)


def _check_arguments(
    given: bool, to: list[str] | None, index: Path | None, sheet: Path | None
) -> None:
    if index is not None and index.suffix.lower() != ".parquet":
        refuse(f"--index ends in .parquet, not {index.name}")
    if sheet is not None and sheet.suffix.lower() != ".png":
        refuse(f"--sheet ends in .png, not {sheet.name}")
    if not given and index is None:
        refuse("name the collection: folders or images, or an index with --index")
    if not to and (not given or index is None):
        refuse("name the radiograph to look for with --to")
    if not given and index is not None and not index.exists():
        refuse(f"there is no index {index}; write it with xrv similar FOLDER --index {index}")


def _read(index: Path) -> Index:
    from torchxrayvision.similarity import read_index

    return read_index(index)


def _encoder(
    known: Index | None,
    features: str | None,
    weights: str | None,
    checkpoint: Path | None,
    device: str | None,
) -> Encoder:
    """What makes the vectors: that of an index, or as the options say."""
    from torchxrayvision.similarity import Encoder

    facts = {} if known is None else known.facts
    features = features or facts.get("features", "both")
    if features == "appearance":
        return Encoder(None, features)
    if weights is None and checkpoint is None:
        weights = facts.get("network")
    network = load_network(weights, checkpoint)
    return Encoder(network if device is None else network.to(device), features)


def _write(
    names: list[str], index: Path, encoder: Encoder, how: ReadOptions, overwrite: bool
) -> None:
    from torchxrayvision.similarity import write_index

    with run_progress() as progress:
        done = write_index(
            names, index, encoder, reading=how, overwrite=overwrite, on_found=progress.found,
            on_progress=progress.move,
        )  # fmt: skip
    if not done.images:
        refuse(f"no image in {', '.join(names)}")
    inform(f"{count(done.total, 'image')} in {index}")
    inform(done.skipped)
    if done.failed:
        inform(f"{done.failed:,} of {count(done.total, 'file')} could not be read")


def _show(table: pd.DataFrame, output: Path | None, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()} for row in table.to_dict("records")
    ]
    if as_json:
        print_json(rows)
    elif output is not None:
        _save(rows, output)
    else:
        heads = ["rank", "similarity", "path"]
        if len(set(table["query"])) > 1:
            heads.insert(0, "query")
        cells = [row | {"similarity": f"{row['similarity']:.3f}"} for row in rows]
        print_table(heads, [[str(row[head]) for head in heads] for row in cells])


def _save(rows: list[dict[str, Any]], output: Path) -> None:
    import sys

    from torchxrayvision.provenance import Provenance
    from torchxrayvision.runs import open_table

    columns = {"query": "text", "rank": "integer", "path": "text", "similarity": "number"}
    if output == STDOUT:
        from torchxrayvision.runs import CsvTable

        console()  # which says so if standard output is closed
        table: Any = CsvTable(STDOUT, columns, file=sys.stdout)
        for row in rows:
            table.write(row)
        table.close()
        return
    with open_table(output, columns, provenance=Provenance(command="xrv similar")) as table:
        for row in rows:
            table.write(row)
    inform(f"{count(len(rows), 'row')} in {output}")


def _draw(table: pd.DataFrame, sheet: Path, how: ReadOptions) -> None:
    from PIL import Image

    from torchxrayvision.files import write_atomically
    from torchxrayvision.similarity import draw_neighbours

    picture = Image.fromarray(draw_neighbours(table, reading=how))
    with write_atomically(sheet) as part:
        picture.save(part, format="PNG")
    inform(f"picture in {sheet}")
