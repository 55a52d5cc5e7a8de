"""Models as files that other programs run, each compared with its model before it is kept."""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from torchxrayvision.errors import ExportError, UnknownNameError, needs_package
from torchxrayvision.files import put_in_place, sha256_of
from torchxrayvision.inference.engines.base import (
    example,
    graph_module,
    on_cpu,
    output_names,
)
from torchxrayvision.inference.engines.conversion import (
    describe,
    graph_facts,
    to_onnx,
    trace,
)
from torchxrayvision.inference.engines.runtime import CARD_SUFFIX, INPUT, import_openvino

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from torchxrayvision.models import XRayModel

    Runner = Callable[[torch.Tensor], list[torch.Tensor]]

METADATA: Final = "torchxrayvision"
# Of the largest value that an output has: float32 sums in another order stay well below.
TOLERANCE: Final = 1e-4
_BATCHES: Final = (1, 3)  # neither is the two that the graph was traced with


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and compared.

    Args:
        path: The file; for OpenVINO the `.xml`, with the `.bin` beside it.
        difference: Largest difference from the model, of the largest value of that output.
        metadata: What the file says of itself.
    """

    path: Path
    difference: float
    metadata: dict[str, Any]


def export(
    model: XRayModel,
    to: str,
    path: str | os.PathLike[str],
    *,
    input_resolution: int | None = None,
) -> Exported:
    """Write a model in the format of another program, and compare the two.

    The graph takes `image`, float32 of shape (batch, 1, S, S) in [-1024, 1024], any number of them,
    and gives `outputs`, as `model(image)` does; of a classifier also `logits` and `features`.
    Targets, operating points, resolution and the way to prepare an image are in the file as JSON
    under the name `torchxrayvision`. `"safetensors"` holds the tensors instead of a graph. Beside a
    graph for ONNX or OpenVINO lies a card, ``FILE.json``, with which `xrv predict --graph FILE`
    needs no torch.

    Args:
        model: A classifier or segmentation network.
        to: `"onnx"`, `"openvino"`, `"torch-export"` or `"safetensors"`.
        path: The file to write; replaced if it exists. OpenVINO wants the ending `.xml`.
        input_resolution: S, where the model names none.

    Returns:
        The file and how far it is from the model.

    Raises:
        UnknownNameError: If there is no such format.
        ValueError: If neither the model nor `input_resolution` says a resolution.
        DependencyError: If a package is missing.
        ExportError: If the file gives other numbers than the model; `path` is as before then.

    Example:
        >>> import tempfile
        >>> from torchxrayvision.models import get_model
        >>> model = get_model("resnet18", num_classes=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/a.safetensors"
        ...     export(model, "safetensors", path, input_resolution=64).difference
        0.0
    """
    if to not in FORMATS:
        raise UnknownNameError("export format", to, FORMATS)
    size = input_resolution or getattr(model, "input_resolution", None)
    if size is None:
        msg = "this model names no input resolution; give input_resolution, a side in pixels"
        raise ValueError(msg)
    target = Path(path)
    if to == "openvino" and target.suffix != ".xml":
        msg = f"OpenVINO writes a .xml with a .bin beside it; {target.name} ends otherwise"
        raise ValueError(msg)
    net = on_cpu(model).eval()  # the caller's stays where it is
    metadata = {**describe(net, size), "export": to}
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
        # Under its own name, as OpenVINO's two files find each other by it.
        files = FORMATS[to](net, size, Path(folder, target.name), json.dumps(metadata))
        difference = _compare(net, size, files.runner)
        if to in ("onnx", "openvino"):
            files = _with_card(files, {**metadata, **graph_facts(net, size)})
        for written in files.paths:
            put_in_place(written, target.with_name(written.name))
    return Exported(target, difference, metadata)


@dataclass(frozen=True, slots=True)
class _Files:
    """What a format wrote, and a way to run it."""

    paths: tuple[Path, ...]
    runner: Runner


def _with_card(files: _Files, facts: dict[str, Any]) -> _Files:
    """The files and a card of theirs, with which `predict` runs a classifier without torch."""
    hashes = {written.name: sha256_of(written) for written in files.paths}
    first = files.paths[0]
    card = first.with_name(first.name + CARD_SUFFIX)
    card.write_text(json.dumps({**facts, "files": hashes}, indent=1), "utf-8")
    return _Files((*files.paths, card), files.runner)


def _compare(net: XRayModel, size: int, runner: Runner) -> float:
    """Largest difference, of the largest value of each output.

    Raises:
        ExportError: If it is above `TOLERANCE`.
    """
    module, largest = graph_module(net), 0.0
    for count in _BATCHES:
        images = example(size, count, seed=count)
        with torch.inference_mode():
            expected = module(images)
        found = runner(images)
        for name, wanted, given in zip(output_names(net), expected, found, strict=True):
            if given.shape != wanted.shape:
                msg = f"{name} has the shape {tuple(given.shape)}, not {tuple(wanted.shape)}"
                raise ExportError(msg)
            scale = max(1.0, float(wanted.abs().max()))
            difference = float((given - wanted).abs().max()) / scale
            if not difference <= TOLERANCE:  # NaN too
                msg = (
                    f"{name} of the exported file differs by {difference:.2g} of its largest value "
                    f"from the model, more than {TOLERANCE:g}"
                )
                raise ExportError(msg)
            largest = max(largest, difference)
    return largest


def _onnx(net: XRayModel, size: int, target: Path, metadata: str) -> _Files:
    light = to_onnx(trace(net, size), output_names(net))
    entry = light.proto.metadata_props.add()
    entry.key, entry.value = METADATA, metadata
    light.write(target)

    def run(images: torch.Tensor) -> list[torch.Tensor]:
        with needs_package("onnxruntime", "comparing an ONNX file", "onnx"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        # What it runs once is not worth the memory that it would keep for the next time.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        session = onnxruntime.InferenceSession(
            str(target), options, providers=["CPUExecutionProvider"]
        )
        return [torch.from_numpy(a) for a in session.run(None, {INPUT: images.numpy()})]

    return _Files((target,), run)


def _openvino(net: XRayModel, size: int, target: Path, metadata: str) -> _Files:
    with needs_package("openvino", "export to OpenVINO", "openvino"):
        runtime = import_openvino()
    core = runtime.Core()
    source = target.with_suffix(".onnx")
    to_onnx(trace(net, size), output_names(net)).write(source)
    graph = core.read_model(source)
    graph.set_rt_info(metadata, [METADATA])
    runtime.save_model(graph, target, compress_to_fp16=False)
    source.unlink()

    def run(images: torch.Tensor) -> list[torch.Tensor]:
        # Some processors would compute in less than float32 unless told.
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        answers = core.compile_model(core.read_model(target), "CPU", settings)(images.numpy())
        return [torch.from_numpy(np.array(value)) for value in answers.values()]

    return _Files((target, target.with_suffix(".bin")), run)


def _torch_export(net: XRayModel, size: int, target: Path, metadata: str) -> _Files:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(target.open("wb"))
        torch.export.save(trace(net, size), file, extra_files={f"{METADATA}.json": metadata})

    def run(images: torch.Tensor) -> list[torch.Tensor]:
        with target.open("rb") as file, torch.inference_mode():
            return list(torch.export.load(file).module()(images))

    return _Files((target,), run)


def _safetensors(
    net: XRayModel,
    size: int,
    target: Path,
    metadata: str,
) -> _Files:
    from safetensors.torch import load_file, save_file

    from torchxrayvision.models import Backbone, DenseNet, Encoder, EvaX, ResNet, header_of

    tensors = {name: value.contiguous() for name, value in net.state_dict().items()}
    # `load_checkpoint` knows these networks; names and resolution must reach it.
    known = (Backbone, DenseNet, Encoder, EvaX, ResNet)
    header = header_of(net, size) if isinstance(net, known) else {}
    save_file(tensors, target, {METADATA: metadata, **header})

    def run(images: torch.Tensor) -> list[torch.Tensor]:
        other = copy.deepcopy(net)
        for value in other.state_dict().values():
            value.zero_()
        other.load_state_dict(load_file(target))
        with torch.inference_mode():
            return list(graph_module(other)(images))

    return _Files((target,), run)


FORMATS: Final[dict[str, Callable[[XRayModel, int, Path, str], _Files]]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "torch-export": _torch_export,
    "safetensors": _safetensors,
}
