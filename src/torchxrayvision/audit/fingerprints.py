"""What a radiograph is recognised by after it was encoded again, cut, windowed, turned or mirrored.

A thumbnail is described by how much edge of each direction there is in each of its cells. The
direction is taken modulo half a turn and its strength relative to the surroundings, so that
windowing and inversion change little; the descriptor of the mirror image is a permutation of it.
Each image is looked for by several *views*: the whole, sixteen crops and four rotations, and their
mirror images, so that an image that lost a tenth of its sides or was turned by a few degrees is
near one of them. The view says where the one lies on the other. What is near is compared in pixels
afterwards (`overlay`).

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

CELLS: Final = 9
_DIRECTIONS: Final = 6
WIDTH: Final = _DIRECTIONS * CELLS * CELLS
"""Numbers of a descriptor."""

_KEPT: Final = 0.9  # share of a side that a crop keeps
_STARTS: Final = tuple((1 - _KEPT) * third / 3 for third in range(4))
# The whole, then sixteen crops: top and left of each window as shares of a side, and its side.
WINDOWS: Final = (
    (0.0, 0.0, 1.0),
    *((top, left, _KEPT) for top in _STARTS for left in _STARTS),
)
"""What is described of each image: top, left and side."""
TURNS: Final = (-4.2, -2.2, 2.2, 4.2)
"""Degrees by which each image is turned besides, to find those that were rotated."""
VIEWS: Final = len(WINDOWS) + len(TURNS)
"""Views of an image, without their mirror images."""

_HALF: Final = SIDE // 2  # side of the pictures that are described
_BATCH: Final = 32  # images that are described together, so that they stay in fast memory
_BLUR: Final = 0.6  # pixels, so that noise of an encoder draws no edges
_AROUND: Final = 5  # pixels to each side that an edge is compared with
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
    """Descriptors of images and of their views.

    Args:
        thumbnails: (N, `SIDE`, `SIDE`).

    Returns:
        float32 (N, `VIEWS`, `WIDTH`): the whole first.
    """
    described = [
        _described(thumbnails[at : at + _BATCH]) for at in range(0, len(thumbnails), _BATCH)
    ]
    return np.concatenate([np.zeros((0, VIEWS, WIDTH), np.float32), *described])


def describe_whole(thumbnails: NDArray[np.uint8]) -> Floats:
    """Descriptors of images as they are, without their views.

    Args:
        thumbnails: (N, `SIDE`, `SIDE`).

    Returns:
        float32 (N, `WIDTH`).
    """
    parts = [np.zeros((0, WIDTH), np.float32)]
    for at in range(0, len(thumbnails), _BATCH):
        x = _halved(thumbnails[at : at + _BATCH])
        parts.append(np.asarray(_pooled(_edges(x), *WINDOWS[0]).numpy(), np.float32))
    return np.concatenate(parts)


def view_maps() -> Floats:
    """Where the views lie on their image: affine maps of places, in [-1, 1].

    Returns:
        float32 (2 * `VIEWS`, 2, 3): of the image as it is, and then of its mirror image.
    """
    maps = [
        [[side, 0.0, 2 * left + side - 1], [0.0, side, 2 * top + side - 1]]
        for top, left, side in WINDOWS
    ]
    maps += [_turn(degrees) for degrees in TURNS]
    # The mirror image of a view is a view of the mirror image.
    flip = np.array([[1, -1, -1], [-1, 1, 1]])
    return np.asarray([*maps, *(np.array(one) * flip for one in maps)], np.float32)


def _turn(degrees: float) -> list[list[float]]:
    cos, sin = float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))
    return [[cos, -sin, 0.0], [sin, cos, 0.0]]


def _halved(thumbnails: NDArray[np.uint8]) -> torch.Tensor:
    import torch
    from torch.nn import functional

    x = torch.from_numpy(np.ascontiguousarray(thumbnails)).float()[:, None]
    return functional.avg_pool2d(x, SIDE // _HALF)


def _described(thumbnails: NDArray[np.uint8]) -> Floats:
    import torch
    from torch.nn import functional

    x = _halved(thumbnails)
    edges = _edges(x)
    parts = [_pooled(edges, *window) for window in WINDOWS]
    for degrees in TURNS:
        maps = torch.tensor([_turn(degrees)]).expand(len(x), 2, 3)
        grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
        turned = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
        parts.append(_pooled(_edges(turned), *WINDOWS[0]))
    return np.asarray(torch.stack(parts, 1).numpy(), np.float32)


def _edges(x: torch.Tensor) -> torch.Tensor:
    """How much edge of each direction is at each place, relative to the surroundings."""
    import torch

    x = blurred(x, _BLUR)
    across = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    square = across.square() + down.square()
    strength = square.sqrt()
    relative = strength / (mean_around(strength, _AROUND) + _FLOOR)
    # Twice the angle is the same for an edge and for its negative: its cosine and sine.
    away = square.clamp(min=1e-9)
    cos, sin = (across.square() - down.square()) / away, 2 * across * down / away
    steps = torch.arange(_DIRECTIONS).view(1, -1, 1, 1) * (2 * np.pi / _DIRECTIONS)
    return (cos * steps.cos() + sin * steps.sin()).clamp(min=0) * relative


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
    length = edges.shape[-1]
    return (_weights(top, side, length) @ edges @ _weights(left, side, length).T).flatten(1)


@functools.cache
def _weights(start: float, side: float, length: int) -> torch.Tensor:
    """Share of each pixel in each cell along one axis, (CELLS, length)."""
    import torch

    ends = (start + side * np.arange(CELLS + 1) / CELLS) * length
    pixels = np.arange(length)
    inside = np.minimum(pixels + 1, ends[1:, None]) - np.maximum(pixels, ends[:-1, None])
    shares = np.clip(inside, 0, None) / (ends[1] - ends[0])
    return torch.from_numpy(shares.astype(np.float32))


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
    """Descriptors as directions in which images of one collection differ, each as much.

    All chest radiographs look alike: what they have in common is taken off, and directions in
    which all of them differ count no more than those in which few do.

    Args:
        sample: Descriptors of some images, (N, `WIDTH`).
        width: Numbers kept.
    """

    def __init__(self, sample: Floats, width: int = 192) -> None:
        both = np.concatenate([sample, mirrored(sample)]).astype(np.float64)
        mean = both.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(both.T))
        order = np.argsort(values)[::-1][: min(width, len(sample))]
        # The last directions are noise, which dividing by their spread would blow up.
        spread = np.sqrt(values[order].clip(0) + 0.003 * values.max(initial=0.0) + 1e-9)
        self._basis = (vectors[:, order] / spread).astype(np.float32)
        self.width = len(order)
        """Numbers kept."""
        self._shift = np.asarray(mean @ self._basis, np.float32)

    def directions(self, descriptors: Floats) -> Floats:
        """Unit vectors, whose products are similarities.

        Args:
            descriptors: (..., `WIDTH`).

        Returns:
            float32 (..., width).
        """
        return unit(np.asarray(descriptors, np.float32) @ self._basis - self._shift)


def unit(vectors: Floats) -> Floats:
    """Vectors of length 1, but for those of zeros.

    Args:
        vectors: (..., D).

    Returns:
        The same shape.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)
