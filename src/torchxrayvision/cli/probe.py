"""`xrv probe`: what the features of a network know, from few patients and from all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    count,
    file_to_write,
    folder_to_write,
    inform,
    load_classifier,
    print_json,
    print_table,
    progress_of,
    refuse,
    refuse_existing,
    require_extension,
    run_progress,
    show_warnings,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from torchxrayvision.evaluation import Study
    from torchxrayvision.files import Provenance

_SHOTS: Final = "1,5,10,50,100"
_VECTOR: Final = "embedding"
_ROW: Final = "row of the embeddings"


def probe(
    embeddings: Annotated[
        Path,
        typer.Argument(
            help="What `xrv predict --embeddings --output` wrote; with --images it is written."
        ),
    ],
    labels: Annotated[
        Path, typer.Argument(help="One row per image, as `xrv evaluate` takes them.")
    ],
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Radiographs, folders or archives to predict first, with --weights or "
            "--checkpoint; a run that was stopped resumes; may be repeated."
        ),
    ] = None,
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    finding: Annotated[
        list[str] | None,
        typer.Option(
            help="Finding of the labels; may be repeated [those that the network knows too]."
        ),
    ] = None,
    shots: Annotated[
        str, typer.Option(help="Patients of each class that probes are fitted to.")
    ] = _SHOTS,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of each number of patients.")] = 5,
    hold_out: Annotated[
        float, typer.Option(help="Share of the patients that probes are tested on.")
    ] = 0.3,
    split: Annotated[
        str | None,
        typer.Option(help="Column of the labels that says train or test, in place of --hold-out."),
    ] = None,
    patient: opt.Patient = None,
    seed: opt.Seed = 0,
    output: opt.Output = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the curves: .svg, .png or .pdf.", callback=file_to_write),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write a page with the curves, the table and the methods to this folder; needs "
            "the extra report.",
            callback=folder_to_write,
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Fit linear probes to features of images, from few patients of each class and from all.

    Prints the AUROC on patients whom no probe has seen, with 95 % intervals over these patients,
    and the lowest and highest of the draws. The hash of the patient decides who is tested, as in
    xrv calibrate --hold-out.
    """
    wanted = _numbers(shots)
    require_extension(output, ".csv")
    require_extension(plot, ".svg", ".png", ".pdf")
    for path in (output, plot, report):
        refuse_existing(path, overwrite)
    if not 0 < hold_out < 1:
        refuse(f"--hold-out is a share between 0 and 1 such as 0.3, got {hold_out}")
    if images is None and (weights or checkpoint):
        refuse("--weights and --checkpoint predict --images: name them too")
    if images is not None and not embeddings.exists():
        _predict(images, weights, checkpoint, embeddings)
    study, features = _study(labels, embeddings, finding, patient)
    tested = _tested(study, split, hold_out, seed, labels)
    people = study.patients
    sides = [
        (
            features[rows], study.labels[rows],
            None if people is None else people.to_numpy(object)[rows],
        )
        for rows in (~tested, tested)
    ]  # fmt: skip
    inform(_counted(study, tested))
    from torchxrayvision.training import learning_curve

    total = len(study.findings) * seeds * len(wanted)
    with progress_of(total) as move:
        table = learning_curve(
            sides[0], sides[1], study.findings, shots=wanted, seeds=seeds, on_progress=move
        )
    _give(table, study, output, plot, as_json)
    if report is not None:
        chosen = f"By column {split} of {labels.name}." if split else _held_out(hold_out, seed)
        told = features.shape[1], _counted(study, tested), chosen, seeds
        _report(table, study, told, report)


