"""Every finding and structure of every network has a code, and the codes mean the label."""

import pytest
from pydicom.sr.codedict import Collection

from torchxrayvision.results import FINDING_CODES, finding_code, structure_code
from torchxrayvision.results.codes import SCHEME
from torchxrayvision.weights import get, list_weights

IMAGES = {"image"}  # outputs that are pictures
SEGMENTERS = [w.name for w in list_weights() if w.architecture.startswith(("pspnet", "unet"))]
# Encoders have no findings, and networks that are asked in words have those that one asks for.
WITHOUT = {"rad-dino", "rad-dino-maira-2", "cxformer-small", "cxformer-base", "chexfound",
           "chexficient", "xrayclip", "medsiglip-448"}  # fmt: skip
CLASSIFIERS = [
    w for w in list_weights()
    if w.name not in WITHOUT and w.name not in SEGMENTERS and w.output not in IMAGES
]  # fmt: skip


def valid(concept):
    assert 1 <= len(concept.value) <= 16
    assert 1 <= len(concept.meaning) <= 64
    assert concept.source
    assert concept.scheme in ("SCT", SCHEME)
    assert concept.scheme != "SCT" or concept.value.isdecimal()


@pytest.mark.parametrize("entry", CLASSIFIERS, ids=lambda e: e.name)
def test_every_finding_of_a_network_has_a_code_of_the_table(entry):
    names = {name for name in entry.targets if name}
    assert names
    assert names <= set(FINDING_CODES)
    for name in names:
        valid(finding_code(name))


@pytest.mark.parametrize("name", SEGMENTERS)
def test_every_structure_of_a_network_has_a_code_of_the_table(name):
    codes = {target: structure_code(target) for target in get(name).targets}
    for concept in codes.values():
        valid(concept)
        assert not concept.value.startswith("L-")
    told_apart = {(c.value, c.laterality and c.laterality.value) for c in codes.values()}
    assert len(told_apart) >= len(codes) - 1  # spine and vertebral column may be one


def test_a_code_stands_for_one_finding():
    values = [(c.scheme, c.value) for c in FINDING_CODES.values()]
    assert len(set(values)) == len(values)


def test_codes_of_the_standard_have_its_meaning():
    meanings = {}
    table = Collection("SCT")
    for keyword in table.dir():
        try:
            code = getattr(table, keyword)
        except AttributeError:
            continue
        meanings.setdefault(code.value, set()).add(code.meaning.lower())
    structures = [structure_code(t) for n in SEGMENTERS for t in get(n).targets]
    for concept in [*FINDING_CODES.values(), *structures]:
        if concept.source.startswith("DICOM"):
            assert concept.meaning.lower() in meanings[concept.value], concept
    # Why cardiomegaly is not taken from there.
    assert "enlarged septal foramen of heart (disorder)" in meanings["287272002"]
    assert finding_code("Cardiomegaly").value != "287272002"


def test_sides_and_parts():
    assert structure_code("Left Lung") == structure_code("left lung")
    assert structure_code("Left Lung").laterality != structure_code("Right Lung").laterality
    assert structure_code("heart atrium left").laterality is None
    assert structure_code("vertebrae T12").meaning == "T12 vertebra"
    assert structure_code("anterior 3rd rib right").value == "RIB-3-ANT"


def test_labels_of_a_users_own_network_get_a_stable_private_code():
    first, second = finding_code("Größe ≥ 3 cm"), finding_code("Größe ≥ 4 cm")
    valid(first)
    assert first == finding_code("Größe ≥ 3 cm")
    assert first.value != second.value
    assert first.scheme == SCHEME
    assert first.meaning.isascii()
