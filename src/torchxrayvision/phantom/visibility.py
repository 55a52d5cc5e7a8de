"""What all findings share: their random streams, smooth noise, and from when on they are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.phantom.detector import enlarge
from torchxrayvision.phantom.drawing import CHRONIC, DETAIL, generator, patient_of
from torchxrayvision.phantom.records import FINDINGS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.phantom.scene import Scene

    Float32 = NDArray[np.float32]
    Mask = NDArray[np.bool_]

SEEN = 4.0
"""Thickness along the ray, mm, from which on a finding counts as seen."""


def visible_mask(thick: Float32, limit: float) -> Mask:
    """Mark where a finding is thick along the ray.

    Args:
        thick: Stretch in the finding, float32 (H, W), mm.
        limit: From which thickness on, mm. A finding that is nowhere that thick is marked where it
            has half of its greatest thickness, so that what is present has a mask.

    Returns:
        bool (H, W); empty only where there is nothing.
    """
    greatest = np.float32(thick.max(initial=0))
    mask: Mask = thick > min(np.float32(limit), np.float32(0.5) * greatest)
    return mask


def stream(scene: Scene, finding: str) -> np.random.Generator:
    """Make the generator of the details of one finding: the image's own, or the patient's."""
    case, number = scene.case, FINDINGS.index(finding)
    if finding in CHRONIC:
        return generator(case.seed, patient_of(case.index)[0], DETAIL, number, 1)
    return generator(case.seed, case.index, DETAIL, number)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Float32:
    """Draw smooth noise of mean 0 and deviation of about 1, float32 of a shape."""
    grid = (4 * cells, 4 * cells)
    total = np.zeros(grid, np.float32)
    for octave in range(3):
        count = cells * 2**octave
        coarse = rng.standard_normal((count, count)).astype(np.float32)
        total += enlarge(coarse, grid) * np.float32(0.75**octave)
    return enlarge(total, shape)
