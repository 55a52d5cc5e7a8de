"""The terms of Open-i's reports that stand for each finding."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from torchxrayvision.labels import OPENI18

if TYPE_CHECKING:
    from collections.abc import Mapping

_NODULE = ("nodule", "multiple pulmonary nodules", "solitary pulmonary nodule")
_MASS = ("mass", "mass lesion")

OPENI_TERMS: Mapping[str, tuple[str, ...]] = {
    "Atelectasis": (
        "atelectases",
        "atelectasis",
        "chronic atelectasis",
        "discoid atelectasis",
        "focal atelectasis",
        "obstructive atelectasis",
        "patchy atelectasis",
        "plate-like atelectasis",
        "pulmonary atelectasis",
    ),
    "Calcified Granuloma": ("calcified granuloma",),
    "Cardiomegaly": ("cardiac shadow/enlarged", "cardiomegaly", "enlarged heart"),
    "Edema": (
        "alveolar edema",
        "chronic edema",
        "edema",
        "edemas",
        "interstitial pulmonary edema",
        "pulmonary edema",
    ),
    # Fluid of whatever kind in the pleural space; not pericardial effusion.
    "Effusion": (
        "bilateral pleural effusion",
        "effusion",
        "empyema",
        "hemopneumothorax",
        "hemothorax",
        "hydropneumothorax",
        "left-sided pleural effusion",
        "loculated effusion",
        "pleural effusion",
        "pleural effusions",
        "pleural fluid",
        "pulmonary effusion",
        "right-sided pleural effusion",
    ),
    "Emphysema": (  # of the lung, so not subcutaneous emphysema
        "bullous emphysema",
        "centrilobular emphysema",
        "emphysema",
        "emphysemas",
        "pulmonary emphysema",
    ),
    "Fibrosis": (  # of the lung, so not cystic fibrosis
        "chronic fibrosis",
        "diffuse fibrosis",
        "fibroses",
        "fibrosis",
        "interstitial fibrosis",
        "pulmonary fibroses",
        "pulmonary fibrosis",
    ),
    # Old and new ones of every bone that a chest X-ray shows; hips it does not show.
    "Fracture": (
        "callus",
        "clavicular fracture",
        "displaced fractures",
        "fourth rib fracture",
        "fracture",
        "fracture, pathologic",
        "fracture-dislocation",
        "fractures, bone",
        "fractures, pathologic",
        "humeral fracture",
        "humeral fractures",
        "multiple fractures",
        "non-displaced fracture",
        "pathologic fractures",
        "rib fracture",
        "rib fractures",
        "rotated fracture",
        "spinal fractures",
        "stable fracture",
        "vertebral fracture",
    ),
    # Granulomatous disease is a diagnosis that calcified lymph nodes suffice for.
    "Granuloma": (
        "apical granuloma",
        "calcified granuloma",
        "granuloma",
        "granulomas",
        "lung granuloma",
        "pulmonary granuloma",
    ),
    "Hernia": (
        "bochdalek hernia",
        "hernia, diaphragmatic",
        "hernia, hiatal",
        "hernia, hiatus",
        "hernias",
        "hiatal hernia",
        "hiatus hernia",
        "large hiatal hernia",
        "morgagni hernia",
    ),
    "Infiltration": ("infiltrate", "infiltrates"),
    # CheXpert's labeller, whose finding this is, counts nodules, masses and tumours of the lung.
    "Lung Lesion": (
        *_NODULE,
        *_MASS,
        "lung cancer",
        "lung carcinoma",
        "lung neoplasms",
        "pulmonary metastasis",
    ),
    "Mass": _MASS,  # of the lung: not thyroid, mediastinal and paratracheal ones
    "Nodule": _NODULE,
    "Lung Opacity": ("airspace disease", "opacity"),
    "Pleural_Thickening": ("pleural thickening", "thickening/pleura"),
    "Pneumonia": (
        "acute pneumonia",
        "atypical pneumonias",
        "left lower lobe pneumonia",
        "left upper lobe pneumonia",
        "lower lobe pneumonia",
        "multilobar pneumonia",
        "mycoplasma pneumonia",
        "peribronchial pneumonia",
        "pneumonia",
        "pneumonia right lower lobe",
        "pneumonia, mycoplasma",
        "pneumonia, viral",
        "postobstructive pneumonia",
        "recurrent pneumonia",
        "right lower lobe pneumonia",
        "right upper lobe pneumonia",
        "viral pneumonias",
    ),
    "Pneumothorax": ("hemopneumothorax", "hydropneumothorax", "pneumothorax"),
}
"""Finding to the whole terms that mean it, as `openi_terms` gives them.

Source: every term of the 3,955 reports that speaks of the finding was looked at; those left out
are named beside it. What counts follows phrases/mention of
https://github.com/stanfordmlgroup/chexpert-labeler where the finding is one of CheXpert's, and
PadChest's hierarchy of findings for the kinds of pleural fluid.
"""

OPENI_SUBSTRINGS: Mapping[str, tuple[str, ...]] = {
    **{finding: (finding,) for finding in OPENI18},
    "Atelectasis": ("atelectasis", "atelectases"),
    "Infiltration": ("infiltrate",),
    "Lung Lesion": ("lesion",),
    "Lung Opacity": ("opacity",),
    "Pleural_Thickening": ("pleural thickening",),
}
"""The parts of text that 1.5.7 searched for."""

_SAYS_NOTHING = frozenset({"", "no indexing", "technical quality of image unsatisfactory"})
_ANYWHERE = frozenset({"cardiac shadow", "mass", "nodule", "opacity", "thickening"})
"""Heads of terms whose meaning hangs on their qualifiers."""
_QUALIFIERS = frozenset(
    {
        "adipose tissue",
        "breast",
        "bronchi",
        "bronchovascular",
        "enlarged",
        "heart",
        "heart ventricles",
        "mediastinum",
        "paratracheal",
        "pleura",
        "pleural sinus",
        "ribs",
        "supracardiac",
        "thoracic vertebrae",
    }
)
"""Those that change the meaning: places outside the lung, and *enlarged*."""


def openi_terms(text: str) -> list[str]:
    """The terms of a report that say something about the chest.

    A coded term has a head and qualifiers, ``head/place/side/degree``. It stands for its head,
    but where place decides about the meaning, as in ``nodule/pleura``, for head and place.

    Args:
        text: Terms with ``|`` between.

    Returns:
        Terms; none where the findings are unknown.

    Example:
        >>> openi_terms("nodule/lung/base|nodule/pleura|pleural effusion/left|no indexing")
        ['nodule', 'nodule/pleura', 'pleural effusion']
    """
    return [meaning for term in text.split("|") for meaning in _meanings(term)]


@lru_cache(maxsize=4096)
def _meanings(term: str) -> tuple[str, ...]:
    """What `openi_terms` makes of one term; the release has 2,202 and repeats them."""
    head, _, rest = term.partition("/")
    head = head.strip()
    places = _QUALIFIERS.intersection(rest.split("/")) if head in _ANYWHERE else ()
    if places:
        return tuple(f"{head}/{place}" for place in sorted(places))
    return () if head in _SAYS_NOTHING else (head,)
