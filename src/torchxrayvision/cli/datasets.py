"""`xrv datasets`: what there is, what is in it, whether it is whole, and export."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    STDOUT,
    add_command,
    console,
    count,
    file_to_write,
    folder_to_write,
    inform,
    print_json,
    print_table,
    progress_of,
    refuse,
    refuse_existing,
    require_extension,
    show_error,
    show_warnings,
)

if TYPE_CHECKING:
    import inspect
    from collections.abc import Mapping

    from torchxrayvision.datasets import Dataset, SpecDataset

app = typer.Typer(
    help="Public datasets: list, describe, verify, export; packaged tables need no images.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str, typer.Argument(help="As in `xrv datasets list`; nih, padchest and chexpert will do.")
]
ImgPath = Annotated[Path | None, typer.Option(help="Folder, or zip file, of the images.")]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--with", help="Another argument, as csvpath=FILE; may be given several times."),
]
AllImages = Annotated[
    bool,
    typer.Option("--all-images/--one-per-patient", help="Every image, or one per patient."),
]


def _every_view(cls: type[SpecDataset], views: list[str] | None) -> list[str] | None:
    """What is kept where nothing was asked: all views of a dataset that has them."""
    return ["*"] if views is None and "views" in _parameters(cls) else views


def _needs_images(
    cls: type[SpecDataset], imgpath: Path | None, arguments: list[str] | None
) -> None:
    """Say at once that a dataset of files was not told where they are."""
    first = next(iter(_parameters(cls)))
    given = any(item.startswith(f"{first}=") for item in arguments or ())
    if first == "imgpath" and imgpath is None and not given:
        raise typer.BadParameter(f"{cls.__name__} needs its images: --imgpath FOLDER")


def _parameters(cls: type[SpecDataset]) -> Mapping[str, inspect.Parameter]:
    import inspect

    return inspect.signature(cls).parameters


def _build(
    cls: type[SpecDataset],
    imgpath: Path | None,
    arguments: list[str] | None,
    views: list[str] | None,
    all_images: bool,
) -> Dataset:
    """Construct a dataset from what the command line says."""
    parameters = _parameters(cls)
    accepted = list(parameters)
    chosen: dict[str, Any] = {}
    if imgpath is not None:
        chosen[accepted[0]] = str(imgpath)
    if views:
        chosen["views"] = "*" if views == ["*"] else views
    if all_images and "unique_patients" in accepted:
        chosen["unique_patients"] = False
    chosen = typed_arguments(cls, arguments or [], chosen)
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.name not in chosen and p.kind < 2
    ]
    if missing:
        raise typer.BadParameter(
            f"{cls.__name__} needs {', '.join(missing)}: --imgpath FOLDER, --with NAME=VALUE"
        )
    with show_warnings():
        return cls(**chosen)


def _typed(key: str, text: str, parameters: Mapping[str, inspect.Parameter]) -> Any:
    """A value of the command line as the constructor wants it: a number, yes or no, or text."""
    kind = str(parameters[key].annotation) if key in parameters else ""
    try:
        if kind.partition(" ")[0] == "int":
            return int(text)
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
    except (ValueError, KeyError):
        wanted = "true or false" if kind == "bool" else "a whole number"
        raise typer.BadParameter(f"--with {key}= takes {wanted}, got {text!r}") from None
    return text


def typed_arguments(
    cls: type[SpecDataset], items: list[str], chosen: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Arguments of a constructor out of ``NAME=VALUE``.

    Args:
        cls: Whose.
        items: As the user wrote them.
        chosen: Arguments that other options gave; those of `items` replace them.
    """
    parameters = _parameters(cls)
    given = dict(chosen or {})
    for item in items:
        key, sign, value = item.partition("=")
        if not sign:
            raise typer.BadParameter(f"an argument is written as NAME=VALUE, got {item!r}")
        given[key] = _typed(key, value, parameters)
    if unknown := [key for key in given if key not in parameters]:
        raise typer.BadParameter(
            f"{cls.__name__} does not take {', '.join(unknown)}; it takes {', '.join(parameters)}"
        )
    return given


def list_(
    as_json: opt.AsJson = False,
) -> None:
    """List every dataset, and whether its table is inside the package."""
    from torchxrayvision.datasets import card, get_dataset_class, list_datasets

    cards = [card(name) for name in list_datasets()]
    if as_json:
        print_json([c.to_dict() for c in cards])
        return
    rows = []
    for item in cards:
        inside = next(iter(item.tables.values()), None) is not None  # the table of the images
        findings = item.findings
        if not findings and inside:  # the table decides, and it is here
            findings = tuple(get_dataset_class(item.name)().pathologies)
        rows.append(
            [
                item.name, item.title, str(len(findings)) if findings else "from the table",
                "yes" if item.pathology_masks or item.semantic_masks or item.boxes else "",
                "yes" if inside else "",
            ]
        )  # fmt: skip
    print_table(["name", "release", "findings", "masks", "table inside"], rows)


