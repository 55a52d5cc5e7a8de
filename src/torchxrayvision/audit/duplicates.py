"""Which images are one film: candidates by descriptors, each compared in pixels.

1. Equal bytes and equal pixels are found by hash.
2. `candidates` takes for each image those that its descriptor, or that of one of its crops or of
   its mirror image, is nearest to, and those nearest by the embedding of a network. All pairs are
   looked at, block by block, so that memory does not grow with their number.
3. `compare` lays one image of a pair over the other by an affine map, coarse to fine, and
   correlates what is left when slow changes of grey are taken off; `confirm` does so with larger
   pictures where they are alike. Two films of one patient differ there, by breath and position;
   one film that was encoded, cut, windowed, mirrored or turned does not.

Source:
    Evangelidis and Psarakis. Parametric image alignment using enhanced correlation coefficient
    maximization. IEEE TPAMI 30, 2008. https://doi.org/10.1109/TPAMI.2008.113
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.audit.fingerprints import (
    SIDE,
    Space,
    blurred,
    describe,
    mean_around,
    mirrored,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

_BLOCK: Final = 2048  # images whose similarities to all others are in memory
_SAMPLE: Final = 4096  # images that the directions of descriptors are found on
_NEAREST: Final = 2  # candidates of an image by each kind of descriptor
_LEAST_SIMILAR: Final = 0.55
_LEAST_ALIKE: Final = 0.8  # cosine of the features of a network
_BATCH: Final = 32  # pairs that are laid over each other together
_COARSE: Final = 32
_STEPS: Final = 6
_MAYBE: Final = 0.85  # correlation of a coarse overlay below which a pair is dropped
FINE_SIDE: Final = 256
"""Side of the pictures that a doubtful pair is looked at again with."""
CONFIRMED: Final = 0.9
"""Median correlation of cells of larger pictures from which on two images are one film: 0.94 and
more for a film that was changed, 0.78 and less for the most alike films of one patient in a sample
of NIH ChestX-ray14."""
DOUBTFUL: Final = 0.65
"""Correlation in thumbnails from which on a pair is looked at again in larger pictures."""
DUPLICATE: Final = 0.9
"""Correlation in thumbnails from which on a pair is one film, where they are all there is."""
_CELLS: Final = 10  # of a side, whose correlations are taken one by one
_KNOWN: Final = 0.3  # share of a cell that must show something in both
_LEAST_WHOLE: Final = 0.75  # correlation of the whole below which cells are not asked
_FEW: Final = 500  # images below which directions are not well known, and more pairs are looked at
_NEAREST_OF_FEW: Final = 6
_OVERLAP: Final = 0.6  # share of the image that must be in both


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images that are one film.

    Args:
        first: Row of the image that comes first.
        second: Row of the other.
        correlation: Of fine structure, 0 to 1; 1 for equal pixels.
        how: ``"same bytes"``, ``"same pixels"``, or what the second went through, as far as the
            overlay tells: ``"mirrored"``, ``"inverted"``, ``"rotated"``, ``"cropped or resized"``,
            ``"encoded again or windowed"``.
    """

    first: int
    second: int
    correlation: float
    how: str


