"""`xrv evaluate`: predictions against labels, every measure with its interval."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    STDOUT,
    count,
    folder_to_write,
    inform,
    load_classifier,
    print_json,
    print_table,
    refuse,
    refuse_existing,
    require_extension,
    show_warnings,
    stderr_console,
    with_ends,
)
from torchxrayvision.csvtext import write_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from torchxrayvision.calibration import Calibration
    from torchxrayvision.evaluation import Study
    from torchxrayvision.files import Provenance
    from torchxrayvision.models import XRayClassifier
    from torchxrayvision.report import Judgement

_DECISIONS: Final = ("sensitivity", "specificity", "ppv", "npv", "f1")
_OTHERS: Final = (
    "average_precision", "brier", "calibration_slope", "calibration_intercept", "ece",
)  # fmt: skip
_AT_PREVALENCE: Final = ("ppv_at_prevalence", "npv_at_prevalence")
_HEADS: Final = {
    "average_precision": "average precision",
    "calibration_slope": "slope",
    "calibration_intercept": "intercept",
    "brier": "Brier",
    "ece": "ECE",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "auroc": "AUROC",
    "ppv_at_prevalence": "PPV at",
    "npv_at_prevalence": "NPV at",
}
_BELOW: Final[dict[str, Any]] = {"pad_edge": True, "title_justify": "left", "title_style": "bold"}


@dataclass(frozen=True)
class _Options:
    """What the study is judged by."""

    by: list[str]
    intersections: bool
    least: int
    thresholds: dict[str, float]
    threshold_shown: str
    prevalence: dict[str, float]


class _Source(NamedTuple):
    """Where thresholds are from."""

    given: str | None
    table: tuple[Path, Path] | None
    choice: str
    calibration: Path | None


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
    output: opt.Output = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            help="Predictions of another model for the same images, whose measures are compared "
            "with those of the first; may be repeated."
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the labels to split by, such as sex or age (in bands); may be repeated."
        ),
    ] = None,
    intersections: Annotated[
        bool, typer.Option("--intersections", help="Split by every two of the --by columns too.")
    ] = False,
    least: Annotated[
        int, typer.Option(min=1, help="Patients that a subgroup and the rest need for a gap.")
    ] = 20,
    patient: opt.Patient = None,
    kind: opt.Kind = None,
    operating_point: Annotated[
        str | None,
        typer.Option(
            help="A number for all findings, or published for the operating points of the weights "
            "[published, or those of --calibration]."
        ),
    ] = None,
    threshold_from: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Predictions and labels of other patients to choose thresholds on.",
            metavar="PREDICTIONS LABELS",
        ),
    ] = None,
    threshold_at: Annotated[
        str,
        typer.Option(
            help="How --threshold-from chooses: youden, sensitivity=0.9 or specificity=0.9."
        ),
    ] = "youden",
    calibration: opt.CalibrationFile = None,
    held_out: Annotated[
        bool,
        typer.Option(
            "--held-out", help="Judge only the patients that `xrv calibrate --hold-out` left out."
        ),
    ] = False,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            help="Share of another population that has the findings, such as 0.02, or of one "
            "finding, such as Mass=0.01: adds predictive values there; may be repeated."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write a page with figures, tables, a model card and the TRIPOD+AI checklist to "
            "this folder; needs the extra report.",
            callback=folder_to_write,
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Radiographs, folders or archives for the most certain errors of the report; may "
            "be repeated."
        ),
    ] = None,
    weights: opt.Weights = None,
    checkpoint: opt.Checkpoint = None,
    title: Annotated[str | None, typer.Option(help="Of the report.")] = None,
    replicates: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    seed: Annotated[int | None, typer.Option(min=0, hidden=True)] = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Print what predictions are worth: every measure, with 95 % intervals that count patients.

    With --output, the table of measures is written, and beside it tables whose names end in
    -differences.csv (of --compare) and -gaps.csv (of --by). With --report, --images and --weights
    show the most certain errors and the evidence in them.
    """
    require_extension(output, ".csv")
    refuse_existing(output, overwrite)
    refuse_existing(report, overwrite)
    if report is None and (images or weights or checkpoint or title):
        refuse("--images, --weights, --checkpoint and --title are for --report DIR")
    if (weights or checkpoint) and not images:
        refuse("--weights and --checkpoint draw evidence into images: give --images")
    if replicates is not None or seed is not None:
        inform("--replicates and --seed change nothing: the intervals have formulas")
    study, *others = studies_of([predictions, *(compare or ())], labels, patient, kind)
    if held_out:
        study, *others = [_held_out(each, calibration) for each in (study, *others)]
    if by:
        import pandas as pd

        from torchxrayvision.evaluation import subgroups_by

        try:
            subgroups_by(pd.DataFrame(columns=pd.Index(study.columns)), by)
        except ValueError as error:
            refuse(str(error).replace("the table", str(labels), 1))
    source = _Source(operating_point, threshold_from, threshold_at, calibration)
    options = _Options(
        by=by or [], intersections=intersections, least=least,
        thresholds=_thresholds(study, source), threshold_shown=_shown(study, source),
        prevalence=_prevalence(prevalence or [], study.findings),
    )  # fmt: skip
    table = _performance(study, options)
    differences = _differences(study, others, options)
    gaps = _gaps(study, options)
    stderr_console().print(study.summary(), markup=False, soft_wrap=True)
    if as_json:
        print_json(_as_json(table, differences, gaps))
    elif output is None:
        _print(table, study)
        _print_comparisons(differences, gaps)
    else:
        _write(output, study, table, differences, gaps)
    if report is not None:
        made = _judgement(study, others, (table, differences, gaps), options, title)
        targets = None if calibration is None else _targets(study, calibration, options)
        with show_warnings():
            net = load_classifier(weights, checkpoint) if weights or checkpoint else None
            _report(made, report, images or [], net, targets)


