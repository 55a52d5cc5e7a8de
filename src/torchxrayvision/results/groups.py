"""Measurement groups of a report as bytes: what all images share is made and encoded once.

highdicom makes a dataset for each item of a report and for each code in it, and its constructor of
reports copies and searches the whole tree. That takes 0.15 seconds per image, although only a few
items differ between images. So highdicom makes a group once for each `GroupPlan`, its items are
encoded, and for later images only those items are made that differ: tracking UID, reference to the
image, numbers and region. The bytes are those that pydicom writes, and nothing of a patient is in
what is kept.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision import __version__
from torchxrayvision.results.readings import code_of, highdicom, stable_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from torchxrayvision.results.codes import Concept
    from torchxrayvision.results.readings import Algorithm, ImageReading

_PLANS: Final = 4096  # kept groups: some kilobytes each, one per finding of each network in use
_CONTENT: Final = b"\x40\x00\x30\xa7SQ\x00\x00"  # (0040,A730) in Explicit VR Little Endian
_ITEM: Final = b"\xfe\xff\x00\xe0"


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of a group, without its value.

    Args:
        name: What it is.
        unit: Code and meaning in UCUM.
        method: How it was measured, or None.
    """

    name: Concept
    unit: tuple[str, str]
    method: Concept | None = None


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """All of a group that does not depend on the image.

    Args:
        name: Tracking identifier.
        finding: What it is about, or None.
        algorithm: Which network said it, or None.
        settings: Parameters of the algorithm besides its own.
        sites: Where it is; a code with a laterality has it as a modifier.
        quantities: Its numbers.
        evaluations: Its codes, each with a name.
        region: Whether it has a region (TID 1410) or is of the whole image (TID 1501).
        character_set: Values of Specific Character Set of the report.
    """

    name: str
    finding: Concept | None = None
    algorithm: Algorithm | None = None
    settings: tuple[str, ...] = ()
    sites: tuple[Concept, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    evaluations: tuple[tuple[Concept, Concept], ...] = ()
    region: bool = False
    character_set: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """A group of one image.

    Args:
        plan: What it shares with those of other images.
        values: One number per quantity.
        points: The region: column and row, shape (N, 2).
    """

    plan: GroupPlan
    values: tuple[float, ...] = ()
    points: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class _Pieces:
    """A group that is encoded but for the items that differ: head, and bytes or what to make."""

    head: bytes
    content: tuple[bytes | str, ...]


def encoded_groups(reading: ImageReading, groups: Sequence[Group]) -> bytes:
    """Groups as the items of a Content Sequence, in Explicit VR Little Endian.

    Args:
        reading: The image that they are of.
        groups: In order.

    Raises:
        DependencyError: If highdicom is missing.
    """
    sr = highdicom().sr
    uids = (reading.source.SOPClassUID, reading.source.SOPInstanceUID)
    images: dict[tuple[str, ...], bytes] = {}
    encoded = []
    for group in groups:
        character_set = group.plan.character_set
        if character_set not in images:
            image = sr.SourceImageForMeasurementGroup(*uids)
            images[character_set] = _encoded(image, character_set)
        encoded.append(_group(reading, group, images[character_set]))
    return b"".join(encoded)


def content_element(items: bytes) -> bytes:
    """A Content Sequence in Explicit VR Little Endian.

    Args:
        items: Of `encoded_groups` or `item_of`.
    """
    return _CONTENT + struct.pack("<I", len(items)) + items


def item_of(value: bytes) -> bytes:
    """An item of a sequence.

    Args:
        value: Its encoded elements.
    """
    return _ITEM + struct.pack("<I", len(value)) + value


def elements_of(dataset: Dataset, character_set: tuple[str, ...] = ()) -> bytes:
    """The elements of a dataset, encoded in Explicit VR Little Endian.

    Args:
        dataset: With elements of known VR.
        character_set: Specific Character Set of the dataset around it.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset, list(character_set) or "iso8859")
    return buffer.getvalue()


def _encoded(dataset: Dataset, character_set: tuple[str, ...]) -> bytes:
    return item_of(elements_of(dataset, character_set))


def _group(reading: ImageReading, group: Group, image: bytes) -> bytes:
    pieces = _pieces(group.plan)
    values = iter(group.values)
    quantities = iter(group.plan.quantities)
    made = []
    for piece in pieces.content:
        if isinstance(piece, bytes):
            made.append(piece)
        elif piece == "UIDREF":
            uid = stable_uid("tracking", reading.source.SOPInstanceUID, group.plan.name)
            made.append(_uid_item(uid))
        elif piece == "NUM":
            measured = _measurement(next(quantities), next(values))
            made.append(_encoded(measured[0], group.plan.character_set))
        elif piece == "IMAGE":
            made.append(image)
        else:
            region = _region(reading.source.SOPClassUID, reading.source.SOPInstanceUID, group)
            made.append(_encoded(region, group.plan.character_set))
    return item_of(pieces.head + content_element(b"".join(made)))


@functools.lru_cache(maxsize=_PLANS)
def _pieces(plan: GroupPlan) -> _Pieces:
    """A group as highdicom makes it, with any image and any numbers, taken apart."""
    (made,) = _template(plan)
    content: list[bytes | str] = []
    for item in made.ContentSequence:
        kind = str(item.ValueType)
        varies = kind in ("UIDREF", "NUM", "IMAGE", "SCOORD")
        content.append(kind if varies else _encoded(item, plan.character_set))
    del made.ContentSequence
    return _Pieces(elements_of(made, plan.character_set), tuple(content))


def _template(plan: GroupPlan) -> Any:
    sr = highdicom().sr
    uid = "2.25.1"
    computed_radiography = "1.2.840.10008.5.1.4.1.1.1"
    what: dict[str, Any] = {
        "tracking_identifier": _tracking(plan.name, uid),
        "finding_type": None if plan.finding is None else code_of(plan.finding),
        "algorithm_id": None if plan.algorithm is None else _algorithm(plan),
        "finding_sites": [_site(concept) for concept in plan.sites] or None,
        "measurements": [_measurement(quantity, 0.0) for quantity in plan.quantities] or None,
        "qualitative_evaluations": [
            sr.QualitativeEvaluation(name=code_of(name), value=code_of(value))
            for name, value in plan.evaluations
        ]
        or None,
    }
    if plan.region:
        corner = Group(plan, points=np.zeros((4, 2)))
        region = _region(computed_radiography, uid, corner)
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **what)
    image = sr.SourceImageForMeasurementGroup(computed_radiography, uid)
    return sr.MeasurementsAndQualitativeEvaluations(source_images=[image], **what)


def _tracking(name: str, uid: str) -> Any:
    return highdicom().sr.TrackingIdentifier(uid=uid, identifier=name)


def _uid_item(uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)  # PS3.5 section 6.2
    head, tail = _around_uid(len(value))
    return head + value + tail


@functools.lru_cache(maxsize=32)
def _around_uid(length: int) -> tuple[bytes, bytes]:
    """What stands before and after a tracking UID of so many bytes; lengths in it count them."""
    stand_in = "1" * length
    head, _, tail = _encoded(_tracking("none", stand_in)[1], ()).partition(stand_in.encode())
    return head, tail


def _algorithm(plan: GroupPlan) -> Any:
    assert plan.algorithm is not None  # the caller asked
    sr = highdicom().sr
    return sr.AlgorithmIdentification(
        name=plan.algorithm.name,
        version=__version__,
        parameters=[*plan.algorithm.parameters, *plan.settings],
        family=sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
    )


def _site(concept: Concept) -> Any:
    side = None if concept.laterality is None else code_of(concept.laterality)
    return highdicom().sr.FindingSite(code_of(concept), laterality=side)


def _measurement(quantity: Quantity, value: float) -> Any:
    return highdicom().sr.Measurement(
        name=code_of(quantity.name),
        value=value,
        unit=_unit(quantity.unit),
        method=None if quantity.method is None else code_of(quantity.method),
    )


def _unit(unit: tuple[str, str]) -> Any:
    return highdicom().sr.CodedConcept(unit[0], "UCUM", unit[1])


def _region(sop_class: str, sop_instance: str, group: Group) -> Any:
    sr = highdicom().sr
    assert group.points is not None  # a plan with a region
    return sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.asarray(group.points, np.float64),
        source_image=sr.SourceImageForRegion(sop_class, sop_instance),
    )
