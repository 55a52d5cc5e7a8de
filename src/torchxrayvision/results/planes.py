"""Masks and heat maps on the pixel grid of their image: SEG and Parametric Map."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision import __version__
from torchxrayvision.errors import UnknownNameError
from torchxrayvision.pictures import palette
from torchxrayvision.results.codes import structure_code
from torchxrayvision.results.readings import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    add_side,
    code_of,
    highdicom,
    making,
    placing,
    stable_uid,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from torchxrayvision.results.readings import Algorithm, ImageReading

_KINDS: Final = ("BINARY", "LABELMAP")
# CID 7180: what a map is of.
_METHODS: Final = {
    "cam": ("130402", "Class activation"),
    "gradcam": ("130403", "Gradient-weighted class activation"),
    "gradcam++": ("130403", "Gradient-weighted class activation"),
}


def segmentation(reading: ImageReading, kind: str = "BINARY") -> Dataset:
    """The masks of an image, as a Segmentation object of its size.

    Args:
        reading: The image with at least one mask.
        kind: `"BINARY"`, one frame per structure, in which structures may overlap; or
            `"LABELMAP"`, one frame of numbers, in which the smaller of two structures shows, and
            which software of before 2024 does not know.

    Returns:
        The object; segments are numbered in the order of the masks, empty ones too.

    Raises:
        UnknownNameError: If there is no such kind.
        ValueError: If there is no mask.
        DependencyError: If highdicom is missing.
        ImageReadError: If the header of the image does not allow it.
    """
    if kind not in _KINDS:
        raise UnknownNameError("kind of segmentation", kind, _KINDS)
    if not reading.masks:
        msg = "a segmentation needs at least one mask; name a segmentation network"
        raise ValueError(msg)
    hd = highdicom()
    masks = list(reading.masks.values())
    with making(reading.path, "segmentation"):
        made: Dataset = hd.seg.Segmentation(
            source_images=[reading.source],
            pixel_array=_labels(masks) if kind == "LABELMAP" else _stack(masks),
            segmentation_type=kind,
            segment_descriptions=_segments(reading),
            omit_empty_frames=False,  # viewers fail where a segment has no frame
            content_description=NOT_FOR_DIAGNOSIS,
            **placing(reading, "seg", kind, *reading.masks, *masks),
        )
        _orient(made, reading)
        shared = made.SharedFunctionalGroupsSequence[0]
        if "FrameOfReferenceUID" not in made and "PixelMeasuresSequence" in shared:
            # Without the thickness of a slice, which a radiograph has not, highdicom writes but
            # does not read it; the spacing is that of the image.
            del shared.PixelMeasuresSequence
    return made


def _stack(masks: list[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    return np.stack(masks, axis=-1)[None].astype(np.uint8)


def _labels(masks: list[NDArray[np.bool_]]) -> NDArray[Any]:
    labels = np.zeros((1, *masks[0].shape), np.uint8 if len(masks) < 256 else np.uint16)
    for index in sorted(range(len(masks)), key=lambda i: -int(masks[i].sum())):
        labels[0][masks[index]] = index + 1
    return labels


def _segments(reading: ImageReading) -> list[Any]:
    hd = highdicom()
    anatomy = hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure")
    segments = []
    for number, (name, colour) in enumerate(
        zip(reading.masks, palette(len(reading.masks)).tolist(), strict=True), start=1
    ):
        concept = structure_code(name)
        segment = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=anatomy,
            segmented_property_type=code_of(concept),
            algorithm_type="AUTOMATIC",
            algorithm_identification=_algorithm(reading.segmenter),
            display_color=hd.color.CIELabColor.from_rgb(*colour),
        )
        if concept.laterality is not None:
            kind = segment.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [code_of(concept.laterality)]
        segments.append(segment)
    return segments


def _algorithm(algorithm: Algorithm | None) -> Any:
    hd = highdicom()
    settings = () if algorithm is None else algorithm.parameters
    return hd.AlgorithmIdentificationSequence(
        name="unknown" if algorithm is None else algorithm.name,
        family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=__version__,
        source=MANUFACTURER,
        parameters=dict(entry.partition("=")[::2] for entry in settings if "=" in entry),
    )


def _in_a_plane(reading: ImageReading) -> Dataset:
    """The header of the image in a frame of reference of its own.

    A Parametric Map must lie in one, and a radiograph does not: the plane says how large pixels
    are at the detector, where that is known, and nothing of where the patient was.
    """
    spacing = reading.pixel_spacing or (reading.aspect, 1.0)  # of which nothing stays, if not known
    source = copy.copy(reading.source)
    if "FrameOfReferenceUID" not in source or "ImagePositionPatient" not in source:
        source.FrameOfReferenceUID = stable_uid("plane", source.SOPInstanceUID)
        source.PositionReferenceIndicator = ""
        source.ImagePositionPatient = [0, 0, 0]
        source.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        source.PixelSpacing = [f"{value:.10g}"[:16] for value in spacing]
        source.SliceThickness = 1
    return source


def _forget_spacing(made: Dataset) -> None:
    """Remove the size of pixels, which the constructor wants and the image does not say."""
    (measures,) = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    for name in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"):
        if name in measures:
            delattr(measures, name)


def _orient(made: Dataset, reading: ImageReading) -> None:
    """The attributes of a radiograph that highdicom leaves out."""
    if "PatientOrientation" not in made:
        made.PatientOrientation = reading.source.get("PatientOrientation")


def parametric_map(reading: ImageReading, label: str | None = None) -> Dataset:
    """A heat map of an image, as Parametric Map of its size.

    Args:
        reading: The image with at least one heat map.
        label: The finding; None for the first one.

    Returns:
        The object: float32, in the units of the network; what the network did not see has the
        padding value, which is below all others.

    Raises:
        UnknownNameError: If there is no heat map of that finding, or DICOM has no code for the
            method.
        DependencyError: If highdicom is missing.
        ImageReadError: If the header of the image does not allow it.
    """
    if reading.method not in _METHODS:
        raise UnknownNameError("method of a parametric map", reading.method, _METHODS)
    name = next(iter(reading.heats), "") if label is None else label
    if name not in reading.heats:
        raise UnknownNameError("heat map", name, reading.heats)
    hd = highdicom()
    heat = reading.heats[name].astype(np.float32)
    low, high = float(np.nanmin(heat)), float(np.nanmax(heat))
    padding = min(0.0, float(np.floor(low))) - 1.0
    known = np.where(np.isnan(heat), np.float32(padding), heat)
    value, meaning = _METHODS[reading.method]
    with making(reading.path, "parametric map"):
        mapping = hd.pm.RealWorldValueMapping(
            lut_label=name[:16],
            lut_explanation=f"{meaning} for {name}"[:64],
            unit=hd.sr.CodedConcept("1", "UCUM", "no units"),
            value_range=(low, high),
            slope=1.0,
            intercept=0.0,
            quantity_definition=hd.sr.CodedConcept(value, "DCM", meaning),
        )
        window = hd.VOILUTTransformation(
            window_center=(low + high) / 2,
            window_width=max(high - low, 1e-6),
            voi_lut_function="LINEAR_EXACT",  # the only one for a width below 1
        )
        made: Dataset = hd.pm.ParametricMap(
            source_images=[_in_a_plane(reading)],
            pixel_array=known[None],
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[window],
            content_label="HEATMAP",
            content_description=NOT_FOR_DIAGNOSIS,
            **placing(reading, "pm", reading.method, name, known),
        )
        if reading.pixel_spacing is None:
            _forget_spacing(made)
        made.FloatPixelPaddingValue = made.FloatPixelPaddingRangeLimit = padding
        _orient(made, reading)
        add_side(made, reading)
    return made
