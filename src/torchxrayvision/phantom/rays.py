"""Diverging rays from the focal spot to the pixels, in the patient's frame.

The patient's frame is in millimetres: x to the patient's left, y to the front, z to the head, with
the origin between the lungs at the height of the eighth thoracic vertebra. A picture has u to its
right, v up and w from the focal spot to the detector:

====  ==================  =================  ===============================
view  right of picture    w                  focal spot to detector
====  ==================  =================  ===============================
PA    patient's left      to the front       1800 mm
AP    patient's left      to the back        1000 mm
L     patient's back      to the left        1800 mm
====  ==================  =================  ===============================

Every coordinate of a point of a ray is linear in w; x and y depend on the column of the pixel only
and z on its row only (the patient turns about z alone), so that solids cost a few outer sums.
Lengths along a ray are in w and become path lengths by the factor `Rays.obliquity`.

Source:
    Distances: European guidelines on quality criteria for diagnostic radiographic images,
    EUR 16260 (1996), chest PA and lateral 180 cm; portable AP images are taken at about 100 cm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Reals = NDArray[np.floating]

SOURCE_DISTANCE = {"PA": 1800.0, "AP": 1000.0, "L": 1800.0}
"""Focal spot to detector, mm."""

_AXES = {  # directions of u and of w as (x, y)
    "PA": ((1.0, 0.0), (0.0, 1.0)),
    "AP": ((1.0, 0.0), (0.0, -1.0)),
    "L": ((0.0, -1.0), (1.0, 0.0)),
}


@dataclass(frozen=True)
class Rays:
    """The rays of a block of pixels.

    Args:
        u: Slope of each column's rays, the change of u along w, float32 (1, W).
        dz: Slope of each row's rays, the change of z along w, float32 (H, 1).
        right: Direction of u in the patient's frame, (x, y).
        towards: Direction of w, (x, y).
        focus: Focal spot, (x, y, z), mm.
        source: Its depth w, mm.
    """

    u: Float32
    dz: Float32
    right: tuple[float, float]
    towards: tuple[float, float]
    focus: tuple[float, float, float]
    source: float

    @property
    def dx(self) -> Float32:
        """Change of x along w for each column, float32 (1, W)."""
        return self.u * self.right[0] + np.float32(self.towards[0])

    @property
    def dy(self) -> Float32:
        """Change of y along w for each column, float32 (1, W)."""
        return self.u * self.right[1] + np.float32(self.towards[1])

    @property
    def x(self) -> Float32:
        """Value of x at ``w = 0`` for each column, float32 (1, W), mm."""
        return self._at_zero(0)

    @property
    def y(self) -> Float32:
        """Value of y at ``w = 0`` for each column, float32 (1, W), mm."""
        return self._at_zero(1)

    @property
    def z(self) -> Float32:
        """Value of z at ``w = 0`` for each row, float32 (H, 1), mm."""
        return np.float32(self.focus[2]) - self.dz * self.source

    def _at_zero(self, axis: int) -> Float32:
        spot = np.float32(self.focus[axis] - self.source * self.towards[axis])
        return spot - self.u * (self.source * self.right[axis])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.dz.shape[0], self.u.shape[1]

    def window(self, box: tuple[slice, slice]) -> Rays:
        """Give the rays of some rows and columns."""
        u, dz = self.u[:, box[1]], self.dz[box[0]]
        return Rays(u, dz, self.right, self.towards, self.focus, self.source)

    def depth(self, x: float, y: float) -> float:
        """Value of w at which rays pass a point."""
        return x * self.towards[0] + y * self.towards[1]

    def aim(self, point: Sequence[float]) -> tuple[float, float, float]:
        """Find the ray through a point: its slopes in u and v, and how far it is in w."""
        x, y, z = (a - b for a, b in zip(point, self.focus, strict=True))
        far = x * self.towards[0] + y * self.towards[1]
        return (x * self.right[0] + y * self.right[1]) / far, z / far, far

    def obliquity(self) -> Float32:
        """Path length for a step of one in w, float32 (H, W)."""
        across = self.dx * self.dx + self.dy * self.dy
        squared: Float32 = across + self.dz * self.dz
        return np.sqrt(squared, out=squared)


@dataclass(frozen=True)
class Projection:
    """Where the focal spot and the detector are.

    Args:
        view: "PA", "AP" or "L".
        size: Rows and columns of the detector.
        spacing: Distance of its pixels, mm.
        detector: Depth w of the detector, mm.
        center: u and v of the middle of the detector, mm.
        focus: u and v of the focal spot, mm.
        turn: Rotation of the patient about z, radians; positive brings the left side forward.
    """

    view: str
    size: int
    spacing: float
    detector: float
    center: tuple[float, float]
    focus: tuple[float, float]
    turn: float = 0.0

    @property
    def distance(self) -> float:
        """Focal spot to detector, mm."""
        return SOURCE_DISTANCE[self.view]

    @property
    def source(self) -> float:
        """Depth w of the focal spot, mm."""
        return self.detector - self.distance

    def axes(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Directions of u and of w in the patient's frame, as (x, y)."""
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        right, towards = _AXES[self.view]
        return (
            (cosine * right[0] + sine * right[1], cosine * right[1] - sine * right[0]),
            (cosine * towards[0] + sine * towards[1], cosine * towards[1] - sine * towards[0]),
        )

    def rays(self) -> Rays:
        """Give the ray of every pixel centre."""
        offsets = (np.arange(self.size) + 0.5 - self.size / 2) * self.spacing
        u, v = self.center[0] + offsets, self.center[1] - offsets
        right, towards = self.axes()
        x, y = (a * self.focus[0] + b * self.source for a, b in zip(right, towards, strict=True))
        return Rays(
            ((u - self.focus[0]) / self.distance).astype(np.float32)[None, :],
            ((v - self.focus[1]) / self.distance).astype(np.float32)[:, None],
            right,
            towards,
            (x, y, self.focus[1]),
            self.source,
        )

    def project(self, points: Reals) -> tuple[Reals, Reals, Reals]:
        """Find where points fall on the detector.

        Args:
            points: float32 or float64 (..., 3), mm.

        Returns:
            Column and row in pixels (pixel centres at whole numbers) and magnification.
        """
        (rx, ry), (tx, ty) = self.axes()
        u = points[..., 0] * rx + points[..., 1] * ry
        w = points[..., 0] * tx + points[..., 1] * ty
        scale = self.distance / (w - self.source)
        column = (self.focus[0] + (u - self.focus[0]) * scale - self.center[0]) / self.spacing
        row = (self.center[1] - self.focus[1] - (points[..., 2] - self.focus[1]) * scale) / (
            self.spacing
        )
        middle = (self.size - 1) / 2
        return column + middle, row + middle, scale
