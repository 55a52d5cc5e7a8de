"""What the networks say of an image of the page: findings, evidence, structures."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.files import Provenance, sha256_of
from torchxrayvision.inference import (
    Graph,
    MaskGraph,
    fingerprint_of,
    open_by_name,
    predictions,
    preprocessing_of,
    require_torch,
    torch_version,
)
from torchxrayvision.measures import area
from torchxrayvision.pictures import palette
from torchxrayvision.results import outlines
from torchxrayvision.segmentation import MEASURES, NamedSegmenter, main_structures, segment
from torchxrayvision.transforms import resample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from torchxrayvision.calibration import Calibration
    from torchxrayvision.explain import Explanation
    from torchxrayvision.images import Raster
    from torchxrayvision.inference import ClassifierEngine, GraphEngine
    from torchxrayvision.inputs import InputFile, ReadOptions
    from torchxrayvision.models import Segmenter, XRayClassifier
    from torchxrayvision.segmentation import Segmentation

_OP: Final = "operating-point"
_REFUSED: Final = "refused: "
_COARSE: Final = 512  # rows and columns of a map that is sent: networks see no more


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one classifier says of one image.

    Args:
        error: Why it says nothing, or an empty string.
        check: What the screening says: `ok`, or `refused:` or `noted:` and the reason.
        values: Of the kind that `xrv predict` gives, float32, shape (P,); None after an error.
        probabilities: Of the same outputs, float32, shape (P,), or None where there are none.
        embedding: Features of unit length, float32, shape (D,), or None after an error.
        cells: With a calibration: name of each of its columns to the value, as `xrv predict
            --calibration` gives them.
    """

    error: str
    check: str = ""
    values: NDArray[np.float32] | None = None
    probabilities: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    cells: Mapping[str, Any] = field(default_factory=dict)

    @property
    def refused(self) -> str:
        """Why the screening refuses the image; empty where it does not."""
        return self.check.removeprefix(_REFUSED) if self.check.startswith(_REFUSED) else ""


