"""What the segmentation networks share: logits out, masks by name."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from torchxrayvision.models._network import Prediction, XRayModel

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Segmenter"]


class Segmenter(XRayModel):
    """Base of the networks with a map of logits for each structure.

    Input is a float tensor (B, 1, S, S) in [-1024, 1024], of any size S. Output is (B, P, R, R),
    one map for each of the P targets at the resolution R of the network; structures overlap, so
    each has a probability of its own.
    """

    @abc.abstractmethod
    def _maps(self, x: Tensor) -> Tensor:
        """The last features (B, D, H, W) of a prepared input."""

    @abc.abstractmethod
    def _logits(self, maps: Tensor, side: int) -> Tensor:
        """Logits (B, P, side, side) from the last features."""

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Logits, shape (B, P, R, R): above 0 where a structure is likelier than not.
        """
        return self._segment(x, stacklevel=6)  # two frames of nn.Module

    def _segment(self, x: Tensor, stacklevel: int) -> Tensor:
        prepared = self._prepare(x, stacklevel)
        return self._logits(self._maps(prepared), prepared.shape[-1])

    def _embed(self, x: Tensor) -> Tensor:
        return self._maps(x).mean((2, 3))

    def predict(self, x: Tensor) -> Prediction:
        """Probability of each structure in each pixel.

        Args:
            x: Images, shape (B, 1, S, S) in [-1024, 1024].

        Returns:
            Structure to its map, shape (B, R, R) at the resolution R of the network, in [0, 1];
            nothing if the network is untrained.
        """
        if self.weights is None:
            return Prediction("mask")
        maps = self._segment(x, stacklevel=5).sigmoid()
        return Prediction("mask", dict(zip(self.targets, maps.unbind(1), strict=True)))