def describe(
    name: Name,
    imgpath: ImgPath = None,
    arguments: Arguments = None,
    views: opt.Views = None,
    all_images: AllImages = True,
    as_json: opt.AsJson = False,
) -> None:
    """Count findings, views, sex and age, of every view and image by default."""
    from torchxrayvision.datasets import describe as counts
    from torchxrayvision.datasets import find_dataset_class

    cls = find_dataset_class(name)
    description = counts(_build(cls, imgpath, arguments, _every_view(cls, views), all_images))
    if as_json:
        print_json(description)
        return
    head = f"{description['dataset']}: {count(description['images'], 'image')}"
    if description["patients"] is not None:
        head += f" of {count(description['patients'], 'patient')}"
    console().print(head)
    _print_findings(description["findings"])
    for group in ("view", "sex", "age"):
        if description[group]:
            _print_counts(group, description[group], description["images"])


def _print_findings(findings: dict[str, dict[str, int]]) -> None:
    columns = ["present", "absent", "unknown"]
    if any(counts["other"] for counts in findings.values()):
        columns.append("other")
    rows = [[name, *(f"{n[column]:,}" for column in columns)] for name, n in findings.items()]
    print_table(["finding", *columns], rows, numbers=columns)


def _print_counts(group: str, counts: dict[str, int], total: int) -> None:
    rows = [[name, f"{n:,}", f"{n / max(1, total):.1%}"] for name, n in counts.items()]
    print_table([group, "images", "share"], rows, numbers=["images", "share"])


