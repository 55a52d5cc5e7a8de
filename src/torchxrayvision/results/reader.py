"""What the networks say of DICOM files: each file is read once, for all networks and the header."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchxrayvision.errors import ImageReadError, UnknownNameError
from torchxrayvision.files import FileState, sha256_of
from torchxrayvision.inference import Graph, MaskGraph, calibrated, input_size, open_by_name
from torchxrayvision.inputs import (
    AIR,
    InputFile,
    Readers,
    ReadOptions,
    crop_and_resize,
    read_bytes,
    read_file,
    reason_of,
)
from torchxrayvision.measures import chosen_parts
from torchxrayvision.pictures import grey
from torchxrayvision.results.readings import (
    Algorithm,
    FindingValue,
    ImageReading,
    read_source,
)
from torchxrayvision.screening import quick_check
from torchxrayvision.segmentation import Segmentation, Segmenting

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from torchxrayvision.calibration import Calibration
    from torchxrayvision.images import Raster
    from torchxrayvision.inference import ClassifierEngine, GraphEngine
    from torchxrayvision.inputs import Read
    from torchxrayvision.models import Segmenter, XRayClassifier
    from torchxrayvision.screening import Reference
    from torchxrayvision.segmentation import Prepared

    Classifier = XRayClassifier | Graph

_OP = "operating-point"


@dataclass(frozen=True, slots=True, eq=False)
class _Image:
    """One file, read and ready for the networks."""

    file: InputFile
    source: Dataset
    raster: Raster
    check: str = ""
    square: NDArray[np.float32] | None = None
    prepared: Prepared | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """Asks the networks about images; threads may share one, which ask in turn.

    Args:
        classifier: In evaluation mode, on its device, or a `Graph`; None for no findings. Heat
            maps of a graph need torch and the network that it was made of.
        segmenter: In evaluation mode, on its device, or a `MaskGraph`; None for no masks.
        checkpoint: The file of the classifier's weights, where it was loaded from one.
        calibration: What `xrv calibrate` wrote for the classifier, or its file; with it findings
            have probabilities, and thresholds if it chose some.
        mask_threshold: Least probability inside a mask.
        structures: Structures to keep, as a person would name them; None for all.
        upright: Whether rotated images are turned upright for the segmenter.
        targets: Findings whose evidence is shown; None for the `most` largest that are present.
        most: How many, if `targets` is None; 0 for no heat maps.
        method: Of `explain_file`: `"gradcam"`, `"gradcam++"` or `"cam"`.
        batch_size: Images that `read_all` takes through the networks together.
        reference: What lies far from it is refused by the screening; None for none.
        engine: What computes a classifier that is no graph: `"torch"`, `"onnx"` or `"openvino"`.

    Raises:
        UnknownNameError: If a structure or target is not one of its network.
        CalibrationError: If the calibration is for other weights or other images.
        ValueError: If there is a calibration without a classifier.
        GraphError: If heat maps are asked of a graph whose network cannot be loaded.
    """

    classifier: Classifier | None = None
    segmenter: Segmenter | MaskGraph | None = None
    checkpoint: Path | None = None
    calibration: Calibration | str | os.PathLike[str] | None = None
    mask_threshold: float = 0.5
    structures: Sequence[str] | None = None
    upright: bool = False
    targets: Sequence[str] | None = None
    most: int = 1
    method: str = "gradcam"
    batch_size: int = 1
    reference: Reference | None = None
    engine: str = "torch"
    _hashes: tuple[str, str] = field(init=False, repr=False)
    _explained: XRayClassifier | None = field(init=False, repr=False, default=None)
    _calibration: Calibration | None = field(init=False, repr=False, default=None)
    _engines: dict[int, ClassifierEngine | GraphEngine] = field(
        init=False, repr=False, default_factory=dict
    )
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._chosen()
        known = [] if self.classifier is None else [n for n in self.classifier.targets if n]
        for target in self.targets or ():
            if target not in known:
                raise UnknownNameError("target", target, known)
        if self.calibration is not None:
            if self.classifier is None:
                msg = "a calibration goes together with a classifier, got none"
                raise ValueError(msg)
            found, _ = calibrated(self.calibration, self.classifier, None)
            object.__setattr__(self, "_calibration", found)
        object.__setattr__(self, "_explained", self._network())
        classes = _sha256(self.classifier, self.checkpoint)
        object.__setattr__(self, "_hashes", (classes, _sha256(self.segmenter, None)))

    def _network(self) -> XRayClassifier | None:
        """What heat maps are made with, if any are asked for; gradients are not of a graph."""
        if not isinstance(self.classifier, Graph):
            return self.classifier
        drawn = self.most > 0 if self.targets is None else bool(self.targets)
        return self.classifier.network("heat maps") if drawn else None

    @property
    def runs_graph(self) -> bool:
        """Whether the classifier is a graph, which needs no torch."""
        return isinstance(self.classifier, Graph)

    def algorithms(self) -> tuple[Algorithm | None, Algorithm | None]:
        """Which networks answer: the classifier and the segmenter."""
        return self._about_classifier(), self._about_segmenter()

    def calibrated(self) -> dict[str, Any] | None:
        """What tables say of the calibration; None without one."""
        return None if self._calibration is None else self._calibration.summary()

    def _chosen(self) -> list[str]:
        names = [] if self.segmenter is None else list(self.segmenter.targets)
        return names if self.structures is None else chosen_parts(self.structures, names)

    def settings(self) -> dict[str, Any]:
        """What was asked of the networks, as JSON holds it: what decides on results but weights."""
        names = ("mask_threshold", "structures", "upright", "targets", "most", "method")
        values = {name: getattr(self, name) for name in names}
        if self.reference is not None:
            values["reference"] = self.reference.digest
        computed = self._computed_by()
        if computed:
            values["engine"] = computed
        if isinstance(self.segmenter, MaskGraph):
            values["segmenter_engine"] = str(self.segmenter.choice)
        said = {
            name: list(value) if isinstance(value, list | tuple) else value
            for name, value in values.items()
        }
        calibration = self._calibration
        return said | ({} if calibration is None else {"calibration": calibration.sha256})

    def _computed_by(self) -> str:
        """The engine of the classifier; empty for torch, whose numbers need no other word."""
        if isinstance(self.classifier, Graph):
            return str(self.classifier.choice)
        return "" if self.engine == "torch" else self.engine

    def read(self, path: str | os.PathLike[str]) -> ImageReading:
        """What the networks say of one DICOM radiograph.

        Args:
            path: The file.

        Returns:
            Image, findings, masks, evidence; nothing is written.

        Raises:
            ImageReadError: If it is no DICOM radiograph, cannot be read, or changes meanwhile.
        """
        file = InputFile(Path(path), str(path))
        (reading,) = self._readings([self._image(file, read_file, ReadOptions())])
        if isinstance(reading, ImageReadError):
            raise reading
        return reading

    def read_all(
        self, files: Iterable[InputFile], reading: ReadOptions | None = None
    ) -> Iterator[tuple[InputFile, ImageReading | str]]:
        """What the networks say of many files, which workers read ahead.

        Args:
            files: What `expand` gives; consumed lazily.
            reading: How files are read.

        Yields:
            Each file, in order, with what was said of it or in one clause why there is nothing.
        """
        options = reading or ReadOptions()

        def make(file: InputFile, read: Read) -> _Image:
            return self._image(file, read, options)

        with Readers(make, options) as readers:
            images = readers.map(files, ahead=self.batch_size + readers.workers)
            while chunk := list(itertools.islice(images, self.batch_size)):
                good = [image for _, image in chunk if not isinstance(image, str)]
                found = iter(self._readings(good))
                for file, image in chunk:
                    said = image if isinstance(image, str) else next(found)
                    yield file, reason_of(said) if isinstance(said, ImageReadError) else said

    def _image(self, file: InputFile, read: Read, options: ReadOptions) -> _Image:
        """The part that needs no network; any thread may call it."""
        data = _bytes(file, options)
        name = file.given
        source = read_source(data, name)
        known = replace(file, data=data)
        try:
            raster = read(known)
        except ImageReadError as error:
            raise type(error)(name, error.reason, error.advice) from None
        square, prepared, check = None, None, ""
        if self.classifier is not None:
            square = crop_and_resize(known, raster, input_size(self.classifier))
            check = quick_check(known, raster, square, self.reference)
        if self.segmenter is not None:
            prepared = self._segmenting.prepare(known, raster)
        return _Image(replace(file, data=None), source, raster, check, square, prepared)

    def _engine(self, batch_size: int) -> ClassifierEngine | GraphEngine:
        assert self.classifier is not None  # the caller asked
        with self._lock:
            if batch_size not in self._engines:
                self._engines[batch_size] = open_by_name(
                    self.classifier, self._kind(), batch_size, self.engine
                )
            return self._engines[batch_size]

    @cached_property
    def _segmenting(self) -> Segmenting:
        assert self.segmenter is not None  # the caller asked
        return Segmenting(
            self.segmenter, self.mask_threshold, None, self.upright, self.batch_size, "torch",
            "exact",
        )  # fmt: skip

    def _readings(self, images: list[_Image]) -> list[ImageReading | ImageReadError]:
        """What is said of a batch; an error where an image cannot be explained."""
        findings, masks = self._findings(images), self._masks(images)
        made: list[ImageReading | ImageReadError] = []
        for image, said, found in zip(images, findings, masks, strict=True):
            try:
                made.append(self._reading(image, said, found))
            except ImageReadError as error:
                made.append(error)
        return made

    def _reading(
        self, image: _Image, findings: tuple[FindingValue, ...], found: Segmentation
    ) -> ImageReading:
        name, raster = image.file.given, image.raster
        heats, boxes = self._evidence(name, raster, findings)
        ratio = found.cardiothoracic()
        return ImageReading(
            source=image.source,
            picture=grey(raster.to_array()[0]) if found.picture is None else found.picture,
            findings=findings,
            classifier=self._about_classifier(),
            masks={} if found.masks is None else {n: found.masks[n] for n in self._chosen()},
            segmenter=self._about_segmenter(),
            heats=heats,
            method=self.method,
            boxes=boxes,
            cardiothoracic_ratio=None if ratio is None else ratio.ratio,
            pixel_spacing=raster.info.pixel_spacing,
            aspect=raster.info.aspect,
            check=image.check,
            path=name,
        )

    def _findings(self, images: list[_Image]) -> list[tuple[FindingValue, ...]]:
        model = self.classifier
        if model is None:
            return [()] * len(images)
        engine = self._engine(1 if len(images) == 1 else self.batch_size)
        with self._lock:
            engine.input[...] = AIR
            for place, image in enumerate(images):
                engine.input[place] = image.square
            values, _ = engine()
        points = getattr(model, "op_threshs", None)
        found = [_finding_values(model, engine.kind, row, points) for row in values[: len(images)]]
        calibration = self._calibration
        if calibration is not None:
            found = [tuple(_calibrated(one, calibration) for one in each) for each in found]
        return found

    def _kind(self) -> str:
        """What the numbers of the classifier are."""
        assert self.classifier is not None  # the caller asked
        wanted = None if self._calibration is None else self._calibration.output
        return self.classifier.check_kind(wanted)

    def _masks(self, images: list[_Image]) -> list[Segmentation]:
        if self.segmenter is None:
            return [Segmentation(image.file.given, "") for image in images]
        chunk = [(i.file, i.prepared) for i in images if i.prepared is not None]
        with self._lock:
            return list(self._segmenting.batch(chunk))

    def _about_classifier(self) -> Algorithm | None:
        if self.classifier is None:
            return None
        settings = [f"output={self._kind()}"]
        if self._calibration is not None:
            settings.append(f"calibration sha256={self._calibration.sha256}")
        return Algorithm(str(self.classifier.weights), self._hashes[0], tuple(settings))

    def _about_segmenter(self) -> Algorithm | None:
        if self.segmenter is None:
            return None
        settings = (f"mask threshold={self.mask_threshold:g}",)
        return Algorithm(str(self.segmenter.weights), self._hashes[1], settings)

    def _evidence(
        self, path: str, raster: Raster, findings: Sequence[FindingValue]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._explained is None:
            return {}, {}
        targets = self.targets
        if targets is None:
            present = sorted((f for f in findings if f.present), key=lambda f: -f.number)
            targets = [f.label for f in present[: self.most]]
        if not targets:
            return {}, {}
        from torchxrayvision.explain import explain_raster

        heats, boxes = {}, {}
        for target in targets:
            with self._lock:
                found = explain_raster(path, raster, self._explained, target, self.method)
            heats[target] = found.heat
            if found.box is not None:
                boxes[target] = tuple(float(edge) for edge in found.box)
        return heats, boxes


def _bytes(file: InputFile, options: ReadOptions) -> bytes:
    """All bytes of a file that nobody changes meanwhile."""
    if file.problem or file.member is not None or file.data is not None:
        return read_bytes(file, options)
    before = _state(file.path)
    data = read_bytes(file, options)
    if _state(file.path) != before:
        raise ImageReadError(file.path, "the file changed while it was read")
    return data


def _state(file: Path) -> FileState:
    try:
        return FileState.of(file)
    except OSError as error:
        raise ImageReadError(file, error.strerror or "cannot be read") from None


def _sha256(model: Any, checkpoint: Path | None) -> str:
    if isinstance(model, Graph | MaskGraph) and checkpoint is None:
        return model.weights_sha256
    file = checkpoint or getattr(model, "weights_filename_local", None)
    return sha256_of(file) if file is not None and Path(file).is_file() else ""


def _finding_values(
    model: Classifier, kind: str, values: NDArray[np.float32], points: Any
) -> tuple[FindingValue, ...]:
    findings = []
    for index, (label, trained) in enumerate(zip(model.targets, model.trained, strict=True)):
        value = float(values[index])
        if not trained or not np.isfinite(value):
            continue
        point = None if points is None else float(points[index])
        point = None if point is None or np.isnan(point) else point
        findings.append(FindingValue(label, value, kind, point, _present(value, kind, point)))
    return tuple(findings)


def _calibrated(finding: FindingValue, calibration: Calibration) -> FindingValue:
    """A finding with what the calibration makes of its number."""
    chosen = calibration.findings.get(finding.label)
    if chosen is None:
        return finding
    value, kind = np.array([finding.value], np.float64), calibration.output
    called, sets, threshold = chosen.call(value, kind), chosen.sets(value), ""
    if called is not None and chosen.threshold is not None:
        threshold = f"{chosen.threshold['on']} >= {float(chosen.threshold['at']):.9g}"
    return replace(
        finding,
        certainty=float(np.float32(chosen.probabilities(value, kind)[0])),
        present=finding.present if called is None else bool(called[0]),
        threshold=threshold,
        conformal="" if sets is None else str(sets[0]),
    )


def _present(value: float, kind: str, point: float | None) -> bool | None:
    if point is None or kind not in (_OP, "probability"):
        return None
    return value >= (0.5 if kind == _OP else point)
