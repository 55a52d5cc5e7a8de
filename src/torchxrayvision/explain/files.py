"""From a file to an explanation in the geometry of that file."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.explain.attribution import METHODS
from torchxrayvision.explain.counterfactual import check_animation, save_animation
from torchxrayvision.explain.model import at_rest, probability, target_index, value_kind
from torchxrayvision.explain.pointing import evidence_box
from torchxrayvision.explain.scale import (
    COUNTERFACTUAL,
    evidence_floor,
    evidence_of,
    evidence_scale,
    size_of,
)
from torchxrayvision.files import put_in_place
from torchxrayvision.images import read_raster
from torchxrayvision.inputs import Readers, ReadOptions, read_or_reason
from torchxrayvision.models import scale_is_known
from torchxrayvision.pictures import annotate, overlay, scale_of
from torchxrayvision.provenance import Provenance, png_text
from torchxrayvision.runs import (
    RunFolder,
    describe_inputs,
    fingerprint,
    in_batches,
    read_manifest,
    run_to_table,
    write_or_reason,
)
from torchxrayvision.transforms import Placement, prepare

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from torchxrayvision.explain.counterfactual import Autoencoder, Counterfactual
    from torchxrayvision.explain.model import Target
    from torchxrayvision.images import Raster
    from torchxrayvision.inputs import InputFile, Paths, Read
    from torchxrayvision.models import XRayModel
    from torchxrayvision.runs import Batch, Record, Summary

_LEAST_SHARE: Final = 0.02  # of the scale: weaker maps get no colour
_LIST: Final = "explanations.json"
_LONGEST_NAME: Final = 100  # characters, so that it has room in every file system


@dataclass(frozen=True, eq=False)
class Explanation:
    """What speaks for a target in one radiograph.

    Attributes:
        path: The file.
        target: Name of the target, or its place.
        method: Name of the method.
        value: What the network says, see `kind`.
        kind: `"probability"` or `"years"`.
        image: The radiograph, float32 (H, W) in [-1024, 1024], upright.
        heat: Evidence, float32 (H, W); NaN outside the square that the network saw.
        placement: Where that square lies.
        counterfactual: The frames, if that was the method.
        scale: Evidence that gets the strongest colour, see `evidence_scale`; None for the strongest
            of this map.
        floor: Evidence that gets none, see `evidence_floor`; None for that of the method.
        operating_point: Value from which on the network says yes, if there is one.
    """

    path: str
    target: str
    method: str
    value: float
    kind: str
    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    placement: Placement
    counterfactual: Counterfactual | None = None
    scale: float | None = None
    floor: float | None = None
    operating_point: float | None = None

    @property
    def limit(self) -> float:
        """Evidence that gets the strongest colour; 0 where there is too little to colour."""
        own = scale_of(self.heat)
        floor = evidence_floor(self.method) if self.floor is None else self.floor
        least = max(floor, _LEAST_SHARE * (self.scale or 0.0))
        return 0.0 if own <= least else (self.scale or own)

    @property
    def note(self) -> str:
        """What a reader of the picture must know besides: empty for nothing."""
        point = self.operating_point
        below = point is not None and self.kind == "probability" and self.value < point
        notes = [f"below the operating point {point:.2g}"] if below else []
        return ", ".join(notes if self.limit else [*notes, "no evidence to show"])

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of the region of the strongest evidence, pixels, half open.

        None where there is too little evidence to show.
        """
        return evidence_box(self.heat) if self.limit else None

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the strongest evidence."""
        row, column = divmod(int(np.nanargmax(self.heat)), self.heat.shape[1])
        return row, column

    @property
    def title(self) -> str:
        """The target, what the network says of it, and the method."""
        said = f", {self.note}" if self.note else ""
        return f"{self.target}: {self.kind} {self.value:.3g} ({self.method}){said}"

    def picture(self, *, boxes: bool = False, opacity: float = 0.65) -> NDArray[np.uint8]:
        """The overlay at the resolution of the file, with a legend below.

        Args:
            boxes: Whether to draw the box around the strongest evidence.
            opacity: Of the strongest colour.

        Returns:
            uint8, shape (H + legend, W, 3).
        """
        top = self.limit
        laid = overlay(self.image, self.heat, opacity=opacity, limit=top)
        box = self.box if boxes else None
        if not top:
            return annotate(laid, self.title)
        low = -top if np.nanmin(self.heat) < 0 else 0.0
        return annotate(laid, self.title, low=low, high=top, boxes=[box] if box else [])


def explain_file(
    path: str | os.PathLike[str],
    model: nn.Module,
    target: Target,
    method: str = "gradcam",
    *,
    autoencoder: Autoencoder | None = None,
    smooth: float | None = None,
    **options: Any,
) -> Explanation:
    """Explain one file: read, crop, resize, explain, and undo resizing and cropping of the map.

    Args:
        path: PNG, JPEG, TIFF or DICOM.
        model: The network.
        target: Name or place of the output.
        method: One of `METHODS`, or `"counterfactual"`.
        autoencoder: Needed for `"counterfactual"`.
        smooth: Blur of the map as a share of the side; None for 0.02 where evidence is scattered
            over single pixels, none for other methods.
        **options: Passed to the method.

    Returns:
        The explanation, in the geometry of the file.

    Raises:
        ImageReadError: If the file cannot be read.
        UnknownNameError: If there is no such method or target.
        TypeError: If a counterfactual is asked for without an autoencoder.
    """
    target_index(model, target)  # a wrong name is to be said before a wrong file
    raster = read_raster(path)
    return explain_raster(
        str(path), raster, model, target, method, autoencoder=autoencoder, smooth=smooth, **options
    )


def explain_raster(
    path: str,
    raster: Raster,
    model: nn.Module,
    target: Target,
    method: str = "gradcam",
    *,
    autoencoder: Autoencoder | None = None,
    smooth: float | None = None,
    **options: Any,
) -> Explanation:
    """Explain one image that is read already; see `explain_file`.

    Args:
        path: How results name it.
        raster: As read.
        model: See `explain_file`.
        target: See `explain_file`.
        method: See `explain_file`.
        autoencoder: See `explain_file`.
        smooth: See `explain_file`.
        **options: See `explain_file`.

    Returns:
        The explanation, in the geometry of the image.

    Raises:
        UnknownNameError: If there is no such method or target.
        TypeError: If a counterfactual is asked for without an autoencoder.
    """
    index = target_index(model, target)
    size = size_of(model)
    aspect = raster.info.aspect
    like = next(model.parameters(), torch.zeros(0))
    prepared = torch.from_numpy(prepare(raster.pixels, raster.scale, raster.offset, size, aspect))
    x = prepared[None].to(like)
    with at_rest(model), torch.no_grad(), scale_is_known():
        value = probability(model, x, index).item()
    heat, shifted = evidence_of(
        model, x, target, method, autoencoder=autoencoder, smooth=smooth, **options
    )
    placement = Placement.in_middle(*raster.shape, aspect=aspect)
    names = list(getattr(model, "targets", ()))
    return Explanation(
        path=path,
        target=(names[index] if names else "") or f"output {index}",
        method=method,
        value=value,
        kind=value_kind(model),
        image=raster.to_array()[0],
        heat=placement.to_picture(heat.cpu().numpy(), outside=float("nan")),
        placement=placement,
        counterfactual=shifted,
        floor=evidence_floor(method, size, smooth),
        operating_point=_operating_point(model, index),
    )


def _operating_point(model: nn.Module, index: int) -> float | None:
    points = getattr(model, "op_threshs", None)
    if points is None or math.isnan(float(points[index])):
        return None
    return float(points[index])


def explain_to_folder(
    paths: Paths,
    model: XRayModel,
    targets: Sequence[str],
    folder: str | os.PathLike[str],
    method: str = "gradcam",
    *,
    autoencoder: Any = None,
    animation: str = "gif",
    boxes: bool = False,
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    on_found: Callable[[int], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Explain any number of radiographs into a folder; whatever stops it, the same call resumes.

    The colours of a finding end at the same evidence in all pictures of all runs with one network
    and method, see `evidence_scale`.

    Args:
        paths: Files, folders, patterns, lists, archives; see `torchxrayvision.inputs.expand`.
        model: The network.
        targets: Names of its trained outputs.
        folder: Gets a picture per image and target, and `explanations.json` that lists them.
        method: See `explain_file`.
        autoencoder: See `explain_file`.
        animation: Format of a counterfactual: `"gif"`, `"webp"` or `"mp4"`.
        boxes: Whether to draw the box around the strongest evidence.
        reading: How files are read.
        overwrite: See `torchxrayvision.inference.predict_to_file`.
        on_found: See `torchxrayvision.inference.predict_to_file`.
        on_progress: See `torchxrayvision.inference.predict_to_file`.

    Returns:
        What the run came to. With no image at all, no list is written.

    Raises:
        UnknownNameError: If there is no such method, animation or trained target.
        ResumeError: If an unfinished run with other options is there, or another process works.
        OutputError: If the list exists, the disk is full or it cannot be written.
    """
    if method not in (*METHODS, COUNTERFACTUAL):
        raise UnknownNameError("method", method, (*METHODS, COUNTERFACTUAL))
    check_animation(f".{animation}")
    known = [n for n, good in zip(model.targets, model.trained, strict=True) if good]
    for name in targets:
        if name not in known:  # an untrained output explains nothing
            raise UnknownNameError("target", name, known)
    place, how = Path(folder), reading or ReadOptions()
    options: dict[str, Any] = {
        "inputs": describe_inputs(paths, how), "model": fingerprint(model),
        "targets": list(dict.fromkeys(targets)), "method": method, "animation": animation,
        "autoencoder": None if autoencoder is None else fingerprint(autoencoder), "boxes": boxes,
        "batch_size": 1,
    }  # fmt: skip
    provenance = Provenance(
        command="xrv explain", weights=model.weights, weights_sha256=options["model"],
        output="heat map", preprocessing={"crop": "centre square"},
        options={name: options[name] for name in ("method", "targets", "autoencoder")},
    )  # fmt: skip
    run = _Explaining(model, options, place, how, autoencoder, provenance)

    def write(part: Path, rows: Iterator[list[dict[str, Any]]]) -> None:
        text = json.dumps([row for each in rows for row in each], indent=1, ensure_ascii=False)
        part.write_text(text + "\n", "utf-8")
        provenance.write_beside(part, place / _LIST)
        put_in_place(part, place / _LIST)

    return run_to_table(
        RunFolder(place / _LIST), options, run.compute, write, machine=lambda _: run.machine(),
        overwrite=overwrite, on_found=on_found, on_progress=on_progress,
    )  # fmt: skip


