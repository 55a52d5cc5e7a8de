"""Networks and an autoencoder whose evidence is known."""

from __future__ import annotations

import torch
from torch import nn

from torchxrayvision.explain import CamLayer

SIDE = 64
CELL = 8
LAYER = CamLayer("features", head="classifier")
# Rows and columns of what the image shows.
BRIGHT = (slice(40, 56), slice(8, 24))
DARK = (slice(8, 24), slice(40, 56))
CORNER = (slice(0, 16), slice(0, 16))


class _Cells(nn.Module):
    """Mean grey of each cell: brighter and darker than a threshold, and brighter in one corner."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, CELL, stride=CELL)
        with torch.no_grad():
            self.conv.weight.fill_(1 / (1024 * CELL**2))
            self.conv.weight[1].neg_()
            self.conv.bias.fill_(-0.2)
        where = torch.ones(3, SIDE // CELL, SIDE // CELL)
        where[2, 2:] = 0
        where[2, :, 2:] = 0
        self.register_buffer("where", where)

    def forward(self, x):
        return torch.relu(self.conv(x) * self.where)


class Planted(nn.Module):
    """Three findings: bright regions, dark regions, and the upper left corner alone."""

    targets = ("bright", "dark", "corner")
    input_resolution = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.features = _Cells()
        self.classifier = nn.Linear(3, 3)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.eye(3) * 30)
            self.classifier.bias.fill_(-1.0)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class CellAutoencoder(nn.Module):
    """Codes are the mean greys of cells; images are made of even cells."""

    def encode(self, x):
        return nn.functional.avg_pool2d(x, CELL)

    def decode(self, z):
        return nn.functional.interpolate(z, scale_factor=CELL, mode="nearest")


def image(batch: int = 1) -> torch.Tensor:
    """Grey noise with a bright, a dark and a less bright region in the corner."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 1, SIDE, SIDE, generator=generator) * 40
    x[:, :, *BRIGHT] += 900
    x[:, :, *DARK] -= 900
    x[:, :, *CORNER] += 500
    return x.clamp(-1024, 1024)


# A network of bright regions looks at both of them.
EVIDENCE = {"bright": (BRIGHT, CORNER), "dark": (DARK,), "corner": (CORNER,)}


def mask(target: str) -> torch.Tensor:
    """bool (SIDE, SIDE), True in the evidence of a target."""
    out = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for region in EVIDENCE[target]:
        out[region] = True
    return out
