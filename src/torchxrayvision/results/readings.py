"""What the networks say of one image, and its DICOM header: what result objects are made of."""

from __future__ import annotations

import io
import logging
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision import __version__
from torchxrayvision.errors import (
    ImageReadError,
    UnknownNameError,
    UnsupportedImageError,
    XRVError,
    needs_package,
)
from torchxrayvision.images import silence_decoders, sniff
from torchxrayvision.results.codes import SCHEME, Concept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    Box = tuple[float, float, float, float]

NOT_FOR_DIAGNOSIS: Final = "Research use only, not for diagnosis"
MANUFACTURER: Final = "TorchXRayVision"
_MODALITIES: Final = ("CR", "DX", "RG")
# Series numbers and descriptions, so that a viewer lists the series behind those of the scanner.
_SERIES: Final = {
    "sr": (9501, "AI findings"),
    "sc": (9502, "AI overlay"),
    "seg": (9503, "AI masks"),
    "gsps": (9504, "AI annotations"),
    "pm": (9505, "AI heat maps"),
    "ko": (9506, "AI selection"),
}
KINDS: Final = tuple(_SERIES)
"""The kinds of DICOM object, as `--as` takes them."""

_LONG_STRING: Final = 64  # characters of VR LO
# Type 2: they must be there, be it empty, and highdicom asks for them.
_NEEDED: Final = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName")  # fmt: skip


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Refuse an unknown kind of object before anything is computed.

    Args:
        kinds: Of `KINDS`.

    Returns:
        The kinds, each once, in the order in which they are made.

    Raises:
        UnknownNameError: If one is none of them.

    Example:
        >>> check_kinds(["sc", "sr"])
        ('sr', 'sc')
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError("kind of result", kind, KINDS)
    return tuple(kind for kind in KINDS if kind in kinds)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Which network gave a result.

    Args:
        name: Name of its weights.
        sha256: Of the file of its weights; empty where it has none.
        settings: What was asked of it, such as ``("output=operating-point",)``.
    """

    name: str
    sha256: str = ""
    settings: tuple[str, ...] = ()

    @property
    def parameters(self) -> list[str]:
        """All that identifies it besides name and version, as `name=value`."""
        weights = [f"weights={self.name}", f"sha256={self.sha256 or 'none'}"]
        return [*weights, *self.settings, NOT_FOR_DIAGNOSIS]


@dataclass(frozen=True, slots=True)
class FindingValue:
    """What a classifier says of one finding.

    Args:
        label: The finding.
        value: The number.
        kind: What the number is: `"operating-point"`, `"probability"`, `"logit"` or another.
        point: The operating point as a probability, or None where there is none.
        present: Whether the number reaches it, or the threshold; None where there is neither.
        certainty: Probability by a calibration, 0 to 1; None where the finding has none.
        threshold: The threshold of the calibration in words; empty where it chose none.
        conformal: `"present"`, `"absent"` or `"unsure"` by a calibration with sets, or empty.
    """

    label: str
    value: float
    kind: str
    point: float | None = None
    present: bool | None = None
    certainty: float | None = None
    threshold: str = ""
    conformal: str = ""

    @property
    def number(self) -> float:
        """What `xrv predict` gives: the calibrated probability, or else the value."""
        return self.value if self.certainty is None else self.certainty


@dataclass(frozen=True, slots=True, eq=False)
class ImageReading:
    """One image with all that is said of it; every coordinate is in its own pixels.

    Args:
        source: The image, as `read_source` gives it.
        picture: The image as a screen shows it, uint8 (H, W).
        findings: What the classifier says, in its order.
        classifier: Which one.
        masks: Structure to mask, bool (H, W), in the order of the segmentation network.
        segmenter: Which one.
        heats: Finding to evidence, float32 (H, W), NaN outside the square that the network saw.
        method: How that was computed: `"gradcam"`, `"gradcam++"` or `"cam"`.
        boxes: Finding to left, top, right and bottom edges of its strongest evidence.
        cardiothoracic_ratio: Or None where it cannot be measured.
        pixel_spacing: Millimetres between rows and between columns, where known.
        aspect: Height of a pixel over its width.
        check: What the screening says.
        path: Name of the file, for errors.
    """

    source: Dataset
    picture: NDArray[np.uint8]
    findings: tuple[FindingValue, ...] = ()
    classifier: Algorithm | None = None
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    segmenter: Algorithm | None = None
    heats: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    method: str = "gradcam"
    boxes: Mapping[str, Box] = field(default_factory=dict)
    cardiothoracic_ratio: float | None = None
    pixel_spacing: tuple[float, float] | None = None
    aspect: float = 1.0
    check: str = ""
    path: str = "the image"

    @property
    def present(self) -> list[FindingValue]:
        """The findings at or above operating point or threshold, the largest number first."""
        return sorted((f for f in self.findings if f.present), key=lambda f: -f.number)


def highdicom() -> Any:
    """The package that makes the objects.

    Raises:
        DependencyError: If it is missing.
    """
    with needs_package("highdicom", "DICOM results", "dicom-results"):
        import highdicom as module
    return module


def read_source(data: bytes, path: str) -> Dataset:
    """The header of a DICOM radiograph, with what every object of its study needs.

    Args:
        data: The file.
        path: Its name, for errors.

    Returns:
        A dataset without pixels; attributes that must be there are there, be it empty.

    Raises:
        UnsupportedImageError: If it is no DICOM file, or not one radiograph.
        ImageReadError: If it cannot be read.
    """
    if sniff(data, path) != "dicom":
        reason = "no DICOM file: only a DICOM image has a study that results can join"
        raise UnsupportedImageError(path, reason)
    import pydicom

    with making(path, "header"):
        source = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
        for name in _NEEDED:
            if name not in source:
                setattr(source, name, "")
        modality, frames = str(source.get("Modality", "")), int(source.get("NumberOfFrames") or 1)
        uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        missing = [name for name in uids if not source.get(name)]
        source.walk(lambda _, element: element.value)  # decodes text as it stands in the file
        if "SpecificCharacterSet" in source:
            source.SpecificCharacterSet = _character_set(source)
    if modality not in _MODALITIES:
        reason = f"not a radiograph: results are made of modalities {', '.join(_MODALITIES)}"
        raise UnsupportedImageError(path, reason)
    if frames > 1:
        raise UnsupportedImageError(path, f"holds {frames} frames; results are made of one")
    if missing:
        raise ImageReadError(path, f"has no {missing[0]}, so that no object can refer to it")
    return source


def _character_set(source: Dataset) -> list[str]:
    """The character set in the words that highdicom takes; UTF-8 where it does not know them."""
    given = source.SpecificCharacterSet or ""
    terms = [given] if isinstance(given, str) else list(given)
    if len(terms) > 1 and not terms[0]:
        terms[0] = "ISO 2022 IR 6"  # what an empty first value stands for, PS3.3 C.12.1.1.2
    known = {value.value for value in highdicom().SpecificCharacterSetValues}
    return terms if set(terms) <= known else ["ISO_IR 192"]


@contextmanager
def making(path: str, what: str) -> Iterator[None]:
    """Around what handles values of a header: none of them gets out in a warning or an error.

    Args:
        path: For the error.
        what: What is made.

    Raises:
        ImageReadError: For any error of other packages.
    """
    logger, mute = logging.getLogger("pydicom"), _Mute()
    logger.addFilter(mute)
    try:
        with silence_decoders():  # warnings and logs quote values
            yield
    except (XRVError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a header makes of a constructor
        reason = f"its header does not allow this result ({what}: {type(error).__name__})"
        raise ImageReadError(path, reason) from None
    finally:
        logger.removeFilter(mute)


class _Mute(logging.Filter):
    """Drops what the thread that made it logs."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


