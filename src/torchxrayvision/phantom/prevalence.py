"""How often findings occur, and together with what: parameters, not facts about any hospital."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def _frozen(values: dict[str, float]) -> Mapping[str, float]:
    return MappingProxyType(values)


@dataclass(frozen=True)
class Correlations:
    """Prevalences and odds from which findings are drawn.

    The log odds of a finding are those of its prevalence plus the logarithms of the odds ratios
    that apply. Findings are drawn in the order of `prevalence`; a pair raises the odds of the
    second if the first was drawn.

    Args:
        prevalence: Of each finding in a man of fifty on a PA image.
        age: Odds ratio for ten more years.
        female: Odds ratio for women.
        ap: Odds ratio on AP images, which are taken of the more ill.
        pairs: Odds ratio of the second finding where the first is present.
        ap_share: Share of AP images.
        lateral_share: Share of lateral images.

    Example:
        >>> from dataclasses import replace
        >>> base = Correlations()
        >>> ill = replace(base, prevalence={**base.prevalence, "Edema": 0.5})
        >>> ill.prevalence["Edema"]
        0.5
    """

    prevalence: Mapping[str, float] = field(
        default_factory=lambda: _frozen(
            {
                "Emphysema": 0.08,
                "Hernia": 0.07,
                "Cardiomegaly": 0.15,
                "Edema": 0.08,
                "Consolidation": 0.11,
                "Atelectasis": 0.12,
                "Effusion": 0.12,
                "Mass": 0.07,
                "Nodule": 0.11,
                "Fracture": 0.10,
                "Pneumothorax": 0.08,
                "Pleural_Thickening": 0.10,
                "Support Devices": 0.17,
            }
        )
    )
    age: Mapping[str, float] = field(
        default_factory=lambda: _frozen(
            {"Emphysema": 1.35, "Hernia": 1.35, "Cardiomegaly": 1.25, "Edema": 1.15,
             "Effusion": 1.15, "Mass": 1.2, "Nodule": 1.1, "Fracture": 1.15,
             "Pleural_Thickening": 1.2, "Support Devices": 1.1, "Pneumothorax": 0.9}
        )
    )  # fmt: skip
    female: Mapping[str, float] = field(
        default_factory=lambda: _frozen(
            {"Emphysema": 0.6, "Hernia": 1.4, "Fracture": 0.8, "Pneumothorax": 0.6}
        )
    )
    ap: Mapping[str, float] = field(
        default_factory=lambda: _frozen(
            {"Cardiomegaly": 1.6, "Edema": 2.5, "Consolidation": 1.7, "Atelectasis": 1.8,
             "Effusion": 2.0, "Pneumothorax": 1.4, "Support Devices": 6.0, "Emphysema": 0.8}
        )
    )  # fmt: skip
    pairs: Mapping[tuple[str, str], float] = field(
        default_factory=lambda: MappingProxyType(
            {
                ("Cardiomegaly", "Edema"): 3.0,
                ("Edema", "Effusion"): 3.0,
                ("Cardiomegaly", "Effusion"): 1.5,
                ("Consolidation", "Effusion"): 1.6,
                ("Effusion", "Atelectasis"): 1.8,
                ("Emphysema", "Pneumothorax"): 1.6,
                ("Fracture", "Pneumothorax"): 2.0,
                ("Emphysema", "Cardiomegaly"): 0.5,
                ("Mass", "Nodule"): 1.5,
                ("Pneumothorax", "Support Devices"): 2.0,
                ("Edema", "Support Devices"): 1.6,
            }
        )
    )
    ap_share: float = 0.35
    lateral_share: float = 0.15
