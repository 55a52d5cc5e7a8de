"""The TRIPOD+AI checklist, filled as far as the data of a study tell; the rest says who must."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from torchxrayvision.errors import counted

if TYPE_CHECKING:
    from torchxrayvision.report.writing import Judgement

SOURCE = (
    "Collins et al. TRIPOD+AI statement: updated guidance for reporting clinical prediction models "
    "that use regression or machine learning methods. BMJ 385, 2024, e078378."
)


class Item(NamedTuple):
    """One item of the checklist.

    Attributes:
        number: As in the statement, for studies that evaluate a model.
        topic: What is to be reported, in our words.
        answer: What the data tell; empty where they tell nothing.
    """

    number: str
    topic: str
    answer: str

    @property
    def state(self) -> str:
        """``filled``, ``partly`` or ``to be written``."""
        if not self.answer:
            return "to be written"
        return "partly" if "…" in self.answer else "filled"


def checklist(evaluated: Judgement) -> list[Item]:
    """The items, in order.

    Args:
        evaluated: The study.

    Returns:
        Items that need knowledge of the site have an empty answer, or end in "…" where the data
        tell a part.
    """
    study = evaluated.study
    counts = dict(study.flow())
    made = study.made
    weights = made.get("weights") or "weights that the predictions do not name"
    found = ", ".join(f"{name} {n:,}" for name, n in evaluated.positives.items())
    missing = evaluated.missing_labels
    absent = ", ".join(f"{name} {n:,}" for name, n in missing.items() if n) or "none"
    few = evaluated.withheld
    groups = ", ".join(evaluated.options.by) or ""
    models = ", ".join(other.name for other in evaluated.others)
    return [
        Item("1", "title: that a model is evaluated, and for whom", evaluated.title + " …"),
        Item("2", "abstract", ""),
        Item("3", "background: clinical context, target population, health inequalities", ""),
        Item("4", "objectives", "evaluation of " + weights + " …"),
        Item(
            "5", "data: sources, dates, and whether they represent the target population",
            f"tables with SHA-256 {_short(study.hashes)} …",
        ),
        Item("6", "participants: setting, eligibility, treatments", ""),
        Item(
            "7", "data preparation",
            f"images: {_said(made.get('preprocessing'))}" if made.get("preprocessing") else "",
        ),
        Item("8", "outcome: definition, how and by whom it was assessed", f"findings: {found} …"),
        Item("9", "predictors", f"the image alone, {len(study.labels):,} of them"),
        Item(
            "10", "sample size",
            f"{evaluated.size}; how the size was chosen …",
        ),
        Item(
            "11", "missing data",
            f"{counted(counts['could not be read'], 'image')} could not be read and "
            f"{counts['without labels']:,} had no labels; both were left out. Labels that are "
            f"missing: {absent}; rows are left out of that finding only.",
        ),
        Item(
            "12", "analytical methods: model, performance measures, model updating",
            f"{weights}, output: {evaluated.kind_shown}; measures and intervals: see Methods"
            + ("; calibrated, see Methods" if made.get("calibration") else ""),
        ),
        Item("13", "class imbalance", "not corrected for; the share with each finding is shown"),
        Item(
            "14", "fairness",
            f"subgroups: {groups}; gaps to the rest with Holm's correction" if groups else "",
        ),
        Item("15", "model output and thresholds", evaluated.threshold_shown),
        Item("16", "differences between development and evaluation data", ""),
        Item("17", "ethical approval", ""),
        Item("18", "open science: funding, conflicts, protocol, registration, data, code",
             f"code: {_package(made, evaluated)} …"),
        Item("19", "patient and public involvement", ""),
        Item(
            "20", "participants: flow, characteristics",
            f"flow diagram: {counts['predicted']:,} predicted, {counts['evaluated']:,} evaluated; "
            f"{found} …",
        ),
        Item("21", "model development", "not part of this study"),
        Item("22", "model specification: how to obtain predictions",
             f"xrv predict with weights {weights}, hash {str(made.get('weights_sha256'))[:12]}"
             if made.get("weights_sha256") else ""),
        Item(
            "23", "performance with confidence intervals, in subgroups too",
            "tables and figures of this report"
            + (f"; {few} intervals are withheld for want of patients" if few else "")
            + (f"; compared with {models}" if models else ""),
        ),
        Item("24", "model updating", "calibrated" if made.get("calibration") else "none"),
        Item("25", "interpretation, with fairness and earlier results", ""),
        Item("26", "limitations", ""),
        Item("27", "usability in practice, and what remains to be studied", ""),
    ]  # fmt: skip


def _short(hashes: object) -> str:
    return ", ".join(f"{value[:12]} ({name.removesuffix('_sha256')})"
                     for name, value in dict(hashes).items())  # type: ignore[call-overload] # fmt: skip


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {each}" for key, each in value.items())
    return str(value)


def _package(made: object, evaluated: Judgement) -> str:
    said = made.get("package") if isinstance(made, dict) else None
    return str(said or evaluated.provenance.package)


def share(value: float) -> str:
    """A share in per cent; empty where there is none."""
    return "" if math.isnan(value) else f"{value:.1%}"
