"""What is drawn on an image: secondary capture and presentation state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.pictures import draw_outlines, overlay, palette, scale_of, sequential
from torchxrayvision.results.readings import (
    NOT_FOR_DIAGNOSIS,
    add_side,
    add_study,
    highdicom,
    making,
    placing,
)
from torchxrayvision.results.shapes import outlines
from torchxrayvision.segmentation import main_structures

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from torchxrayvision.results.readings import FindingValue, ImageReading

_LETTERS: Final = 50  # lines of text that a picture has room for
_WARNING: Final = (255, 220, 0)
_INK: Final = (235, 235, 235)
_BOX: Final = (0, 255, 255)
_SHADOW: Final = (0, 0, 0)
# Only findings at or above their operating point are listed.
_MEANING: Final = "Network output, not a probability of disease:"
_CALIBRATED: Final = "Calibrated probability in %, or else network output:"
_MOST_FINDINGS: Final = 6
_MOST_LETTERS: Final = 60


def secondary_capture(reading: ImageReading) -> Dataset:
    """A picture of the results on the image, as Secondary Capture: what every viewer shows.

    Args:
        reading: The image.

    Returns:
        The object: RGB, of the size of the image, with the first heat map, the outlines of
        structures, a legend and the words that it is not for diagnosis burnt in.

    Raises:
        DependencyError: If highdicom is missing.
        ImageReadError: If the header of the image does not allow it.
    """
    hd = highdicom()
    source = reading.source
    with making(reading.path, "secondary capture"):
        picture = _picture(reading)
        place = placing(reading, "sc", picture)
        oriented = list(source.get("PatientOrientation") or [])
        made: Dataset = hd.sc.SCImage.from_ref_dataset(
            ref_dataset=source,
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),  # replaced below
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            **place,
        )
        made.PatientOrientation = oriented or None
        made.BurnedInAnnotation = "YES"
        made.DerivationDescription = f"Results of a network drawn in. {NOT_FOR_DIAGNOSIS}"
        _measure_pixels(made, reading)
        made.SourceImageSequence = [_source_item(source)]
        add_side(made, reading)
        add_study(made, reading)
    return made


def _source_item(source: Dataset) -> Dataset:
    from pydicom.dataset import Dataset as Item

    item = Item()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    item.SpatialLocationsPreserved = "YES"
    purpose = highdicom().sr.CodedConcept(
        "121322", "DCM", "Source image for image processing operation"
    )
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _measure_pixels(made: Dataset, reading: ImageReading) -> None:
    if reading.pixel_spacing is not None:
        made.PixelSpacing = [f"{value:.10g}"[:16] for value in reading.pixel_spacing]
    elif reading.aspect != 1:
        made.PixelAspectRatio = [round(reading.aspect * 1000), 1000]


def _picture(reading: ImageReading) -> NDArray[np.uint8]:
    """uint8 (H, W, 3)."""
    grey = reading.picture
    shown = np.repeat(grey[..., None], 3, axis=2)
    first = next(iter(reading.heats.items()), None)
    if first is not None:
        shown = overlay(grey, first[1])
    names = main_structures(list(reading.masks)) if reading.masks else []
    if names:
        colours = palette(len(reading.masks))
        every = list(reading.masks)
        lines = draw_outlines(
            grey,
            {name: reading.masks[name] for name in names},
            [colours[every.index(name)].tolist() for name in names],
        )
        drawn = (lines != grey[..., None]).any(axis=2)
        shown[drawn] = lines[drawn]
    return _with_legend(shown, reading, first)


def _with_legend(
    shown: NDArray[np.uint8], reading: ImageReading, first: tuple[str, Any] | None
) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(shown)
    draw = ImageDraw.Draw(image)
    height, width = shown.shape[:2]
    size = max(9, min(height, width) // _LETTERS)
    words = _words(reading, first)
    while True:
        font = ImageFont.load_default(size)
        widest = max(font.getlength(text) for text in words)
        if widest <= 0.96 * width or size <= 6:
            break
        size -= 1
    halo, step = max(1, size // 9), round(size * 1.3)
    line = max(1, min(height, width) // 400)
    for left, top, right, bottom in reading.boxes.values():
        draw.rectangle((left, top, right - 1, bottom - 1), outline=_BOX, width=line)
    x = size // 2
    lines = [(x, x, words[0], _WARNING)]
    y = height - step * (len(words) - 1 + (first is not None)) - halo
    lines += [(x, y + step * i, text, _INK) for i, text in enumerate(words[1:])]
    for left, top, text, ink in lines:
        draw.text((left, top), text, fill=ink, font=font, stroke_width=halo, stroke_fill=_SHADOW)
    if first is not None:
        y = height - step - halo
        _draw_scale(image, draw, (x, y, min(width // 3, 20 * size), size), scale_of(first[1]), font)
    return np.asarray(image)


def _draw_scale(
    image: Any, draw: Any, place: tuple[int, int, int, int], top: float, font: Any
) -> None:
    from PIL import Image

    x, y, long, size = place
    steps = np.linspace(0, 255, max(long, 2)).round().astype(np.intp)
    bar = np.broadcast_to(sequential()[steps], (size, len(steps), 3))
    image.paste(Image.fromarray(np.ascontiguousarray(bar)), (x, y))
    text = f" evidence, 0 to {top:.3g}"
    halo = max(1, size // 9)
    draw.text((x + long, y), text, fill=_INK, font=font, stroke_width=halo, stroke_fill=_SHADOW)


def _words(reading: ImageReading, first: tuple[str, Any] | None) -> list[str]:
    """Lines of the legend, the warning first."""
    words = [NOT_FOR_DIAGNOSIS.upper()]
    networks = [a.name for a in (reading.classifier, reading.segmenter) if a is not None]
    words += [name[:_MOST_LETTERS] for name in networks]
    if reading.classifier is not None:
        shown = reading.present[:_MOST_FINDINGS]
        calibrated = any(f.certainty is not None for f in shown)
        meaning = _CALIBRATED if calibrated else _MEANING
        found = [_said(finding) for finding in shown]
        rest = len(reading.present) - len(found)
        words += [meaning, *found] if found else ["No finding reaches its operating point"]
        words += [f"and {rest} more"] if rest else []
    if reading.cardiothoracic_ratio is not None:
        words.append(f"Cardiothoracic ratio {reading.cardiothoracic_ratio:.2f}")
    if first is not None:
        words.append(f"Colour: evidence for {first[0]} ({reading.method})")
    return words


def _said(finding: FindingValue) -> str:
    certainty = finding.certainty
    number = f"{finding.value:.2f}" if certainty is None else f"{100 * certainty:.0f} %"
    return f"{finding.label} {number}"


def presentation_state(reading: ImageReading) -> Dataset:
    """Outlines, boxes and text for a viewer to lay over the image, as Grayscale Softcopy
    Presentation State.

    Args:
        reading: The image.

    Returns:
        The object: a layer of structures, one of boxes and one of text. The image itself is
        shown as its own header says.

    Raises:
        DependencyError: If highdicom is missing.
        ImageReadError: If the header of the image does not allow it.
    """  # noqa: D205 - the name of the object is long
    hd = highdicom()
    source = reading.source
    with making(reading.path, "presentation state"):
        layers, annotations, content = [], [], list[object]()
        for order, (name, colour, objects, texts) in enumerate(_layers(reading), start=1):
            layer = hd.pr.GraphicLayer(
                layer_name=name, order=order, display_color=hd.color.CIELabColor.from_rgb(*colour)
            )
            graphics = [
                hd.pr.GraphicObject(graphic_type="POLYLINE", graphic_data=points, units="PIXEL")
                for points in objects
            ]
            written = [_text(text, place, reading.picture.shape) for text, place in texts]
            layers.append(layer)
            annotations.append(
                hd.pr.GraphicAnnotation(
                    referenced_images=[source],
                    graphic_layer=layer,
                    graphic_objects=graphics or None,
                    text_objects=written or None,
                )
            )
            content += [name, *objects, *texts]
        inverse = source.get("PhotometricInterpretation") == "MONOCHROME1"
        made: Dataset = hd.pr.GrayscaleSoftcopyPresentationState(
            referenced_images=[source],
            content_label="AI_RESULTS",
            content_description=NOT_FOR_DIAGNOSIS,
            graphic_layers=layers,
            graphic_annotations=annotations,
            presentation_lut_transformation=hd.PresentationLUTTransformation(
                presentation_lut_shape="INVERSE" if inverse else "IDENTITY"
            ),
            **placing(reading, "gsps", *content),
        )
        add_side(made, reading)
        add_study(made, reading)
    return made


def _layers(reading: ImageReading) -> list[tuple[str, Any, list[Any], list[Any]]]:
    """Name, colour, polygons, and texts with their place, of each layer that holds anything."""
    layers: list[tuple[str, Any, list[Any], list[Any]]] = []
    rings, names = [], []
    for name in main_structures(list(reading.masks)) if reading.masks else []:
        found = outlines(reading.masks[name])
        rings += found
        if found:
            names.append((name, tuple(found[0][0])))
    if rings:
        layers.append(("STRUCTURES", (120, 200, 255), rings, names))
    boxes, labels = [], []
    for label, (left, top, right, bottom) in reading.boxes.items():
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        boxes.append(np.array(corners, np.float64))
        labels.append((f"{label} (evidence)", (left, top)))
    if boxes:
        layers.append(("EVIDENCE", _BOX, boxes, labels))
    words = "\r\n".join(_words(reading, None))
    layers.append(("TEXT", _WARNING, [], [(words, None)]))
    return layers


def _text(text: str, place: tuple[float, float] | None, shape: tuple[int, ...]) -> Any:
    hd = highdicom()
    if place is not None:
        point = (float(place[0]), float(place[1]))
        return hd.pr.TextObject(
            text_value=text, units="PIXEL", anchor_point=point, anchor_point_visible=False
        )
    height, width = shape
    corner = (0.0, height * 0.75, width * 0.6, float(height))
    return hd.pr.TextObject(
        text_value=text, units="PIXEL", bounding_box=corner, text_justification="LEFT"
    )
