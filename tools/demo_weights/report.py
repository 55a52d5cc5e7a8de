"""What the cards say, out of the results of the stages."""

from __future__ import annotations

import numpy as np
import torch

from demo_weights import card, classify, outline
from demo_weights.plan import (
    ANATOMY_WIDTH,
    FOLDS,
    LESSONS,
    MODEL,
    OUTPUTS,
    RENDERED,
    SEED,
    SEEN,
    SHIPS,
    STRUCTURES,
    TARGETS,
)  # fmt: skip
from torchxrayvision import evaluation
from torchxrayvision.checkpoints.cache import load_tensors
from torchxrayvision.models import UNet

REAL = "NIH, five folds by patient"
SIMULATED = "simulated, held out"
ENOUGH, CHANCE = 0.85, 0.5

_NIH = (
    "1,116 frontal radiographs of 907 patients of NIH ChestX-ray14, provided by the NIH Clinical "
    "Center (https://nihcc.app.box.com/v/ChestXray-NIHCC). Labels were mined from reports by text "
    "processing, not read from the films"
)
_CITE = (
    "Wang et al. ChestX-ray8: hospital-scale chest X-ray database and benchmarks on "
    "weakly-supervised classification and localization of common thorax diseases. CVPR 2017. "
    "https://doi.org/10.1109/CVPR.2017.369. The NIH Clinical Center provided the radiographs"
)
_LIMITS = (
    "There to try the package with, not to read films: few patients of one hospital, labels with "
    "errors, images of {side} x {side} pixels, frontal views only. Intervals show the chance of "
    "the sample alone. Simulations are simpler than films, so that figures on them say little "
    "about patients"
)


def write_all(plan, out, load):
    """Write both files and cards; yields what was found, line by line."""
    yield from _classifier(plan, out, load)
    yield from _anatomy(plan, out)


def _out_of_fold(plan, films, stage):
    """Logits of each real film by the network that never saw its patient."""
    fold = classify.folds(films.patients)
    logits = np.zeros(films.labels.shape, np.float32)
    for number in range(FOLDS):
        rows = np.flatnonzero(fold == number)
        logits[rows] = classify.scores(classify.written(plan, stage, number), films, rows)
    return logits, fold


def _classifier(plan, out, load):
    films, held_out = load(plan, "real"), load(plan, "held-out")
    (taught, fold), (tuned, _), (plain, _) = (
        _out_of_fold(plan, films, stage) for stage in (SHIPS, "tuned", "scratch")
    )
    final = classify.written(plan, SHIPS)
    simulated = classify.scores(final, held_out)
    before = classify.scores(classify.written(plan, "pretrain"), held_out)
    real = card.areas(films.labels, taught, TARGETS, films.patients)
    fake = card.areas(held_out.labels, simulated, TARGETS)
    shipped = [name for name in TARGETS if _good_enough(name, real, fake)]
    dropped = [name for name in TARGETS if name not in shipped]
    six = {
        name: card.mean_within_folds(films.labels, logits, fold, films.patients)
        | {"pooled": card.mean_of_six(films.labels, logits, films.patients)}
        for name, logits in (("taught", taught), ("with", tuned), ("without", plain))
    }
    difference = card.gained(films.labels, tuned, plain, films.patients)
    logits = {"taught": taught, "tuned": tuned, "plain": plain}
    np.savez(plan.work / "out-of-fold.npz", fold=fold, **logits)
    tensors = load_tensors(final)
    state = {k.removeprefix("model."): v for k, v in tensors.items()}
    rows = [OUTPUTS.index(name) for name in shipped]
    state |= {f"fc.{part}": state[f"fc.{part}"][rows] for part in ("weight", "bias")}
    sources = [(films.labels, taught), (held_out.labels, simulated)]
    facts = {
        "name": f"resnet18-res{SEEN}-demo",
        "architecture": MODEL,
        "targets": shipped,
        "input_resolution": SEEN,
        "operating_points": card.operating_points(shipped, sources),
        "trained_on": ["simulated", "nih"],
        "cell_maps": True,  # localise.Places
    }
    about = {
        "data": f"{plan.simulations:,} simulated frontal radiographs of {plan.simulator}; {_NIH}",
        "recipe": (
            f"{plan.pretrain_epochs} epochs on the simulations, with the places of their findings, "
            f"then {len(LESSONS)} lessons of {plan.lesson_steps:,} batches of real and simulated "
            "films each, taught by labels and by networks of the same kind: in the first by one "
            f"that never saw a simulation, for {plan.scratch_epochs} epochs, and one that began as "
            f"this one, for {plan.tune_epochs} epochs on {plan.mixed_in:,} simulations and "
            f"{plan.repeats} times each real film; in the second by these and its student, and "
            "then by the student of the lesson before; AdamW, cosine schedule, average of the "
            "weights, moves, exposure, noise, erasing, mixup. tools/build_demo_weights.py holds it "
            "all"
        ),
        "seed": str(SEED),
        "test on real patients": (
            f"figures are of {FOLDS} other networks, each trained by this recipe without a part of "
            "the patients and tested on these; the one that ships learned from all of them. The "
            "recipe was chosen among others by these figures, which flatters them a little"
        ),
        "six findings on real patients": _about_six(six, difference),
        "operating points": (
            "largest sum of sensitivity and specificity on real patients out of fold, or on "
            "held-out simulations for findings that NIH does not label"
        ),
        "left out": _about_dropped(dropped, real, fake),
        "limits": _LIMITS.format(side=SEEN),
        "citation": _CITE,
    }
    content = {
        "description": "Demonstration weights: findings, from simulated and a few real films.",
        "auroc": {
            REAL: card.areas(films.labels, taught, shipped, films.patients),
            SIMULATED: card.areas(held_out.labels, simulated, shipped),
        },
        "metrics_source": "tools/build_demo_weights.py; 95 % intervals that count patients",
        "six": {**six, "difference": difference},
        "pretrained_on_simulations_only": card.areas(held_out.labels, before, TARGETS)["mean"],
        "about": about,
    }
    path = card.write(out, "demo", state, facts, content)
    yield f"real, six findings: {six}, difference {difference}"
    yield f"real: {real}"
    yield f"simulated: {fake}"
    yield f"left out: {dropped}"
    yield f"{path}: {path.stat().st_size:,} bytes"


