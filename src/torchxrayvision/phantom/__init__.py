"""Simulated radiographs whose anatomy, findings and masks are known."""

from torchxrayvision.phantom._draw import draw, patient_of
from torchxrayvision.phantom._prevalence import Correlations
from torchxrayvision.phantom._render import simulate
from torchxrayvision.phantom._types import (
    FINDINGS,
    OPACITIES,
    SITES,
    VIEWS,
    Case,
    PatientFacts,
    Simulation,
)

__all__ = [
    "FINDINGS",
    "OPACITIES",
    "SITES",
    "VIEWS",
    "Case",
    "Correlations",
    "PatientFacts",
    "Simulation",
    "draw",
    "patient_of",
    "simulate",
]
