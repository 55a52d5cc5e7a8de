"""Names of findings: the order of the core models' outputs, and the vocabularies of the releases."""

from __future__ import annotations

__all__ = ["DEFAULT_PATHOLOGIES"]

DEFAULT_PATHOLOGIES: tuple[str, ...] = (
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
)
"""The 18 findings of the core models, in the order of their outputs."""