def _good_enough(name, real, fake):
    """Whether an output ships: it ranks simulations well, or patients where there are none."""
    if name in fake:
        return fake[name]["value"] >= ENOUGH
    return name in real and real[name]["low"] > CHANCE


def _about_dropped(names, real, fake):
    each = []
    for name in names:
        tests = (("real", real), ("simulated", fake))
        found = [f"{rows[name]['value']:.2f} {test}" for test, rows in tests if name in rows]
        each.append(f"{name} ({', '.join(found)})")
    return (
        f"outputs with an AUROC under {ENOUGH} on held-out simulations, or no better than chance "
        f"on real patients where they are not simulated: {', '.join(each) or 'none'}"
    )


def _about_six(six, difference):
    def text(m):
        return f"{m['value']:.3f} (95 % interval {m['low']:.3f} to {m['high']:.3f})"

    return (
        f"mean AUROC {text(six['taught'])}, each fold ranked alone. Of its first teachers, with "
        f"simulations {text(six['with'])} and without {text(six['without'])}. All folds ranked "
        f"together: {text(six['taught']['pooled'])}, {text(six['with']['pooled'])} and "
        f"{text(six['without']['pooled'])}; the difference of the last two, which is what "
        f"pre-training on simulations adds, {text(difference)}, paired by patient"
    )


def _anatomy(plan, out):
    network = UNet(targets=STRUCTURES, width=ANATOMY_WIDTH)
    network.model.load_state_dict(torch.load(plan.work / "anatomy.pt", weights_only=True))
    with np.load(plan.work / "held-out-anatomy.npz") as stored:
        each = outline.overlaps(network.eval(), stored["pixels"], stored["masks"])
    measured = {
        name: card.rounded(evaluation.mean_interval(values))
        for name, values in zip(STRUCTURES, each.T, strict=True)
    }
    facts = {
        "name": f"unet-res{RENDERED}-demo-anatomy",
        "architecture": f"unet-width{ANATOMY_WIDTH}",
        "targets": list(STRUCTURES),
        "input_resolution": RENDERED,
        "operating_points": None,
        "trained_on": ["simulated"],
    }
    content = {
        "description": "Demonstration weights: outlines of the anatomy, from simulated films.",
        "dice": {SIMULATED: measured},
        "about": {
            "data": f"{plan.outlined:,} simulated frontal radiographs of {plan.simulator}",
            "recipe": (
                f"{plan.anatomy_epochs} epochs; AdamW, cosine schedule, average of the weights, "
                "moves, uneven exposure, blur, sharpening, local contrast, noise, erasing. "
                "tools/build_demo_weights.py holds it all"
            ),
            "seed": str(SEED),
            "limits": (
                "There to try the package with, not to measure films: it never saw a real one "
                "while it learned, and the figures are for simulations"
            ),
        },
    }
    path = card.write(out, "demo-anatomy", network.model.state_dict(), facts, content)
    yield f"anatomy: {measured}"
    yield f"{path}: {path.stat().st_size:,} bytes"
