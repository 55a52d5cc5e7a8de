"""The card of an evaluated model, with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torchxrayvision.report.writing import Judgement
    from torchxrayvision.weights import ModelCard

_MEASURES: Final = ("auroc", "average_precision", "brier")


def model_card(evaluated: Judgement) -> str:
    """The card: what is known is filled in, what only people know is named as missing.

    Args:
        evaluated: The study.

    Returns:
        Markdown with a header of YAML.
    """
    card = _card(evaluated)
    lines = [f"# {card.name}", "", *_facts(evaluated, card), "", "## Evaluation", ""]
    lines += [
        f"{evaluated.size}; intervals are for 95 % confidence and count patients.",
        "",
        "| finding | n | positives | AUROC | sensitivity | specificity |",
        "| --- | ---: | ---: | --- | --- | --- |",
    ]
    shown = ("auroc", "sensitivity", "specificity")
    for name in [*evaluated.study.findings, "mean"]:
        part = evaluated.table[evaluated.table["finding"] == name].set_index("measure")
        row = part.loc["auroc"]
        cells = [evaluated.cell(part.loc[measure]) for measure in shown]
        lines.append(f"| {name} | {row['n']:,} | {row['positives']:,} | {' | '.join(cells)} |")
    lines += ["", evaluated.threshold_shown, "", "## Limits", ""]
    lines += [
        "For research; not a medical device. The figures hold for patients like these.",
        "",
        "To be written by those who know: intended use, clinical setting, how the labels came "
        "about, who must not be evaluated by it, and who answers for it.",
        "",
        f"Made by {evaluated.provenance.package}, `xrv evaluate --report`.",
        "",
    ]
    return card.to_hub("\n".join(lines))


def _card(evaluated: Judgement) -> ModelCard:
    """The one card that every weight has, with what was measured here."""
    from torchxrayvision.errors import UnknownNameError
    from torchxrayvision.facts import LIBRARY
    from torchxrayvision.weights import NOT_STATED, Measured, ModelCard

    name = str(evaluated.study.made.get("weights") or "unnamed")
    means = evaluated.table[evaluated.table["finding"] == "mean"].set_index("measure")
    measured = tuple(
        Measured(dataset=evaluated.title, finding="mean", measure=measure, value=float(value))
        for measure, value in means["value"].items()
        if measure in _MEASURES and not math.isnan(value)
    )
    try:
        known = ModelCard.of(name)
    except UnknownNameError:  # of a network that nobody here knows more of
        findings = tuple(evaluated.study.findings)
        known = ModelCard(
            name=name,
            architecture="",
            task="image-classification",
            targets=findings,
            trained=(True,) * len(findings),
            license=NOT_STATED,
            reference=LIBRARY,
        )
    return replace(known, name=name, metrics=measured, metrics_source="this study")


def _facts(evaluated: Judgement, card: ModelCard) -> list[str]:
    made = evaluated.study.made
    facts = {
        "SHA-256 of weights and targets": made.get("weights_sha256"),
        "output": evaluated.kind_shown,
        "preprocessing": made.get("preprocessing"),
        "calibration": made.get("calibration", {}).get("sha256") if made.get("calibration") else "",
        "architecture": card.architecture,
        "trained on": ", ".join(card.trained_on),
    }
    return [f"- {name}: {value}" for name, value in facts.items() if value]