def _as_read(file: InputFile, read: Read) -> Raster:
    return read(file)


@dataclass(eq=False)
class _Explaining:
    """A run of `explain_to_folder`."""

    model: XRayModel
    options: dict[str, Any]
    folder: Path
    reading: ReadOptions
    autoencoder: Any
    provenance: Provenance
    taken: set[str] = field(default_factory=set)

    def _explanation(self, path: str, raster: Raster, target: str) -> Explanation:
        given = {} if self.autoencoder is None else {"autoencoder": self.autoencoder}
        return explain_raster(path, raster, self.model, target, self.options["method"], **given)

    def machine(self) -> dict[str, Any]:
        """The scale of each target; None where the method does not explain this network."""
        given = {} if self.autoencoder is None else {"autoencoder": self.autoencoder}
        scales: dict[str, float | None] = {}
        for target in self.options["targets"]:
            find = partial(evidence_scale, self.model, target, self.options["method"], **given)
            found = read_or_reason(find, f"the scale of {target}")
            scales[target] = None if isinstance(found, str) else found
        return {"scales": scales}

    def compute(
        self, run: RunFolder, record: Record, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        """See `run_to_table`."""
        self.taken = {
            row["picture"].removesuffix(".png")
            for batch in run.batches(record) for rows in batch.details for row in rows
        }  # fmt: skip
        scales = record.machine["scales"]
        files = read_manifest(run.sources, start, stop)
        with Readers(_as_read, self.reading) as readers:
            yield from in_batches(
                readers.map(files), start, 1, lambda item: self._rows(*item, scales)
            )

    def _rows(
        self, file: InputFile, raster: Raster | str, scales: dict[str, float | None]
    ) -> tuple[str, list[dict[str, Any]]]:
        rows = []
        for target in self.options["targets"]:
            row: dict[str, Any] = {
                "path": file.given, "target": target, "method": self.options["method"],
                "weights": str(getattr(self.model, "weights", "")), "error": "", "kind": "",
                "value": None, "peak": None, "box": None, "picture": "", "film": "", "note": "",
            }  # fmt: skip
            found: Explanation | str
            if isinstance(raster, str):
                found = raster
            else:
                explain = partial(self._explanation, file.given, raster, target)
                found = read_or_reason(explain, file.given)
            if not isinstance(found, str):
                explained = replace(found, scale=scales[target])
                saved = write_or_reason(partial(self._save, explained))
                found = saved if isinstance(saved, str) else ""
                row |= {} if isinstance(saved, str) else saved
            rows.append(row | {"error": found})
        return next((row["error"] for row in rows if row["error"]), ""), rows

    def _save(self, result: Explanation) -> dict[str, Any]:
        from PIL import Image

        name = re.split(r"[\\/]", result.path)[-1]
        stem = self._free(f"{Path(name).stem[:_LONGEST_NAME]}.{result.target}.{result.method}")
        picture, film = f"{stem}.png", ""
        drawn = Image.fromarray(result.picture(boxes=self.options["boxes"]))
        drawn.save(self.folder / picture, pnginfo=png_text(self.provenance))
        if result.counterfactual is not None:
            place = self.folder / f"{stem}.film.{self.options['animation']}"
            film = save_animation(result.counterfactual, place, title=result.target).name
        return {
            "kind": result.kind, "value": result.value, "peak": result.peak, "box": result.box,
            "picture": picture, "film": film, "note": result.note,
        }  # fmt: skip

    def _free(self, name: str) -> str:
        """A file name that this run has not used yet."""
        plain = re.sub(r"[^\w.+-]+", "_", name)
        free, count = plain, 1
        while free in self.taken:
            count += 1
            free = f"{plain}.{count}"
        self.taken.add(free)
        return free
