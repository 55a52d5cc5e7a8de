"""A network as a graph in the format of ONNX, and what is written of it beside the graph."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from torchxrayvision import __version__
from torchxrayvision.errors import needs_package
from torchxrayvision.files import sha256_of
from torchxrayvision.inference.engines.base import (
    OUTPUTS,
    cpu,
    example,
    graph_module,
    has_wide_convolutions,
    output_names,
    parameter_shapes,
    reference,
    runs_as_graph,
)
from torchxrayvision.inference.engines.onnxfile import LightModel, lighten
from torchxrayvision.inference.engines.runtime import INPUT, at_places, example_image, processor
from torchxrayvision.models import XRayClassifier, operating_points
from torchxrayvision.runs import fingerprint

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from torchxrayvision.models import XRayModel

OPSET: Final = 20
"""ONNX 1.15: read by ONNX Runtime from 1.17, OpenVINO from 2024.0."""


def trace(model: XRayModel, size: int) -> torch.export.ExportedProgram:
    """The graph of a model, in evaluation mode on the CPU, for any number of images of one size."""
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            graph_module(model), (example(size, 2),), dynamic_shapes={"image": {0: batch}}
        )


def to_onnx(program: torch.export.ExportedProgram, names: tuple[str, ...] = OUTPUTS) -> LightModel:
    """The graph that `trace` gives in the format of ONNX, its outputs named by `output_names`.

    The weights stay those of the program until they are written.

    Raises:
        DependencyError: If onnx or onnxscript is missing.
    """
    with needs_package("", "ONNX", "onnx"):
        import onnx  # noqa: F401 - named here, as torch's own message names no extra
        import onnxscript  # noqa: F401
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, on its own deprecated parts
        converted = torch.onnx.export(
            program, (), dynamo=True, opset_version=OPSET, input_names=[INPUT],
            output_names=list(names), verbose=False,
        )  # fmt: skip
    assert converted is not None  # which only dynamo=False gives
    light = lighten(converted.model)
    strip(light.proto)
    return light


def strip(proto: onnx.ModelProto) -> None:
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
        kinds = kinds[-len(output_names(model)) :]
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


def graph_facts(model: XRayModel, size: int) -> dict[str, Any]:
    """What is needed besides `describe` to run a network from its graph, see `NetworkGraph`.

    Args:
        model: In evaluation mode, on the CPU in float32.
        size: Side in pixels that the graph takes.

    Returns:
        Nothing for a network that does not run so.
    """
    if not runs_as_graph(model):
        return {}
    image = torch.from_numpy(example_image(size))[None, None]
    logits = reference(model, image)[0][0]
    runs: dict[str, Any] = {}
    if isinstance(model, XRayClassifier):
        runs |= {
            "kinds": list(model.kinds),
            "kind": model.check_kind(None),
            "features": model.features_width,
            "resize_route": model.resize_route,
            "example": logits.tolist(),
        }
    else:
        runs |= {"masks": True, "example": _digits(at_places(logits.numpy()))}
    runs |= {
        "fingerprint": fingerprint(model),
        "weights_sha256": _file_hash(model),
        "wide": has_wide_convolutions(model),
        "network": parameter_shapes(model),
        "made_by": {"torch": torch.__version__, "processor": cpu(), "machine": processor()},
    }
    json.dumps(runs, allow_nan=False)
    return {"runs": runs}


def _digits(values: NDArray[np.float32]) -> list[float]:
    """Values as JSON holds them in as few digits as tell them apart."""
    return [float(str(value)) for value in values]


def _file_hash(model: XRayModel) -> str:
    """SHA-256 of the file of the weights; empty where it has none."""
    file = model.weights_filename_local
    return sha256_of(Path(file)) if file is not None and Path(file).is_file() else ""
