"""What varies from patient to patient and from image to image, before any shape is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEFT, RIGHT = 1, -1
SIDES = (LEFT, RIGHT)
SIDE_NAMES = {LEFT: "Left", RIGHT: "Right"}


@dataclass(frozen=True)
class Physique:
    """What a patient's sex, age and build make of the reference anatomy.

    Args:
        sex: "M" or "F".
        age: Years.
        stature: Scale of heights, 1 for the reference man.
        girth: Scale of the cage's width.
        barrel: Scale of the cage's depth.
        fat: Thickness of the soft tissue over the cage, mm.
        breast: Radius of the breasts, mm; 0 for none.
        kyphosis: How far the upper spine leans forward, mm.
        tortuosity: How far the aorta unfolds, 0 to 1.
        bone: Mineral of bones, 1 at thirty years.
        seed: Seed of all small structures of this patient.
    """

    sex: str
    age: float
    stature: float
    girth: float
    barrel: float
    fat: float
    breast: float
    kyphosis: float
    tortuosity: float
    bone: float
    seed: int


@dataclass(frozen=True)
class Pose:
    """How the patient stands or lies for one image.

    Args:
        inspiration: Descent of the diaphragm, 0 (shallow) to 1 (full).
        turn: Rotation about z, radians.
        arms: Abduction of the arms, 0 (at the side) to 1.
        erect: Whether gravity pulls towards the feet.
        overhead: Whether the arms are held over the head, as for lateral images.
    """

    inspiration: float
    turn: float
    arms: float
    erect: bool
    overhead: bool = False


@dataclass(frozen=True)
class Change:
    """What findings do to the shape of the chest.

    Args:
        hyperinflation: 0 to 1, of emphysema.
        raised: Side to rise of its dome, mm.
        shift: Shift of the mediastinum to the left, mm.
        heart: Scale of the heart.
    """

    hyperinflation: float = 0.0
    raised: Mapping[int, float] | None = None
    shift: float = 0.0
    heart: float = 1.0
