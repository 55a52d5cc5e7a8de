"""`xrv evaluate`: predictions against labels, with intervals."""

from __future__ import annotations

import json
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
    refuse_existing,
    require_ending,
    show_error,
    show_warnings,
    stderr_console,
)
from torchxrayvision.cli.options import AsJson, Output, Overwrite, Seed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["evaluate"]


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="What `xrv predict --output` wrote.")],
    labels: Annotated[
        Path,
        typer.Argument(
            help="Films in a column path, Path, file, filename, image, Image Index or imageid, and "
            "findings as 1, 0 or nothing; or what `xrv datasets export` wrote."
        ),
    ],
    output: Output = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column of the labels to split by, such as sex; may be repeated."),
    ] = None,
    patient: Annotated[
        str | None, typer.Option(help="Column that names the patient [patientid if there is one].")
    ] = None,
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates.")] = 2000,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Print AUROC of every finding with 95 % intervals; patients are resampled."""
    from torchxrayvision.evaluation import auroc_table, join_labels, subgroup_table

    require_ending(output, ".csv")
    refuse_existing(output, overwrite)
    try:
        scored, known = _read(predictions), _read(labels)
    except (OSError, ValueError) as error:
        show_error(error)
        raise typer.Exit(EXIT_USAGE) from None
    with show_warnings():
        rows, findings = join_labels(scored, known)
    read = rows[_good(rows, scored, known)]
    column = patient or ("patientid" if "patientid" in known else None)
    for name in (*(by or ()), *((column,) if column else ())):
        if name not in known:
            has = ", ".join(map(str, known))
            show_error(ValueError(f"{labels} has no column {name!r}; it has {has}"))
            raise typer.Exit(EXIT_USAGE)
    truth = read[findings].to_numpy(na_value=float("nan"))
    scores = read[[f"predicted {name}" for name in findings]].to_numpy(dtype=float)
    groups = read[column] if column else None
    table = auroc_table(truth, scores, findings, groups, replicates, seed)
    if by:
        parts = subgroup_table(
            truth, scores, findings, {name: read[name] for name in by}, groups, replicates, seed
        )
        table = _stacked(table, parts)
    stderr_console().print(
        f"{len(read)} films; left out: {len(rows) - len(read)} that could not be read, "
        f"{len(scored) - len(rows)} without labels, {len(known) - len(rows)} without predictions; "
        + (f"patients are those of {column}" if column else "each film counts as a patient"),
        markup=False,
        soft_wrap=True,
    )
    if as_json:
        print_json(table.to_dict("records"))
    elif output is None:
        _print(table)
    else:
        table.to_csv(sys.stdout if output == STDOUT else output, index=False)
        inform(f"{len(table)} rows in {output}" if output != STDOUT else "")


def _good(rows: pd.DataFrame, scored: pd.DataFrame, known: pd.DataFrame) -> pd.Series[bool]:
    """Films that could be read, as the predictions say; labels may have a column of that name."""
    import pandas as pd

    if "error" not in scored:
        return pd.Series(True, index=rows.index)
    error = rows["error of the predictions" if "error" in known else "error"]
    return error.isna() | (error == "")


def _read(path: Path) -> pd.DataFrame:
    try:
        return _parsed(path)
    except ValueError as error:  # no table, or another format than the name says
        raise ValueError(f"{path} cannot be read as a table: {error}") from None


def _parsed(path: Path) -> pd.DataFrame:
    import pandas as pd

    if path.suffix.lower() == ".json":
        return pd.DataFrame(json.loads(path.read_text("utf-8")))
    return pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)


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
    for name in ("n", "positives", "AUROC", "95 % interval"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        measured = (
            (f"{row['auroc']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}")
            if not row["reason"]
            else ("", str(row["reason"]))
        )
        facts = [str(row[name]) for name in (*split, "finding", "n", "positives")]
        shown.add_row(*facts, *measured)
    console().print(shown)
