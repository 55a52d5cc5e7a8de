"""Which pairs of images are worth a look in pixels, by fingerprint and by embedding.

Every image is looked for by all of its views (`fingerprints`) among all images, tile by tile, by
the first directions in which images differ: the similarities of a tile are one product of matrices,
and only a few images of each row are kept. These are ranked again by all directions, so that
images that merely look alike drop out. Memory grows by one kilobyte per image. The features of a
network propose pairs of their own. Where one image lies on the other is told by the view that is
most alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from torchxrayvision.audit.fingerprints import (
    VIEWS,
    Space,
    describe,
    describe_whole,
    mirrored,
    unit,
    view_maps,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

_BLOCK: Final = 512  # images that are looked for together
_TILE: Final = 4096  # images among which they are looked for at once
_SAMPLE: Final = 4096  # images that the directions of descriptors and features are found on
_ROUGH: Final = 96  # directions that all pairs are compared by
_RANKED: Final = 16  # images that are ranked again
_NEAREST: Final = 2  # of those, candidates
_LEAST_SIMILAR: Final = 0.6
_LEAST_ALIKE: Final = 0.8  # cosine of the features of a network
_FEATURES: Final = 64  # numbers that are kept of the features of an image
_FEW: Final = 500  # images below which directions are not well known, and more pairs are looked at
_NEAREST_OF_FEW: Final = 6


class Rowwise(Protocol):
    """Rows of an array, wherever they are."""

    def __len__(self) -> int: ...

    def __getitem__(self, asked: Any, /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Candidates:
    """Pairs that are worth a look in pixels.

    Attributes:
        found: Row of the image that was found, (M,).
        asked: Row of the image by whose view it was found, (M,).
        similar: How alike the view is, -1 to 1, (M,).
        views: Which view it is, of `view_maps`, (M,).
    """

    found: Rows
    asked: Rows
    similar: Floats
    views: Rows

    def __len__(self) -> int:
        return len(self.found)

    def pairs(self) -> Rows:
        """Both rows of each pair, the lower first, (M, 2)."""
        return np.sort(np.stack([self.found, self.asked], axis=1), axis=1)

    def take(self, rows: Any) -> Candidates:
        """Those of some pairs.

        Args:
            rows: Indices, a slice or a mask.
        """
        fields = (self.found, self.asked, self.similar, self.views)
        return Candidates(*(value[rows] for value in fields))

    def maps(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Affine maps from places of `found` to places of `asked`, and which are mirrored."""
        return view_maps()[self.views], self.views >= VIEWS


