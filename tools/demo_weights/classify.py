"""The classifier: from scratch, on simulations, on both, and how good each is."""

from __future__ import annotations

import numpy as np
import torch

from demo_weights import distil, localise
from demo_weights.plan import FOLDS, LESSONS, MODEL, SEED, SEEN
from torchxrayvision.models import load_checkpoint, save_checkpoint
from torchxrayvision.training import fit
from torchxrayvision.training.images.prepared import from_stored

_BATCH = 64


def folds(patients):
    """Fold of each film, (N,): patients in a random order, in equal parts."""
    names = np.unique(patients)
    order = np.random.default_rng(SEED).permutation(len(names))
    fold = dict(zip(names[order], np.arange(len(names)) % FOLDS, strict=True))
    return np.array([fold[name] for name in patients])


def scores(path, films, rows=None):
    """Logits of some films, float32 (N, P).

    Args:
        path: File of the network.
        films: The films.
        rows: Which of them; None for all.
    """
    network = load_checkpoint(path)
    network.input_resolution = SEEN
    images = films.images if rows is None else films.images[rows]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(images[start : start + _BATCH][:, None])
            parts.append(network(from_stored(batch), output="logit"))
    return torch.cat(parts).numpy()


def pretrain(plan, simulated, places):
    """Learn from simulations only, and where their findings are."""
    path = written(plan, "pretrain")
    if not path.exists():
        network = localise.train(simulated, places, MODEL, plan.pretrain_epochs)
        save_checkpoint(network, path)
    return path


def learn(plan, films, simulated, fold=None):
    """All stages after pre-training, on the real patients or on those outside one fold.

    Returns:
        File of the last network.
    """
    scratch(plan, films, fold)
    tune(plan, films, simulated, fold)
    return teach(plan, films, simulated, fold)


def scratch(plan, films, fold=None):
    """Learn from the real patients, all or those outside one fold, from random weights."""
    recipe = plan.recipe(plan.scratch_epochs, 2e-3, SEED + (fold or 0))
    return _run(plan, _name("scratch", fold), recipe, films.of(_others(films, fold)))


def tune(plan, films, simulated, fold=None):
    """Learn from real and simulated films together, starting from the pre-trained weights.

    Args:
        plan: The plan.
        films: The real films.
        simulated: The simulated ones.
        fold: Real patients that are left out; None for none.
    """
    rows = _others(films, fold)
    both = type(films)(
        np.concatenate([films.images, simulated.images[: plan.mixed_in]]),
        np.concatenate([films.labels, simulated.labels[: plan.mixed_in]]),
        np.concatenate([films.patients, simulated.patients[: plan.mixed_in]]),
    )
    extra = np.arange(len(films.images), len(both.images))
    chosen = np.concatenate([np.tile(rows, plan.repeats), extra])
    recipe = plan.recipe(plan.tune_epochs, 1e-3, SEED + (fold or 0), written(plan, "pretrain"))
    return _run(plan, _name("tuned", fold), recipe, both.of(chosen))


def teach(plan, films, simulated, fold=None):
    """Learn from labels and from networks before, all trained on the same patients.

    Args:
        plan: The plan.
        films: The real films.
        simulated: The simulated ones.
        fold: Real patients that are left out; None for none.

    Returns:
        File of the network after the last of `LESSONS`.
    """
    real = films.of(_others(films, fold))
    others = simulated.of(np.arange(len(simulated.images)))
    for number, lesson in enumerate(LESSONS):
        path = written(plan, lesson.name, fold)
        if path.exists():
            continue
        start, *teachers = (written(plan, s, fold) for s in (lesson.start, *lesson.teachers))
        seed = SEED + 100 * number + (fold or 0)
        student = distil.learn(real, others, start, teachers, plan.lesson_steps, seed)
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(student, path)
    return path


def _others(films, fold):
    """Rows of the films outside a fold; all of them for None."""
    rows = np.arange(len(films.images))
    return rows if fold is None else rows[folds(films.patients) != fold]


def written(plan, stage, fold=None):
    """File of the network of a stage that left out a fold, or nobody."""
    if stage == "pretrain":  # saw no patient at all
        return plan.work / "pretrain.safetensors"
    return plan.work / _name(stage, fold) / "last.safetensors"


def _name(stage, fold):
    return f"{stage}-{'all' if fold is None else fold}"


def _run(plan, name, recipe, train):
    out = plan.work / name
    if not (out / "done").exists():
        last = fit(recipe, train, out=out, resume=True, progress=False).last
        (out / "done").write_text(last.name)
    return out / (out / "done").read_text()
