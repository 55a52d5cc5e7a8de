"""The classifier: from scratch, on simulations, on both, and how good each is."""

from __future__ import annotations

import numpy as np
import torch

from demo_weights import localise
from demo_weights.plan import FOLDS, MODEL, SEED, SEEN
from torchxrayvision.models import load_checkpoint, save_checkpoint
from torchxrayvision.training import fit
from torchxrayvision.training._prepared import from_stored

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
    path = plan.work / "pretrain.safetensors"
    if not path.exists():
        network = localise.train(simulated, places, MODEL, plan.pretrain_epochs)
        save_checkpoint(network, path)
    return path


def scratch(plan, films, fold):
    """Learn from the real patients outside one fold, starting from random weights."""
    rows = np.flatnonzero(folds(films.patients) != fold)
    recipe = plan.recipe(plan.scratch_epochs, 2e-3, SEED + fold)
    return _run(plan, f"scratch-{fold}", recipe, films.of(rows))


def tune(plan, films, simulated, start, fold=None):
    """Learn from real and simulated films together, starting from the pre-trained weights.

    Args:
        plan: The plan.
        films: The real films.
        simulated: The simulated ones.
        start: File of the pre-trained weights.
        fold: Real patients that are left out; None for none.
    """
    rows = np.arange(len(films.images))
    if fold is not None:
        rows = rows[folds(films.patients) != fold]
    both = type(films)(
        np.concatenate([films.images, simulated.images[: plan.mixed_in]]),
        np.concatenate([films.labels, simulated.labels[: plan.mixed_in]]),
        np.concatenate([films.patients, simulated.patients[: plan.mixed_in]]),
    )
    extra = np.arange(len(films.images), len(both.images))
    chosen = np.concatenate([np.tile(rows, plan.repeats), extra])
    recipe = plan.recipe(plan.tune_epochs, 1e-3, SEED + (0 if fold is None else fold), start)
    name = "final" if fold is None else f"tuned-{fold}"
    return _run(plan, name, recipe, both.of(chosen))


def _run(plan, name, recipe, train):
    out = plan.work / name
    if not (out / "done").exists():
        last = fit(recipe, train, out=out, resume=True, progress=False).last
        (out / "done").write_text(last.name)
    return out / (out / "done").read_text()
