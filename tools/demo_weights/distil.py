"""The classifier that ships: taught by labels, and by networks that came before it.

Of the six findings on real patients some are ranked better by the network that began with
simulations and some by the one that never saw any, and the mean of both better than by either. A
student hears what both say of each film and of its mirror image, of films that are moved, changed
and mixed anew each time, and needs no more time than one of them afterwards (Beyer et al. Knowledge
distillation: a good teacher is patient and consistent. CVPR 2022, https://arxiv.org/abs/2106.05237).
Students then teach students of their own kind, each a little better than the one before (Furlanello
et al. Born-again neural networks. ICML 2018, https://arxiv.org/abs/1805.04770).
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from demo_weights.outline import follow, warm_cosine
from demo_weights.plan import ENOUGH, SEEN
from torchxrayvision.models import load_checkpoint
from torchxrayvision.training import masked_bce
from torchxrayvision.training.augment import augment, draw, mix
from torchxrayvision.training.images.prepared import from_stored
from torchxrayvision.training.loss import positive_weights

_REAL, _SIMULATED = 24, 8  # films of a batch
_RATE, _DECAY, _MEMORY = 1e-3, 0.05, 0.99
_EPOCH = 260  # steps; the rate rises over half of them
_LABELS, _TEACHERS = 0.3, 2.8  # weights in the loss


class Teachers:
    """What several networks say on average.

    Args:
        paths: Their files.
    """

    def __init__(self, paths):
        self._networks = [_network(path).eval() for path in paths]

    def __call__(self, images):
        """Probabilities (B, P), the mean of logits over the networks, films and mirror images."""
        both = images, images.flip(-1)
        with torch.no_grad():
            logits = [
                network(_last(view), output="logit") for network in self._networks for view in both
            ]
            return torch.stack(logits).mean(0).sigmoid()


def learn(films, simulated, start, teachers, steps, seed):
    """Train a student.

    Args:
        films: The real films to learn from, as `fit` takes them.
        simulated: The simulated ones, in the same form.
        start: File of the weights that it begins with.
        teachers: Files of the networks that teach.
        steps: How many batches.
        seed: Of everything that is drawn.

    Returns:
        The averaged network.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    said = Teachers(teachers)
    network = _network(start).train().requires_grad_(requires_grad=True)
    average = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    optimiser = torch.optim.AdamW(_groups(network), lr=_RATE)
    schedule = warm_cosine(optimiser, _EPOCH, steps / _EPOCH)
    mixture = np.concatenate([films.labels, simulated.labels[: len(films) * _SIMULATED // _REAL]])
    positive = torch.from_numpy(positive_weights(mixture, "sqrt"))
    real, fake = (_rows(len(source), rng) for source in (films, simulated))
    for step in range(steps):
        rows = np.array([next(real) for _ in range(_REAL)])
        images, labels = _changed(films, rows, seed, step)
        images, labels = mix(
            images, labels, rows.tolist(), alpha=ENOUGH.mixup, seed=seed, epoch=step
        )
        taught = said(images)
        others = np.array([next(fake) for _ in range(_SIMULATED)])
        further, certain = _changed(simulated, others, seed, step)
        logits = network(_last(torch.cat([images, further])), output="logit")
        named = masked_bce(logits, torch.cat([labels, certain]), positive_weight=positive)
        followed = _distance(logits[:_REAL], taught, ~labels.isnan())
        optimiser.zero_grad()
        (_LABELS * named + _TEACHERS * followed).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        schedule.step()
        follow(average, network, min(_MEMORY, (2 + step) / (11 + step)))
    return average


def _network(path):
    network = load_checkpoint(path)
    network.input_resolution = SEEN
    return network.to(memory_format=torch.channels_last)


def _last(images):
    return images.contiguous(memory_format=torch.channels_last)


def _groups(network):
    """Parameters to keep small, and those of normalisation and biases, which are left alone."""
    matrices = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    return [
        {"params": matrices, "weight_decay": _DECAY},
        {"params": others, "weight_decay": 0.0},
    ]


def _rows(count, rng):
    """Every film once before any comes again."""
    while True:
        yield from rng.permutation(count)


def _changed(films, rows, seed, step):
    """Some films, moved and changed, and their labels."""
    pixels, labels = films.batch(rows)
    draws = draw(rows.tolist(), seed=seed, epoch=step)
    images = augment(from_stored(torch.from_numpy(pixels)), draws, ENOUGH, SEEN)
    return images, torch.from_numpy(labels)


def _distance(logits, taught, known):
    """Kullback-Leibler divergence from what the teachers say, over the labels that are known."""
    entropy = functional.binary_cross_entropy(taught, taught, reduction="none")
    crossed = functional.binary_cross_entropy_with_logits(logits, taught, reduction="none")
    return ((crossed - entropy) * known).sum() / known.sum()
