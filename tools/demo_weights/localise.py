"""Pre-training on simulations: findings by name, and where they are.

A nodule covers a thousandth of a film, and its label alone says little about where to look. The
simulator knows, so two layers of the network also learn which of their cells a finding, the heart
or a lung touches. What learns that is thrown away afterwards; the classifier keeps the features.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from demo_weights.outline import changed, follow, warm_cosine
from demo_weights.plan import MASK_SIDE, OUTPUTS, PLACES, SEED, SEEN
from torchxrayvision.models import ResNet
from torchxrayvision.training import Augmentation, masked_bce
from torchxrayvision.training.augment import draw
from torchxrayvision.training.loss import positive_weights

_BATCH = 32
_SIDES = SEEN, MASK_SIDE
_RATE, _DECAY = 2e-3, 0.05
_MEMORY = 0.995  # of the average of the weights
_LAYERS = ("layer2", "layer3", "layer4")
_WHERE = 2.0  # weight of the places in the loss
_MOVES = Augmentation(rotation=15, translation=0.08, scale=0.2, aspect=0.1, flip=0.5)
_LOOKS = Augmentation(gamma=0.4, contrast=0.2, noise=0.03)


class Places(nn.Module):
    """Which cells of some layers each structure touches.

    Args:
        network: The classifier whose layers are read while it runs.
    """

    def __init__(self, network):
        super().__init__()
        self.seen = {}
        self.heads = nn.ModuleDict()
        for name in _LAYERS:
            layer = getattr(network.model, name)
            channels = layer[-1].bn2.num_features
            self.heads[name] = nn.Conv2d(channels, len(PLACES), 1)
            nn.init.constant_(self.heads[name].bias, -3.0)  # most cells hold nothing
            layer.register_forward_hook(self._keeper(name))

    def _keeper(self, name):
        def keep(_module, _inputs, output):
            self.seen[name] = output

        return keep

    def loss(self, masks):
        """Cross-entropy and one minus the soft overlap, over the layers that last ran.

        Args:
            masks: (B, places, M, M) in [0, 1].
        """
        total = 0.0
        for name, head in self.heads.items():
            logits = head(self.seen[name])
            cells = functional.adaptive_max_pool2d(masks, logits.shape[-2:])
            entropy = functional.binary_cross_entropy_with_logits(logits, cells)
            inside = logits.sigmoid()
            shared = (inside * cells).sum((0, 2, 3))
            overlap = (2 * shared + 1) / (inside.sum((0, 2, 3)) + cells.sum((0, 2, 3)) + 1)
            total = total + entropy + 0.3 * (1 - overlap.mean())
        return total / len(self.heads)


def train(films, places, architecture, epochs, log=print):
    """Train on simulations.

    Args:
        films: The simulations.
        places: Their packed masks, uint8 (N, places, M, M / 8).
        architecture: Of the classifier.
        epochs: Passes.
        log: What says how far it is.

    Returns:
        The averaged classifier.
    """
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = ResNet(architecture=architecture, num_classes=len(OUTPUTS), output="logit")
    network.targets, network.input_resolution = list(OUTPUTS), SEEN
    network = network.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    where = Places(network)
    parameters = [*network.parameters(), *where.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
    steps = len(films.images) // _BATCH
    schedule = warm_cosine(optimiser, steps, epochs)
    positive = torch.from_numpy(positive_weights(films.labels, "sqrt"))
    done = 0
    for epoch in range(epochs):
        order = np.random.default_rng([SEED, epoch]).permutation(len(films.images))
        sums = np.zeros(2)
        for step in range(steps):
            rows = order[step * _BATCH : (step + 1) * _BATCH]
            draws = draw(rows.tolist(), seed=SEED, epoch=epoch)
            images, masks = changed(
                films.images[rows], places[rows], draws, generator, _MOVES, _LOOKS, _SIDES
            )
            logits = network(images.contiguous(memory_format=torch.channels_last))
            labels = torch.from_numpy(films.labels[rows])
            named, placed = masked_bce(logits, labels, positive_weight=positive), where.loss(masks)
            optimiser.zero_grad()
            (named + _WHERE * placed).backward()
            nn.utils.clip_grad_norm_(parameters, 2.0)
            optimiser.step()
            schedule.step()
            done += 1
            follow(average, network, min(_MEMORY, (1 + done) / (10 + done)))
            sums += named.item(), placed.item()
        log(f"simulations, epoch {epoch + 1} of {epochs}: {np.round(sums / steps, 4)}", flush=True)
    return average
