"""How one image lies over another, and how alike they are then.

`compare` starts from the map that the fingerprints gave and improves it by steps of Gauss and
Newton, coarse to fine, where the images do not agree yet. What is correlated is the structure of
one pixel, as strong as its surroundings allow, in cells: two images of one exposure agree
everywhere, and two exposures of one patient agree at outlines only, because breath and position
differ. `confirm` does the same with larger pictures, a part of them first.

Source:
    Evangelidis and Psarakis. Parametric image alignment using enhanced correlation coefficient
    maximization. IEEE TPAMI 30, 2008. https://doi.org/10.1109/TPAMI.2008.113
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from torchxrayvision.audit.fingerprints import SIDE, blurred, mean_around

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

FINE_SIDE: Final = 256
"""Side of the pictures that a doubtful pair is looked at again with."""
_COARSE: Final = 32
_MAYBE: Final = 0.8  # correlation of a coarse overlay below which a pair is dropped
_AGREES: Final = 0.97  # correlation from which on the map needs no improvement
_STEPS: Final = 4
_CELLS: Final = 10  # of a side, whose correlations are taken one by one
_KNOWN: Final = 0.3  # share of a cell that must show something in both
_LEAST_CELLS: Final = 20  # that must be known: less than that is no evidence
_PART: Final = 0.5  # side of the part of the larger pictures that is looked at first
_PART_ALIKE: Final = 0.4  # correlation there below which the rest is not looked at
_CHUNK: Final = 4  # larger pictures that are worked on together, so that they stay in fast memory


class Band(NamedTuple):
    """Which structure is looked at: blur, what is taken off, and over what strength is taken."""

    blur: float
    away: float
    around: float


_COARSE_BAND: Final = Band(1.0, 3.0, 4.0)
_THUMBNAIL_BAND: Final = Band(0.0, 1.0, 4.0)
_FINE_BAND: Final = Band(0.7, 1.5, 4.0)
_MIDDLE_BAND: Final = Band(1.0, 3.0, 4.0)
_LOST: Final = (0.75, 0.86)  # correlation of the finest structure that may have been lost
_KEPT: Final = 0.93  # correlation of what is coarser that speaks for one exposure then


@dataclass(frozen=True)
class Overlay:
    """How pairs of images lie over each other.

    Attributes:
        correlation: Median over cells of the correlation of fine structure, signed, (M,).
        overlap: Share of the first image that the second one covers, (M,).
        maps: Affine maps of places of the first to places of the second, in [-1, 1], (M, 2, 3).
        mirrored: Whether the second one is mirrored, (M,).
    """

    correlation: Floats
    overlap: Floats
    maps: Floats
    mirrored: NDArray[np.bool_]

    def take(self, rows: Any) -> Overlay:
        """Those of some pairs.

        Args:
            rows: Indices, a slice or a mask.
        """
        fields = (self.correlation, self.overlap, self.maps, self.mirrored)
        return Overlay(*(value[rows] for value in fields))

    @classmethod
    def empty(cls) -> Overlay:
        """Those of no pair."""
        nothing = np.zeros(0, np.float32)
        return cls(nothing, nothing, np.zeros((0, 2, 3), np.float32), np.zeros(0, bool))

    @classmethod
    def joined(cls, parts: Sequence[Overlay]) -> Overlay:
        """Those of several batches, one after the other.

        Args:
            parts: At least one.
        """
        names = ("correlation", "overlap", "maps", "mirrored")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def compare(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    maps: Floats,
    mirrored: NDArray[np.bool_],
) -> Overlay:
    """Lay thumbnails over each other and correlate them.

    Args:
        first: (M, `SIDE`, `SIDE`).
        second: The same shape.
        maps: Where to begin, see `Overlay`.
        mirrored: Which of the second ones are to be mirrored.

    Returns:
        The better overlay of the given map and of the improved one.
    """
    import torch

    a, b, start = tensors(first, second, maps, mirrored)
    with torch.no_grad():
        value, overlap = _correlation(a, b, start, _THUMBNAIL_BAND)
        best = start.clone()
        todo = torch.nonzero(value.abs() < _AGREES)[:, 0]
        if len(todo):
            x, y = a[todo], b[todo]
            found = _aligned(_edges(x, _COARSE, 1.0), _edges(y, _COARSE, 1.0), start[todo], _STEPS)
            seen = _whole(x, y, found, _COARSE)
            rest = torch.nonzero(seen.abs() >= _MAYBE)[:, 0]
            todo, x, y, found = todo[rest], x[rest], y[rest], found[rest]
            if len(todo):
                found = _aligned(_edges(x, SIDE, 1.5), _edges(y, SIDE, 1.5), found, _STEPS, 2)
                _improve(a, b, todo, found, _THUMBNAIL_BAND, (value, overlap, best))
    return Overlay(value.numpy(), overlap.numpy(), best.numpy(), mirrored)


def confirm(first: NDArray[np.uint8], second: NDArray[np.uint8], overlay: Overlay) -> Overlay:
    """Correlate larger pictures of pairs, from the overlay that the thumbnails gave.

    What two exposures of one patient share is seen in a thumbnail; by the structure of a few
    thousandths of the width they differ.

    Args:
        first: (M, `FINE_SIDE`, `FINE_SIDE`).
        second: The same shape.
        overlay: Of the thumbnails.

    Returns:
        The overlay of the larger pictures.
    """
    import torch

    a, b, start = tensors(first, second, overlay.maps, overlay.mirrored)
    with torch.no_grad():
        chunks = [
            _confirmed(a[at : at + _CHUNK], b[at : at + _CHUNK], start[at : at + _CHUNK])
            for at in range(0, len(a), _CHUNK)
        ]
    value, overlap, maps = (torch.cat(parts).numpy() for parts in zip(*chunks, strict=True))
    return Overlay(value, overlap, maps, overlay.mirrored)


def _confirmed(
    a: torch.Tensor, b: torch.Tensor, start: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    side = a.shape[-1]
    value, overlap = _correlation(a, b, start, _FINE_BAND, _PART)
    best = start.clone()
    value, overlap = value.clone(), overlap.clone()
    todo = torch.nonzero(value.abs() >= _PART_ALIKE)[:, 0]
    if len(todo):
        value[todo], overlap[todo] = _correlation(a[todo], b[todo], start[todo], _FINE_BAND)
        todo = todo[value[todo].abs() < _AGREES]
    if len(todo):
        x, y = _edges(a[todo], side, 1.5), _edges(b[todo], side, 1.5)
        found = _aligned(x, y, start[todo], _STEPS, 2)
        _improve(a, b, todo, found, _FINE_BAND, (value, overlap, best))
    # An encoder or a smaller copy loses the finest structure, and keeps the coarser one.
    low, high = _LOST
    todo = torch.nonzero((value.abs() >= low) & (value.abs() < high))[:, 0]
    if len(todo):
        middle, _ = _correlation(a[todo], b[todo], best[todo], _MIDDLE_BAND)
        value[todo] = torch.where(middle.abs() >= _KEPT, middle, value[todo])
    return value, overlap, best


def tensors(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    maps: Floats,
    mirrored: NDArray[np.bool_],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both pictures, (M, 1, side, side), the second mirrored where it is to be, and the maps."""
    import torch

    a, b = (torch.from_numpy(np.ascontiguousarray(x)).float()[:, None] for x in (first, second))
    turned = torch.from_numpy(mirrored)
    b[turned] = b[turned].flip(3)
    return a, b, torch.from_numpy(np.asarray(maps, np.float32).copy())