def candidates(
    thumbnails: Rowwise,
    embeddings: Rowwise | None = None,
    *,
    others: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Candidates:
    """Find the nearest images of each.

    Args:
        thumbnails: uint8 (N, `SIDE`, `SIDE`), in memory or mapped from a file.
        embeddings: Features (N, D) of a network, mapped from a file or not; None to do without.
        others: So many rows at the end are of another collection: pairs among them are not looked
            for.
        on_progress: Called with the images looked for, and all of them.

    Returns:
        Each pair once.
    """
    import torch

    count = len(thumbnails)
    nothing = np.zeros(0, np.int64)
    if count < 2:
        return Candidates(nothing, nothing, np.zeros(0, np.float32), nothing)
    space = Space(describe_whole(thumbnails[_sample(count)]))
    index = torch.empty((count, space.width), dtype=torch.float16)
    rough = torch.empty((count, min(_ROUGH, space.width)))
    for block in _blocks(count):
        whole = space.directions(describe_whole(thumbnails[block]))
        index[block] = torch.from_numpy(whole).half()
        rough[block] = _first(torch.from_numpy(whole))
    features = None if embeddings is None else torch.from_numpy(_reduced(embeddings))
    most, least = (_NEAREST, _LEAST_SIMILAR) if count > _FEW else (_NEAREST_OF_FEW, -1.0)
    parts = []
    # A crop finds its whole, and the whole does not find the crop: those that are looked for in
    # vain by one image are found by the other, so the other collection is asked too.
    for block in _blocks(count):
        described = describe(thumbnails[block])
        views = np.concatenate([described, mirrored(described)], axis=1)
        asked = torch.from_numpy(space.directions(views)).transpose(0, 1).contiguous()
        until = count if block.start < count - others else count - others
        rows = torch.arange(block.start, block.stop)
        near = _nearest(_first(asked), rough[:until], rows, _RANKED)
        parts.append(_best(_seen_by(asked, index, rows, near, least), most))
        if features is not None:
            near = _nearest(features[block][None], features[:until], rows, 1, _LEAST_ALIKE)
            parts.append(_seen_by(asked, index, rows, near, -1.0))
        if on_progress is not None:
            on_progress(block.stop, count)
    return _once(parts, count - others)


def _sample(count: int) -> Rows:
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def _first(vectors: torch.Tensor) -> torch.Tensor:
    """The first directions alone, as unit vectors."""
    from torch.nn import functional

    return functional.normalize(vectors[..., :_ROUGH], dim=-1)


def _best(found: Candidates, most: int) -> Candidates:
    """The few of each image that are most alike."""
    order = np.lexsort((-found.similar, found.asked))
    found = found.take(order)
    _, first, place = np.unique(found.asked, return_index=True, return_inverse=True)
    return found.take(np.arange(len(found)) - first[place] < most)


def _nearest(
    asked: torch.Tensor, index: torch.Tensor, rows: torch.Tensor, most: int, least: float = -1.0
) -> torch.Tensor:
    """The nearest rows of an index to each image, by whichever of its views; -1 for none.

    Args:
        asked: Unit vectors of the views, (views, B, width).
        index: Unit vectors, (N, width).
        rows: Where the images themselves are in the index, (B,).
        most: How many are kept.
        least: Similarity below which none is.
    """
    import torch

    count = len(rows)
    best = torch.full((count, 0), -1.0)
    where = torch.zeros((count, 0), dtype=torch.int64)
    for start in range(0, len(index), _TILE):
        tile = index[start : start + _TILE].T
        similar = asked[0] @ tile
        product = torch.empty_like(similar)
        for view in asked[1:]:
            torch.maximum(similar, torch.mm(view, tile, out=product), out=similar)
        own = rows - start
        inside = torch.nonzero((own >= 0) & (own < tile.shape[1]))[:, 0]
        similar[inside, own[inside]] = -2.0
        value, place = similar.topk(min(most, tile.shape[1]), dim=1)
        best, where = torch.cat([best, value], 1), torch.cat([where, place + start], 1)
        best, kept = best.topk(min(most, best.shape[1]), dim=1)
        where = where.gather(1, kept)
    return torch.where((best >= max(least, -1.5)) & (where != rows[:, None]), where, -1)


def _seen_by(
    asked: torch.Tensor, index: torch.Tensor, rows: torch.Tensor, near: torch.Tensor, least: float
) -> Candidates:
    """Of each image and those near it, the view that is most alike."""
    import torch

    at, column = torch.nonzero(near >= 0, as_tuple=True)
    found = near[at, column]
    whole = index[found].float()
    similar = torch.stack([(view[at] * whole).sum(1) for view in asked])
    best, view = similar.max(0)
    kept = best >= least
    fields = (found[kept], rows[at[kept]], best[kept], view[kept])
    return Candidates(*(value.numpy() for value in fields))


def _once(parts: list[Candidates], own: int) -> Candidates:
    """Each pair once, by the view that is more alike; none without an image of `own`."""
    fields = ("found", "asked", "similar", "views")
    every = Candidates(*(np.concatenate([getattr(p, name) for p in parts]) for name in fields))
    every = every.take(np.minimum(every.found, every.asked) < own)
    pairs = every.pairs()
    order = np.lexsort((-every.similar, pairs[:, 1], pairs[:, 0]))
    every, pairs = every.take(order), pairs[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return every.take(new)


def _reduced(embeddings: Rowwise) -> Floats:
    """Features as unit vectors of few numbers: what most of their differences lie in."""
    sample = np.nan_to_num(np.asarray(embeddings[_sample(len(embeddings))], np.float64))
    mean = sample.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov((sample - mean).T))
    basis = vectors[:, np.argsort(values)[::-1][:_FEATURES]].astype(np.float32)
    parts = []
    for block in _blocks(len(embeddings)):
        given = np.nan_to_num(np.asarray(embeddings[block], np.float32))
        parts.append(unit((given - mean.astype(np.float32)) @ basis))
    return np.concatenate(parts)