def _shown(study: Study, source: _Source) -> str:
    """Where thresholds are from, as a sentence."""
    given, table, choice, calibration = source
    if calibration is not None:
        made = _calibration(calibration)
        goals = {
            f"a {each.threshold['target']} of {each.threshold['value']:g}"
            for each in made.findings.values()
            if each.threshold
        }
        return (
            f"Thresholds are those of the calibration {calibration.name}, chosen for "
            f"{' or '.join(sorted(goals)) or 'nothing'} on {made.made_on}."
        )
    if table is not None:
        name, _, share = choice.partition("=")
        by = "the largest sum of both rates" if name == "youden" else f"a {name} of {share}"
        return f"Thresholds were chosen on {table[0].name} and {table[1].name}, for {by}."
    if given not in (None, "published"):
        return f"The threshold {given} was given for every finding."
    if study.kind == "operating-point":
        return "Thresholds are the published operating points, which lie at 0.5."
    from torchxrayvision.evaluation import published_thresholds

    if published_thresholds(study):
        return f"Thresholds are the published operating points of {study.made.get('weights')}."
    return "No threshold was given."


def _judgement(
    study: Study,
    others: list[Study],
    tables: tuple[pd.DataFrame, pd.DataFrame | None, pd.DataFrame | None],
    options: _Options,
    title: str | None,
) -> Judgement:
    from torchxrayvision.report import Judgement, Options

    table, differences, gaps = tables
    parts = None
    if options.by:
        parts = table[table["attribute"] != "all"]
        table = table[table["attribute"] == "all"].drop(columns=["attribute", "subgroup"])
    aside = (
        f"Only the {count(len(study.labels), 'image')} of patients who were held out when the "
        "calibration was made are judged; "
        f"{count(study.set_aside, 'image was', 'images were')} calibrated on."
        if study.set_aside
        else ""
    )
    chosen = Options(
        by=options.by, intersections=options.intersections, least=options.least,
        prevalence=options.prevalence,
    )  # fmt: skip
    return Judgement(
        study=study, table=table, thresholds=options.thresholds,
        threshold_shown=options.threshold_shown, options=chosen, provenance=_provenance(study),
        title=title or f"Evaluation of {study.made.get('weights') or study.name}", parts=parts,
        differences=differences, gaps=gaps, others=others, held_out=aside,
    )  # fmt: skip


def _targets(study: Study, path: Path, options: _Options) -> pd.DataFrame:
    """What thresholds for a sensitivity or specificity were to reach, and reached here."""
    import pandas as pd

    from torchxrayvision.evaluation import achieved_interval

    rows = []
    for name, finding in _calibration(path).findings.items():
        chosen = finding.threshold or {}
        judged = name in options.thresholds and name in study.findings
        if not judged or "chosen_on" not in chosen:
            continue
        j, rate = study.findings.index(name), str(chosen["target"])
        if not {0.0, 1.0} <= set(study.labels[:, j]):
            continue
        found = achieved_interval(
            study.labels[:, j], study.scores[:, j], options.thresholds[name], rate,
            chosen["chosen_on"], study.codes,
        )  # fmt: skip
        rows.append((name, rate, chosen["value"], found.value, found.low, found.high))
    head = pd.Index(["finding", "rate", "target", "value", "low", "high"])
    return pd.DataFrame(rows, columns=head)


