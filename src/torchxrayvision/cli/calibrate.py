"""`xrv calibrate`: probabilities, thresholds and sets for a site, from its own labelled images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from torchxrayvision.cli import options as opt
from torchxrayvision.cli.console import (
    count,
    file_to_write,
    inform,
    print_json,
    print_table,
    refuse,
    refuse_existing,
    with_ends,
)

if TYPE_CHECKING:
    from torchxrayvision.calibration import Calibration
    from torchxrayvision.evaluation import Study


def calibrate(
    predictions: Annotated[
        Path,
        typer.Argument(
            help="What `xrv predict --output` wrote for images of patients who are not used to "
            "judge the result."
        ),
    ],
    labels: Annotated[
        Path, typer.Argument(help="One row per image, as `xrv evaluate` takes them.")
    ],
    to: Annotated[
        Path, typer.Option("--to", help="The calibration, .json.", callback=file_to_write)
    ],
    method: Annotated[
        Literal["unchanged", "temperature", "platt", "isotonic"] | None,
        typer.Option(help="For all findings; chosen by cross-validation over patients if not."),
    ] = None,
    reach: Annotated[
        str | None,
        typer.Option(
            help="Choose thresholds: sensitivity=0.9, specificity=0.9, ppv=0.5, or net-benefit=0.1 "
            "where acting pays from a probability of 0.1."
        ),
    ] = None,
    sets: Annotated[
        float | None,
        typer.Option(
            help="Give sets (absent, present, unsure) that hold the truth with this probability."
        ),
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            help="Leave out this share of the patients, for `xrv evaluate --calibration FILE "
            "--held-out`."
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Of the cross-validation.")] = 5,
    patient: opt.Patient = None,
    kind: opt.Kind = None,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
) -> None:
    """Choose probabilities, thresholds and sets on labelled images, for xrv predict --calibration.

    A finding needs ten patients with it and ten without it; those that lack them are named.
    """
    from torchxrayvision.cli.evaluate import studies_of

    if to.suffix.lower() != ".json":
        refuse(f"--to ends in .json, not {to.name}")
    refuse_existing(to, overwrite)
    if sets is not None and not 0 < sets < 1:
        refuse(f"--sets is a probability between 0 and 1 such as 0.9, got {sets}")
    (study,) = studies_of([predictions], labels, patient, kind)
    if study.made.get("calibration"):
        refuse(f"{predictions} is calibrated already; predict without --calibration")
    if study.kind is None:
        refuse(f"{predictions} does not say what its numbers are; give --kind")
    if hold_out is not None:
        if not 0 < hold_out < 1:
            refuse(f"--hold-out is a share between 0 and 1 such as 0.5, got {hold_out}")
        study = study.part(~study.held_out(hold_out, seed))
    aside = {} if hold_out is None else {"hold_out": hold_out, "hold_out_seed": seed}
    made = _fitted(study, aside, method=method, target=reach, coverage=sets, folds=folds, seed=seed)
    made.save(to)
    held = f"; {hold_out:g} of the patients are held out" if hold_out else ""
    people = count(made.data["patients"], "patient")
    inform(f"{count(len(study.labels), 'image')} of {people}{held}")
    if made.weights_sha256 is None:
        inform(
            "warning: the predictions do not say which weights made them, so xrv predict will "
            "refuse this calibration; predict with xrv predict --output to have that said"
        )
    if as_json:
        print_json(made.to_dict())
    else:
        _print(made)
    for name, reason in made.skipped.items():
        inform(f"{name} is not calibrated: {reason}")
    inform(f"{count(len(made.findings), 'finding')} in {to}")


def _fitted(study: Study, aside: dict[str, Any], **how: Any) -> Calibration:
    from torchxrayvision.calibration import fit
    from torchxrayvision.provenance import Provenance

    facts: dict[str, Any] = {
        name: study.made.get(name) for name in ("weights", "weights_sha256", "preprocessing")
    }
    made_by = Provenance(
        command="xrv calibrate", output=str(study.kind), inputs=dict(study.hashes),
        options={name: value for name, value in how.items() if value is not None}, **facts,
    )  # fmt: skip
    patients = len(set(study.codes.tolist()))
    data = {**study.hashes, "images": len(study.labels), "patients": patients, **aside}
    return fit(
        study.labels, study.scores, study.findings, output=str(study.kind),
        patient_ids=study.patients, facts={**facts, "data": data, "provenance": made_by.to_dict()},
        **how,
    )  # fmt: skip


def _print(made: Calibration) -> None:
    chosen = any(finding.threshold is not None for finding in made.findings.values())
    heads = ["finding", "n", "positives", "method", "ECE before", "ECE after"]
    heads += ["threshold", "sensitivity", "specificity", "PPV"] if chosen else []
    rows = []
    for name, finding in made.findings.items():
        cells = [str(finding.counts["n"]), str(finding.counts["positives"]), finding.method]
        cells += [f"{finding.judged[m]['ece']:.3f}" for m in ("unchanged", finding.method)]
        threshold = finding.threshold or {}
        if chosen and threshold.get("at") is None:
            cells += [str(threshold.get("reason", "")), "", "", ""]
        elif chosen:
            rates = (threshold[rate] for rate in ("sensitivity", "specificity", "ppv"))
            cells += [f"{threshold['at']:.4g}", *map(_cell, rates)]
        rows.append([name, *cells])
    print_table(heads, rows, numbers={*heads[1:]} - {"method"}, whole=["finding"])


def _cell(rate: dict[str, Any]) -> str:
    value, low, high = (math.nan if rate[k] is None else rate[k] for k in ("value", "low", "high"))
    return with_ends(value, low, high)
