"""`xrv benchmark`: the field's tables in one command each."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    EXIT_SOME_FAILED,
    console,
    count,
    folder_to_write,
    inform,
    load_classifier,
    print_json,
    print_table,
    refuse,
    refuse_existing,
    run_progress,
    show_error,
    show_warnings,
    with_ends,
)
from torchxrayvision.cli.datasets import Arguments, ImgPath, typed_arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from torchxrayvision.benchmark import Cell, Protocol
    from torchxrayvision.models import XRayClassifier

_CROSS: Final = "cross-dataset"
_SHIFT: Final = "covariate-shift"


def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            help="nih-official, siim, rsna, chexpert-valid, chexlocalize, chexlocalize-valid, "
            "vindr-test, "
            "cross-dataset for every weights on every dataset of --on, or covariate-shift on "
            "simulated sites."
        ),
    ],
    imgpath: ImgPath = None,
    arguments: Arguments = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="For cross-dataset: a dataset and its arguments, as 'nih imgpath=FOLDER'; may be "
            "given several times."
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="Weights to test, or a file; may be given several times."),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="Explanation to score where there are masks; may be repeated [all]."
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Compute on other rows too, and compare with nothing."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is needed and what is there, and end.")
    ] = False,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out-dir",
            help="Folder for the tables, and for predictions from which the same command resumes.",
            callback=folder_to_write,
        ),
    ] = None,
    workers: opt.Workers = None,
    time_limit: opt.TimeLimit = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Compute a table of the field on your images, with intervals and the published numbers.

    Rows are fixed by hash.
    The exit code is 1 where the rows are not those of the benchmark, or a published number of the
    same weights and ours exclude each other. Predictions are kept in OUT_DIR/cache: the same
    command resumes, and other measures of the same predictions cost nothing.
    """
    from torchxrayvision.benchmark import get_protocol, plan

    if name == _SHIFT:
        _study_shift(arguments or [], out_dir, dry_run, overwrite, as_json)
        return
    cells = _asked(on, arguments, imgpath) if name == _CROSS else []
    if name != _CROSS:
        protocol = get_protocol(name)
        cells = [(protocol, _given(protocol.dataset, arguments, imgpath))]
    plans = [plan(protocol, given) for protocol, given in cells]
    if dry_run:
        _show_plans(plans, as_json)
        return
    for found in plans:
        _check(found, partial)
    if out_dir is None:
        refuse("--out-dir FOLDER keeps the tables and the predictions")
    table = out_dir / "results.csv"
    if table.exists():
        refuse_existing(table, overwrite)
    done = _run(cells, models or ["demo"], out_dir, workers, time_limit)
    _write(done, out_dir, name)
    scored = [
        _localised(protocol, given, models or ["demo"], methods, out_dir)
        for protocol, given in cells
        if protocol.masks and given.get(protocol.masks) is not None
    ]
    _show(done, as_json, scored)
    if any(cell.outside or (cell.problems and not partial) for cell in done):
        raise typer.Exit(EXIT_SOME_FAILED)


def _study_shift(
    items: list[str], out_dir: Path | None, dry_run: bool, overwrite: bool, as_json: bool
) -> None:
    """Covariate shift: its table, its figure where matplotlib is, and what it resumes from."""
    from torchxrayvision.benchmark import Shift, covariate_shift
    from torchxrayvision.errors import DatasetError

    try:
        shift = Shift.of(items)
    except DatasetError as error:
        refuse(f"--with: {error}")
    if dry_run:
        said = (
            f"covariate-shift needs no data: {shift.pool} images with and without {shift.finding} "
            f"of each of 2 sites at {shift.size} pixels, {shift.trainings} small networks"
        )
        if as_json:
            print_json([{"benchmark": _SHIFT, "needs": [], "trainings": shift.trainings}])
        else:
            console().print(said, markup=False, soft_wrap=True)
        return
    if out_dir is None:
        refuse("--out-dir FOLDER keeps the table, the figure and the networks' scores")
    target = out_dir / "results.csv"
    refuse_existing(target if target.exists() else None, overwrite)
    with show_warnings(), run_progress() as progress:
        try:
            table = covariate_shift(shift, out_dir / "cache", on_progress=progress.move)
        except DatasetError as error:
            refuse(error)
    _write_frame(table, target, {"benchmark": _SHIFT, **dataclasses.asdict(shift)})
    _draw(
        lambda plots: plots.covariate_shift(table, finding=shift.finding), out_dir / "results.svg"
    )
    if as_json:
        print_json(table.to_dict("records"))
        return
    tests = list(dict.fromkeys(table["test"]))
    rows = []
    for ratio, part in table.groupby("ratio"):
        by = part.set_index("test")[["auroc", "low", "high"]]
        rows.append([f"{ratio:g}", *(with_ends(*by.loc[test]) for test in tests)])
    heads = ["ratio", *tests]
    print_table(heads, rows, numbers=heads, whole=heads)
    inform(f"{count(len(table), 'row')} in {target}")


