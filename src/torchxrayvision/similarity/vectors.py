"""From files to vectors whose products say how alike two radiographs are."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.inputs import Readers, crop_and_resize
from torchxrayvision.models import temporarily_eval
from torchxrayvision.runs import fingerprint
from torchxrayvision.screening import SIDE, appearance

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from numpy.typing import NDArray

    from torchxrayvision.images import Raster
    from torchxrayvision.inputs import InputFile, Read, ReadOptions
    from torchxrayvision.models import XRayModel

    Floats = NDArray[np.float32]

FEATURES: Final = ("both", "network", "appearance")
"""What likeness is judged by: what a network sees, what the image looks like, or both."""

_BATCH: Final = 32
_SIDE: Final = 224  # for a network that takes any size


class Encoder:
    """What makes the vector of an image.

    The features of a network say what it was trained to tell apart; the appearance, directions of
    edges and coarse brightness of the ranks of grey values, says what the image shows where, and
    does not depend on exposure or windowing. Each part has length 1, and so has the whole, so that
    the product of two vectors is the mean of the cosines of their parts.

    Args:
        network: Any network with `embed`; None for the appearance alone.
        features: One of `FEATURES`.
        name: What the network is called; None for its `weights`.

    Raises:
        UnknownNameError: If `features` is something else.
        ValueError: If `features` needs a network and there is none.
    """

    def __init__(
        self, network: XRayModel | None, features: str = "both", *, name: str | None = None
    ) -> None:
        if features not in FEATURES:
            raise UnknownNameError("kind of features", features, FEATURES)
        if network is None and features != "appearance":
            msg = f"features={features!r} needs a network with embed; give one, or 'appearance'"
            raise ValueError(msg)
        self.network = None if features == "appearance" else network
        self.features = features
        self.name = name or (None if self.network is None else self.network.weights)

    @property
    def facts(self) -> dict[str, Any]:
        """What the vectors depend on, for the file of an index."""
        network = self.network
        return {
            "features": self.features,
            "network": self.name,
            "network_sha256": None if network is None else fingerprint(network),
        }

    def vectors(
        self, files: Iterable[InputFile], reading: ReadOptions | None = None
    ) -> Generator[tuple[InputFile, Floats | str], None, None]:
        """The vector of each file, float32 (D,) of length 1, or why it could not be read.

        Args:
            files: In order.
            reading: How they are read.

        Yields:
            Each file with its vector or reason.
        """
        side = getattr(self.network, "input_resolution", _SIDE) if self.network else 0

        def one(file: InputFile, read: Read) -> tuple[Floats | None, Floats | None]:
            return self._prepared(file, read(file), side)

        mode = contextlib.nullcontext() if self.network is None else temporarily_eval(self.network)
        with mode, Readers(one, reading) as readers:
            found = readers.map(files, ahead=_BATCH)
            while chunk := list(itertools.islice(found, _BATCH)):
                done = [(file, made) for file, made in chunk if not isinstance(made, str)]
                vectors = iter(self._joined([made for _, made in done]))
                for file, made in chunk:
                    yield file, made if isinstance(made, str) else next(vectors)

    def _prepared(
        self, file: InputFile, raster: Raster, side: int
    ) -> tuple[Floats | None, Floats | None]:
        square = crop_and_resize(file, raster, side) if side else None
        looks = None
        if self.features != "network":
            looks = appearance(crop_and_resize(file, raster, SIDE)[0])
        return square, looks

    def _joined(self, prepared: list[tuple[Floats | None, Floats | None]]) -> Floats:
        if not prepared:
            return np.zeros((0, 0), np.float32)
        squares, looks = zip(*prepared, strict=True)
        parts = []
        if self.network is not None:
            parts.append(_unit(_features(self.network, np.stack(squares))))
        if self.features != "network":
            parts.append(_unit(np.stack(looks)))
        return np.asarray(np.concatenate(parts, axis=1) / np.sqrt(len(parts)), np.float32)


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def _features(network: XRayModel, squares: Floats) -> Floats:
    import torch

    device = next(network.parameters()).device
    with torch.inference_mode():
        made = network.embed(torch.from_numpy(squares).to(device))
    return np.asarray(made.float().cpu().numpy(), np.float32)