def verify(
    name: Name,
    imgpath: ImgPath = None,
    arguments: Arguments = None,
    views: opt.Views = None,
    all_images: AllImages = True,
    decode: Annotated[
        bool, typer.Option(help="Decode the pixels instead of only looking for the files.")
    ] = True,
    workers: opt.Workers = None,
    time_limit: opt.TimeLimit = None,
    isolate: opt.Isolate = False,
    as_json: opt.AsJson = False,
) -> None:
    """Check that every image is there, can be read and has its size, and find duplicates.

    By default images of every view are checked, not one per patient.
    """
    from torchxrayvision.datasets import find_dataset_class
    from torchxrayvision.datasets import verify as check
    from torchxrayvision.inputs import ReadOptions

    cls = find_dataset_class(name)
    _needs_images(cls, imgpath, arguments)
    dataset: Any = _build(cls, imgpath, arguments, _every_view(cls, views), all_images)
    reading = ReadOptions.of(workers=workers, time_limit=time_limit, isolate=isolate)
    with progress_of(len(dataset)) as advance:
        report = check(dataset, decode=decode, hashes=decode, progress=advance, reading=reading)
    if as_json:
        print_json({"ok": report.ok, **dataclasses.asdict(report)})
    else:
        console().print(str(report), markup=False, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(EXIT_SOME_FAILED)


def export(
    name: Name,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file, or the folder, to write.")
    ],
    to: Annotated[
        Literal["parquet", "folder"],
        typer.Option(help="A table of labels, or a folder with images and masks too."),
    ] = "parquet",
    imgpath: ImgPath = None,
    arguments: Arguments = None,
    views: opt.Views = None,
    all_images: AllImages = False,
    time_limit: opt.TimeLimit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write the labels as one Parquet file, or images, masks and labels as plain files.

    By default what the class keeps is written, often one PA image per patient; --view "*"
    --all-images writes everything.
    """
    refuse_existing(output, overwrite)
    from torchxrayvision.datasets import export_folder, export_parquet, find_dataset_class
    from torchxrayvision.inputs import ReadOptions

    cls = find_dataset_class(name)
    if to == "parquet":
        require_extension(output, ".parquet")
        file_to_write(output)
    else:
        _needs_images(cls, imgpath, arguments)
        folder_to_write(output)
    dataset = _build(cls, imgpath, arguments, views, all_images)
    if to == "parquet":
        export_parquet(dataset, output)
        inform(f"{count(len(dataset), 'row')} in {output}")
        return
    reading = ReadOptions.of(time_limit=time_limit)
    with progress_of(len(dataset)) as advance:
        failed = export_folder(dataset, output, progress=advance, reading=reading)
    inform(f"{count(len(dataset) - len(failed), 'image')} in {output}")
    if failed:
        show_error(
            ValueError(f"{count(len(failed), 'image')} could not be read; see the json files")
        )
        raise typer.Exit(EXIT_SOME_FAILED)


def croissant(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write.", callback=file_to_write),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="Write the table of labels too, as Parquet in the folder of --output, and "
            "describe its columns.",
            callback=file_to_write,
        ),
    ] = None,
    imgpath: ImgPath = None,
    arguments: Arguments = None,
    views: opt.Views = None,
    all_images: AllImages = True,
    overwrite: opt.Overwrite = False,
) -> None:
    """Print what is known about a dataset as Croissant, the JSON-LD of MLCommons.

    Terms, citation, files with the hashes that are known, and the columns of their tables. With
    --table a program that reads Croissant reads one row per image.
    """
    require_extension(output, ".json", ".jsonld")
    refuse_existing(output, overwrite)
    if table is not None:
        if output is None or output.parent.resolve() != table.parent.resolve():
            refuse("--table is described by its name: give --output in the same folder")
        if table.suffix.lower() != ".parquet":
            refuse(f"--table ends in .parquet, not {table.name}")
        refuse_existing(table, overwrite)
    from torchxrayvision.datasets import croissant as describe_as
    from torchxrayvision.datasets import export_parquet, find_dataset_class
    from torchxrayvision.files import write_atomically

    cls = find_dataset_class(name)
    if table is not None:
        dataset = _build(cls, imgpath, arguments, _every_view(cls, views), all_images)
        export_parquet(dataset, table)
        inform(f"{count(len(dataset), 'row')} in {table}")
    text = json.dumps(describe_as(cls, table=table), indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
        return
    with write_atomically(output) as part:
        part.write_text(f"{text}\n", "utf-8")
    inform(f"the description of {cls.__name__} in {output}")


def split(
    name: Name,
    part: Annotated[
        list[str] | None,
        typer.Option(help="Official part to count and hash; all of them, or --fractions."),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(help="Draw parts by patient instead: shares of the patients, as 0.7,0.1,0.2."),
    ] = None,
    seed: opt.Seed = 0,
    output: opt.Output = None,
    imgpath: ImgPath = None,
    arguments: Arguments = None,
    views: opt.Views = None,
    all_images: AllImages = True,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Print the official parts of a dataset, or parts drawn by patient, with their hashes.

    The hash names a split in a paper: whoever has the same images in a part gets the same one.
    --output writes one row per image with its patient and part. The exit code is 1 where an
    official part is known and these images are not it.
    """
    require_extension(output, ".csv")
    refuse_existing(output, overwrite)
    from torchxrayvision.datasets import describe_split, find_dataset_class, find_official_split

    cls = find_dataset_class(name)
    dataset = _build(cls, imgpath, arguments, _every_view(cls, views), all_images)
    parts = _parts(dataset, part, fractions, seed)
    rows: list[dict[str, Any]] = []
    for title, images in parts.items():
        found = describe_split(images)
        known = None if fractions else find_official_split(cls.__name__, title)
        problems = [] if known is None else known.problems(found)
        row = {"part": title, **dataclasses.asdict(found), "problems": problems}
        rows.append(row)
    if output is not None:
        _write_parts(parts, output, fractions, seed)
    if as_json:
        print_json(rows)
    elif output != STDOUT:
        for row in rows:
            people = "" if row["patients"] is None else f" of {count(row['patients'], 'patient')}"
            line = f"{row['part']}: {count(row['images'], 'image')}{people}\n"
            console().print(f"{line}  sha256 of the images {row['images_sha256']}")
    for row in rows:
        for problem in row["problems"]:
            show_error(ValueError(f"{row['part']} is not the official part: {problem}"))
    if any(row["problems"] for row in rows):
        raise typer.Exit(EXIT_SOME_FAILED)


def _parts(
    dataset: Any, names: list[str] | None, fractions: str | None, seed: int
) -> dict[str, Any]:
    from torchxrayvision.datasets import official_splits, split_by_patient

    if fractions is None:
        if names:
            return {name: dataset.official_split(name) for name in names}
        return dict(official_splits(dataset))
    try:
        shares = [float(share) for share in fractions.split(",")]
    except ValueError:
        refuse(f"--fractions takes numbers with commas, such as 0.7,0.1,0.2, not {fractions!r}")
    titles = ["train", "validation", "test"] if len(shares) == 3 else None
    drawn = split_by_patient(dataset, shares, seed)
    return dict(zip(titles or [f"part {i + 1}" for i in range(len(drawn))], drawn, strict=True))


def _write_parts(parts: Mapping[str, Any], output: Path, fractions: str | None, seed: int) -> None:
    import pandas as pd

    from torchxrayvision.csvtext import write_frame
    from torchxrayvision.provenance import Provenance

    frames = []
    for title, subset in parts.items():
        people = subset.csv.get("patientid", pd.Series([""] * len(subset)))
        names = [subset.dataset.image_path(int(i)) for i in subset.idxs]
        frames.append(pd.DataFrame({"path": names, "patientid": people, "split": title}))
    options = {"fractions": fractions, "seed": seed} if fractions else {}
    made = Provenance(command="xrv datasets split", output="labels", options=options)
    table = pd.concat(frames, ignore_index=True)
    write_frame(table, sys.stdout if output == STDOUT else output, made)


add_command(app, list_, "list")
for _function in (describe, verify, split, export, croissant):
    add_command(app, _function)