def _report(
    judged: Judgement,
    folder: Path,
    images: list[str],
    net: XRayClassifier | None,
    targets: pd.DataFrame | None,
) -> None:
    from dataclasses import replace

    from torchxrayvision.report import find_mistakes, with_pictures, write_report

    wrong = find_mistakes(judged.study, judged.thresholds)
    if images:
        wrong = with_pictures(wrong, images, net)
    page = write_report(replace(judged, mistakes=wrong, targets=targets), folder)
    inform(f"the report is {page}")


def studies_of(
    predictions: list[Path], labels: Path, patient: str | None, kind: str | None
) -> list[Study]:
    """Predictions of one or several models beside the same labels; what is no table is refused."""
    from torchxrayvision.evaluation import Study, read_table

    try:
        tables = [read_table(path) for path in predictions]
        known = read_table(labels)
    except (OSError, ValueError) as error:
        refuse(error)
    if patient is not None and patient not in known:
        refuse(f"{labels} has no column {patient!r}; it has {', '.join(map(str, known))}")
    with show_warnings():
        return [
            Study.of((table, known), (path, labels), patient=patient, kind=kind)
            for table, path in zip(tables, predictions, strict=True)
        ]


def _thresholds(study: Study, source: _Source) -> dict[str, float]:
    """Finding to threshold, on the scale of the scores."""
    from torchxrayvision.evaluation import RANKS_ONLY, published_thresholds

    given, table, choice, calibration = source
    if sum(each is not None for each in (given, table, calibration)) > 1:
        refuse("--operating-point, --threshold-from and --calibration exclude each other; give one")
    if calibration is not None:
        return _of_calibration(study, calibration)
    if table is not None:
        name, _, share = choice.partition("=")
        (other,) = studies_of([table[0]], table[1], None, study.kind)
        _note_shared_patients(study, other)
        try:
            return other.thresholds(name, float(share or 0))
        except ValueError as error:
            refuse(f"--threshold-at {choice}: {error}")
    if given not in (None, "published"):
        if study.kind in RANKS_ONLY:
            refuse(
                f"scores of kind {study.kind} have no scale, so that no threshold is known: choose "
                "one on labelled images with --threshold-from or xrv calibrate --reach"
            )
        try:
            return dict.fromkeys(study.findings, float(str(given)))
        except ValueError:
            refuse(f"--operating-point is a number or published, got {given!r}")
    return published_thresholds(study)


def _held_out(study: Study, path: Path | None) -> Study:
    if path is None:
        refuse("--held-out needs --calibration FILE, which says who was held out")
    data = _calibration(path).data
    if "hold_out" not in data:
        refuse(f"{path} was made without --hold-out, so no patient was left out")
    return study.part(study.held_out(float(data["hold_out"]), int(data["hold_out_seed"])))


def _calibration(path: Path) -> Calibration:
    from torchxrayvision.calibration import Calibration

    try:
        return Calibration.load(path)
    except (OSError, ValueError) as error:
        refuse(error)


def _note_shared_patients(study: Study, other: Study) -> None:
    if study.patients is None or other.patients is None:
        return
    both = set(study.patients.dropna()) & set(other.patients.dropna())
    if both:
        people = count(len(both), "patient is", "patients are")
        inform(
            f"warning: {people} in the table that thresholds are chosen on and in "
            "the one that is judged; what thresholds achieve looks too good"
        )


def _of_calibration(study: Study, path: Path) -> dict[str, float]:
    made = _calibration(path)
    calibrated = study.made.get("calibration")
    if isinstance(calibrated, dict) and calibrated.get("sha256") != made.sha256:
        refuse(f"{study.name} was calibrated by another file than {path}")
    if (
        made.data.get("predictions_sha256") == study.hashes["predictions_sha256"]
        and "hold_out" not in made.data
    ):
        inform("warning: the calibration was made on these very predictions; it looks too good")
    try:
        return made.thresholds(calibrated=isinstance(calibrated, dict), kind=study.kind)
    except ValueError as error:
        inform(str(error))
        return {}


