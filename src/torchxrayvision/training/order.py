"""Which images make up which batch: a function of (seed, epoch) and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from torchxrayvision.training.images.masks import MaskedImages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from torchxrayvision.training.images.prepared import PreparedImages


class BatchIndices(NamedTuple):
    """One batch as it is asked for."""

    epoch: int
    indices: NDArray[np.int64]


class Batches:
    """The batches of one process; iterating starts at the step where the run stands.

    Args:
        count: Number of images.
        size: Images per batch, over all processes.
        seed: Of the order; None for images in order, the last batch as short as it is.
        rank: Of this process.
        world: Number of processes. Each takes every world-th image of a batch.

    Example:
        >>> [batch.indices.tolist() for batch in Batches(5, 2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, count: int, size: int, seed: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.size, self.seed = count, size, seed
        self.rank, self.world = rank, world
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int, start: int | None = None) -> None:
        """Say which epoch is next; Lightning calls it before each.

        Args:
            epoch: From 0.
            start: The first batch of it; None keeps what was said for this epoch, else 0.
        """
        if start is not None or epoch != self.epoch:
            self.start = start or 0
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever the run stands in it."""
        if self.seed is None:
            return -(-self.count // self.size)
        return max(self.count // self.size, 1)

    def __iter__(self) -> Iterator[BatchIndices]:
        order = np.arange(self.count)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for step in range(self.start, len(self)):
            whole = order[step * self.size : (step + 1) * self.size]
            yield BatchIndices(self.epoch, self._mine(whole))

    def _mine(self, whole: NDArray[np.int64]) -> NDArray[np.int64]:
        mine = whole[self.rank :: self.world]
        # Every process takes part in every step; in a short last batch some repeat an image.
        return mine if len(mine) else whole[:1]


class BatchDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Fetches whole batches from prepared images.

    Args:
        images: The images.
    """

    def __init__(self, images: PreparedImages) -> None:
        self.images = images

    def __getitem__(self, batch: BatchIndices) -> dict[str, Any]:
        pixels, labels = self.images.batch(batch.indices)
        item = {
            "pixels": torch.from_numpy(pixels),
            "labels": torch.from_numpy(labels),
            "indices": batch.indices.tolist(),
            "epoch": batch.epoch,
        }
        if isinstance(self.images, MaskedImages):
            item["masks"] = torch.from_numpy(self.images.masks(batch.indices))
        return item

    def __len__(self) -> int:
        return len(self.images)
