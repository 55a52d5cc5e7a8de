"""From networks and scores to the files that ship: tensors, and their cards."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch

from demo_weights.plan import FOLDS, OUTPUTS, SEED, SIX
from torchxrayvision import __version__, evaluation
from torchxrayvision.checkpoints.read import save_safetensors

REPLICATES = 2000
LIMIT = 8_000_000  # bytes of a file


def rounded(interval):
    """An interval as plain data."""
    keys = ("value", "low", "high")
    return {k: round(getattr(interval, k), 4) for k in keys} | {
        "n": interval.n, "positives": interval.positives,
    }  # fmt: skip


def areas(labels, logits, names, groups=None):
    """AUROC of every finding that has one, and their mean, with intervals."""
    columns = [OUTPUTS.index(name) for name in names]
    labels, logits = labels[:, columns], logits[:, columns]
    table = evaluation.auroc_table(labels, logits, names, groups)
    table = table[table["reason"] == ""].rename(columns={"auroc": "value"})
    rows = table.set_index("finding")[["value", "low", "high", "n", "positives"]]
    return {
        name: {k: round(float(v), 4) if k in ("value", "low", "high") else int(v)
               for k, v in row.items()}
        for name, row in rows.iterrows()
    }  # fmt: skip


def mean_of_six(labels, logits, groups):
    """Mean AUROC of the six findings, films of all folds ranked together."""
    six = [OUTPUTS.index(name) for name in SIX]
    return rounded(evaluation.mean_auroc(labels[:, six], logits[:, six], groups))


def mean_within_folds(labels, logits, fold, groups):
    """The same, each fold ranked alone, then the mean over folds and findings."""
    six = [OUTPUTS.index(name) for name in SIX]
    known = evaluation.bootstrap(
        _within_folds,
        *(labels[:, six], logits[:, six], fold),
        patient_ids=groups,
        replicates=REPLICATES,
        seed=SEED,
    )
    return rounded(known)


def _within_folds(labels, logits, fold):
    each = [
        evaluation.auroc(labels[fold == f, j], logits[fold == f, j])
        for f in range(FOLDS)
        for j in range(len(SIX))
        if len(set(labels[fold == f, j].tolist())) > 1  # a replicate may lack a rare finding
    ]
    return float(np.mean(each))


def gained(labels, logits, without, groups):
    """What pre-training adds to the mean of the six, paired by patient."""
    six = [OUTPUTS.index(name) for name in SIX]
    return rounded(
        evaluation.paired_difference(labels[:, six], logits[:, six], without[:, six], groups)
    )


def operating_points(names, sources):
    """Probability at which sensitivity and specificity sum to most, for each target.

    Args:
        names: The targets.
        sources: Pairs of labels and logits over OUTPUTS; the first that has both classes decides.
    """
    points = []
    for name in names:
        column = OUTPUTS.index(name)
        for labels, logits in sources:
            known = labels[:, column][~np.isnan(labels[:, column])]
            if len(set(known.tolist())) == 2:
                point = evaluation.youden_threshold(labels[:, column], logits[:, column])
                points.append(round(1 / (1 + float(np.exp(-point))), 5))
                break
    return points


def write(folder, stem, tensors, facts, card):
    """The file of tensors and the card beside it."""
    path = folder / f"{stem}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(path, tensors, {"format": "pt"})
    data = path.read_bytes()
    if len(data) > LIMIT:
        raise SystemExit(f"{path}: {len(data)} bytes, more than {LIMIT}")
    known = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    made = {"torchxrayvision": __version__, "torch": torch.__version__.partition("+")[0]}
    content = {**card, "weights": {**facts, **known}, "made_with": made}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return path