def _draw(make: Callable[[Any], Any], path: Path) -> None:
    """A figure beside the table; without matplotlib there is none, and a line says so."""
    from torchxrayvision import plots
    from torchxrayvision.errors import DependencyError

    try:
        make(plots).save(path)
    except DependencyError as error:
        inform(f"no figure: {error}")
        return
    inform(f"the figure is {path}")


def _write_frame(table: pd.DataFrame, target: Path, options: dict[str, Any], **more: Any) -> None:
    from torchxrayvision.csvtext import write_frame
    from torchxrayvision.provenance import Provenance

    target.parent.mkdir(parents=True, exist_ok=True)
    made = Provenance(command="xrv benchmark", output="AUROC", options=options, **more)
    write_frame(table, target, made)


def _localised(
    protocol: Protocol,
    given: dict[str, Any],
    models: list[str],
    methods: list[str] | None,
    out_dir: Path,
) -> pd.DataFrame:
    """Explanations against the masks, for every model."""
    import pandas as pd

    from torchxrayvision.benchmark import localise, rows_of
    from torchxrayvision.explain import METHODS

    if unknown := sorted(set(methods or ()) - set(METHODS)):
        refuse(f"--method is one of {', '.join(METHODS)}, got {', '.join(unknown)}")
    tables = []
    with show_warnings():
        for name in models:
            model = _load(name).eval()
            inform(f"explanations of {name} on {protocol.title}")
            marked = rows_of(
                protocol, {**given, "pathology_masks": True}, int(model.input_resolution)
            )
            with run_progress() as progress:
                table = localise(
                    model, marked, out_dir / "cache", methods=methods or METHODS,
                    on_progress=progress.move,
                )  # fmt: skip
            table.insert(0, "weights", name)
            tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    options = {"benchmark": protocol.name, "measure": "pointing game and IoU"}
    _write_frame(table, out_dir / "explanations.csv", options)
    inform(f"{count(len(table), 'row')} in {out_dir / 'explanations.csv'}")
    return table


def _load(name: str) -> XRayClassifier:
    file = Path(name)
    return load_classifier(None, file) if file.is_file() else load_classifier(name, None)


def _given(dataset: str, arguments: list[str] | None, imgpath: Path | None) -> dict[str, Any]:
    from torchxrayvision.datasets import get_dataset_class

    given = typed_arguments(get_dataset_class(dataset), arguments or [])
    return given if imgpath is None else {**given, "imgpath": str(imgpath)}


def _asked(
    on: list[str] | None, arguments: list[str] | None, imgpath: Path | None
) -> list[tuple[Protocol, dict[str, Any]]]:
    """The datasets of a matrix."""
    from torchxrayvision.benchmark import Protocol
    from torchxrayvision.datasets import find_dataset_class

    if not on or arguments or imgpath is not None:
        refuse('cross-dataset takes its datasets as --on "nih imgpath=FOLDER", one each')
    found = []
    for text in on:
        word, *rest = shlex.split(text)
        cls = find_dataset_class(word)
        protocol = Protocol(name=_CROSS, title=text, dataset=cls.__name__)
        found.append((protocol, typed_arguments(cls, rest)))
    return found


def _check(found: dict[str, Any], partial: bool) -> None:
    """Refuse what cannot be computed before a network is loaded."""
    needs = [need for need in found["needs"] if not (need == "imgpath" and _drawn(found))]
    if needs:
        given = ["--imgpath FOLDER" if n == "imgpath" else f"--with {n}=FILE" for n in needs]
        refuse(f"{found['dataset']} needs {', '.join(given)}; --dry-run says what is there")
    if found["problems"] and not partial:
        reasons = "; ".join(found["problems"])
        refuse(f"these are not the rows of the benchmark: {reasons}; --partial computes anyway")


def _drawn(found: dict[str, Any]) -> bool:
    return bool(found["dataset"] == "Phantom_Dataset")  # rendered, not read


