"""Which images show one exposure: candidates by fingerprint and embedding, compared in pixels.

1. Equal bytes and equal pixels are found by hash.
2. `nearest` proposes for each image the few that are nearest to one of its views by the
   fingerprint, and the nearest by the embedding of a network.
3. `overlay` lays the one over the other and correlates their fine structure: thumbnails first,
   and larger pictures where these agree. Two exposures of one patient differ there, by breath and
   position; one exposure that was encoded, cut, windowed, mirrored or turned does not.
4. `movement` refuses pairs of which parts moved by themselves: exposures in nearly one position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.audit.movement import moved_tiles
from torchxrayvision.audit.nearest import candidates
from torchxrayvision.audit.overlay import Overlay, compare, confirm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from torchxrayvision.audit.nearest import Candidates, Rowwise

    Floats = NDArray[np.float32]
    Rows = NDArray[np.int64]

_BATCH: Final = 32  # pairs that are laid over each other together
DOUBTFUL: Final = 0.7
"""Correlation in thumbnails from which on a pair is looked at again in larger pictures."""
CONFIRMED: Final = 0.86
"""Median correlation of cells of larger pictures from which on two images are one exposure."""
STILL: Final = 0.12
"""Share of the tiles of larger pictures that may have moved by themselves in one exposure."""
CERTAIN: Final = 0.97
"""Correlation from which on half of a picture agrees so closely that it is not asked what moved."""
DUPLICATE: Final = 0.9
"""Correlation in thumbnails from which on a pair is one exposure, where they are all there is."""
_OVERLAP: Final = 0.6  # share of the image that must be in both


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images of one exposure.

    Args:
        first: Row of the image that comes first.
        second: Row of the other.
        correlation: Of fine structure, 0 to 1; 1 for equal pixels.
        how: ``"same bytes"``, ``"same pixels"``, or how the two differ, as far as the overlay
            tells: ``"mirrored"``, ``"inverted"``, ``"rotated by 4 degrees"``, ``"cropped"``,
            ``"encoded again, resized or windowed"``.
    """

    first: int
    second: int
    correlation: float
    how: str


def search(
    thumbnails: Rowwise,
    larger: Callable[[list[int]], NDArray[np.uint8]] | None = None,
    embeddings: Rowwise | None = None,
    *,
    others: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[Pair]:
    """Find near duplicates.

    Args:
        thumbnails: uint8 (N, `SIDE`, `SIDE`), in memory or mapped from a file; zeros where there is
            no image.
        larger: Gives the larger pictures (M, `FINE_SIDE`, `FINE_SIDE`) of some rows, to look at
            pairs again whose thumbnails are alike; None: the thumbnails decide.
        embeddings: Features (N, D) of a network, mapped from a file or not; None to do without.
        others: So many rows at the end are of another collection: pairs among them are not looked
            for.
        on_progress: Called with what is done, and the steps done and to do.

    Returns:
        Pairs, first before second, by row.
    """
    say = on_progress or (lambda *_: None)
    asked = candidates(
        thumbnails,
        embeddings,
        others=others,
        on_progress=lambda done, total: say("looking for similar images", done, total),
    )
    alike, overlays = _alike_thumbnails(
        thumbnails, asked, DUPLICATE if larger is None else DOUBTFUL, say
    )
    found = []
    for start in range(0, len(alike), _BATCH):
        part = slice(start, start + _BATCH)
        chunk, overlay = alike[part], overlays.take(part)
        if larger is not None:
            rows, place = np.unique(chunk, return_inverse=True)
            pictures = larger(rows.tolist())
            place = place.reshape(chunk.shape)
            sides = pictures[place[:, 0]], pictures[place[:, 1]]
            overlay = confirm(*sides, overlay)
            good = np.flatnonzero(_alike(overlay, CONFIRMED))
            close = good[np.abs(overlay.correlation[good]) < CERTAIN]
            moved = moved_tiles(sides[0][close], sides[1][close], overlay.take(close))
            good = np.setdiff1d(good, close[moved > STILL])
            chunk, overlay = chunk[good], overlay.take(good)
        found += _judged(chunk, overlay)
        say("comparing larger pictures", min(start + _BATCH, len(alike)), len(alike))
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def _alike_thumbnails(
    thumbnails: Rowwise,
    asked: Candidates,
    least: float,
    say: Callable[[str, int, int], None],
) -> tuple[Rows, Overlay]:
    """Pairs whose thumbnails lie over each other, as rows (M, 2), and how they do."""
    maps, mirrored = asked.maps()
    rows = np.stack([asked.found, asked.asked], axis=1)
    kept, overlays = [np.zeros((0, 2), np.int64)], [Overlay.empty()]
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        first, second = (thumbnails[rows[part, side]] for side in (0, 1))
        overlay = compare(first, second, maps[part], mirrored[part])
        good = np.flatnonzero(_alike(overlay, least))
        kept.append(rows[part][good])
        overlays.append(overlay.take(good))
        say("comparing thumbnails", min(start + _BATCH, len(rows)), len(rows))
    return np.concatenate(kept), Overlay.joined(overlays)


def _alike(overlay: Overlay, least: float) -> NDArray[np.bool_]:
    return (np.abs(overlay.correlation) >= least) & (overlay.overlap >= _OVERLAP)


def _judged(pairs: Rows, overlay: Overlay) -> list[Pair]:
    found = []
    for at in range(len(pairs)):
        first, second = sorted(pairs[at].tolist())
        found.append(Pair(first, second, abs(float(overlay.correlation[at])), _how(overlay, at)))
    return found


def _how(overlay: Overlay, at: int) -> str:
    """How the two images differ, as far as the overlay tells."""
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


def exposures(count: int, pairs: list[Pair]) -> Rows:
    """The exposure of each image: images of one exposure have the same number.

    Args:
        count: How many images there are.
        pairs: Which of them show one exposure.

    Returns:
        int64 (N,): the first row of each exposure.

    Example:
        >>> exposures(4, [Pair(0, 2, 1.0, "same bytes"), Pair(2, 3, 0.9, "mirrored")]).tolist()
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