def stable_uid(*parts: object) -> str:
    """A UID out of parts, the same whenever they are.

    Args:
        *parts: Texts, numbers, or arrays, which count with every value.

    Returns:
        A UID under 2.25.

    Example:
        >>> stable_uid("sr", 1) == stable_uid("sr", 1) != stable_uid("sc", 1)
        True

    Source:
        DICOM PS3.5 section B.2: UIDs of UUIDs under the root 2.25.
    """
    from torchxrayvision.files import sha256_of

    texts = [
        sha256_of(np.ascontiguousarray(part).tobytes()) if isinstance(part, np.ndarray) else part
        for part in parts
    ]
    name = "torchxrayvision.results/" + "/".join(map(str, texts))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, name).int}"


def placing(reading: ImageReading, kind: str, *content: object) -> dict[str, Any]:
    """Where an object belongs, and who made it: arguments that all constructors have.

    Args:
        reading: The image.
        kind: One of `KINDS`.
        *content: What the object says, for its UID.
    """
    number, description = _SERIES[kind]
    highdicom()
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    networks = [a for a in (reading.classifier, reading.segmenter) if a is not None]
    made_of = (kind, reading.source.SOPInstanceUID, __version__, *networks)
    return {
        "series_instance_uid": stable_uid("series", *made_of),
        "series_number": number,
        "sop_instance_uid": stable_uid("instance", *made_of, *content),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "torchxrayvision.results",
        "software_versions": __version__,
        "device_serial_number": networks[0].sha256[:32] if networks else "none",
        "series_description": f"{description}: {NOT_FOR_DIAGNOSIS}",
        "contributing_equipment": [_equipment(network) for network in networks],
        "coding_schemes": [
            CodingSchemeIdentificationItem(
                SCHEME,
                "TorchXRayVision results",
                __version__,
                responsible_organization=MANUFACTURER,
            )
        ],
    }


def _equipment(network: Algorithm) -> Any:
    """A network as an item of Contributing Equipment Sequence; its UID is one of the weights.

    Source:
        IHE Radiology, AI Results (AIR), section 6.5.3.1, asks for an item per algorithm. Its code
        for the purpose is a placeholder, so that this is the one of DICOM's CID 7005.
    """
    hd = highdicom()
    item = hd.ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=hd.sr.CodedConcept("109102", "DCM", "Processing Equipment"),
        manufacturer_model_name=network.name[:_LONG_STRING],
        software_versions=__version__,
        device_serial_number=network.sha256 or None,
        contribution_description="; ".join(network.settings) or None,
    )
    item.DeviceUID = stable_uid("network", network.name, network.sha256)
    return item


def add_study(made: Any, reading: ImageReading) -> None:
    """Copy what the image says of patient and study besides what every object must say.

    Args:
        made: The object.
        reading: The image.
    """
    made.copy_patient_and_study_information(reading.source)


def add_side(made: Dataset, reading: ImageReading) -> None:
    """Write the laterality of the image into an object; empty where it says none.

    Args:
        made: The object.
        reading: The image.
    """
    if "Laterality" not in made:
        made.Laterality = reading.source.get("Laterality") or ""


def code_of(concept: Concept) -> Any:
    """A code as highdicom takes it.

    Args:
        concept: From the table.
    """
    return highdicom().sr.CodedConcept(concept.value, concept.scheme, concept.meaning)
