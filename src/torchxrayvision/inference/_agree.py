"""How far two engines are from each other, in the terms in which a network's answers are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from torchxrayvision.models import Segmenter, XRayClassifier

if TYPE_CHECKING:
    from torchxrayvision.models import XRayModel

__all__ = ["Agreement", "agreement"]

# Most that a probability may differ from PyTorch's in float32.
_PROBABILITY: Final = {"exact": 1e-4, "fast": 1e-2}
_DICE: Final = 0.995  # of the masks of each structure
_DECIBELS: Final = 50.0  # peak signal to noise of a reconstruction


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether answers are near enough.

    Args:
        what: What was compared.
        distance: How far apart they are.
        limit: The most that is allowed.
    """

    what: str
    distance: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether they are; NaN is not."""
        return self.distance <= self.limit

    def __str__(self) -> str:
        return (
            f"{self.what} of the first images differ by {self.distance:.2g} from those of PyTorch "
            f"in float32, more than {self.limit:g}"
        )


def agreement(
    model: XRayModel,
    expected: tuple[torch.Tensor, ...],
    found: tuple[torch.Tensor, ...],
    precision: str,
) -> Agreement:
    """Compare what two engines gave for the same images.

    `exact` compares numbers. `fast` compares what is made of them: probabilities of findings,
    masks of structures by one minus the Dice coefficient of the worst, images by the root mean
    square of the difference as a part of the range.

    Args:
        model: The network.
        expected: What PyTorch in float32 gave, see `Engine.run`.
        found: What another engine gave.
        precision: `"exact"` or `"fast"`.

    Returns:
        The distance, and the limit that the precision sets.
    """
    if isinstance(model, Segmenter) and precision == "fast":
        return Agreement("masks", 1 - _worst_dice(expected[0] > 0, found[0] > 0), 1 - _DICE)
    if isinstance(model, XRayClassifier | Segmenter):
        difference = (expected[0].sigmoid() - found[0].sigmoid()).abs()
        return Agreement("probabilities", _largest(difference), _PROBABILITY[precision])
    if getattr(model, "output_kind", "") == "image" and precision == "fast":
        error = (expected[-1] - found[-1]).square().mean().sqrt() / 2048
        return Agreement("images", float(error), float(10 ** (-_DECIBELS / 20)))
    parts = [
        _largest((a - b).abs()) / max(1.0, _largest(a.abs()))
        for a, b in zip(expected, found, strict=True)
    ]
    return Agreement("outputs", max(parts), _PROBABILITY[precision])


def _largest(values: torch.Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def _worst_dice(one: torch.Tensor, other: torch.Tensor) -> float:
    """Least Dice coefficient over the structures (axis 1); that of two empty masks is 1."""
    axes = (0, 2, 3)
    sizes = one.sum(axes) + other.sum(axes)
    shared = 2 * (one & other).sum(axes)
    return float(torch.where(sizes > 0, shared / sizes.clamp(min=1), 1.0).min())
