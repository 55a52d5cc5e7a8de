"""What a radiograph is recognised by after it was encoded again, cut, windowed, turned or mirrored.

A thumbnail is described by how much edge of each direction there is in each of its cells. The
direction is taken modulo half a turn and its strength relative to the surroundings, so that
windowing and inversion change little; the descriptor of the mirror image is a permutation of it;
and five crops are described besides the whole, so that a film which lost a tenth of its sides is
near one of them. What is near is compared in pixels afterwards (`duplicates`).

Source:
    Dalal and Triggs. Histograms of oriented gradients for human detection. CVPR 2005.
    https://doi.org/10.1109/CVPR.2005.177
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

SIDE: Final = 96
"""Side of a thumbnail in pixels."""

CELLS: Final = 7
_DIRECTIONS: Final = 6
WIDTH: Final = _DIRECTIONS * CELLS * CELLS
"""Numbers of a descriptor."""

_KEPT: Final = 0.9  # share of a side that a crop keeps
_LOST: Final = 1 - _KEPT
# The whole, the middle and the four corners: top and left of each window as shares of a side.
WINDOWS: Final = (
    (0.0, 0.0, 1.0),
    (_LOST / 2, _LOST / 2, _KEPT),
    (0.0, 0.0, _KEPT),
    (0.0, _LOST, _KEPT),
    (_LOST, 0.0, _KEPT),
    (_LOST, _LOST, _KEPT),
)
"""What is described of each image: top, left and side."""

_BATCH: Final = 32  # images that are described together, so that they stay in fast memory
_BLUR: Final = 1.2  # pixels, so that noise of an encoder draws no edges
_AROUND: Final = 9  # pixels to each side that an edge is compared with
_FLOOR: Final = 2.0  # grey levels of an edge below which it is noise


def thumbnail(grey: NDArray[np.floating], side: int = SIDE) -> NDArray[np.uint8]:
    """A square picture of an image, whatever its shape, by areas.

    Args:
        grey: (H, W), any range; the lowest value becomes 0 and the highest 255.
        side: Of the picture, in pixels.

    Returns:
        uint8 (side, side).

    Example:
        >>> thumbnail(np.arange(40_000.0).reshape(200, 200)).shape
        (96, 96)
    """
    import torch
    from torch.nn import functional

    whole = torch.from_numpy(np.ascontiguousarray(grey, np.float32))[None, None]
    small = functional.interpolate(whole, size=(side, side), mode="area")[0, 0].numpy()
    low, high = float(small.min()), float(small.max())
    scaled = (small - low) * (255 / max(high - low, 1e-9))
    return np.asarray(scaled.round(), np.uint8)


def describe(thumbnails: NDArray[np.uint8]) -> Floats:
    """Descriptors of images and of their crops.

    Args:
        thumbnails: (N, `SIDE`, `SIDE`).

    Returns:
        float32 (N, `WINDOWS`, `WIDTH`).
    """
    described = [
        _described(thumbnails[at : at + _BATCH]) for at in range(0, len(thumbnails), _BATCH)
    ]
    return np.concatenate([np.zeros((0, len(WINDOWS), WIDTH), np.float32), *described])


def _described(thumbnails: NDArray[np.uint8]) -> Floats:
    import torch

    x = torch.from_numpy(np.ascontiguousarray(thumbnails)).float()[:, None]
    x = blurred(x, _BLUR)
    across = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    strength = (across.square() + down.square()).sqrt()
    relative = strength / (mean_around(strength, _AROUND) + _FLOOR)
    # Twice the angle is the same for an edge and for its negative.
    double = 2 * torch.atan2(down, across)
    steps = torch.arange(_DIRECTIONS).view(1, -1, 1, 1) * (2 * np.pi / _DIRECTIONS)
    edges = (double - steps).cos().clamp(min=0) * relative
    parts = [_pooled(edges, *window) for window in WINDOWS]
    return np.asarray(torch.stack(parts, 1).numpy(), np.float32)


def blurred(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (N, 1, H, W) with the edge repeated.

    Args:
        x: Images.
        sigma: In pixels.
    """
    reach = int(3 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    weights = tuple((kernel / kernel.sum()).tolist())
    # Products with banded matrices: convolutions of a single channel are slower in torch.
    return _banded(x.shape[-2], weights) @ x @ _banded(x.shape[-1], weights).T


def mean_around(x: torch.Tensor, reach: int) -> torch.Tensor:
    """Mean over a square around each place, with the edge repeated.

    Args:
        x: (N, 1, H, W).
        reach: Pixels to each side.
    """
    weights = (1 / (2 * reach + 1),) * (2 * reach + 1)
    return _banded(x.shape[-2], weights) @ x @ _banded(x.shape[-1], weights).T


@functools.cache
def _banded(length: int, weights: tuple[float, ...]) -> torch.Tensor:
    """The matrix that weighs each place's neighbours; those beyond the edge are the edge."""
    import torch

    reach = len(weights) // 2
    matrix = np.zeros((length, length), np.float32)
    for offset, weight in zip(range(-reach, reach + 1), weights, strict=True):
        places = np.clip(np.arange(length) + offset, 0, length - 1)
        np.add.at(matrix, (np.arange(length), places), weight)
    return torch.from_numpy(matrix)


def _pooled(edges: torch.Tensor, top: float, left: float, side: float) -> torch.Tensor:
    """Means over cells of a window, (N, WIDTH): weights of rows and columns, edges shared."""
    import torch

    length = edges.shape[-1]
    rows = torch.from_numpy(_weights(top, side, length))
    columns = torch.from_numpy(_weights(left, side, length))
    cells = torch.einsum("ir,ndrc,jc->ndij", rows, edges, columns)
    return cells.flatten(1)


def _weights(start: float, side: float, length: int) -> Floats:
    """Share of each pixel in each cell along one axis, (CELLS, length)."""
    ends = (start + side * np.arange(CELLS + 1) / CELLS) * length
    pixels = np.arange(length)
    inside = np.minimum(pixels + 1, ends[1:, None]) - np.maximum(pixels, ends[:-1, None])
    return np.asarray(np.clip(inside, 0, None) / (ends[1] - ends[0]), np.float32)


def mirrored(descriptors: Floats) -> Floats:
    """The descriptors that the mirror images would have.

    Args:
        descriptors: (..., `WIDTH`).

    Returns:
        The same shape.
    """
    shape = descriptors.shape
    cells = descriptors.reshape(-1, _DIRECTIONS, CELLS, CELLS)
    turned = (-np.arange(_DIRECTIONS)) % _DIRECTIONS
    return cells[:, turned, :, ::-1].reshape(shape)


class Space:
    """Descriptors as directions in which films of one collection differ, each as much.

    All chest radiographs look alike: what they have in common is taken off, and directions in
    which all of them differ count no more than those in which few do.

    Args:
        sample: Descriptors of some images, (N, `WIDTH`).
        width: Numbers kept.
    """

    def __init__(self, sample: Floats, width: int = 64) -> None:
        both = np.concatenate([sample, mirrored(sample)]).astype(np.float64)
        self._mean = both.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(both.T))
        order = np.argsort(values)[::-1][: min(width, len(sample))]
        # The last directions are noise, which dividing by their spread would blow up.
        spread = np.sqrt(values[order].clip(0) + 0.02 * values.max(initial=0.0) + 1e-9)
        self._basis = vectors[:, order] / spread

    def directions(self, descriptors: Floats) -> Floats:
        """Unit vectors, whose products are similarities.

        Args:
            descriptors: (..., `WIDTH`).

        Returns:
            float32 (..., width).
        """
        shifted = (descriptors - self._mean) @ self._basis
        lengths = np.linalg.norm(shifted, axis=-1, keepdims=True)
        return np.asarray(shifted / np.maximum(lengths, 1e-9), np.float32)
