"""`xrv evaluate`: predictions against labels, with intervals."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from torchxrayvision.cli.console import (
    EXIT_USAGE,
    STDOUT,
    console,
    inform,
    print_json,
    refuse,
    refuse_existing,
    require_ending,
    show_error,
    show_warnings,
    stderr_console,
)
from torchxrayvision.cli.options import AsJson, Output, Overwrite
from torchxrayvision.csvtext import write_frame
from torchxrayvision.files import sha256_of

if TYPE_CHECKING:
    import pandas as pd

    from torchxrayvision.provenance import Provenance


def evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="What `xrv predict --output` wrote, or any table with a column path and one "
            "column per finding; the findings may share a prefix."
        ),
    ],
    labels: Annotated[
        Path,
        typer.Argument(
            help="One row per image: a column path, Path, file, filename, image, Image Index or "
            "imageid, and findings as 1, 0 or empty; or what `xrv datasets export` wrote."
        ),
    ],
    output: Output = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the labels to split by, such as sex or age (in bands); may be repeated."
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            help="Column of the labels that names the patient "
            "[patientid, Patient ID, PatientID or subject_id if there is one]."
        ),
    ] = None,
    replicates: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    seed: Annotated[int | None, typer.Option(min=0, hidden=True)] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Print the AUROC of every finding with 95 % intervals that take patients into account."""
    from torchxrayvision.evaluation import (
        auroc_table,
        join_labels,
        patient_column,
        read_table,
        subgroup_table,
        subgroups_by,
    )

    require_ending(output, ".csv")
    refuse_existing(output, overwrite)
    if replicates is not None or seed is not None:
        inform("--replicates and --seed change nothing: the intervals have formulas")
    try:
        scored, known = read_table(predictions), read_table(labels)
    except (OSError, ValueError) as error:
        show_error(error)
        raise typer.Exit(EXIT_USAGE) from None
    column = patient or patient_column(known)
    if column is not None and column not in known:
        has = ", ".join(map(str, known))
        refuse(f"{labels} has no column {column!r}; it has {has}")
    if by:
        try:
            subgroups_by(known.head(0), by)
        except ValueError as error:
            refuse(str(error).replace("the table", str(labels), 1))
    with show_warnings():
        rows, findings = join_labels(scored, known)
    read = rows[_good(rows, scored, known)]
    truth = read[findings].to_numpy(dtype=float)
    scores = read[[f"predicted {name}" for name in findings]].to_numpy(dtype=float)
    patients = _patients(read[column]) if column else None
    table = auroc_table(truth, scores, findings, patients)
    if by:
        parts = subgroup_table(truth, scores, findings, subgroups_by(read, by), patients)
        table = _stacked(table, parts)
    stderr_console().print(
        f"{len(read)} images; left out: {len(rows) - len(read)} that could not be read, "
        f"{len(scored) - len(rows)} without labels, {len(known) - len(rows)} without predictions; "
        + (f"patients are those of {column}" if column else "each image counts as a patient"),
        markup=False,
        soft_wrap=True,
    )
    if as_json:
        print_json(table.to_dict("records"))
    elif output is None:
        _print(table)
    else:
        target = sys.stdout if output == STDOUT else output
        write_frame(table, target, _provenance(predictions, labels))
        inform(f"{len(table)} rows in {output}" if output != STDOUT else "")


def _provenance(predictions: Path, labels: Path) -> Provenance:
    from torchxrayvision.provenance import Provenance, read

    inputs = {"predictions_sha256": sha256_of(predictions), "labels_sha256": sha256_of(labels)}
    made = read(predictions) or {}
    facts = ("weights", "weights_sha256", "output", "calibration", "preprocessing")
    known = {name: made[name] for name in facts if name in made}
    return Provenance(command="xrv evaluate", inputs=inputs, **known)


def _good(rows: pd.DataFrame, scored: pd.DataFrame, known: pd.DataFrame) -> pd.Series[bool]:
    """Images that could be read, as the predictions say; labels may have a column of that name."""
    import pandas as pd

    if "error" not in scored:
        return pd.Series(True, index=rows.index)
    error = rows["error of the predictions" if "error" in known else "error"]
    return error.isna() | (error == "").fillna(False).astype(bool)


def _patients(column: pd.Series) -> pd.Series[str]:
    """Identifiers as text; a row without one is a patient of its own."""
    text = column.astype(str).astype(object)
    return text.where(column.notna() & (text != ""), None)


def _stacked(whole: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    whole = whole.assign(attribute="all", subgroup="all")
    return pd.concat([whole[parts.columns], parts], ignore_index=True)


def _print(table: pd.DataFrame) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    split = [name for name in ("attribute", "subgroup") if name in table]
    for name in (*split, "finding"):
        shown.add_column(name, no_wrap=True)
    for name in ("n", "positives", "AUROC"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("95 % interval")
    for row in table.to_dict("records"):
        area = "" if math.isnan(row["auroc"]) else f"{row['auroc']:.3f}"
        ends = str(row["reason"]) or f"{row['low']:.3f} to {row['high']:.3f}"
        if row["finding"] == "mean" and area:
            ends += f" (mean of {row['findings']})"
        facts = [str(row[name]) for name in (*split, "finding", "n", "positives")]
        shown.add_row(*facts, area, ends)
    console().print(shown)
