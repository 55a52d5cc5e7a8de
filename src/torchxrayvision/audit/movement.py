"""Whether two pictures that lie over each other move apart somewhere.

Whatever was done to a copy, one affine map lays all of it over the original. Between two exposures
the patient breathed or turned, so that ribs, heart and diaphragm moved by different amounts, if
only by a pixel, and no affine map undoes that: half of all cells may agree, and the others do not.
Each tile's own shift is found from the structure of a few pixels, by one step of Gauss and Newton,
and what an affine map explains of the shifts is taken off. A tile that an encoder emptied agrees
badly without being elsewhere, and one that a smaller copy blurred seems elsewhere and agrees well:
a tile has moved if both are so. Edges where a window clips look as if they moved, so pairs that
agree as windowed copies do are not asked.

Source:
    Lucas and Kanade. An iterative image registration technique with an application to stereo
    vision. IJCAI 1981.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.audit.overlay import Band, fine_structure, tensors

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from torchxrayvision.audit.overlay import Overlay

    Floats = NDArray[np.float32]

_BAND: Final = Band(1.0, 3.0, 6.0)
_TILES: Final = 8  # of a side
_KNOWN: Final = 0.3  # share of a tile that must show something in both
_LEAST_TILES: Final = 12  # that must be known: of fewer nothing is said
_SHARP: Final = 1e-4  # determinant of the slopes from which on a shift can be told
_ELSEWHERE: Final = 0.4  # pixels beyond the common map
_AGREES: Final = 0.95  # correlation from which on a tile is where it was
_ROUNDS: Final = 3  # of the fit of the common map, in which tiles that moved lose their weight
_TYPICAL: Final = 0.15  # pixels, from which on they do
_CHUNK: Final = 4  # pictures that are worked on together, so that they stay in fast memory


def moved_tiles(first: NDArray[np.uint8], second: NDArray[np.uint8], overlay: Overlay) -> Floats:
    """Share of the tiles of each pair that moved by themselves.

    Args:
        first: (M, side, side), of which `confirm` made the overlay.
        second: The same shape.
        overlay: How they lie.

    Returns:
        Shares, (M,); 0 where too little is seen to tell.
    """
    import torch

    a, b, maps = tensors(first, second, overlay.maps, overlay.mirrored)
    shares = [np.zeros(0, np.float32)]
    with torch.no_grad():
        for at in range(0, len(a), _CHUNK):
            part = slice(at, at + _CHUNK)
            shares.append(np.asarray(_moved(a[part], b[part], maps[part]).numpy(), np.float32))
    return np.concatenate(shares)


def _moved(a: torch.Tensor, b: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    import torch
    from torch.nn import functional

    grid = functional.affine_grid(maps, list(a.shape), align_corners=False)
    laid = functional.grid_sample(b, grid, padding_mode="border", align_corners=False)
    x, shown, y, varied = torch.cat([fine_structure(one, _BAND) for one in (a, laid)], 1)[
        :, :, None
    ].unbind(1)
    known = (grid.abs().amax(-1) < 0.97).float()[:, None] * shown * varied
    known[..., :3, :] = known[..., -3:, :] = known[..., :3] = known[..., -3:] = 0
    y = y * (x * y * known).sum((1, 2, 3), keepdim=True).sign()  # a negative is turned back
    away, agreement = _shifts(x, y, known)
    told = _tiles(known)[:, 0].flatten(1) > _KNOWN
    told &= away.isfinite().all(-1)
    left = _beyond_a_map(away, told)
    moved = told & (left > _ELSEWHERE) & (agreement < _AGREES)
    count = told.sum(1)
    return torch.where(count < _LEAST_TILES, 0.0, moved.sum(1) / count.clamp(min=1))


def _tiles(x: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return functional.adaptive_avg_pool2d(x, _TILES)


def _shifts(
    x: torch.Tensor, y: torch.Tensor, known: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift of each tile in pixels, (M, tiles, 2), NaN if it cannot be told; its correlation."""
    import torch
    from torch.nn import functional

    squares, others, both = (_tiles(z * known) for z in (x * x, y * y, x * y))
    agreement = both / (squares * others).sqrt().clamp(min=1e-6)
    gain = functional.interpolate(both / others.clamp(min=1e-6), size=x.shape[-2:])
    middle = functional.pad((x + y) / 2, (1, 1, 1, 1), mode="replicate")
    across = (middle[..., 1:-1, 2:] - middle[..., 1:-1, :-2]) / 2
    down = (middle[..., 2:, 1:-1] - middle[..., :-2, 1:-1]) / 2
    apart = x - gain * y
    products = (across * across, across * down, down * down, across * apart, down * apart)
    xx, xy, yy, u, v = (_tiles(z * known)[:, 0].flatten(1) for z in products)
    sharp = xx * yy - xy * xy
    sharp = torch.where(sharp > _SHARP, sharp, torch.nan)
    shift = torch.stack([(yy * u - xy * v) / sharp, (xx * v - xy * u) / sharp], -1)
    return shift, agreement[:, 0].flatten(1)


def _beyond_a_map(shift: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """How far each tile is from where the affine map of most tiles puts it, in pixels."""
    import torch

    line = torch.linspace(-1, 1, _TILES)
    down, across = torch.meshgrid(line, line, indexing="ij")
    places = torch.stack([torch.ones_like(across), across, down], -1).view(1, -1, 3)
    shift = torch.where(told[..., None], shift, 0.0)
    weight, left = told.float(), torch.zeros_like(told, dtype=torch.float32)
    steady = 1e-3 * torch.eye(3)
    for _ in range(_ROUNDS):
        weighted = places.transpose(1, 2) * weight[:, None]
        common = torch.linalg.solve(weighted @ places + steady, weighted @ shift)
        left = (shift - places @ common).norm(dim=-1)
        weight = told / (1 + (left / _TYPICAL).square())
    return left
