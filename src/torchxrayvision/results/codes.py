"""Codes of findings and structures, each with its source.

A code is one of SNOMED CT where the concept is the label, taken from the tables of DICOM PS3.16 (as
pydicom holds them) or from independent public lists. Any other is one of this package, under the
private designator 99XRV, whose meaning is the label itself: a code of the wrong concept would be
believed by everything that reads it.

Example:
    >>> finding_code("Cardiomegaly").value, finding_code("Lung Opacity").scheme
    ('8186001', '99XRV')
    >>> structure_code("Left Lung").laterality.meaning
    'Left'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from torchxrayvision.files import sha256_of

SCHEME: Final = "99XRV"
"""Designator of the codes of this package; PS3.16 section 8.2 leaves those in 99 to anyone."""

_DICOM: Final = "DICOM PS3.16, as in pydicom 3.0"


@dataclass(frozen=True, slots=True)
class Concept:
    """A code.

    Args:
        value: Its value, at most 16 characters.
        scheme: Designator of its coding scheme.
        meaning: What it means, at most 64 characters.
        source: Where it was taken from.
        laterality: The side of a structure, a code of its own.
    """

    value: str
    scheme: str
    meaning: str
    source: str = _DICOM
    laterality: Concept | None = None


def own_code(value: str, meaning: str, source: str = "this package") -> Concept:
    """A code of this package.

    Args:
        value: At most 16 characters.
        meaning: At most 64 characters.
        source: Who defines the label.

    Example:
        >>> own_code("CTR", "Cardiothoracic ratio").scheme
        '99XRV'
    """
    return Concept(value, SCHEME, meaning, source)


def _sct(value: str, meaning: str, source: str = _DICOM) -> Concept:
    return Concept(value, "SCT", meaning, source)


# Public lists in which the code stands with this meaning, two or more that do not copy each other.
_OHDSI: Final = "SNOMED CT; OHDSI/Covid-19 phenotypes (Vocabulary/Wiki)"
_INSPECT: Final = "SNOMED CT; labels of som-shahlab/tte-pretraining; SamarjeetMalik/cxr-harmony"
_MEDDRA: Final = "SNOMED CT; public MedDRA to SNOMED CT map; FHIR value sets"
_SNOMED: Final = "SNOMED CT; IHTSDO reports (Fracture of bone); FHIR examples"
_FHIR: Final = "SNOMED CT; public FHIR and RadLex-to-SNOMED lists of chest findings"
_NIH: Final = "label of ChestX-ray14, https://doi.org/10.1109/CVPR.2017.369"
_CHEXPERT: Final = "label of CheXpert, https://arxiv.org/abs/1901.07031"
_OUTPUT: Final = "output of a network of this package, see docs/weights.md"

# DICOM CID 12248 has 287272002 for cardiomegaly, which in SNOMED CT is the enlarged septal foramen
# of the heart: pydicom's own table has both meanings under that one code.
FINDING_CODES: Final[dict[str, Concept]] = {
    "Atelectasis": _sct("46621007", "Atelectasis", _INSPECT),
    "Consolidation": _sct("95436008", "Lung consolidation", _INSPECT),
    "Infiltration": own_code("INFILTRATION", "Infiltration", _NIH),
    "Pneumothorax": _sct("36118008", "Pneumothorax"),
    "Edema": _sct("19242006", "Pulmonary edema"),
    "Emphysema": _sct("87433001", "Pulmonary emphysema", _FHIR),
    "Fibrosis": _sct("51615001", "Fibrosis of lung", _MEDDRA),
    "Effusion": _sct("60046008", "Pleural effusion"),
    "Pneumonia": _sct("233604007", "Pneumonia", _OHDSI),
    "Pleural_Thickening": own_code("PLEURAL-THICK", "Pleural thickening", _NIH),
    "Cardiomegaly": _sct("8186001", "Cardiomegaly", _INSPECT),
    "Nodule": _sct("27925004", "Nodule"),
    "Mass": _sct("4147007", "Mass"),
    "Hernia": own_code("HERNIA", "Hernia", _NIH),
    "Lung Lesion": own_code("LUNG-LESION", "Lung lesion", _CHEXPERT),
    "Fracture": _sct("125605004", "Fracture of bone", _SNOMED),
    "Lung Opacity": own_code("LUNG-OPACITY", "Lung opacity", _CHEXPERT),
    "Enlarged Cardiomediastinum": own_code(
        "ENLARGED-CARDMED", "Enlarged cardiomediastinum", _CHEXPERT
    ),
    "Support Devices": own_code("SUPPORT-DEVICES", "Support devices", _CHEXPERT),
    "Age": own_code("AGE", "Age of the patient as the network sees it", _OUTPUT),
    "Female": own_code("FEMALE", "Female, as the network sees it", _OUTPUT),
    "Male": own_code("MALE", "Male, as the network sees it", _OUTPUT),
    "Asian": own_code("ASIAN", "Asian, as the network sees it", _OUTPUT),
    "Black": own_code("BLACK", "Black, as the network sees it", _OUTPUT),
    "White": own_code("WHITE", "White, as the network sees it", _OUTPUT),
    "Frontal": own_code("FRONTAL", "Frontal view", _OUTPUT),
    "Lateral": own_code("LATERAL", "Lateral view", _OUTPUT),
}
"""Every finding of every network of this package."""

_LEFT: Final = _sct("7771000", "Left")
_RIGHT: Final = _sct("24028007", "Right")
_DET: Final = "label of ChestX-Det, https://arxiv.org/abs/2104.10326"
_PAX: Final = "label of CXAS, https://arxiv.org/abs/2306.03934"

# Structure without its side, in lower case.
_STRUCTURES: Final[dict[str, Concept]] = {
    "aorta": _sct("15825003", "Aorta"),
    "aortic arch": _sct("57034009", "Aortic arch"),
    "ascending aorta": _sct("54247002", "Ascending aorta"),
    "descending aorta": _sct("32672002", "Descending aorta"),
    "breast": _sct("76752008", "Breast"),
    "cervical spine": _sct("122494005", "Cervical spine"),
    "clavicle": _sct("51299004", "Clavicle"),
    "diaphragm": _sct("5798000", "Diaphragm"),
    "hemidiaphragm": _sct("5798000", "Diaphragm"),
    "duodenum": _sct("38848004", "Duodenum"),
    "esophagus": _sct("32849002", "Esophagus"),
    "heart": _sct("80891009", "Heart"),
    "heart atrium left": _sct("82471001", "Left atrium"),
    "heart atrium right": _sct("73829009", "Right atrium"),
    "heart ventricle left": _sct("87878005", "Left ventricle"),
    "heart ventricle right": _sct("53085002", "Right ventricle"),
    "hilus pulmonis": _sct("46750007", "Hilum of lung"),
    "inferior vena cava": _sct("64131007", "Inferior vena cava"),
    "kidney": _sct("64033007", "Kidney"),
    "liver": _sct("10200004", "Liver"),
    "lumbar spine": _sct("122496007", "Lumbar spine"),
    "lung": _sct("39607008", "Lung"),
    "lung lower lobe": _sct("90572001", "Lower lobe of lung"),
    "lung middle lobe right": _sct("72481006", "Middle lobe of right lung"),
    "lung upper lobe": _sct("45653009", "Upper lobe of lung"),
    "mediastinum": _sct("72410000", "Mediastinum"),
    "mid zone lung": _sct("281393007", "Middle zone of lung"),
    "pancreas": _sct("15776009", "Pancreas"),
    "pulmonary artery": _sct("81040000", "Pulmonary artery"),
    "rib cartilage": _sct("50016007", "Costal Cartilage"),
    "scapula": _sct("79601000", "Scapula"),
    "small bowel": _sct("30315005", "Small intestine"),
    "spine": _sct("421060004", "Spine"),
    "sternum": _sct("56873002", "Sternum"),
    "stomach": _sct("69695003", "Stomach"),
    "thoracic spine": _sct("122495006", "Thoracic spine"),
    "trachea": _sct("44567001", "Trachea"),
    "tracheal bifurcation": _sct("28700002", "Carina"),
    "upper zone lung": _sct("281392002", "Upper zone of lung"),
    "facies diaphragmatica": own_code("FACIES-DIAPHRAGM", "Facies diaphragmatica", _DET),
    "weasand": own_code("WEASAND", "Weasand", _DET),
    "apical zone lung": own_code("LUNG-APICAL", "Apical zone of lung", _PAX),
    "lung base": own_code("LUNG-BASE", "Lung base", _PAX),
    "cardiomediastinum": own_code("CARDIOMEDIASTIN", "Cardiomediastinum", _PAX),
    "heart myocardium": own_code("MYOCARDIUM", "Heart myocardium", _PAX),
} | {
    f"{part} mediastinum": own_code(f"MED-{part.upper()}", f"{part} mediastinum", _PAX)
    for part in ("anterior", "lower", "middle", "posterior", "upper")
}  # fmt: skip
# SNOMED CT codes of the vertebrae from the first to the last of each part of the spine.
_VERTEBRAE: Final = {
    "C": "14806007 39976000 113205007 5329002 36978003 36054005 87391001",
    "T": "64864005 53733008 1626008 73071006 56401006 45296009 62487009 11068009 82687006 7610001 "
    "12989004 23215003",
    "L": "66794005 14293000 36470004 11994002 49668003",
}
_VERTEBRA: Final = re.compile(r"vertebrae ([CTL])(\d+)", re.IGNORECASE)
_RIB: Final = re.compile(r"(?:(anterior|posterior) )?(\d+)(?:st|nd|rd|th) rib")
_PLURAL: Final = {"clavicles": "clavicle", "scapulas": "scapula"}


def finding_code(label: str) -> Concept:
    """The code of a finding.

    Args:
        label: As a network calls it.

    Returns:
        Its code; for a label that no network of this package has, one of this package made of the
        label: the same for the same label.

    Example:
        >>> finding_code("Effusion").meaning
        'Pleural effusion'
    """
    return FINDING_CODES.get(label) or _of_label(label)


def _of_label(label: str) -> Concept:
    digest = sha256_of(label.encode("utf-8"))[:12].upper()
    plain = label.encode("ascii", "replace").decode()[:64]
    return own_code(f"L-{digest}", plain, "label of the user's network")


def structure_code(name: str) -> Concept:
    """The code of a structure, with its side.

    Args:
        name: As a segmentation network calls it, such as ``"Left Lung"`` or ``"breast left"``.

    Returns:
        Its code; for other structures as `finding_code`.

    Example:
        >>> structure_code("anterior 10th rib left").value
        'RIB-10-ANT'
    """
    whole = name.lower().replace("_", " ")
    side = _LEFT if "left" in whole.split() else _RIGHT if "right" in whole.split() else None
    if whole in _STRUCTURES:
        return _STRUCTURES[whole]
    if found := _VERTEBRA.fullmatch(whole):
        part, number = found[1].upper(), int(found[2])
        return _sct(_VERTEBRAE[part].split()[number - 1], f"{part}{number} vertebra")
    base = " ".join(_PLURAL.get(w, w) for w in whole.split() if w not in ("left", "right"))
    concept = _STRUCTURES.get(base)
    if concept is None and (rib := _RIB.fullmatch(base)):
        value = f"RIB-{rib[2]}" + (f"-{rib[1][:3].upper()}" if rib[1] else "")
        concept = own_code(value, base, _PAX)
    concept = concept or _of_label(base)
    return Concept(concept.value, concept.scheme, concept.meaning, concept.source, side)
