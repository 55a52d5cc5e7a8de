"""Names of findings: the order of the core models' outputs, and the vocabularies of the releases.

Facts only, no input or output. A vocabulary is a tuple in the order in which its release (or
torchxrayvision 1.5.7) lists it; a synonym table maps a finding to the whole terms that mean it.

Example:
    >>> "Effusion" in NIH14 and "Effusion" in CHEXPERT13
    True
    >>> is_known("Pleural_Thickening"), is_known("Wide smile")
    (True, False)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CANONICAL_VIEWS",
    "CHEXPERT13",
    "CHEXPERT_RENAME",
    "DEFAULT_PATHOLOGIES",
    "FRONTAL_VIEWS",
    "LABEL_PREFIX",
    "NIH14",
    "NIH_RENAME",
    "OPENI18",
    "OTHER_FINDINGS",
    "PADCHEST28",
    "UNKNOWN_VIEW",
    "VINDR14",
    "VINDR_GLOBAL",
    "VINDR_LOCAL",
    "VINDR_RENAME",
    "is_known",
]

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

NIH14: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""ChestX-ray14, sorted. Source: column *Finding Labels* of Data_Entry_2017_v2020.csv."""

NIH_RENAME: Mapping[str, str] = {"Infiltrate": "Infiltration"}
"""BBox_List_2017.csv says *Infiltrate* where Data_Entry_2017_v2020.csv says *Infiltration*."""

CHEXPERT13: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
"""The CheXpert labeller's findings without *No Finding*, sorted by their names in the release.

The release says *Pleural Effusion*; the order was fixed before the name was shortened.
"""

CHEXPERT_RENAME: Mapping[str, str] = {"Effusion": "Pleural Effusion"}
"""Finding here to column of the releases that the CheXpert labeller made."""

PADCHEST28: tuple[str, ...] = (
    "Air Trapping",
    "Aortic Atheromatosis",
    "Aortic Elongation",
    "Atelectasis",
    "Bronchiectasis",
    "Cardiomegaly",
    "Consolidation",
    "Costophrenic Angle Blunting",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Flattened Diaphragm",
    "Fracture",
    "Granuloma",
    "Hemidiaphragm Elevation",
    "Hernia",
    "Hilar Enlargement",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
    "Scoliosis",
    "Support Devices",
    "Tube",
    "Tuberculosis",
)
"""The findings that 1.5.7 reads out of PadChest's labels, sorted."""

OPENI18: tuple[str, ...] = (
    "Atelectasis",
    "Calcified Granuloma",
    "Cardiomegaly",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Fracture",
    "Granuloma",
    "Hernia",
    "Infiltration",
    "Lung Lesion",
    "Mass",
    "Nodule",
    "Lung Opacity",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
"""The findings that 1.5.7 reads out of Open-i's terms, in its order, fixed before renaming."""

VINDR14: tuple[str, ...] = (
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "Effusion",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other Lesion",
    "Pleural_Thickening",
    "Pneumothorax",
    "Pulmonary Fibrosis",
)
"""VinDr-CXR as on Kaggle, sorted. Source: train.csv of the challenge."""

VINDR_RENAME: Mapping[str, str] = {
    "Effusion": "Pleural effusion",
    "Pleural_Thickening": "Pleural thickening",
    "Other Lesion": "Other lesion",
    "Pulmonary Fibrosis": "Pulmonary fibrosis",
}
"""Finding here to class name of VinDr-CXR."""

VINDR_LOCAL: tuple[str, ...] = (
    *VINDR14,
    "Clavicle fracture",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Rib fracture",
)
"""The 22 findings that VinDr-CXR on PhysioNet draws boxes for. Source: annotations_train.csv."""

VINDR_GLOBAL: tuple[str, ...] = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other disease")
"""Diagnoses of VinDr-CXR that have no boxes. Source: image_labels_train.csv of PhysioNet."""

OTHER_FINDINGS: frozenset[str] = frozenset(
    {
        "Nodule/Mass",
        "Geographic Extent",
        "Foreign Object",
        "ActiveTuberculosis",
        "ObsoletePulmonaryTuberculosis",
        "PulmonaryTuberculosis",
        "Calcification",
        "Diffuse Nodule",
        "COVID-19",
        "Chest Tube",
        "Abnormal mediastinal contour",
        "Acute fracture",
        "Airway wall thickening",
        "Enlarged cardiac silhouette",
        "Groundglass opacity",
        "Hiatal hernia",
        "High lung volume / emphysema",
        "Interstitial lung disease",
        "Pleural abnormality",
        "Wide mediastinum",
        "Bronchiolitis",
        "Bronchitis",
        "Bronchopneumonia",
        "CPAM",
        "Congenital emphysema",
        "Diaphragmatic hernia",
        "Hyaline membrane disease",
        "Mediastinal tumor",
        "Pleuropneumonia",
        "Situs inversus",
        "Anterior mediastinal mass",
        "Boot-shaped heart",
        "Bronchial thickening",
        "Chest wall mass",
        "Dextro cardia",
        "Diffuse alveolar opacity",
        "Egg on string sign",
        "Expanded edges of the anterior ribs",
        "Intrathoracic digestive structure",
        "Lung hyperinflation",
        "Other nodule/mass",
        "Other opacity",
        "Paravertebral mass",
        "Peribronchovascular interstitial opacity",
        "Reticulonodular opacity",
        "Stomach on the right side",
    }
)
"""Findings of single releases that belong to none of the vocabularies above."""

LABEL_PREFIX = "label:"
"""What the columns of an exported table begin with that hold labels, beside the publisher's own."""

UNKNOWN_VIEW = "UNKNOWN"
"""The view of an image for which its release names none."""

FRONTAL_VIEWS: tuple[str, ...] = ("PA", "AP", "AP Supine", "AP Erect")
"""Views from the front or the back."""

CANONICAL_VIEWS: tuple[str, ...] = (
    *FRONTAL_VIEWS,
    "L",
    "LL",
    "RL",
    "COSTAL",
    "OBLIQUE",
    "UNK",
    "EXCLUDE",
    "Unknown",
    UNKNOWN_VIEW,
)
"""Every view name that a dataset of this package may use; a request for another is a slip."""

_VOCABULARIES = (
    DEFAULT_PATHOLOGIES,
    NIH14,
    CHEXPERT13,
    PADCHEST28,
    OPENI18,
    VINDR_LOCAL,
    VINDR_GLOBAL,
    OTHER_FINDINGS,
)


def is_known(finding: str) -> bool:
    """Whether a finding belongs to one of the vocabularies of this module.

    Args:
        finding: Name as in ``dataset.pathologies``.

    Returns:
        True if some vocabulary has it.
    """
    return any(finding in vocabulary for vocabulary in _VOCABULARIES)
