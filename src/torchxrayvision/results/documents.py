"""Structured report and key object selection."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision import __version__
from torchxrayvision.measures import area
from torchxrayvision.results.codes import Concept, finding_code, own_code, structure_code
from torchxrayvision.results.groups import (
    Group,
    GroupPlan,
    Quantity,
    content_element,
    elements_of,
    encoded_groups,
    item_of,
)
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

    from torchxrayvision.results.readings import FindingValue, ImageReading

# What a number is, so that nobody takes it for the probability of a disease.
_OUTPUTS: Final = {
    "operating-point": own_code("OUTPUT-OP", "Network output, 0.5 is the operating point"),
    "probability": own_code("OUTPUT-SIGMOID", "Network output in 0 to 1, not calibrated"),
    "logit": own_code("OUTPUT-LOGIT", "Network output, logit"),
    "log-probability": own_code("OUTPUT-LOG-PROB", "Network output, log-probability"),
    "zero-shot": own_code("OUTPUT-ZERO-SHOT", "Zero-shot score in 0 to 1, without a scale"),
    "similarity": own_code("OUTPUT-SIMILARITY", "Similarity with a text, without a scale"),
    "years": own_code("OUTPUT-YEARS", "Network output in years"),
}
_PRESENCE: Final = own_code("PRESENCE-OP", "Network output against its operating point")
_USE: Final = own_code("INTENDED-USE", "Intended use")
_RESEARCH: Final = own_code("RESEARCH-ONLY", NOT_FOR_DIAGNOSIS)
_OUTPUT: Final = own_code("OUTPUT", "Network output")
# Of calibrated numbers only; a percentage, as TID 4006 and others have it.
_CERTAINTY: Final = Quantity(Concept("111012", "DCM", "Certainty of Finding"), ("%", "percent"))
_CALLED: Final = own_code("PRESENCE-CALIBRATED", "Network output against the chosen threshold")
_SET: Final = own_code("CONFORMAL-SET", "Conformal set")
_PRESENT: Final = Concept("52101004", "SCT", "Present")
_ABSENT: Final = Concept("272519000", "SCT", "Absent")
_SETS: Final = {
    "present": _PRESENT, "absent": _ABSENT, "unsure": own_code("UNSURE", "Present or absent"),
}  # fmt: skip
_NOT_READ: Final = own_code("NOT-READ", "Not read by the networks")
_RATIO: Final = own_code("CTR", "Cardiothoracic ratio")
_EVIDENCE: Final = own_code("EVIDENCE-BOX", "Region of the strongest evidence of the network")
_AT_DETECTOR: Final = own_code("AT-DETECTOR", "In the plane of the pixel spacing, not corrected")
_AREA: Final = Quantity(
    Concept("42798000", "SCT", "Area"), ("mm2", "square millimeter"), _AT_DETECTOR
)
_MEASUREMENTS: Final = "126010"  # DCM, the container of the groups
_EVALUATIONS: Final = Concept("C0034375", "UMLS", "Qualitative Evaluations")
_COMMENT: Final = Concept("121106", "DCM", "Comment")


def structured_report(reading: ImageReading, *, not_read: str = "") -> Dataset:
    """What was said of an image, as Comprehensive 3D SR by template TID 1500.

    Args:
        reading: The image with at least one finding, mask or measure.
        not_read: Why the networks were not asked, which becomes a comment among the qualitative
            evaluations of the report. Nothing of a patient.

    Returns:
        The object: one group (TID 1501) per finding with the number, what the number is and
        whether it reaches the operating point; cardiothoracic ratio; one region (TID 1410) per
        outline of a structure, with its area where the spacing is known, and per box. Nobody has
        verified it. `highdicom.sr.Comprehensive3DSR.from_dataset` gives it the methods of
        highdicom.

    Raises:
        DependencyError: If highdicom is missing.
        ImageReadError: If the header of the image does not allow it.
    """
    hd = highdicom()
    with making(reading.path, "structured report"):
        report = hd.sr.Comprehensive3DSR(
            evidence=[reading.source],
            content=_frame(reading)[0],
            is_complete=True,
            is_final=False,
            is_verified=False,
            **placing(reading, "sr", *_content(reading), not_read),
        )
        add_study(report, reading)
        groups, others = _groups(reading), []
        if not_read:
            groups.append(Group(_plan(reading, "Not read", evaluations=((_USE, _NOT_READ),))))
            others.append(_commented(not_read))
        return _filled(report, encoded_groups(reading, groups), others)


def _groups(reading: ImageReading) -> list[Group]:
    groups = [_about(reading)]
    groups += [_finding(reading, finding) for finding in reading.findings]
    if reading.cardiothoracic_ratio is not None:
        groups.append(_ratio(reading, reading.cardiothoracic_ratio))
    return groups + _boxes(reading) + _structures(reading)


def _frame(reading: ImageReading) -> Any:
    """The report around its measurement groups, with one group that stands for all of them."""
    hd = highdicom()
    image = hd.sr.SourceImageForMeasurementGroup.from_source_image(reading.source)
    stand_in = hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid="2.25.1", identifier="none"),
        source_images=[image],
    )
    return hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=_observer()),
        procedure_reported=hd.sr.CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[stand_in],
        referenced_images=[reading.source] if _has_library(reading) else None,
    )


def _filled(report: Any, groups: bytes, others: Sequence[Any]) -> Dataset:
    """A report with the groups in place of what stood for them, and other items behind."""
    from pydicom import dcmread

    character_set = _character_set(report)
    items = []
    for item in (*report.ContentSequence, *others):
        if item.name.value == _MEASUREMENTS:
            del item.ContentSequence
            items.append(
                item_of(elements_of(item, character_set) + content_element(groups))
            )  # fmt: skip
        else:
            items.append(item_of(elements_of(item, character_set)))
    del report.ContentSequence  # the last element: its tag is the highest
    buffer = io.BytesIO()
    report.save_as(buffer, enforce_file_format=True)
    buffer.write(content_element(b"".join(items)))
    buffer.seek(0)
    return dcmread(buffer)


def _character_set(source: Dataset) -> tuple[str, ...]:
    given = source.get("SpecificCharacterSet") or ()
    return (given,) if isinstance(given, str) else tuple(given)


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


def _plan(reading: ImageReading, name: str, **what: Any) -> GroupPlan:
    return GroupPlan(name, character_set=_character_set(reading.source), **what)


def _about(reading: ImageReading) -> Group:
    return Group(_plan(reading, "About this report", evaluations=((_USE, _RESEARCH),)))


def _number(value: float) -> float:
    """A float32 as the shortest number that gives it back."""
    return float(str(np.float32(value)))


def _commented(text: str) -> Any:
    """Qualitative evaluations of TID 1500 (rows 12 and 14) that are one comment."""
    sr = highdicom().sr
    container = sr.ContainerContentItem(code_of(_EVALUATIONS), relationship_type="CONTAINS")
    comment = sr.TextContentItem(code_of(_COMMENT), text, relationship_type="CONTAINS")
    container.ContentSequence = sr.ContentSequence([comment])
    return container


def _finding(reading: ImageReading, finding: FindingValue) -> Group:
    """One group: presence, numbers, who."""
    unit = ("a", "year") if finding.kind == "years" else ("1", "no units")
    point = "none" if finding.point is None else f"{finding.point:.9g}"
    settings = [f"operating point={point}"]
    quantities = [Quantity(_OUTPUTS.get(finding.kind, _OUTPUT), unit)]
    values = [_number(finding.value)]
    evaluations = []
    if finding.present is not None:
        against = _CALLED if finding.threshold else _PRESENCE
        evaluations.append((against, _PRESENT if finding.present else _ABSENT))
    if finding.threshold:
        settings.append(f"threshold={finding.threshold}")
    if finding.certainty is not None:
        quantities.append(_CERTAINTY)
        values.append(round(100 * finding.certainty, 4))
    if finding.conformal:
        evaluations.append((_SET, _SETS[finding.conformal]))
    plan = _plan(
        reading,
        finding.label,
        finding=finding_code(finding.label),
        algorithm=reading.classifier,
        settings=tuple(settings),
        quantities=tuple(quantities),
        evaluations=tuple(evaluations),
    )
    return Group(plan, tuple(values))


def _ratio(reading: ImageReading, ratio: float) -> Group:
    plan = _plan(
        reading,
        "Cardiothoracic ratio",
        algorithm=reading.segmenter,
        sites=(structure_code("Heart"),),
        quantities=(Quantity(_RATIO, ("{ratio}", "ratio")),),
    )
    return Group(plan, (round(ratio, 6),))


def _boxes(reading: ImageReading) -> list[Group]:
    groups = []
    for label, (left, top, right, bottom) in reading.boxes.items():
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        plan = _plan(
            reading,
            f"{label}: evidence",
            finding=finding_code(label),
            algorithm=reading.classifier,
            settings=(f"method={reading.method}",),
            evaluations=((_USE, _EVIDENCE),),
            region=True,
        )
        groups.append(Group(plan, points=np.array(corners, np.float64)))
    return groups


def _structures(reading: ImageReading) -> list[Group]:
    """A region per structure that can be told apart: its longest outline, and the whole area."""
    groups = []
    for name in main_structures(list(reading.masks)):
        mask = reading.masks[name]
        rings = outlines(mask)
        if not rings:
            continue
        concept = structure_code(name)
        spacing = reading.pixel_spacing
        plan = _plan(
            reading,
            name,
            finding=concept,
            algorithm=reading.segmenter,
            sites=(concept,),
            quantities=() if spacing is None else (_AREA,),
            region=True,
        )
        values = () if spacing is None else (round(area(mask, spacing), 3),)
        groups.append(Group(plan, values, rings[0]))
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