@dataclass(eq=False)
class Classifier:
    """A network for findings and what is known of it.

    Args:
        model: In evaluation mode, or a `Graph`, of which only heat maps need torch.
        checkpoint: Its file, where that is the user's own.
        calibration: For these weights, or None.
        engine: What computes a model that is no graph: `"torch"`, `"onnx"` or `"openvino"`.
    """

    model: XRayClassifier | Graph
    checkpoint: Path | None = None
    calibration: Calibration | None = None
    engine: str = "torch"
    lock: threading.Lock = field(default_factory=threading.Lock)
    scales: dict[tuple[str, str], float] = field(default_factory=dict)
    _opened: dict[bool, ClassifierEngine | GraphEngine] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.kind = self.model.check_kind(None)
        pairs = zip(self.model.targets, self.model.trained, strict=True)
        self.columns = {name: i for i, (name, good) in enumerate(pairs) if good}
        self.sha256 = self._file_hash()

    def _file_hash(self) -> str:
        if isinstance(self.model, Graph) and self.checkpoint is None:
            return self.model.weights_sha256
        file = self.checkpoint or getattr(self.model, "weights_filename_local", None)
        return sha256_of(file) if file is not None and Path(file).is_file() else ""

    @property
    def name(self) -> str:
        """Of its weights."""
        return str(self.model.weights or (self.checkpoint and self.checkpoint.name) or "")

    @property
    def provenance(self) -> Provenance:
        """What makes its numbers, as the tables of `xrv predict` say it."""
        made = self.calibration
        return Provenance(
            command="xrv app", weights=self.name, weights_sha256=fingerprint_of(self.model),
            output=self.kind, calibration=None if made is None else made.summary(),
            preprocessing=preprocessing_of(self.model),
        )  # fmt: skip

    def point(self, index: int) -> float | None:
        """Operating point of an output as a probability, or None."""
        points = self.model.op_threshs
        value = float("nan") if points is None else float(points[index])
        return None if value != value else value

    def is_above(self, index: int, value: float) -> bool | None:
        """Whether an output reaches its operating point; None where there is none."""
        point = self.point(index)
        if point is None or self.kind not in (_OP, "probability"):
            return None
        return value >= (0.5 if self.kind == _OP else point)

    def read(self, files: Sequence[InputFile], reading: ReadOptions) -> list[Reading]:
        """What it says of some images; numbers are those of `xrv predict`, to the last bit.

        Args:
            files: Run as one batch.
            reading: How they are read.
        """
        with self.lock:
            results = list(
                predictions(
                    self.model, list(files), kind=self.model.raw_kind, batch_size=len(files),
                    engine="torch", reading=reading, embeddings=True,
                    opened=self._engine(len(files)),
                )
            )  # fmt: skip
        readings = []
        for result in results:
            if result.error or result.outputs is None or result.embedding is None:
                readings.append(Reading(result.error, result.check))
                continue
            raw = result.outputs
            cells: Mapping[str, Any] = {}
            values = self._of(raw, self.kind)
            has_chances = "probability" in self.model.kinds
            probabilities = self._of(raw, "probability") if has_chances else None
            if self.calibration is not None:
                taken = self._of(raw, self.calibration.output)
                cells = self.calibration.row({n: taken[i] for n, i in self.columns.items()})
            length = float(np.linalg.norm(result.embedding)) or 1.0
            readings.append(
                Reading("", result.check, values, probabilities, result.embedding / length, cells)
            )
        return readings

    def _engine(self, images: int) -> ClassifierEngine | GraphEngine | None:
        """What stays open between images: one for single ones, one for those read together.

        None for torch, which is ready at once and would hold its weights twice.
        """
        if not isinstance(self.model, Graph) and self.engine == "torch":
            return None
        found = self._opened.get(images > 1)
        if found is None or found.batch_size < images:
            found = open_by_name(self.model, self.model.raw_kind, images, self.engine)
            self._opened[images > 1] = found
        return found

    def _of(self, raw: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
        """Raw outputs of an image, shape (P,), as another kind."""
        found: NDArray[np.float32]
        model = self.model
        if isinstance(model, Graph):
            found = model.convert(raw[None], kind)[0]
            return found
        import torch

        with torch.inference_mode():
            values = model.convert(torch.from_numpy(raw)[None], kind)
            found = model.named_values(values, kind)[0].numpy()
        return found

    def network(self) -> XRayClassifier:
        """What heat maps are made with.

        Raises:
            GraphError: If this is a graph whose network cannot be loaded here.
        """
        model = self.model
        return model.network("heat maps") if isinstance(model, Graph) else model

    @property
    def explains(self) -> bool:
        """Whether `network` is at hand."""
        return not isinstance(self.model, Graph) or self.model.has_network

    def evidence(self, raster: Raster, finding: str, method: str) -> Evidence:
        """Where the evidence for a finding lies.

        Args:
            raster: The image.
            finding: One of `columns`.
            method: Of `explain_raster`.

        Raises:
            UnknownNameError: If there is no such finding or method.
            GraphError: If this is a graph whose network cannot be loaded here.
        """
        if finding not in self.columns:
            raise UnknownNameError("target", finding, list(self.columns))
        with self.lock:
            model = self.network()
            from torchxrayvision.explain import evidence_scale, explain_raster

            found = explain_raster("", raster, model, finding, method)
            # One scale per finding: as strong a colour for as strong evidence in every image. To
            # look it up hashes every tensor of the network, so it is kept.
            if (method, finding) not in self.scales:
                self.scales[method, finding] = evidence_scale(model, finding, method)
            scale = self.scales[method, finding]
        return Evidence.of(found, scale)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A heat map as a viewer takes it.

    Args:
        facts: What is said of it, for JSON.
        heat: float32, shape (R, R): the square that the network saw, at most 512 pixels a side.
    """

    facts: dict[str, Any]
    heat: NDArray[np.float32]

    @classmethod
    def of(cls, found: Explanation, scale: float) -> Evidence:
        """The map of an explanation, with the scale of its finding."""
        from dataclasses import replace

        scaled = replace(found, scale=scale or None)
        place = found.placement
        square = place.cut(found.heat)
        coarse = resample(square, *(min(side, _COARSE) for side in square.shape))
        row, column = found.peak
        facts = {
            "finding": found.target, "method": found.method, "value": found.value,
            "kind": found.kind, "operatingPoint": found.operating_point, "limit": scaled.limit,
            "scale": scale, "note": scaled.note, "box": scaled.box, "peak": [column, row],
            "square": [place.left, place.top, square.shape[1], square.shape[0]],
            "rows": coarse.shape[0], "columns": coarse.shape[1],
        }  # fmt: skip
        return cls(facts, np.ascontiguousarray(coarse, np.float32))


class Networks:
    """The networks of a page.

    Args:
        classifiers: One or more; the first is shown first.
        segmenter: Name of a network for structures, loaded when it is first asked for; None for
            none.
    """

    def __init__(self, classifiers: Sequence[Classifier], segmenter: str | None = None) -> None:
        self.classifiers = list(classifiers)
        self.segmenter_name = segmenter
        self._segmenter: Segmenter | MaskGraph | None = None
        self._lock = threading.Lock()

    @property
    def segmenter(self) -> Segmenter | MaskGraph:
        """The network for structures, or its graph where torch is not installed.

        Raises:
            RemoteError: If its weights cannot be fetched.
            UnknownNameError: If the page has none.
            GraphError: If torch is missing, and no graph is in the cache or in the package.
        """
        with self._lock:
            if self._segmenter is None:
                if self.segmenter_name is None:
                    raise UnknownNameError("segmentation network", "none", ())
                named = NamedSegmenter.of(self.segmenter_name)
                if torch_version() is None:
                    self._segmenter = named.graph("auto")
                if self._segmenter is None:
                    require_torch("structures")
                    self._segmenter = named.load()
            return self._segmenter

    @property
    def segmenter_sha256(self) -> str:
        """Of the file of its weights; empty before it is loaded."""
        if isinstance(self._segmenter, MaskGraph):
            return self._segmenter.weights_sha256
        file = self._segmenter and self._segmenter.weights_filename_local
        return sha256_of(file) if file else ""

    def structures(
        self, file: InputFile, reading: ReadOptions, *, upright: bool = False
    ) -> dict[str, Any]:
        """Outlines and measures of an image, for JSON; numbers are those of `xrv segment`.

        Args:
            file: The image.
            reading: How it is read.
            upright: See `segment`.
        """
        net = self.segmenter
        with self._lock:
            (found,) = segment([file], net, upright=upright, reading=reading)
        if found.error or found.masks is None:
            return {"error": found.error}
        shown = main_structures(list(found.masks))
        colours = dict(zip(found.masks, palette(len(found.masks)).tolist(), strict=True))
        parts = []
        for name in shown:
            mask = found.masks[name]
            rings = [np.round(ring, 2).ravel().tolist() for ring in outlines(mask)]
            facts = {"name": name, "colour": colours[name], "rings": rings, "pixels": area(mask)}
            if found.pixel_spacing is not None:
                facts["mm2"] = area(mask, found.pixel_spacing)
            parts.append(facts)
        values = found.measures()
        return {
            "error": "", "network": self.segmenter_name, "structures": parts,
            "measures": {name: _number(values[name]) for name in MEASURES},
            "across": _across(found), "doubts": found.doubts(), "turned": 90 * found.turned,
            "upright": upright, "lines": _lines(found),
        }  # fmt: skip


def _number(value: float) -> float | None:
    return None if value != value else value


def _across(found: Segmentation) -> float | None:
    """Millimetres between columns of the upright image, or None."""
    if found.pixel_spacing is None or found.masks is None:
        return None
    return found.pixel_spacing[1 - found.masks.placement.turns % 2]


def _lines(found: Segmentation) -> dict[str, Any] | None:
    """The distances behind the cardiothoracic ratio, each as two points of the picture."""
    measured, masks = found.cardiothoracic(), found.masks
    if measured is None or masks is None:
        return None
    place = masks.placement

    def back(point: tuple[float, float]) -> tuple[float, float]:
        """From the upright image to that of the file."""
        x, y = point
        turned = ((x, y), (place.width - y, x), (place.width - x, place.height - y),
                  (y, place.height - x))  # fmt: skip
        return turned[place.turns % 4]

    middle = measured.midline
    heart = [measured.heart_right, measured.heart_left]
    heights = [y for _, y in (*heart, measured.thorax_right)]
    reach = 0.12 * measured.thorax_width
    return {
        "thorax": [back(measured.thorax_right), back(measured.thorax_left)],
        "heartRight": [back(heart[0]), back((middle, heart[0][1]))],
        "heartLeft": [back((middle, heart[1][1])), back(heart[1])],
        "midline": [back((middle, min(heights) - reach)), back((middle, max(heights) + reach))],
    }