def _prevalence(given: list[str], findings: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given:
        name, sign, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not 0 < share < 1 or (sign and name not in findings):
            refuse(
                f"--prevalence is a share such as 0.02, or one of a finding that both tables have "
                f"such as {findings[0]}=0.01; got {text!r}"
            )
        found |= {name: share} if sign else dict.fromkeys(findings, share)
    return found


def _arguments(study: Study, options: _Options) -> dict[str, Any]:
    limits = [options.thresholds.get(name, math.nan) for name in study.findings]
    return {"thresholds": limits, "patient_ids": study.patients, "kind": study.kind}


def _performance(study: Study, options: _Options) -> pd.DataFrame:
    """Every measure in rows of their own, of all images and of subgroups."""
    import pandas as pd

    from torchxrayvision.evaluation import performance_by, performance_table

    given = (study.labels, study.scores, study.findings)
    more = {**_arguments(study, options), "prevalence": options.prevalence or None}
    table = performance_table(*given, **more)
    if not options.by:
        return table
    parts = performance_by(*given, _subgroups(study, options), **more)
    whole = table.assign(attribute="all", subgroup="all")
    return pd.concat([whole[parts.columns], parts], ignore_index=True)


def _subgroups(study: Study, options: _Options) -> Mapping[str, Any]:
    from torchxrayvision.evaluation import subgroups_by, with_intersections

    found = subgroups_by(study.rows, options.by)
    return with_intersections(found) if options.intersections else found


def _differences(study: Study, others: list[Study], options: _Options) -> pd.DataFrame | None:
    import pandas as pd

    from torchxrayvision.evaluation import difference_table, holm

    parts = []
    for other in others:
        try:
            ours, theirs = study.aligned(other)
        except ValueError as error:
            refuse(error)
        both = count(len(ours.labels), "image")
        inform(f"{study.name} minus {other.name}: {both} that both have")
        arguments = _arguments(ours, options)
        given = (ours.labels, ours.scores, theirs.scores, ours.findings)
        part = difference_table(*given, **arguments)
        part.insert(0, "models", f"{study.name} - {other.name}")
        parts.append(part)
    if not parts:
        return None
    table = pd.concat(parts, ignore_index=True)
    for measure in table["measure"].unique():  # over every comparison of the measure
        rows = (table["measure"] == measure) & (table["finding"] != "mean")
        table.loc[rows, "p_holm"] = holm(table.loc[rows, "p"])
    return table


def _gaps(study: Study, options: _Options) -> pd.DataFrame | None:
    from torchxrayvision.evaluation import gap_table

    if not options.by:
        return None
    groups = _subgroups(study, options)
    given = (study.labels, study.scores, study.findings, groups)
    return gap_table(*given, least=options.least, **_arguments(study, options))


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """One row per finding: AUROC first, every other measure with its ends and reason."""
    keys = [name for name in ("attribute", "subgroup") if name in table] + ["finding"]
    area = table[table["measure"] == "auroc"].drop(columns=["measure", "threshold", "prevalence"])
    made = area.rename(columns={"value": "auroc"})
    first = [*keys, "n", "positives", "auroc", "low", "high", "findings", "reason", "patients"]
    made = made[first].reset_index(drop=True)
    limits = table[table["measure"] == "sensitivity"].set_index(keys)["threshold"]
    made["threshold"] = limits.reindex(_index(made, keys)).to_numpy()
    for measure in table["measure"].unique():
        if measure == "auroc":
            continue
        part = table[table["measure"] == measure].set_index(keys).reindex(_index(made, keys))
        made[measure] = part["value"].to_numpy()
        made[f"{measure}_low"], made[f"{measure}_high"] = (
            part[end].to_numpy() for end in ("low", "high")
        )
        made[f"{measure}_reason"] = part["reason"].fillna("").to_numpy()
    return made


def _index(table: pd.DataFrame, keys: list[str]) -> Any:
    import pandas as pd

    return pd.MultiIndex.from_frame(table[keys]) if len(keys) > 1 else pd.Index(table[keys[0]])


def _as_json(
    table: pd.DataFrame, differences: pd.DataFrame | None, gaps: pd.DataFrame | None
) -> object:
    """A list of findings; with comparisons an object that holds it and them."""
    rows = wide(table).to_dict("records")
    more = {"differences": differences, "gaps": gaps}
    given = {name: part.to_dict("records") for name, part in more.items() if part is not None}
    return {"performance": rows, **given} if given else rows


def _write(
    output: Path,
    study: Study,
    table: pd.DataFrame,
    differences: pd.DataFrame | None,
    gaps: pd.DataFrame | None,
) -> None:
    made = wide(table)
    made_by = _provenance(study)
    if output == STDOUT:
        write_frame(made, sys.stdout)
        return
    write_frame(made, output, made_by)
    inform(f"{count(len(made), 'row')} in {output}")
    for name, part in (("differences", differences), ("gaps", gaps)):
        if part is not None:
            beside = output.with_name(f"{output.stem}-{name}.csv")
            write_frame(part, beside, made_by)
            inform(f"{count(len(part), 'row')} in {beside}")


def _provenance(study: Study) -> Provenance:
    from torchxrayvision.provenance import Provenance

    facts = ("weights", "weights_sha256", "output", "calibration", "preprocessing")
    known = {name: study.made[name] for name in facts if name in study.made}
    return Provenance(command="xrv evaluate", inputs=dict(study.hashes), **known)


def _print(table: pd.DataFrame, study: Study) -> None:
    rows = wide(table)
    split = [name for name in ("attribute", "subgroup") if name in rows]
    heads = [*split, "finding", "n", "positives", "AUROC"]
    cells = []
    for row in rows.to_dict("records"):
        area = "" if math.isnan(row["auroc"]) else f"{row['auroc']:.3f}"
        ends = str(row["reason"]) or f"{row['low']:.3f} to {row['high']:.3f}"
        if row["finding"] == "mean" and area:
            ends += f" (mean of {row['findings']})"
        facts = [str(row[name]) for name in (*split, "finding", "n", "positives")]
        cells.append([*facts, area, ends])
    print_table([*heads, "95 % interval"], cells, numbers=heads[-3:], whole=heads)
    whole = rows if not split else rows[rows["attribute"] == "all"]
    for title, measures in (
        ("at the threshold", [*_DECISIONS, *(m for m in _AT_PREVALENCE if m in rows)]),
        ("ranking and probabilities", _OTHERS),
    ):
        _print_measures(whole, title, [m for m in measures if whole[m].notna().any()])
    missing = [m for m in _OTHERS if not whole[m].notna().any()]
    if missing and study.kind is None:
        inform(
            "Brier score, slope, intercept and ECE need probabilities: say --kind probability or "
            "logit if that is what the numbers are"
        )


def _print_measures(rows: pd.DataFrame, title: str, measures: list[str]) -> None:
    """Measures in columns; indented, for the first table is the main one."""
    if not measures:
        return
    limits = ["threshold"] if measures[0] == "sensitivity" else []
    numbers = [*limits, *(_HEADS.get(measure, measure) for measure in measures)]
    cells = []
    for row in rows.to_dict("records"):
        found = [
            with_ends(row[m], row[f"{m}_low"], row[f"{m}_high"]) if row[m] is not None else ""
            for m in measures
        ]
        limit = "" if math.isnan(row["threshold"]) else f"{row['threshold']:.4g}"
        cells.append([str(row["finding"]), *([limit] if limits else []), *found])
    heads = ["finding", *numbers]
    print_table(heads, cells, numbers=numbers, whole=["finding", *limits], title=title, **_BELOW)


def _print_comparisons(differences: pd.DataFrame | None, gaps: pd.DataFrame | None) -> None:
    if differences is not None:
        main = differences[differences["measure"].isin(["auroc", *_DECISIONS[:2], "brier"])]
        texts = ("models", "finding", "measure")
        _print_compared(main, "differences", "difference", texts, ("first", "second"))
    if gaps is not None and not gaps.empty:
        parts = ("attribute", "subgroup", "rest", "finding", "measure")
        _print_compared(gaps, "gaps to the rest", "gap", parts)


def _print_compared(
    table: pd.DataFrame, title: str, of: str, texts: tuple[str, ...], plain: tuple[str, ...] = ()
) -> None:
    """Differences or gaps, with their intervals and p-values."""
    numbers = (*plain, of, "p", "p (Holm)")
    cells = []
    for row in table[table[of].notna()].to_dict("records"):
        names = row | {"measure": _HEADS.get(row["measure"], row["measure"])}
        change = with_ends(row[of], row["low"], row["high"], "+")
        values = (f"{row[name]:.3f}" for name in plain)
        chances = (_p(row[name]) for name in ("p", "p_holm"))
        cells.append([*(names[name] for name in texts), *values, change, *chances])
    heads = (*texts, *numbers)
    print_table(heads, cells, numbers=numbers, whole=heads, title=title, **_BELOW)


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}" if value >= 0.001 else "<0.001"
