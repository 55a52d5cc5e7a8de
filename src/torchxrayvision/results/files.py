"""From one file to what the networks say of it, and on to DICOM objects and their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import ImageReadError, UnknownNameError
from torchxrayvision.explain import explain_raster
from torchxrayvision.files import FileState, sha256_of, write_atomically
from torchxrayvision.inference import predictions
from torchxrayvision.inputs import InputFile, ReadOptions
from torchxrayvision.measures import chosen_parts
from torchxrayvision.pictures import grey
from torchxrayvision.results.documents import key_objects, structured_report
from torchxrayvision.results.drawings import presentation_state, secondary_capture
from torchxrayvision.results.planes import parametric_map, segmentation
from torchxrayvision.results.readings import (
    Algorithm,
    FindingValue,
    ImageReading,
    check_kinds,
    making,
    read_source,
)
from torchxrayvision.segmentation import Segmentation, segment

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from pydicom.dataset import Dataset

    from torchxrayvision.images import Raster
    from torchxrayvision.models import Segmenter, XRayClassifier

_OP: Final = "operating-point"


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """Asks the networks about one file after the other.

    Args:
        classifier: In evaluation mode, on its device; None for no findings.
        segmenter: In evaluation mode, on its device; None for no masks.
        checkpoint: The file of the classifier's weights, where it was loaded from one.
        mask_threshold: Least probability inside a mask.
        structures: Structures to keep, as a person would name them; None for all.
        upright: Whether rotated images are turned upright for the segmenter.
        targets: Findings whose evidence is shown; None for the `most` largest that are present.
        most: How many, if `targets` is None; 0 for no heat maps.
        method: Of `explain_file`: `"gradcam"`, `"gradcam++"` or `"cam"`.

    Raises:
        UnknownNameError: If a structure or target is not one of its network.
    """

    classifier: XRayClassifier | None = None
    segmenter: Segmenter | None = None
    checkpoint: Path | None = None
    mask_threshold: float = 0.5
    structures: Sequence[str] | None = None
    upright: bool = False
    targets: Sequence[str] | None = None
    most: int = 1
    method: str = "gradcam"

    def __post_init__(self) -> None:
        self._chosen()
        known = [] if self.classifier is None else [n for n in self.classifier.targets if n]
        for target in self.targets or ():
            if target not in known:
                raise UnknownNameError("target", target, known)
        classes = _sha256(self.classifier, self.checkpoint)
        object.__setattr__(self, "_hashes", (classes, _sha256(self.segmenter, None)))

    def algorithms(self) -> tuple[Algorithm | None, Algorithm | None]:
        """Which networks answer: the classifier and the segmenter."""
        return self._classifier(), self._segmenter()

    def _chosen(self) -> list[str]:
        names = [] if self.segmenter is None else list(self.segmenter.targets)
        return names if self.structures is None else chosen_parts(self.structures, names)

    def read(self, path: str | os.PathLike[str]) -> ImageReading:
        """What the networks say of one DICOM radiograph.

        Args:
            path: The file.

        Returns:
            Image, findings, masks, evidence; nothing is written.

        Raises:
            ImageReadError: If it is no DICOM radiograph, cannot be read, or changes meanwhile.
        """
        file = Path(path)
        before = _state(file)
        data = file.read_bytes()
        source = read_source(data, str(path))
        raster = _raster(data, str(path))
        findings, check, classifier = self._findings(file)
        found = self._segmentation(file)
        masks = {} if found.masks is None else {n: found.masks[n] for n in self._chosen()}
        heats, boxes = self._evidence(str(file), raster, findings)
        if _state(file) != before:
            raise ImageReadError(path, "the file changed while it was read")
        ratio = found.cardiothoracic()
        return ImageReading(
            source=source,
            picture=grey(raster.to_array()[0]) if found.picture is None else found.picture,
            findings=findings,
            classifier=classifier,
            masks=masks,
            segmenter=self._segmenter(),
            heats=heats,
            method=self.method,
            boxes=boxes,
            cardiothoracic_ratio=None if ratio is None else ratio.ratio,
            pixel_spacing=raster.info.pixel_spacing,
            aspect=raster.info.aspect,
            check=check,
            path=str(path),
        )

    def _findings(self, file: Path) -> tuple[tuple[FindingValue, ...], str, Algorithm | None]:
        model = self.classifier
        if model is None:
            return (), "", None
        (result,) = predictions(
            model, [InputFile(file, str(file))], engine="torch", batch_size=1,
            reading=ReadOptions(workers=1),
        )  # fmt: skip
        if result.error or result.outputs is None:
            raise ImageReadError(file, result.error)
        kind = model.check_kind(None)
        points = getattr(model, "op_threshs", None)
        findings = []
        for index, (label, trained) in enumerate(zip(model.targets, model.trained, strict=True)):
            value = float(result.outputs[index])
            if not trained or not np.isfinite(value):
                continue
            point = None if points is None else float(points[index])
            point = None if point is None or np.isnan(point) else point
            findings.append(FindingValue(label, value, kind, point, _present(value, kind, point)))
        return tuple(findings), result.check, self._classifier()

    def _classifier(self) -> Algorithm | None:
        if self.classifier is None:
            return None
        settings = (f"output={self.classifier.check_kind(None)}",)
        return Algorithm(str(self.classifier.weights), self._hashes[0], settings)  # type: ignore[attr-defined]

    def _segmenter(self) -> Algorithm | None:
        if self.segmenter is None:
            return None
        settings = (f"mask threshold={self.mask_threshold:g}",)
        return Algorithm(str(self.segmenter.weights), self._hashes[1], settings)  # type: ignore[attr-defined]

    def _segmentation(self, file: Path) -> Segmentation:
        if self.segmenter is None:
            return Segmentation(str(file), "")
        (found,) = segment(
            [file], self.segmenter, threshold=self.mask_threshold, upright=self.upright
        )
        if found.error:
            raise ImageReadError(file, found.error)
        return found

    def _evidence(
        self, path: str, raster: Raster, findings: Sequence[FindingValue]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.classifier is None:
            return {}, {}
        targets = self.targets
        if targets is None:
            present = sorted((f for f in findings if f.present), key=lambda f: -f.value)
            targets = [f.label for f in present[: self.most]]
        heats, boxes = {}, {}
        for target in targets:
            found = explain_raster(path, raster, self.classifier, target, self.method)
            heats[target] = found.heat
            if found.box is not None:
                boxes[target] = tuple(float(edge) for edge in found.box)
        return heats, boxes


def _raster(data: bytes, path: str) -> Raster:
    from torchxrayvision.images import read_raster

    try:
        return read_raster(data)
    except ImageReadError as error:
        raise type(error)(path, error.reason, error.advice) from None


def _state(file: Path) -> FileState:
    try:
        return FileState.of(file)
    except OSError as error:
        raise ImageReadError(file, error.strerror or "cannot be read") from None


def _sha256(model: Any, checkpoint: Path | None) -> str:
    file = checkpoint or getattr(model, "weights_filename_local", None)
    return sha256_of(file) if file is not None and Path(file).is_file() else ""


def _present(value: float, kind: str, point: float | None) -> bool | None:
    if point is None or kind not in (_OP, "probability"):
        return None
    return value >= (0.5 if kind == _OP else point)


def make_objects(
    reading: ImageReading,
    kinds: Sequence[str] = ("sr", "sc"),
    *,
    segmentation_type: str = "BINARY",
    key_threshold: float = 0.5,
) -> dict[str, list[Dataset]]:
    """The DICOM objects of one image.

    Args:
        reading: What was said of it.
        kinds: Of `KINDS`.
        segmentation_type: See `segmentation`.
        key_threshold: Least number of a finding for which the image is selected (`"ko"`).

    Returns:
        Kind to objects, one each, of `"pm"` one per heat map. There is no `"seg"` without masks,
        no `"pm"` without heat maps and a known size of pixels, and no `"ko"` where no finding
        reaches the threshold.

    Raises:
        UnknownNameError: If a kind is none of them.
        DependencyError: If highdicom is missing.
        ImageReadError: If the header of the image does not allow an object.
    """
    objects: dict[str, list[Dataset]] = {}
    for kind in check_kinds(kinds):
        if kind == "sr":
            objects[kind] = [structured_report(reading)]
        elif kind == "sc":
            objects[kind] = [secondary_capture(reading)]
        elif kind == "seg" and reading.masks:
            objects[kind] = [segmentation(reading, segmentation_type)]
        elif kind == "gsps":
            objects[kind] = [presentation_state(reading)]
        elif kind == "pm" and reading.heats and reading.pixel_spacing is not None:
            objects[kind] = [parametric_map(reading, label) for label in reading.heats]
        elif kind == "ko":
            above = [f for f in reading.findings if f.value >= key_threshold]
            if above:
                text = f"{len(above)} findings at or above {key_threshold:g}"
                objects[kind] = [key_objects([reading], text)]
    return objects


def dicom_results(
    path: str | os.PathLike[str],
    reader: Reader,
    kinds: Sequence[str] = ("sr", "sc"),
    **options: Any,
) -> dict[str, list[Dataset]]:
    """All DICOM objects of one file.

    Args:
        path: A DICOM radiograph.
        reader: The networks.
        kinds: See `make_objects`.
        **options: Of `make_objects`.

    Returns:
        Kind to objects; nothing is written.

    Raises:
        ImageReadError: If it is no DICOM radiograph or cannot be read.
        UnknownNameError: If a kind is none of them.
        DependencyError: If highdicom is missing.
    """
    return make_objects(reader.read(path), kinds, **options)


def save_objects(objects: Mapping[str, Sequence[Dataset]], folder: Path) -> dict[str, list[str]]:
    """Write objects as files, each named by its kind and its own SOP Instance UID.

    Args:
        objects: Kind to objects.
        folder: An existing folder.

    Returns:
        Kind to the names of its files.

    Raises:
        OSError: If a file cannot be written.
    """
    names: dict[str, list[str]] = {}
    for kind, several in objects.items():
        for made in several:
            name = f"{kind}-{made.SOPInstanceUID}.dcm"
            with write_atomically(folder / name, durable=False) as part, making(name, kind):
                made.save_as(part, enforce_file_format=True)
            names.setdefault(kind, []).append(name)
    return names