def _improve(
    a: torch.Tensor,
    b: torch.Tensor,
    rows: torch.Tensor,
    maps: torch.Tensor,
    band: Band,
    known: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Put correlation, overlap and map of some rows where they are better than what is known.

    Where a window leaves little to see, steps may lead off.
    """
    value, overlap = _correlation(a[rows], b[rows], maps, band)
    better = value.abs() > known[0][rows].abs()
    for old, new in zip(known, (value, overlap, maps), strict=True):
        old[rows[better]] = new[better]


def _reduced(x: torch.Tensor, side: int, blur: float) -> torch.Tensor:
    """Images of another size, blurred by so many of its pixels."""
    from torch.nn import functional

    whole = x.shape[-1]
    x = blurred(x, blur * whole / side) if blur else x
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


def _aligned(
    x: torch.Tensor, y: torch.Tensor, maps: torch.Tensor, steps: int, stride: int = 1
) -> torch.Tensor:
    """Affine maps that lay y over x, by Gauss and Newton with a gain and an offset.

    Args:
        x: What stays, (M, 1, side, side).
        y: What is moved, the same shape.
        maps: Where to begin, (M, 2, 3).
        steps: How many.
        stride: Each so many-th pixel is looked at.

    Returns:
        Maps, (M, 2, 3).
    """
    import torch
    from torch.nn import functional

    count, _, side, _ = x.shape
    line = ((torch.arange(side) + 0.5) * (2 / side) - 1)[stride // 2 :: stride]
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
    target = x[..., stride // 2 :: stride, stride // 2 :: stride].reshape(count, -1)
    for _ in range(steps):
        grid = (places @ maps.transpose(1, 2)).view(count, len(line), len(line), 2)
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


def _products(
    a: torch.Tensor, b: torch.Tensor, maps: torch.Tensor, band: Band, part: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Product and squares of fine structure under the maps, where both show any, and overlap.

    Args:
        a: (M, 1, side, side).
        b: The same shape.
        maps: (M, 2, 3).
        band: Which structure.
        part: Side of the middle of `a` that is looked at.
    """
    import torch
    from torch.nn import functional

    side = a.shape[-1]
    lost = round(side * (1 - part) / 2)
    x = fine_structure(a[..., lost : side - lost, lost : side - lost], band)
    inner = x.shape[-1]
    scaled = maps.clone()
    scaled[:, :, :2] *= inner / side
    grid = functional.affine_grid(scaled, [len(x), 1, inner, inner], align_corners=False)
    if part < 1:  # the part that is seen, and what is fine in it
        seen, varied = fine_structure(
            functional.grid_sample(b, grid, align_corners=False), band
        ).unbind(1)
    else:
        seen, varied = functional.grid_sample(
            fine_structure(b, band), grid, align_corners=False
        ).unbind(1)
    inside = (grid.abs().amax(-1) < 0.97).float()
    inside[:, :2] = inside[:, -2:] = inside[:, :, :2] = inside[:, :, -2:] = 0
    overlap = inside.mean((1, 2))
    # A window clips what another one shows: nothing can be said where either is flat.
    inside = inside * (varied > 0.9) * (x[:, 1] > 0.9)
    parts = torch.stack([x[:, 0] * seen, x[:, 0].square(), seen.square()], 1) * inside[:, None]
    return parts, inside, overlap


def _correlation(
    a: torch.Tensor, b: torch.Tensor, maps: torch.Tensor, band: Band, part: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of fine structure under the maps: median over cells, and overlap.

    Two images of one exposure agree everywhere. Two exposures of chests agree at the outlines of
    ribs and diaphragm and not between them, so that the median over cells tells them apart better
    than the whole.
    """
    import torch
    from torch.nn import functional

    parts, inside, overlap = _products(a, b, maps, band, part)
    product, first, second = functional.adaptive_avg_pool2d(parts, _CELLS).unbind(1)
    cells = product / (first * second).sqrt().clamp(min=1e-6)
    known = functional.adaptive_avg_pool2d(inside[:, None], _CELLS)[:, 0] > _KNOWN
    cells = torch.where(known, cells, torch.nan).flatten(1)
    middle = torch.nan_to_num(cells.nanmedian(1).values)
    return torch.where(known.flatten(1).sum(1) >= _LEAST_CELLS, middle, 0.0), overlap


def _whole(a: torch.Tensor, b: torch.Tensor, maps: torch.Tensor, side: int) -> torch.Tensor:
    """Correlation of structure of a few pixels of small pictures, over the whole."""
    x, y = (_reduced(image, side, _COARSE_BAND.blur) for image in (a, b))
    parts, _, _ = _products(x, y, maps, _COARSE_BAND._replace(blur=0.0))
    product, first, second = parts.mean((2, 3)).unbind(1)
    return product / (first * second).sqrt().clamp(min=1e-6)


def fine_structure(x: torch.Tensor, band: Band) -> torch.Tensor:
    """Structure of a few pixels, as strong as its surroundings allow; and where there is any."""
    import torch

    x = _reduced(x, x.shape[-1], band.blur)
    away = x - blurred(x, band.away)
    spread = blurred(away.square(), band.around).sqrt()
    return torch.cat([away / (spread + 1.0), (spread > 1.0).float()], 1)
