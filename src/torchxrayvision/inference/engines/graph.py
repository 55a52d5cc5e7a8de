"""A model as a graph: what the engines run and what `xrv export` writes."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from torchxrayvision import __version__
from torchxrayvision.errors import DependencyError
from torchxrayvision.models import XRayClassifier, operating_points

if TYPE_CHECKING:
    import onnx

    from torchxrayvision.models import XRayModel

__all__ = [
    "INPUT",
    "OUTPUTS",
    "describe",
    "example",
    "graph_module",
    "output_names",
    "to_onnx",
    "trace",
]

INPUT: Final = "image"
# Names of the outputs of a classifier of findings; other networks name theirs.
OUTPUTS: Final = ("outputs", "logits", "features")
_OPSET: Final = 20  # ONNX 1.15: read by ONNX Runtime from 1.17, OpenVINO from 2024.0


class _Classifier(nn.Module):
    """All that a classifier can say, in one pass."""

    def __init__(self, model: XRayClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, raw = self.model.features_and_raw(image)
        return self.model.convert(raw, self.model.output_kind), raw, features


class _Whole(nn.Module):
    """What any other network gives."""

    def __init__(self, model: XRayModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        given: Any = self.model(image)
        return tuple(given.values()) if isinstance(given, dict) else (given,)


def output_names(model: XRayModel) -> tuple[str, ...]:
    """What the outputs of `graph_module` are called, in order."""
    if not isinstance(model, XRayClassifier):
        return model.output_names
    return OUTPUTS if model.raw_kind == "logit" else (OUTPUTS[0], "raw", OUTPUTS[2])


def graph_module(model: XRayModel) -> nn.Module:
    """The model with the outputs that a graph has, in evaluation mode."""
    chosen = _Classifier(model) if isinstance(model, XRayClassifier) else _Whole(model)
    return chosen.eval()


def example(size: int, count: int, seed: int = 0) -> Tensor:
    """Radiograph-like pictures to trace, compare and time with.

    Args:
        size: Side in pixels.
        count: How many.
        seed: Another one gives others.

    Returns:
        Shape (count, 1, size, size) in [-1024, 1024], smooth and sharp parts and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 9, 9, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    noise = torch.rand(count, 1, size, size, generator=generator)
    return ((smooth * 0.9 + noise * 0.1).clamp(0, 1) * 2048 - 1024).contiguous()


def trace(model: XRayModel, size: int) -> torch.export.ExportedProgram:
    """The graph for images of one size and any number of them.

    Args:
        model: In evaluation mode, on the CPU.
        size: Side in pixels.
    """
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            graph_module(model), (example(size, 2),), dynamic_shapes={"image": {0: batch}}
        )


def to_onnx(
    program: torch.export.ExportedProgram, names: tuple[str, ...] = OUTPUTS
) -> onnx.ModelProto:
    """The graph in the format of ONNX.

    Args:
        program: What `trace` gives.
        names: What its outputs are called, see `output_names`.

    Raises:
        DependencyError: If onnx or onnxscript is missing.
    """
    try:
        import onnx  # noqa: F401 - named here, as torch's own message names no extra
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise DependencyError(str(error.name), "ONNX", "onnx") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, on its own deprecated parts
        converted = torch.onnx.export(
            program, (), dynamo=True, opset_version=_OPSET, input_names=[INPUT],
            output_names=list(names), verbose=False,
        )  # fmt: skip
    assert converted is not None  # which only dynamo=False gives
    proto = converted.model_proto
    _strip(proto)
    return proto


def _strip(proto: onnx.ModelProto) -> None:
    """Remove the traces of source files that the converter leaves on every node."""
    graph = proto.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]  # shapes within the graph, which every reader infers itself
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def describe(model: XRayModel, size: int) -> dict[str, Any]:
    """What somebody needs to use the graph, as plain values.

    Args:
        model: The model.
        size: Side in pixels that the graph takes.
    """
    about: dict[str, Any] = {
        "format": "torchxrayvision-2",
        "version": __version__,
        "weights": model.weights,
        "network": type(model).__name__,
        "targets": model.targets,
        "trained": list(model.trained),
        "input": {
            "name": INPUT, "shape": ["batch", 1, size, size], "range": [-1024, 1024],
            "black": -1024, "white": 1024, "crop": "largest square in the middle",
            "resize": "linear with a Gaussian filter, as skimage.transform.resize "
            "(order=1, anti_aliasing=True)",
        },
    }  # fmt: skip
    if not isinstance(model, XRayClassifier):
        # Segmenters give logits; the others name what they give.
        each = getattr(model, "output_kind", "logit")
        kinds = getattr(model, "output_kinds", (each,) * len(model.output_names))
        about["outputs"] = dict(zip(model.output_names, kinds, strict=True))
    else:
        kinds = (model.output_kind, model.raw_kind, "pooled features")
        about["outputs"] = dict(zip(output_names(model), kinds, strict=True))
        about["operating_points"] = operating_points(model)
    about |= _terms(model.weights)
    json.dumps(about, allow_nan=False)
    return about


def _terms(name: str | None) -> dict[str, Any]:
    """The licence of published weights, which travels with them."""
    from torchxrayvision.errors import UnknownNameError
    from torchxrayvision.weights import get

    if name is None:
        return {}
    try:
        entry = get(name)
    except UnknownNameError:
        return {}
    return {"license": entry.license.name}
