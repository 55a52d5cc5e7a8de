"""A segmentation network as its graph, so that masks are made without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.inference.engines.graph import NetworkGraph
from torchxrayvision.inference.engines.graphfiles import open_file
from torchxrayvision.inference.engines.kinds import sigmoid
from torchxrayvision.inference.engines.runtime import PLACES, at_places, usable_threads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from torchxrayvision.inference.engines.runtime import Choice, Session

OUTPUT: Final = "outputs"


class MaskGraph(NetworkGraph):
    """A segmentation network that runs without torch.

    Args:
        path: See `NetworkGraph`.
        card: See `NetworkGraph`.
        choice: See `NetworkGraph`.
    """

    what = "a segmentation network"

    @classmethod
    def fits(cls, card: Mapping[str, Any]) -> bool:
        """See `NetworkGraph`."""
        return bool(card["runs"].get("masks", False))

    def _take(self, card: Mapping[str, Any]) -> bool:
        return self.fits(card) and self._example.shape == (len(self.targets) * PLACES**2,)

    def _example_logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        session = self.session(1, self.choice, usable_threads(), [OUTPUT])
        session.input[...] = images
        return at_places(session.run()[0][0])

    def open(self, batch_size: int, choice: Choice, threads: int) -> MaskEngine:
        """The network, ready to run.

        Args:
            batch_size: Images of a batch.
            choice: What runs it.
            threads: That it may use.

        Raises:
            DependencyError: If the package of the engine is missing.
            GraphError: If there is no graph for the choice.
        """
        return MaskEngine(self.session(batch_size, choice, threads, [OUTPUT]))


class MaskEngine:
    """A graph whose logits become probabilities.

    Args:
        session: Runs it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, squares: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Segment.

        Args:
            squares: Images, each of shape (1, R, R) in [-1024, 1024].

        Returns:
            Probabilities, shape (B, P, R, R) float32.
        """
        size = len(self._session.input)
        starts = range(0, len(squares), size)
        return np.concatenate([self._batch(squares[start : start + size]) for start in starts])

    def _batch(self, squares: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        self._session.input[: len(squares)] = squares
        (logits,) = self._session.run()
        # Plane by plane, which stays in the processor's cache.
        planes = logits[: len(squares)].reshape(-1, *logits.shape[2:])
        for plane in planes:
            plane[...] = sigmoid(plane)
        return planes.reshape(len(squares), *logits.shape[1:])


def open_mask_graph(path: Path, engine: str = "auto") -> MaskGraph:
    """A segmentation network that `export` wrote as a graph, checked.

    Args:
        path: See `open_graph`.
        engine: See `open_graph`.

    Returns:
        It, ready to be given to `segment` in place of a model.

    Raises:
        GraphError: See `open_graph`.
        DependencyError: If the package of the engine is missing.
    """
    return open_file(path, engine, MaskGraph)
