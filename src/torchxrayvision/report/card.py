"""A model card in Markdown, with the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchxrayvision.report.writing import Judgement

_METRICS = {"auroc": "roc_auc", "average_precision": "average_precision", "brier": "brier_score"}


def model_card(evaluated: Judgement) -> str:
    """The card: what is known is filled in, what only people know is named as missing.

    Args:
        evaluated: The study.

    Returns:
        Markdown with a header of YAML.
    """
    made = evaluated.study.made
    weights = str(made.get("weights") or "unnamed")
    means = evaluated.table[evaluated.table["finding"] == "mean"].set_index("measure")
    results = [
        {"type": _METRICS[name], "name": name.replace("_", " "), "value": round(float(value), 4)}
        for name, value in means["value"].items()
        if name in _METRICS and not math.isnan(value)
    ]
    entry = _entry(weights)
    lines = ["---", f"model_name: {json.dumps(weights)}", "library_name: torchxrayvision"]
    if entry is not None and entry.license is not None:
        lines += ["license: other", f"license_name: {json.dumps(entry.license.name)}"]
    lines += ["tags: [radiology, chest-x-ray, image-classification]"]
    lines += [
        "pipeline_tag: image-classification",
        "model-index:",
        f"- name: {json.dumps(weights)}",
    ]
    lines += ["  results:", "  - task: {type: image-classification}"]
    lines += [
        f"    dataset: {{name: {json.dumps(evaluated.title)}, type: private}}",
        "    metrics:",
    ]
    lines += [f"    - {json.dumps(result)}" for result in results]
    lines += ["---", "", f"# {weights}", "", *_facts(evaluated, entry), "", "## Evaluation", ""]
    lines += [
        f"{len(evaluated.study.labels):,} images of {evaluated.patients:,} patients; intervals are "
        "for 95 % confidence and count patients.",
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
    return "\n".join(lines)


def _facts(evaluated: Judgement, entry: Any) -> list[str]:
    made = evaluated.study.made
    facts = {
        "SHA-256 of weights and targets": made.get("weights_sha256"),
        "output": evaluated.kind_shown,
        "preprocessing": made.get("preprocessing"),
        "calibration": made.get("calibration", {}).get("sha256") if made.get("calibration") else "",
    }
    if entry is not None:
        facts["architecture"] = entry.architecture
        facts["trained on"] = ", ".join(entry.trained_on)
    return [f"- {name}: {value}" for name, value in facts.items() if value]


def _entry(name: str) -> Any:
    from torchxrayvision.errors import UnknownNameError
    from torchxrayvision.weights import get_weights_entry

    try:
        return get_weights_entry(name)
    except UnknownNameError:
        return None