def _run(
    cells: list[tuple[Protocol, dict[str, Any]]],
    models: list[str],
    out_dir: Path,
    workers: int | None,
    time_limit: float | None,
) -> list[Cell]:
    from torchxrayvision.benchmark import benchmark as carry_out
    from torchxrayvision.inputs import ReadOptions

    reading = ReadOptions.of(workers=workers, time_limit=time_limit)
    done = []
    with show_warnings():
        for name in models:
            model = _load(name)
            for number, (protocol, given) in enumerate(cells, start=1):
                inform(f"{name} on {protocol.title}")
                with run_progress() as progress:
                    cell = carry_out(
                        protocol, model.eval(), given, out_dir / "cache", name=name,
                        reading=reading, on_progress=progress.move,
                    )  # fmt: skip
                if protocol.name == _CROSS:
                    cell.dataset = protocol.title or f"{cell.dataset} {number}"
                done.append(cell)
    return done


def _write(done: list[Cell], out_dir: Path, name: str) -> None:
    import pandas as pd

    from torchxrayvision.benchmark import markdown
    from torchxrayvision.csvtext import write_frame
    from torchxrayvision.files import write_atomically
    from torchxrayvision.provenance import Provenance

    out_dir.mkdir(parents=True, exist_ok=True)
    made = Provenance(
        command="xrv benchmark", output="AUROC", options={"benchmark": name},
        weights=", ".join(dict.fromkeys(cell.weights for cell in done)),
        inputs={
            cell.dataset: {"images": cell.split.images, "sha256": cell.split.images_sha256}
            for cell in done
        },
    )  # fmt: skip
    tables = [
        cell.table.assign(
            weights=cell.weights, weights_sha256=cell.weights_sha256, dataset=cell.dataset,
            images_sha256=cell.split.images_sha256, failed=cell.failed,
        )
        for cell in done
    ]  # fmt: skip
    write_frame(pd.concat(tables, ignore_index=True), out_dir / "results.csv", made)
    with write_atomically(out_dir / "results.md") as part:
        part.write_text(markdown(done), "utf-8")
    if len(done) > 1:
        means = pd.concat(tables, ignore_index=True)
        means = means[means["finding"] == "mean"]
        _draw(lambda plots: plots.matrix(means), out_dir / "results.svg")


def _show(done: list[Cell], as_json: bool, scored: list[pd.DataFrame]) -> None:
    from torchxrayvision.benchmark import markdown

    if as_json:
        explained = [{"explanations": table.to_dict("records")} for table in scored]
        print_json([cell.to_dict() for cell in done] + explained)
        return
    if len(done) > 1:
        console().print(markdown(done), markup=False, soft_wrap=True)
    for cell in done:
        heads = ("finding", "n", "positives", "AUROC", "95 % interval", "published", "")
        rows = []
        for row in cell.table.to_dict("records"):
            ends = str(row["reason"]) or f"{row['low']:.3f} to {row['high']:.3f}"
            said = row.get("published", float("nan"))
            published = "" if said != said else f"{said:.3f} ({row['model']})"
            area = "" if row["auroc"] != row["auroc"] else f"{row['auroc']:.3f}"
            facts = (str(row["finding"]), str(row["n"]), str(row["positives"]), area, ends)
            rows.append([*facts, published, str(row.get("inside", ""))])
        print_table(heads, rows, whole=heads, title=f"{cell.weights} on {cell.dataset}")
        for problem in cell.problems:
            show_error(ValueError(f"not the rows of the benchmark: {problem}"))
        inform(f"{count(cell.failed, 'image')} could not be read" if cell.failed else "")
    for table in scored:
        heads = ("weights", "method", "finding", "n", "hits", "chance", "IoU")
        rows = []
        for row in table.to_dict("records"):
            which = [str(row[name]) for name in heads[:4]]
            hits, shared = (
                with_ends(row[name], row[f"{name}_low"], row[f"{name}_high"])
                for name in ("hits", "iou")
            )
            rows.append([*which, hits, f"{row['chance']:.3f}", shared])
        print_table(heads, rows, whole=heads, title="explanations against the masks")


def _show_plans(plans: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(plans)
        return
    for found in plans:
        console().print(f"{found['title']}", markup=False)
        if found["needs"]:
            console().print(f"  still needs {', '.join(found['needs'])}", markup=False)
        if found["images"] is not None:
            console().print(f"  {count(found['images'], 'image')} in the table", markup=False)
        if found["images_missing"] is not None:
            console().print(f"  {found['images_missing']:,} of them are not in the folder")
        for problem in found["problems"]:
            console().print(f"  {problem}", markup=False, soft_wrap=True)
        if found["note"]:
            console().print(f"  {found['note']}", markup=False, soft_wrap=True)
