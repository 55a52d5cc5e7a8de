"""Networks for tests of the demonstration that need no trained weights."""

from __future__ import annotations

import torch

from torchxrayvision.models import ResNet, Segmenter
from torchxrayvision.phantom import FINDINGS

# Centre and radii, as shares of the side, of what every chest looks like from the front.
ELLIPSES = {
    "Right Lung": (0.48, 0.30, 0.30, 0.14),
    "Left Lung": (0.48, 0.70, 0.30, 0.14),
    "Heart": (0.62, 0.54, 0.14, 0.15),
    "Spine": (0.5, 0.5, 0.45, 0.03),
}


def classifier() -> ResNet:
    """A small untrained network with an output for each simulated finding."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResNet(architecture="resnet18-width32", num_classes=len(FINDINGS))
    net.targets = net.pathologies = list(FINDINGS)
    net.input_resolution = 64
    net.apply_sigmoid = True
    net.weights = "stand-in"
    return net.eval()


class Ellipses(Segmenter):
    """Finds the same chest in every picture."""

    def __init__(self) -> None:
        super().__init__(targets=tuple(ELLIPSES), input_resolution=64)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def _maps(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _logits(self, maps: torch.Tensor, side: int) -> torch.Tensor:
        at = (torch.arange(side) + 0.5) / side
        found = [
            1 - ((at[:, None] - y) / high) ** 2 - ((at - x) / wide) ** 2
            for y, x, high, wide in ELLIPSES.values()
        ]
        return self.scale * 10 * torch.stack(found).expand(len(maps), -1, -1, -1)