def search(
    thumbnails: NDArray[np.uint8],
    larger: Callable[[list[int]], NDArray[np.uint8]] | None = None,
    embeddings: Floats | None = None,
    *,
    others: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Find near duplicates.

    Args:
        thumbnails: uint8 (N, `SIDE`, `SIDE`), in memory or mapped from a file.
        larger: Gives the larger pictures (M, `FINE_SIDE`, `FINE_SIDE`) of some rows, to look at
            pairs again whose thumbnails are alike; None: the thumbnails decide.
        embeddings: Features (N, D) of a network, mapped from a file or not; None to do without.
        others: So many rows at the end are of another collection: pairs among them are not looked
            for.
        on_progress: Called with the pairs done and to do.

    Returns:
        Pairs, first before second, by row.
    """
    pairs = candidates(thumbnails, embeddings, others=others)
    found = []
    for start in range(0, len(pairs), _BATCH):
        chunk = pairs[start : start + _BATCH]
        overlay = compare(thumbnails[chunk[:, 0]], thumbnails[chunk[:, 1]])
        if larger is None:
            found += _judged(chunk, overlay, DUPLICATE)
        else:
            alike = np.flatnonzero(_alike(overlay, DOUBTFUL))
            if len(alike):
                chunk, part = chunk[alike], overlay.take(alike)
                a, b = (larger(chunk[:, side].tolist()) for side in (0, 1))
                found += _judged(chunk, confirm(a, b, part), CONFIRMED)
        if on_progress is not None:
            on_progress(min(start + _BATCH, len(pairs)), len(pairs))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def candidates(
    thumbnails: NDArray[np.uint8],
    embeddings: Floats | None = None,
    *,
    others: int = 0,
) -> Rows:
    """Pairs that are worth a look in pixels.

    Args:
        thumbnails: See `search`.
        embeddings: See `search`.
        others: See `search`.

    Returns:
        int64 (M, 2), each pair once, first before second.
    """
    count = len(thumbnails)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    rows = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
    space = Space(describe(thumbnails[rows])[:, 0])
    index = np.concatenate(
        [space.directions(describe(thumbnails[block])[:, 0]) for block in _blocks(count)]
    )
    found: list[Rows] = []
    most, least = (_NEAREST, _LEAST_SIMILAR) if count > _FEW else (_NEAREST_OF_FEW, -1.0)
    for block in _blocks(count - others):
        described = describe(thumbnails[block])
        best = np.full((len(described), count), -1.0, np.float32)
        for asked in (described, mirrored(described)):
            for window in range(asked.shape[1]):
                np.maximum(best, space.directions(asked[:, window]) @ index.T, out=best)
        found.append(_nearest(best, block, most, least))
    if embeddings is not None:
        found += _by_embedding(embeddings, count - others)
    # A crop finds its whole, and the whole does not find the crop: either is enough.
    pairs = np.concatenate(found)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _by_embedding(embeddings: Floats, asked: int) -> list[Rows]:
    mean = np.zeros(embeddings.shape[1], np.float64)
    for block in _blocks(len(embeddings)):
        mean += np.nan_to_num(embeddings[block]).sum(axis=0)
    mean = (mean / len(embeddings)).astype(np.float32)

    def directions(block: slice) -> Floats:
        away = np.nan_to_num(np.asarray(embeddings[block], np.float32) - mean)
        lengths = np.linalg.norm(away, axis=1, keepdims=True)
        return np.asarray(away / np.maximum(lengths, 1e-9), np.float32)

    index = np.concatenate([directions(block) for block in _blocks(len(embeddings))])
    return [_nearest(index[block] @ index.T, block, 1, _LEAST_ALIKE) for block in _blocks(asked)]


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))


def _nearest(similar: Floats, block: slice, most: int, least: float) -> Rows:
    """Pairs of each image of a block with its nearest ones; `similar` is changed."""
    rows = np.arange(block.start, block.start + len(similar))
    similar[np.arange(len(rows)), rows] = -1.0
    kept = min(most, similar.shape[1] - 1)
    near = np.argpartition(similar, -kept, axis=1)[:, -kept:]
    pairs = np.stack([np.repeat(rows, kept), near.ravel()], axis=1)
    good = np.take_along_axis(similar, near, axis=1).ravel() >= least
    return pairs[good].astype(np.int64)


@dataclass(frozen=True)
class Overlay:
    """How pairs of images lie over each other.

    Attributes:
        correlation: Of fine structure after the best overlay, signed, (M,).
        overlap: Share of the first image that the second one covers, (M,).
        maps: Affine maps of places of the first to places of the second, in [-1, 1], (M, 2, 3).
        mirrored: Whether the second one is mirrored, (M,).
    """

    correlation: Floats
    overlap: Floats
    maps: Floats
    mirrored: NDArray[np.bool_]

    def take(self, rows: NDArray[np.integer]) -> Overlay:
        """Those of some pairs."""
        fields = (self.correlation, self.overlap, self.maps, self.mirrored)
        return Overlay(*(value[rows] for value in fields))


def compare(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Overlay:
    """Lay images over each other and correlate them.

    Args:
        first: (M, `SIDE`, `SIDE`).
        second: The same shape; as they are and mirrored both are tried.

    Returns:
        The better of the two overlays of each pair.
    """
    import torch

    a, b = (torch.from_numpy(np.ascontiguousarray(x)).float()[:, None] for x in (first, second))
    count = len(a)
    turned = torch.cat([torch.zeros(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)])
    a, b = torch.cat([a, a]), torch.cat([b, b.flip(3)])
    maps = torch.eye(2, 3).repeat(2 * count, 1, 1)
    correlation, overlap = torch.zeros(2 * count), torch.zeros(2 * count)
    alive = torch.arange(2 * count)
    with torch.no_grad():
        for side, blur, least in ((_COARSE, 1.0, _MAYBE), (SIDE, 1.5, 0.0)):
            x, y = _edges(a[alive], side, blur), _edges(b[alive], side, blur)
            maps[alive] = _aligned(x, y, maps[alive], _STEPS)
            value, _, shared = _correlation(a[alive], b[alive], maps[alive], side)
            correlation[alive], overlap[alive] = value, shared
            alive = alive[value.abs() >= least]
            if not len(alive):
                break
    correlation[~torch.isin(torch.arange(2 * count), alive)] *= 0.5  # only seen from afar
    better = correlation[count:].abs() > correlation[:count].abs()
    rows = torch.arange(count) + count * better
    return Overlay(
        correlation[rows].numpy(), overlap[rows].numpy(), maps[rows].numpy(), turned[rows].numpy()
    )


def confirm(first: NDArray[np.uint8], second: NDArray[np.uint8], overlay: Overlay) -> Overlay:
    """Correlate larger pictures of pairs, from the overlay that the thumbnails gave.

    What two films of one patient share is seen in a thumbnail; by the structure of a few
    thousandths of the width they differ.

    Args:
        first: (M, `FINE_SIDE`, `FINE_SIDE`).
        second: The same shape.
        overlay: Of the thumbnails.

    Returns:
        The overlay of the larger pictures.
    """
    import torch

    a, b = (torch.from_numpy(np.ascontiguousarray(x)).float()[:, None] for x in (first, second))
    turned = torch.from_numpy(overlay.mirrored)
    b = torch.where(turned[:, None, None, None], b.flip(3), b)
    side = a.shape[-1]
    with torch.no_grad():
        start = torch.from_numpy(overlay.maps)
        maps = _aligned(_edges(a, side, 1.5), _edges(b, side, 1.5), start, _STEPS)
        whole, cells, overlap = _correlation(a, b, maps, side)
        before = _correlation(a, b, start, side)
        worse = before[0].abs() > whole.abs()  # where a window leaves little, steps may lead off
        whole, cells, overlap = (
            torch.where(worse, old, new)
            for old, new in zip(before, (whole, cells, overlap), strict=True)
        )
        maps = torch.where(worse[:, None, None], start, maps)
        correlation = torch.where(whole.abs() >= _LEAST_WHOLE, cells, whole)
    return Overlay(correlation.numpy(), overlap.numpy(), maps.numpy(), overlay.mirrored)


def _reduced(x: torch.Tensor, side: int, blur: float) -> torch.Tensor:
    """Images of another size, blurred by so many of its pixels."""
    from torch.nn import functional

    whole = x.shape[-1]
    x = blurred(x, blur * whole / side)
    return x if side == whole else functional.interpolate(x, size=(side, side), mode="area")


def _edges(x: torch.Tensor, side: int, blur: float) -> torch.Tensor:
    """Strength of edges relative to the surroundings: the same for a negative."""
    from torch.nn import functional

    x = _reduced(x, side, blur)
    x = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    across = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    strength = (across.square() + down.square()).sqrt()
    return blurred(strength / (mean_around(strength, side // 8) + 1.0), 1.0)


def _aligned(x: torch.Tensor, y: torch.Tensor, maps: torch.Tensor, steps: int) -> torch.Tensor:
    """Affine maps that lay y over x, by Gauss and Newton with a gain and an offset."""
    import torch
    from torch.nn import functional

    count, _, side, _ = x.shape
    line = (torch.arange(side) + 0.5) * (2 / side) - 1
    v, u = torch.meshgrid(line, line, indexing="ij")
    places = torch.stack([u, v, torch.ones_like(u)], -1).view(1, -1, 3)
    inner = ((u.abs() < 0.9) & (v.abs() < 0.9)).view(1, -1)
    pad = functional.pad(y, (1, 1, 1, 1), mode="replicate")
    slopes = torch.cat(
        [
            (pad[..., 1:-1, 2:] - pad[..., 1:-1, :-2]) * (side / 4),
            (pad[..., 2:, 1:-1] - pad[..., :-2, 1:-1]) * (side / 4),
        ],
        1,
    )
    moving = torch.cat([y, slopes], 1)
    target = x.view(count, -1)
    for _ in range(steps):
        grid = (places @ maps.transpose(1, 2)).view(count, side, side, 2)
        seen = functional.grid_sample(moving, grid, align_corners=False).view(count, 3, -1)
        inside = inner & (grid.abs().amax(-1) < 1).view(count, -1)
        weight = inside.float()
        value = seen[:, 0]
        flow = seen[:, 1:].unsqueeze(2) * places.transpose(1, 2).unsqueeze(1)
        columns = [flow.reshape(count, 6, -1), value.unsqueeze(1), torch.ones_like(value)[:, None]]
        jacobian = torch.cat(columns, 1)
        weighted = jacobian * weight.unsqueeze(1)
        normal = weighted @ jacobian.transpose(1, 2)
        damping = 1e-3 * normal.diagonal(dim1=1, dim2=2) + 1e-4
        normal = normal + torch.diag_embed(damping)
        # Columns: six of the map, gain, offset. The gain multiplies what is seen.
        goal = weighted @ target.unsqueeze(2)
        found = torch.linalg.solve(normal, goal).squeeze(2)
        gain = found[:, 6:7]
        gain = torch.where(gain.abs() < 0.2, torch.full_like(gain, 0.2), gain)
        step = (found[:, :6] / gain).clamp(-0.15, 0.15).view(count, 2, 3)
        maps = maps + step
    return maps


def _correlation(
    a: torch.Tensor, b: torch.Tensor, maps: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of fine structure under the maps: correlation, median over cells, and overlap.

    One film agrees with itself everywhere. Two films of chests agree at the outlines of ribs and
    diaphragm and not between them, so that the median over cells tells them apart better.
    """
    import torch
    from torch.nn import functional

    x, y = _fine(a, side), _fine(b, side)
    grid = functional.affine_grid(maps, [len(x), 1, *x.shape[2:]], align_corners=False)
    seen, varied = functional.grid_sample(y, grid, align_corners=False).unbind(1)
    inside = (grid.abs().amax(-1) < 0.97).float()
    inside[:, :2] = inside[:, -2:] = inside[:, :, :2] = inside[:, :, -2:] = 0
    overlap = inside.mean((1, 2))
    # A window clips what another one shows: nothing can be said where either is flat.
    inside = inside * (varied > 0.9) * (x[:, 1] > 0.9)
    parts = torch.stack([x[:, 0] * seen, x[:, 0].square(), seen.square()], 1) * inside[:, None]
    product, first, second = parts.mean((2, 3)).unbind(1)
    whole = product / (first * second).sqrt().clamp(min=1e-6)
    product, first, second = functional.adaptive_avg_pool2d(parts, _CELLS).unbind(1)
    cells = product / (first * second).sqrt().clamp(min=1e-6)
    known = functional.adaptive_avg_pool2d(inside[:, None], _CELLS)[:, 0] > _KNOWN
    cells = torch.where(known, cells, torch.nan).flatten(1)
    return whole, torch.nan_to_num(cells.nanmedian(1).values), overlap


def _fine(x: torch.Tensor, side: int) -> torch.Tensor:
    """Structure of a few pixels, as strong as its surroundings allow; and where there is any."""
    import torch

    x = _reduced(x, side, 1.0)
    away = x - blurred(x, 3.0)
    spread = blurred(away.square(), 4.0).sqrt()
    return torch.cat([away / (spread + 1.0), (spread > 1.0).float()], 1)


def _alike(overlay: Overlay, least: float) -> NDArray[np.bool_]:
    return (np.abs(overlay.correlation) >= least) & (overlay.overlap >= _OVERLAP)


def _judged(pairs: Rows, overlay: Overlay, least: float) -> list[Pair]:
    found = []
    for at in np.flatnonzero(_alike(overlay, least)).tolist():
        first, second = pairs[at].tolist()
        found.append(Pair(first, second, abs(float(overlay.correlation[at])), _how(overlay, at)))
    return found


def _how(overlay: Overlay, at: int) -> str:
    """What the second image went through, as far as the overlay tells."""
    linear = overlay.maps[at][:, :2].astype(float)
    turn = abs(np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])))
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    words = []
    if overlay.mirrored[at]:
        words.append("mirrored")
    if overlay.correlation[at] < 0:
        words.append("inverted")
    if turn > 1.0:
        words.append(f"rotated by {turn:.0f} degrees")
    if abs(scale - 1) > 0.03 or np.abs(overlay.maps[at][:, 2]).max() > 0.04:
        words.append("cropped")
    return ", ".join(words) or "encoded again, resized or windowed"


def groups(count: int, pairs: list[Pair]) -> Rows:
    """The film of each image: images that are one film have the same number.

    Args:
        count: How many images there are.
        pairs: Which of them are one film.

    Returns:
        int64 (N,): the first row of each film.

    Example:
        >>> groups(4, [Pair(0, 2, 1.0, "same bytes"), Pair(2, 3, 0.9, "mirrored")]).tolist()
        [0, 1, 0, 0]
    """
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for pair in pairs:
        a, b = sorted((root(pair.first), root(pair.second)))
        parent[b] = a
    return np.array([root(row) for row in range(count)], np.int64)


def by_hash(keys: list[str], how: str) -> list[Pair]:
    """Pairs of equal keys: each image with the first that has its key.

    Args:
        keys: A hash of each image; empty for none.
        how: See `Pair`.

    Returns:
        The pairs.

    Example:
        >>> by_hash(["a", "", "a", ""], "same bytes")
        [Pair(first=0, second=2, correlation=1.0, how='same bytes')]
    """
    first: dict[str, int] = {}
    pairs = []
    for row, key in enumerate(keys):
        if key and first.setdefault(key, row) != row:
            pairs.append(Pair(first[key], row, 1.0, how))
    return pairs
