"""Simulated radiographs whose anatomy, findings and masks are known."""

from torchxrayvision.phantom._draw import draw, draw_record, patient_of
from torchxrayvision.phantom._prevalence import Correlations
from torchxrayvision.phantom._release import release_layouts, write_release
from torchxrayvision.phantom._render import simulate
from torchxrayvision.phantom._sheet import contact_sheet
from torchxrayvision.phantom._types import (
    FINDINGS,
    OPACITIES,
    SITES,
    VIEWS,
    Case,
    PatientFacts,
    Record,
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
    "Record",
    "Simulation",
    "contact_sheet",
    "draw",
    "draw_record",
    "patient_of",
    "release_layouts",
    "simulate",
    "write_release",
]
