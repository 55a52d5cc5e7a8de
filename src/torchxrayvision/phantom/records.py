"""What the phantom gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from torchxrayvision.phantom.body import Change, Physique, Pose

SIMULATION_VERSION = 1
"""Raised with every change after which the same arguments give other pixels or masks: caches of
prepared images know simulated ones by it."""

FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Consolidation",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Effusion",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Fracture",
    "Lung Opacity",
    "Support Devices",
)
"""Findings that are simulated: those of the core models, in their order, and Support Devices."""

OPACITIES: tuple[str, ...] = ("Atelectasis", "Consolidation", "Edema", "Nodule", "Mass")
"""Findings of which any makes a Lung Opacity: the hierarchy of CheXpert, Irvin et al. 2019."""

VIEWS: tuple[str, ...] = ("PA", "AP", "L")
"""Views that are simulated: L is a left lateral image."""

SITES: tuple[str, ...] = ("A", "B", "C")
"""Places whose images look different: A a digital room, B scanned film, C phosphor plates."""


@dataclass(frozen=True)
class PatientFacts:
    """Who was examined.

    Args:
        id: Name of the patient, one per seed and patient.
        sex: "M" or "F".
        age_years: Age when the image was taken.
        study: Number of this image among those of the patient, from 0.
    """

    id: str
    sex: str
    age_years: float
    study: int


@dataclass(frozen=True)
class Record:
    """What a table says of an image.

    Args:
        index: Number of the image.
        seed: Seed of the collection.
        patient: Who was examined.
        view: "PA", "AP" or "L".
        labels: Finding to 0 or 1.
        severity: Finding to 0 where absent, else up to 1.
    """

    index: int
    seed: int
    patient: PatientFacts
    view: str
    labels: Mapping[str, float]
    severity: Mapping[str, float]


@dataclass(frozen=True)
class Case(Record):
    """Everything about an image but its pixels: cheap to draw, and all that a table needs.

    Args:
        index, seed, patient, view, labels, severity: As in `Record`.
        cardiothoracic_ratio: Of the geometry as this view projects it; NaN for L.
        sides: Finding to the side that it is on: 1 for the left, -1 for the right, 0 for both.
        physique: The patient's build.
        pose: Posture for this image.
        change: What the findings do to shapes.
    """

    cardiothoracic_ratio: float
    sides: Mapping[str, int] = field(repr=False)
    physique: Physique = field(repr=False)
    pose: Pose = field(repr=False)
    change: Change = field(repr=False)


@dataclass(frozen=True)
class Simulation:
    """One simulated image and all that is known about it.

    Args:
        image: float32 (1, H, W) in [-1024, 1024]: air dark, bone bright.
        labels: Finding of `FINDINGS` to 0 or 1.
        severity: Finding to 0 where absent, else up to 1.
        masks: Finding that is present to bool (H, W). Hyperinflation has the lungs as its mask.
        anatomy: Structure to bool (H, W), named as by ChestX-Det: "Left Lung" is the patient's
            left, on the right of a frontal picture.
        patient: Who was examined.
        view: "PA", "AP" or "L".
        site: Where.
        cardiothoracic_ratio: Width of the heart over the inner width of the thorax as projected;
            equals the widths of the boxes around "Heart" and around both lungs to 0.01. NaN for L.
        pixel_spacing: Distance of pixels at the detector, mm.
    """

    image: NDArray[np.float32]
    labels: Mapping[str, float]
    severity: Mapping[str, float]
    masks: Mapping[str, NDArray[np.bool_]]
    anatomy: Mapping[str, NDArray[np.bool_]]
    patient: PatientFacts
    view: str
    site: str
    cardiothoracic_ratio: float
    pixel_spacing: float
