"""Graphs that lie in files: what `export` wrote, and what is installed with the package."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from torchxrayvision.errors import GraphError
from torchxrayvision.files import sha256_of
from torchxrayvision.inference.engines.runtime import CARD_SUFFIX, Choice, torch_version
from torchxrayvision.weights import locate_weights

if TYPE_CHECKING:
    from pathlib import Path

    from torchxrayvision.inference.engines.graph import NetworkGraph
    from torchxrayvision.weights import Weights

_log = logging.getLogger(__name__)
_Made = TypeVar("_Made", bound="NetworkGraph")


def open_file(path: Path, engine: str, kind: type[_Made]) -> _Made:
    """A graph with its card beside it, checked; see `open_graph`.

    Args:
        path: The graph.
        engine: What runs it.
        kind: Of graph.
    """
    card = _read_card(path)
    for name, expected in card.get("files", {}).items():
        try:
            found = sha256_of(path.with_name(name))
        except OSError as error:
            raise GraphError(f"{path.with_name(name)}: {error.strerror}") from error
        if found != expected:
            msg = f"{path.with_name(name)} is not the file that {path.name}{CARD_SUFFIX} describes"
            raise GraphError(msg)
    if path.name not in card.get("files", {}):
        raise GraphError(f"{path}{CARD_SUFFIX} describes another graph; export it again")
    if "runs" not in card:
        msg = f"{path}: only classifiers of findings and segmentation networks run from a graph"
        raise GraphError(f"{msg}; use --weights")
    if not kind.fits(card):
        msg = f"{path} is the graph of a network that `{card['network']}` names, not of {kind.what}"
        raise GraphError(msg)
    usual = "openvino" if path.suffix == ".xml" else "onnx"
    if engine == "torch" or (usual == "openvino" and engine == "onnx"):
        msg = f"{path.name} cannot be run by engine {engine}; leave the engine to auto"
        raise GraphError(msg)
    graph = kind(path, card, Choice(usual if engine == "auto" else engine))
    graph.verify()
    return graph


def packaged_graph(entry: Weights, engine: str, kind: type[_Made]) -> _Made | None:
    """The graph of weights that are installed with the package, beside them.

    Args:
        entry: The weights.
        engine: `"onnx"` or `"openvino"`.
        kind: Of graph.

    Returns:
        The graph; None if there is none.

    Raises:
        DependencyError: If the package of the engine is missing.
        GraphError: If the files are damaged or give other numbers here, and torch, which would
            say so or do without, is not installed.
    """
    tensors = locate_weights(entry)
    if tensors is None or not tensors.with_suffix(".onnx").is_file():
        return None
    path = tensors.with_suffix(".onnx")
    try:
        return open_file(path, engine, kind)
    except GraphError as error:
        if torch_version() is None:
            raise
        _log.info("%s is not used: %s", path, error)
        return None


def _read_card(path: Path) -> dict[str, Any]:
    place = path.with_name(path.name + CARD_SUFFIX)
    try:
        card = json.loads(place.read_text("utf-8"))
    except OSError as error:
        msg = (
            f"{place}: {error.strerror}; "
            f"`xrv export WEIGHTS --to onnx --output {path.name}` writes it beside the graph"
        )
        raise GraphError(msg) from error
    except (ValueError, RecursionError) as error:
        raise GraphError(f"{place} is not JSON; export the graph again") from error
    if not isinstance(card, dict) or not isinstance(card.get("files", {}), dict):
        raise GraphError(f"{place} is not a card of a graph; export the graph again")
    return card