def _numbers(text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        refuse(f"--shots are numbers of patients such as {_SHOTS}, got {text!r}")
    return found


def _predict(images: list[str], weights: str | None, checkpoint: Path | None, target: Path) -> None:
    from torchxrayvision.inference import predict_to_file

    net = load_classifier(weights, checkpoint)
    with show_warnings(), run_progress() as progress:
        done = predict_to_file(
            images, net.eval(), target, embeddings=True, on_found=progress.found,
            on_progress=progress.move,
        )  # fmt: skip
    if not done.images:
        refuse(f"no image in {', '.join(images)}")
    inform(f"{count(done.total, 'row')} in {target}")


def _study(
    labels: Path, embeddings: Path, findings: list[str] | None, patient: str | None
) -> tuple[Study, NDArray[Any]]:
    """Labels beside the embeddings of the images that were read: the study and (N, D)."""
    import numpy as np

    from torchxrayvision.evaluation import Study, read_table

    try:
        scored, known = read_table(embeddings), read_table(labels)
    except (OSError, ValueError) as error:
        refuse(error)
    vectors, read = _vectors(scored, embeddings)
    names = [name for name in scored if str(name).startswith(_VECTOR)]
    scored = scored.drop(columns=names)[read].assign(**{_ROW: np.arange(int(read.sum()))})
    if missing := [name for name in findings or () if name not in known]:
        refuse(f"{labels} has no column {', '.join(missing)}; it has {', '.join(map(str, known))}")
    if findings:  # of labels alone: the network need not know them
        others = [name for name in known if name in scored and name not in findings]
        scored = scored.drop(columns=[n for n in others if n not in ("path", "error")])
        scored = scored.assign(**dict.fromkeys(findings, 0.0))
    try:
        with show_warnings():
            study = Study.of((scored, known), (embeddings, labels), patient=patient)
    except ValueError as error:
        refuse(f"{error}; --finding names those of the labels that the network does not know")
    return study, vectors[study.rows[_ROW].to_numpy(int)]


def _vectors(table: pd.DataFrame, path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Embeddings, (M, D), and which rows of a table have one."""
    import numpy as np

    if _VECTOR in table:  # .parquet and .json
        read = table[_VECTOR].notna().to_numpy(bool)
        kept = table[_VECTOR][read]
        return np.stack([np.asarray(one, np.float32) for one in kept]), read
    names = [name for name in table if str(name).startswith(f"{_VECTOR}_")]
    if not names:
        refuse(f"{path} has no embeddings; predict with xrv predict --embeddings")
    read = (table[names[0]].astype(str) != "").to_numpy(bool)
    return table.loc[read, names].to_numpy(dtype=np.float32), read


def _tested(study: Study, split: str | None, share: float, seed: int, labels: Path) -> NDArray[Any]:
    """Rows of the test, (N,)."""
    import numpy as np

    if split is None:
        return study.held_out(share, seed)
    if split not in study.rows:
        refuse(f"{labels} has no column {split!r}; it has {', '.join(map(str, study.columns))}")
    said = study.rows[split].astype(str).str.lower()
    if {"train", "test"} != set(said):
        found = ", ".join(sorted(set(said))[:5])
        refuse(f"column {split} holds train or test on every row, got {found}")
    return np.asarray(said == "test", bool)


def _counted(study: Study, tested: NDArray[Any]) -> str:
    codes = study.codes
    trained, judged = (len(set(codes[rows].tolist())) for rows in (~tested, tested))
    unit = "patients" if study.patient else "images, each of which counts as a patient"
    return (
        f"{count(len(tested), 'image')} with labels and embeddings: "
        f"fitted to {int((~tested).sum()):,} of {trained:,} {unit}, "
        f"tested on {int(tested.sum()):,} of {judged:,}"
    )


def _give(
    table: pd.DataFrame, study: Study, output: Path | None, plot: Path | None, as_json: bool
) -> None:
    if as_json:
        print_json(table.to_dict("records"))
    elif output is None:
        _print(table)
    if output is not None:
        from torchxrayvision.csvtext import write_frame

        write_frame(table, output, _provenance(study))
        inform(f"{count(len(table), 'row')} in {output}")
    if plot is not None:
        from torchxrayvision.plots import learning_curve

        learning_curve(table).save(plot)
        inform(f"the curves are in {plot}")


def _provenance(study: Study) -> Provenance:
    from torchxrayvision.provenance import Provenance

    facts: dict[str, Any] = {name: study.made.get(name) for name in ("weights", "weights_sha256")}
    return Provenance(command="xrv probe", inputs=dict(study.hashes), **facts)


def _held_out(share: float, seed: int) -> str:
    return f"{share:.0%} of the patients, whom the hash of the patient and the seed {seed} decide."


def _report(
    table: pd.DataFrame, study: Study, told: tuple[int, str, str, int], folder: Path
) -> None:
    from torchxrayvision.report import ProbeStudy, write_probe_report

    features, counted, sides, seeds = told
    name = study.made.get("weights") or study.name
    made = ProbeStudy(
        table=table, features=features, counted=f"{counted}.", sides=sides, seeds=seeds,
        provenance=_provenance(study), title=f"Linear probes on {name}",
    )  # fmt: skip
    inform(f"the report is {write_probe_report(made, folder)}")


def _print(table: pd.DataFrame) -> None:
    numbers = ["patients of each class", "n", "positives", "AUROC"]
    rows = []
    for row in table.to_dict("records"):
        ends = str(row["reason"]) or f"{row['low']:.3f} to {row['high']:.3f}"
        draws = "" if row["seeds"] == 1 else f"{row['lowest']:.3f} to {row['highest']:.3f}"
        names = (str(row[name]) for name in ("finding", "per_class", "n", "positives"))
        rows.append([*names, f"{row['auroc']:.3f}", ends, draws])
    heads = ["finding", *numbers, "95 % interval", "of the draws"]
    print_table(heads, rows, numbers=numbers, whole=["finding"])
