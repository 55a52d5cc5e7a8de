"""Structured report and key object selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision import __version__
from torchxrayvision.measures import area
from torchxrayvision.results.codes import finding_code, own_code, structure_code
from torchxrayvision.results.readings import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    add_study,
    code_of,
    highdicom,
    making,
    placing,
    stable_uid,
)
from torchxrayvision.results.shapes import outlines
from torchxrayvision.segmentation import main_structures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.dataset import Dataset

    from torchxrayvision.results.readings import Algorithm, FindingValue, ImageReading

_CALIBRATED: Final = frozenset[str]()  # kinds of a calibrated head; no network has one yet
# What a number is, so that nobody takes it for the probability of a disease.
_OUTPUTS: Final = {
    "operating-point": own_code("OUTPUT-OP", "Network output, 0.5 is the operating point"),
    "probability": own_code("OUTPUT-SIGMOID", "Network output in 0 to 1, not calibrated"),
    "logit": own_code("OUTPUT-LOGIT", "Network output, logit"),
    "log-probability": own_code("OUTPUT-LOG-PROB", "Network output, log-probability"),
    "years": own_code("OUTPUT-YEARS", "Network output in years"),
}
_PRESENCE: Final = own_code("PRESENCE-OP", "Network output against its operating point")
_USE: Final = own_code("INTENDED-USE", "Intended use")
_RESEARCH: Final = own_code("RESEARCH-ONLY", NOT_FOR_DIAGNOSIS)
_NOT_READ: Final = own_code("NOT-READ", "Not read by the networks")
_RATIO: Final = own_code("CTR", "Cardiothoracic ratio")
_EVIDENCE: Final = own_code("EVIDENCE-BOX", "Region of the strongest evidence of the network")
_AT_DETECTOR: Final = own_code("AT-DETECTOR", "In the plane of the pixel spacing, not corrected")


def structured_report(reading: ImageReading, *, not_read: str = "") -> Dataset:
    """What was said of an image, as Comprehensive 3D SR by template TID 1500.

    Args:
        reading: The image with at least one finding, mask or measure.
        not_read: Why the networks were not asked; the report says so instead. Nothing of a patient.

    Returns:
        The object: one group (TID 1501) per finding with the number, what the number is and
        whether it reaches the operating point; cardiothoracic ratio; one region (TID 1410) per
        outline of a structure, with its area where the spacing is known, and per box. Nobody has
        verified it.

    Raises:
        DependencyError: If highdicom is missing.
        ImageReadError: If the header of the image does not allow it.
    """
    hd = highdicom()
    with making(reading.path, "structured report"):
        groups = [_about(reading)]
        groups += [_finding(reading, finding) for finding in reading.findings]
        if reading.cardiothoracic_ratio is not None:
            groups.append(_ratio(reading, reading.cardiothoracic_ratio))
        groups += _boxes(reading) + _structures(reading)
        if not_read:
            groups.append(_not_read(reading, not_read))
        place = placing(reading, "sr", *_content(reading), not_read)
        content = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=_observer()),
            procedure_reported=hd.sr.CodedConcept("363679005", "SCT", "Imaging procedure"),
            imaging_measurements=groups,
            referenced_images=[reading.source] if _has_library(reading) else None,
        )
        report: Dataset = hd.sr.Comprehensive3DSR(
            evidence=[reading.source],
            content=content[0],
            is_complete=True,
            is_final=False,
            is_verified=False,
            **place,
        )
        add_study(report, reading)
    return report


def _has_library(reading: ImageReading) -> bool:
    """Whether the header holds what an entry of the image library says."""
    return bool(
        reading.source.get("ImagerPixelSpacing") and reading.source.get("PatientOrientation")
    )


def _content(reading: ImageReading) -> list[object]:
    masks = [part for name, mask in reading.masks.items() for part in (name, mask)]
    boxes = [f"{name}{box}" for name, box in reading.boxes.items()]
    return [*reading.findings, *masks, *boxes, reading.cardiothoracic_ratio, reading.pixel_spacing]


def _observer() -> Any:
    hd = highdicom()
    return hd.sr.ObserverContext(
        observer_type=hd.sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=stable_uid("device", __version__),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name="torchxrayvision.results",
            serial_number=__version__,
        ),
    )


def _algorithm(algorithm: Algorithm | None, *more: str) -> Any:
    if algorithm is None:
        return None
    return highdicom().sr.AlgorithmIdentification(
        name=algorithm.name,
        version=__version__,
        parameters=[*algorithm.parameters, *more],
        family=highdicom().sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
    )


def _tracking(reading: ImageReading, name: str) -> Any:
    uid = stable_uid("tracking", reading.source.SOPInstanceUID, name)
    return highdicom().sr.TrackingIdentifier(uid=uid, identifier=name)


def _images(reading: ImageReading) -> list[Any]:
    """The image as the source of a group."""
    kind = highdicom().sr.SourceImageForMeasurementGroup
    return [kind.from_source_image(reading.source)]


def _group(reading: ImageReading, name: str, **what: Any) -> Any:
    return highdicom().sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(reading, name), source_images=_images(reading), **what
    )


def _said(name: Any, value: Any) -> Any:
    return highdicom().sr.QualitativeEvaluation(name=name, value=value)


def _about(reading: ImageReading) -> Any:
    evaluation = _said(code_of(_USE), code_of(_RESEARCH))
    return _group(reading, "About this report", qualitative_evaluations=[evaluation])


def _not_read(reading: ImageReading, reason: str) -> Any:
    evaluation = _said(code_of(_USE), code_of(_NOT_READ))
    return _group(reading, f"Not read: {reason}", qualitative_evaluations=[evaluation])


def _number(value: float) -> float:
    """A float32 as the shortest number that gives it back."""
    return float(str(np.float32(value)))


def _measured(name: Any, value: float, unit: tuple[str, str], method: Any = None) -> Any:
    hd = highdicom()
    code = hd.sr.CodedConcept(unit[0], "UCUM", unit[1])
    return hd.sr.Measurement(name=name, value=value, unit=code, method=method)


def _finding(reading: ImageReading, finding: FindingValue) -> Any:
    """One group: presence, number, who."""
    hd = highdicom()
    name = code_of(_OUTPUTS.get(finding.kind, own_code("OUTPUT", "Network output")))
    if finding.kind in _CALIBRATED:
        name = hd.sr.CodedConcept("111012", "DCM", "Certainty of Finding")
    unit = ("a", "year") if finding.kind == "years" else ("1", "no units")
    what: dict[str, Any] = {"measurements": [_measured(name, _number(finding.value), unit)]}
    if finding.present is not None:
        value = ("52101004", "Present") if finding.present else ("272519000", "Absent")
        code = hd.sr.CodedConcept(value[0], "SCT", value[1])
        what["qualitative_evaluations"] = [_said(code_of(_PRESENCE), code)]
    point = "none" if finding.point is None else f"{finding.point:.9g}"
    return _group(
        reading,
        f"{finding.label}",
        finding_type=code_of(finding_code(finding.label)),
        algorithm_id=_algorithm(reading.classifier, f"operating point={point}"),
        **what,
    )


def _ratio(reading: ImageReading, ratio: float) -> Any:
    heart = highdicom().sr.FindingSite(code_of(structure_code("Heart")))
    measured = _measured(code_of(_RATIO), round(ratio, 6), ("{ratio}", "ratio"))
    return _group(
        reading,
        "Cardiothoracic ratio",
        algorithm_id=_algorithm(reading.segmenter),
        finding_sites=[heart],
        measurements=[measured],
    )


def _region(reading: ImageReading, name: str, points: Any, **what: Any) -> Any:
    hd = highdicom()
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.asarray(points, np.float64),
        source_image=hd.sr.SourceImageForRegion.from_source_image(reading.source),
    )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(reading, name), referenced_region=region, **what
    )


def _boxes(reading: ImageReading) -> list[Any]:
    groups = []
    for label, (left, top, right, bottom) in reading.boxes.items():
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        groups.append(
            _region(
                reading,
                f"{label}: evidence",
                corners,
                finding_type=code_of(finding_code(label)),
                algorithm_id=_algorithm(reading.classifier, f"method={reading.method}"),
                qualitative_evaluations=[_said(code_of(_USE), code_of(_EVIDENCE))],
            )
        )
    return groups


def _structures(reading: ImageReading) -> list[Any]:
    """A region per structure that can be told apart: its longest outline, and the whole area."""
    hd = highdicom()
    groups = []
    for name in main_structures(list(reading.masks)):
        mask = reading.masks[name]
        if not mask.any():
            continue
        concept = structure_code(name)
        side = None if concept.laterality is None else code_of(concept.laterality)
        measured = []
        if reading.pixel_spacing is not None:
            value = round(area(mask, reading.pixel_spacing), 3)
            code = hd.sr.CodedConcept("42798000", "SCT", "Area")
            unit = ("mm2", "square millimeter")
            measured = [_measured(code, value, unit, code_of(_AT_DETECTOR))]
        groups.append(
            _region(
                reading,
                name,
                outlines(mask)[0],
                finding_type=code_of(concept),
                algorithm_id=_algorithm(reading.segmenter),
                finding_sites=[hd.sr.FindingSite(code_of(concept), laterality=side)],
                measurements=measured or None,
            )
        )
    return groups


def key_objects(readings: Sequence[ImageReading], description: str = "") -> Dataset:
    """A selection of images of one study, as Key Object Selection titled "Of Interest".

    Args:
        readings: The images, at least one, all of one study.
        description: Why they were selected; nothing of a patient.

    Returns:
        The object, in the study of the images.

    Raises:
        ValueError: If there is no image, or they are of several studies.
        DependencyError: If highdicom is missing.
        ImageReadError: If a header does not allow it.
    """
    hd = highdicom()
    studies = {reading.source.StudyInstanceUID for reading in readings}
    if len(studies) != 1:
        msg = f"a selection takes images of one study, got {len(studies)} studies"
        raise ValueError(msg)
    sources = [reading.source for reading in readings]
    text = f"{NOT_FOR_DIAGNOSIS}. {description}".strip()
    with making(readings[0].path, "key objects"):
        content = hd.ko.KeyObjectSelection(
            document_title=hd.sr.CodedConcept("113000", "DCM", "Of Interest"),
            referenced_objects=sources,
            observer_device_context=_observer(),
            description=text,
        )
        place = placing(readings[0], "ko", text, *(s.SOPInstanceUID for s in sources))
        selection: Dataset = hd.ko.KeyObjectSelectionDocument(
            evidence=sources, content=content, **place
        )
        add_study(selection, readings[0])
    return selection
