"""Make the animation of the documentation: `docs/images/counterfactual.gif` and `.jpg`.

    python tools/counterfactual_animation.py --films /tmp/demo-weights/simulated.npz

The published autoencoders cannot be shipped, so a small one learns to draw simulated radiographs
first (five minutes of one core), and the codes of new simulations are moved along the gradient of
the demonstration weights: Cohen et al., MIDL 2021, https://arxiv.org/abs/2102.09475. `--films` is
what tools/build_demo_weights.py renders; without it, films are rendered here.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from torchxrayvision import explain, phantom
from torchxrayvision.models import get_model
from torchxrayvision.training.images.prepared import from_stored, to_stored

SIZE, CODE = 144, 24
SEED, NEW = 0, 2022  # of the films that the autoencoder learns from, and of those it draws here
BATCH, RATE = 32, 2e-3
IMAGES = Path(__file__).parents[1] / "docs" / "images"
SHOWN = (("Cardiomegaly", 0.5), ("Effusion", 0.5))  # and how severe it is to begin with


class SmallAutoencoder(nn.Module):
    """Four halvings to CODE channels of 9 x 9, and back; the last doubling shuffles channels."""

    def __init__(self):
        super().__init__()
        widths = (16, 32, 64, 96)
        down, inputs = [], 1
        for width in widths:
            down += [nn.Conv2d(inputs, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
        self.down = nn.Sequential(*down, nn.Conv2d(inputs, CODE, 1))
        up, inputs = [nn.Conv2d(CODE, widths[-1], 3, 1, 1)], widths[-1]
        for width in reversed(widths[:-1]):
            up += [nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(inputs, width, 3, 1, 1)]
            up += [nn.BatchNorm2d(width)]
            inputs = width
        self.up = nn.Sequential(*up, nn.ReLU(), nn.Conv2d(inputs, 4, 3, 1, 1), nn.PixelShuffle(2))

    def encode(self, x):
        """Images (B, 1, S, S) in [-1024, 1024] to codes (B, CODE, 9, 9)."""
        if x.shape[-1] != SIZE:
            x = functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
        return self.down(x / 1024)

    def decode(self, z):
        """Codes to images (B, 1, SIZE, SIZE)."""
        return self.up(z) * 1024


def rendered(count):
    """Stored films, uint8 (N, SIZE, SIZE)."""
    films = (phantom.simulate(i, seed=SEED, size=SIZE, views=("PA", "AP")) for i in range(count))
    return np.stack([to_stored(film.image[0], "uint8") for film in films])


def trained(stored, epochs):
    """An autoencoder of stored films: absolute differences, of values and of their slopes."""
    torch.manual_seed(SEED)
    coder = SmallAutoencoder().to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(coder.parameters(), lr=RATE, weight_decay=1e-4)
    steps = len(stored) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: 0.5 + 0.5 * math.cos(math.pi * k / (steps * epochs))
    )
    for epoch in range(epochs):
        order, total = np.random.default_rng([SEED, epoch]).permutation(len(stored)), 0.0
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            x = from_stored(torch.from_numpy(stored[rows][:, None]))
            x = functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True) / 1024
            y = coder.decode(coder.encode(x * 1024)) / 1024
            loss = (y - x).abs().mean()
            loss = loss + sum((y - x).diff(dim=axis).abs().mean() for axis in (-1, -2))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"autoencoder, epoch {epoch + 1} of {epochs}: {total / steps:.4f}", flush=True)
    return coder.eval()


def strip(animation, original):
    """The image, its reconstruction, four frames from less to more, and where they differ."""
    chosen = np.linspace(0, len(animation.frames) - 1, 4).round().astype(int)
    heat = animation.heat()
    difference = heat / heat.max() * 2048 - 1024
    frames = [
        original,
        animation.reconstruction,
        *(animation.frames[i] for i in chosen),
        difference,
    ]
    return np.concatenate([to_stored(f.numpy(), "uint8") for f in frames], axis=1)


def main():
    """Train the autoencoder, make both pictures, and say what the network thought of the frames."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--films", type=Path, help="npz with stored `images`, uint8 (N, S, S)")
    parser.add_argument("--count", type=int, default=3000, help="films to render without it")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    if arguments.films:
        with np.load(arguments.films) as found:
            stored = found["images"]
    else:
        stored = rendered(arguments.count)
    coder, model, strips = trained(stored, arguments.epochs), get_model("demo"), []
    for index, (finding, severity) in enumerate(SHOWN):
        case = phantom.simulate(
            index, seed=NEW, size=SIZE, views=("PA",), findings={finding: severity}, others=False
        )
        x = torch.from_numpy(case.image)[None]
        (animation,) = explain.latent_shift(model, coder, x, finding, change=0.4, frames=16)
        values = ", ".join(f"{value:.2f}" for value in animation.values[::3].tolist())
        print(
            f"{finding}: image {animation.original_value:.2f}; frames {values}; {animation.reached}"
        )
        strips.append(strip(animation, x[0, 0]))
        if index == 0:
            explain.save_animation(animation, arguments.out / "counterfactual.gif", title=finding)
    Image.fromarray(np.concatenate(strips)).save(arguments.out / "counterfactual.jpg", quality=88)


if __name__ == "__main__":
    main()
