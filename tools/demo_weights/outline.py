"""The anatomy network: a U-Net that learns on simulations under strong changes of appearance."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch.nn import functional

from demo_weights.plan import ANATOMY_WIDTH, RENDERED, SEED, STRUCTURES
from torchxrayvision.evaluation import dice
from torchxrayvision.models import UNet
from torchxrayvision.training import Augmentation
from torchxrayvision.training.augment import augment, draw
from torchxrayvision.training.images.prepared import from_stored

_BATCH = 16
_RATE, _DECAY = 3e-3, 1e-3
_MEMORY = 0.995  # of the average of the weights
# Left and right are told apart by place, so that no film is mirrored.
_MOVES = Augmentation(rotation=15, translation=0.1, scale=0.25, aspect=0.12)
_LOOKS = Augmentation(gamma=0.6, contrast=0.3, noise=0.04, erase=0.3)


def unpacked(packed):
    """Masks, float32 (B, structures, S, S)."""
    return torch.from_numpy(np.unpackbits(packed, axis=-1)).float()


def appearance(images, generator):
    """What processing does to a film: uneven exposure, blur or sharpening, local contrast."""
    count, side = len(images), images.shape[-1]

    def uniform(low, high):
        return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low

    coarse = torch.rand(count, 1, 4, 4, generator=generator) * 2 - 1
    field = functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)
    images = images + field * uniform(0, 300)
    fine = functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    images = images + (images - fine) * uniform(-1.0, 1.0)
    broad = functional.interpolate(
        functional.avg_pool2d(images, 16), (side, side), mode="bilinear", align_corners=False
    )
    images = images + (images - broad) * uniform(-0.4, 1.2)
    return images.clamp(-1024, 1024)


def loss_of(logits, masks):
    """Cross-entropy and one minus the soft overlap, in equal parts."""
    entropy = functional.binary_cross_entropy_with_logits(logits, masks)
    inside = logits.sigmoid()
    shared = (inside * masks).sum((0, 2, 3))
    overlap = (2 * shared + 1) / (inside.sum((0, 2, 3)) + masks.sum((0, 2, 3)) + 1)
    return entropy + 1 - overlap.mean()


def changed(pixels, masks, draws, generator, moves=_MOVES, looks=_LOOKS, sides=(RENDERED,) * 2):
    """One batch, moved together and changed in looks.

    Args:
        pixels: Stored films, uint8 (B, S, S).
        masks: Packed, uint8 (B, structures, M, M / 8).
        draws: Random numbers of each film.
        generator: Of what processing does.
        moves: How both move.
        looks: How the films change besides.
        sides: Of the films and of the masks afterwards.

    Returns:
        Films in [-1024, 1024], and masks in [0, 1].
    """
    side, mask_side = sides
    images = augment(from_stored(torch.from_numpy(pixels[:, None])), draws, moves, side)
    # The sampler pads with air, which is the zero of a mask on the same scale.
    moved = augment(unpacked(masks) * 2048 - 1024, draws, moves, mask_side)
    images = augment(appearance(images, generator), draws.flip(1), looks, side)
    return images, (moved + 1024) / 2048


def warm_cosine(optimiser, steps, epochs):
    """A schedule that rises over half an epoch and falls to nothing."""
    warm, total = steps // 2, steps * epochs
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min((k + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * k / total))
    )


def train(pixels, masks, epochs, log=print):
    """Train on stored films (N, S, S) and their packed masks; returns the averaged network."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = UNet(targets=STRUCTURES, width=ANATOMY_WIDTH)
    network = network.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    steps = len(pixels) // _BATCH
    schedule = warm_cosine(optimiser, steps, epochs)
    done = 0
    for epoch in range(epochs):
        order = np.random.default_rng([SEED, epoch]).permutation(len(pixels))
        sums = 0.0
        for step in range(steps):
            rows = order[step * _BATCH : (step + 1) * _BATCH]
            draws = draw(rows.tolist(), seed=SEED, epoch=epoch)
            images, moved = changed(pixels[rows], masks[rows], draws, generator)
            images = images.contiguous(memory_format=torch.channels_last)
            loss = loss_of(network(images), moved)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            done += 1
            follow(average, network, min(_MEMORY, (1 + done) / (10 + done)))
            sums += loss.item()
        log(f"anatomy epoch {epoch + 1} of {epochs}: loss {sums / steps:.4f}", flush=True)
    return average


@torch.no_grad()
def follow(average, network, memory):
    """Move the average towards the network."""
    pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    for kept, now in pairs:
        if kept.is_floating_point():
            kept.lerp_(now, 1 - memory)
        else:
            kept.copy_(now)


def outlines(network, pixels):
    """Masks of stored films, bool (N, structures, S, S)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            batch = from_stored(torch.from_numpy(pixels[start : start + _BATCH][:, None]))
            parts.append(network(batch) > 0)
    return torch.cat(parts).numpy()


def overlaps(network, pixels, masks):
    """Dice of each film and structure, (N, structures); NaN where the truth is empty."""
    found, truth = outlines(network, pixels), unpacked(masks).bool().numpy()
    return np.array(
        [
            [dice(f, t) if t.any() else np.nan for f, t in zip(fs, ts, strict=True)]
            for fs, ts in zip(found, truth, strict=True)
        ]
    )
