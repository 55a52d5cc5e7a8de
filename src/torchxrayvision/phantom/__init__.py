"""Simulated radiographs whose anatomy, findings and masks are known."""

from torchxrayvision.phantom.drawing import draw, draw_record, patient_of

# For the other packages of the project.
from torchxrayvision.phantom.files import png_bytes as png_bytes
from torchxrayvision.phantom.files import write_dicom as write_dicom
from torchxrayvision.phantom.prevalence import Correlations
from torchxrayvision.phantom.records import (
    FINDINGS,
    OPACITIES,
    SITES,
    VIEWS,
    Case,
    PatientFacts,
    Record,
    Simulation,
)
from torchxrayvision.phantom.records import SIMULATION_VERSION as SIMULATION_VERSION
from torchxrayvision.phantom.release import release_layouts, write_release
from torchxrayvision.phantom.render import simulate
from torchxrayvision.phantom.sheet import contact_sheet

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
