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
    EUR 16260 (1996), chest PA and lateral 180 cm; portable AP films are taken at about 100 cm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
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
        x: Value of x at ``w = 0`` for each column, float32 (1, W), mm.
        dx: Change of x along w, float32 (1, W).
        y: Value of y at ``w = 0`` for each column.
        dy: Change of y along w.
        z: Value of z at ``w = 0`` for each row, float32 (H, 1), mm.
        dz: Change of z along w.
        u: Slope of each column's rays, by which x and y change, float32 (1, W).
        right: Direction of u in the patient's frame, (x, y).
        towards: Direction of w, (x, y).
        focus: Focal spot, (x, y, z), mm.
        source: Its depth w, mm.
    """

    x: Float32
    dx: Float32
    y: Float32
    dy: Float32
    z: Float32
    dz: Float32
    u: Float32
    right: tuple[float, float]
    towards: tuple[float, float]
    focus: tuple[float, float, float]
    source: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.z.shape[0], self.x.shape[1]

    def window(self, box: tuple[slice, slice]) -> Rays:
        """Give the rays of some rows and columns."""
        rows, columns = box
        return replace(
            self,
            x=self.x[:, columns],
            dx=self.dx[:, columns],
            y=self.y[:, columns],
            dy=self.dy[:, columns],
            z=self.z[rows],
            dz=self.dz[rows],
            u=self.u[:, columns],
        )

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
        (rx, ry), (tx, ty) = self.axes()
        slope_u = (u - self.focus[0]) / self.distance
        slope_v = (v - self.focus[1]) / self.distance
        u0 = self.focus[0] - self.source * slope_u
        v0 = self.focus[1] - self.source * slope_v

        def row(values: NDArray[np.floating]) -> Float32:
            return values.astype(np.float32)[None, :]

        return Rays(
            row(rx * u0),
            row(rx * slope_u + tx),
            row(ry * u0),
            row(ry * slope_u + ty),
            v0.astype(np.float32)[:, None],
            slope_v.astype(np.float32)[:, None],
            row(slope_u),
            (rx, ry),
            (tx, ty),
            (
                rx * self.focus[0] + tx * self.source,
                ry * self.focus[0] + ty * self.source,
                self.focus[1],
            ),
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
