"""Make the graphs of the demonstration weights: `src/torchxrayvision/weights/data/*.onnx`.

    python tools/build_demo_graphs.py

To be run whenever `tools/build_demo_weights.py` wrote other tensors, in an environment with torch,
onnx and onnxscript. Each graph has no tensors of its own but a few constants: it names the place of
each in the file of tensors beside it. Nothing is therefore folded into the convolutions here, which
the runtimes do when they load it; they give the bits of a graph that was folded before. Beside each
lies its card, as `xrv export` writes one, without what depends on the machine that made it.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import torch
from onnx import TensorProto
from safetensors import safe_open

from torchxrayvision.files import sha256_of
from torchxrayvision.inference.engines.base import output_names
from torchxrayvision.inference.engines.conversion import (
    OPSET,
    describe,
    graph_facts,
    strip,
    trace,
)
from torchxrayvision.inference.engines.runtime import CARD_SUFFIX, INPUT
from torchxrayvision.models import get_model

DATA = Path(__file__).parents[1] / "src" / "torchxrayvision" / "weights" / "data"
STEMS = ("demo", "demo-anatomy")
_PREFIX = "model.model."  # of a parameter in a graph: the network within its wrapper


def main():
    """Write all graphs and cards."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DATA)
    arguments = parser.parse_args()
    for stem in STEMS:
        graph = build(stem, arguments.out)
        print(f"{graph}: {graph.stat().st_size:,} bytes")


def build(stem, out):
    """Write the graph and the card of packaged weights; the path of the graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what demonstration weights are
        model = get_model(stem)
    size, tensors = model.input_resolution, DATA / f"{stem}.safetensors"
    proto = convert(model, size)
    refer(proto, tensors)
    graph = out / f"{stem}.onnx"
    graph.write_bytes(proto.SerializeToString(deterministic=True))
    files = {path.name: sha256_of(path) for path in (graph, tensors)}
    place = out / f"{graph.name}{CARD_SUFFIX}"
    place.write_text(json.dumps({**card(model, size), "files": files}, indent=1) + "\n", "utf-8")
    return graph


def convert(model, size):
    """The graph of a model with the tensors of the model."""
    import onnx_ir
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, on its own deprecated parts
        made = torch.onnx.export(
            trace(model, size), (), dynamo=True, opset_version=OPSET, input_names=[INPUT],
            output_names=list(output_names(model)), verbose=False, optimize=False,
        ).model  # fmt: skip
    fold_constants(made)  # shapes and the like; tensors of the model go into nothing
    for step in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    ):
        step(made)
    proto = onnx_ir.to_proto(made)
    strip(proto)
    return proto


def refer(proto, tensors):
    """Put the places in a file of tensors where a graph holds the tensors themselves."""
    places = offsets(tensors)
    for tensor in proto.graph.initializer:
        name = tensor.name.removeprefix(_PREFIX)
        if name == tensor.name or name not in places:
            continue
        offset, length = places[name]
        with tensors.open("rb") as file:
            file.seek(offset)
            if file.read(length) != tensor.raw_data:
                raise ValueError(f"{tensors} has another {name} than the network")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", tensors.name), ("offset", offset), ("length", length)):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)


def offsets(tensors):
    """Name of each tensor of a file to where it begins and its bytes."""
    with tensors.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    with safe_open(tensors, "np") as opened:  # which has checked the header
        assert set(opened.keys()) == set(header)
    begun = 8 + length
    found = {name: about["data_offsets"] for name, about in header.items()}
    return {name: (begun + first, end - first) for name, (first, end) in found.items()}


def card(model, size):
    """What is known of a model, the same wherever it is made but for last digits of the example."""
    facts = {**describe(model, size), **graph_facts(model, size)}
    del facts["version"]  # of the package, which holds this file
    runs = facts["runs"]
    runs["made_by"] = {"torch": str(torch.__version__).partition("+")[0], "processor": "",
                       "machine": ""}  # fmt: skip
    return facts


if __name__ == "__main__":
    main()
