"""What a user named: the network, or its graph where that is what a run would use."""

from __future__ import annotations

import abc
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torchxrayvision.errors import UnknownNameError
from torchxrayvision.facts import PackagedFile
from torchxrayvision.files import sha256_of
from torchxrayvision.inference.engines.graph import (
    Graph,
    NetworkGraph,
    cached_graph,
    card_place,
    open_by_name,
    require_torch,
    write_card,
)
from torchxrayvision.inference.engines.runtime import (
    SESSIONS,
    check_names,
    device_names,
    torch_version,
    without_torch,
)
from torchxrayvision.remote import is_as_made
from torchxrayvision.weights import get, warn_of_terms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torchxrayvision.inference.engines.runtime import Devices
    from torchxrayvision.models import XRayClassifier, XRayModel
    from torchxrayvision.weights import Weights

_Net = TypeVar("_Net", bound="XRayModel")
_Made = TypeVar("_Made", bound="NetworkGraph")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedNetwork(abc.ABC, Generic[_Net, _Made]):
    """What a user named: published weights, or a file of their own.

    Args:
        weights: Name of published weights; with a checkpoint, those whose facts apply.
        checkpoint: The file.
        compat: See `get_model`.
    """

    weights: str | None = None
    checkpoint: Path | None = None
    compat: str | None = None

    @abc.abstractmethod
    def load(self) -> _Net:
        """The network, in evaluation mode."""

    @abc.abstractmethod
    def graph_type(self) -> type[_Made]:
        """The kind of graph that stands for it."""

    @abc.abstractmethod
    def convert(self, net: _Net, engine: str) -> None:
        """Let an engine have the network, so that its graph is in the cache.

        Args:
            net: What `load` gave.
            engine: `"onnx"` or `"openvino"`.

        Raises:
            DependencyError: If the package of the engine is missing.
        """

    def open(self, engine: str = "torch") -> _Net | _Made:
        """What answers for as long as a process runs.

        Args:
            engine: `"torch"`; `"onnx"` or `"openvino"`, for which the network is converted now if
                it was not before; or `"auto"` for the graph where that was measured to be the
                fastest here, and torch elsewhere: nothing is measured now.

        Returns:
            The graph, which needs no torch, or the network in evaluation mode.

        Raises:
            UnknownNameError: If there is no such engine or weights.
            GraphError: If torch is needed and missing.
            DependencyError: If the package of the engine is missing.
            RemoteError: If its weights cannot be fetched.
        """
        found = self.graph(engine)
        if found is not None:
            return found
        net = self.load()
        if engine not in SESSIONS:
            return net
        self.convert(net, engine)
        self.keep_card(net)
        return self.graph(engine) or net

    def source(self) -> list[Any] | None:
        """Which tensors these are, as JSON holds it; None where their hash is not known."""
        known: list[Any] = [self.compat]
        if self.weights is not None:
            entry = get(self.weights)
            known += [entry.name, entry.file.sha256, sha256_of(repr(entry).encode())]
            certain = entry.file.sha256 is not None and entry.file.certainty == "certain"
            if self.checkpoint is None and not certain:
                return None
        if self.checkpoint is not None:
            known.append(sha256_of(self.checkpoint))
        return known

    def graph(
        self,
        engine: str = "auto",
        precision: str = "exact",
        device: Devices = None,
    ) -> _Made | None:
        """The graph that runs in place of the network, if a run would use it.

        Args:
            engine: See `predict`.
            precision: See `predict`.
            device: As the user named it.

        Returns:
            None where torch is to be asked.

        Raises:
            GraphError: If a graph of the package cannot be used, and torch is not installed.

        Warns:
            LicenseWarning: As `get_model`.
            DemonstrationWarning: As `get_model`.
        """
        check_names(engine, precision)
        cpu = device_names(device) in ((), ("cpu",))
        if precision != "exact" or not cpu or engine == "torch":
            return None
        source, kind = self.source(), self.graph_type()
        found = None if source is None else cached_graph(source, engine, kind)
        if found is None and self.weights is not None and (self.checkpoint or self.compat) is None:
            found = _packaged(get(self.weights), engine, kind)
        if found is None:
            return None
        if self.weights is not None and self.checkpoint is None:
            warn_of_terms(get(self.weights))
        found.load = self.load
        return found

    def keep_card(self, model: Any) -> None:
        """Once the network was converted, let later runs do without torch.

        Args:
            model: What `load` gave, unchanged, or a graph of it.
        """
        if isinstance(model, NetworkGraph):
            return
        from torchxrayvision.inference.engines.base import onnx_place, runs_as_graph
        from torchxrayvision.inference.engines.choose import seconds_an_image
        from torchxrayvision.inference.engines.conversion import describe, graph_facts

        source, size = self.source(), getattr(model, "input_resolution", None)
        if source is None or size is None or not runs_as_graph(model):
            return
        published = self.weights is not None and self.checkpoint is None
        if published and model.weights != get(self.weights or "").name:
            return  # it is another one
        graph = onnx_place(model, size)
        if not graph.is_file() or is_as_made(card_place(source)) or not is_as_made(graph):
            return
        if next(model.parameters()).device.type == "cpu":
            card = {**describe(model, size), **graph_facts(model, size)}
            card["runs"]["seconds"] = seconds_an_image(model)
            write_card(source, card, graph)


def _packaged(entry: Weights, engine: str, kind: type[_Made]) -> _Made | None:
    """The graph of weights that are installed with the package, see `packaged_graph`."""
    if engine == "auto":
        choice = None if torch_version() else without_torch()
        engine = "torch" if choice is None else choice.engine
    if engine == "torch" or not isinstance(entry.file, PackagedFile):
        return None
    from torchxrayvision.inference.engines.graphfiles import packaged_graph

    return packaged_graph(entry, engine, kind)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedClassifier(NamedNetwork["XRayClassifier", Graph]):
    """A classifier that a user named.

    Args:
        weights: See `NamedNetwork`.
        checkpoint: See `NamedNetwork`.
        compat: See `NamedNetwork`.
    """

    def graph_type(self) -> type[Graph]:
        """See `NamedNetwork`."""
        return Graph

    def load(self) -> XRayClassifier:
        """The network, in evaluation mode.

        Raises:
            GraphError: If torch is missing.
        """
        require_torch()
        from torchxrayvision.models import get_model, load_checkpoint

        if self.checkpoint is not None:
            return load_checkpoint(self.checkpoint, weights=self.weights, compat=self.compat)
        asked = {} if self.compat is None else {"compat": self.compat}  # others have none
        return get_model(self.weights or "", **asked)

    def convert(self, net: XRayClassifier, engine: str) -> None:
        """See `NamedNetwork`."""
        open_by_name(net, net.check_kind(None), 1, engine)


@contextlib.contextmanager
def named_or_given(
    model: str | XRayClassifier | Graph,
    engine: str,
    precision: str,
    device: Devices,
) -> Iterator[XRayClassifier | Graph]:
    """A model by its name, as a graph if that is in the cache; any other as it is.

    A network that was converted meanwhile has a card afterwards, see `Graph`.
    """
    if not isinstance(model, str):
        yield model
        return
    named = NamedClassifier(weights=model)
    found = _registered(model) and named.graph(engine, precision, device)
    net = found or named.load()
    yield net
    if _registered(model):
        named.keep_card(net)


def _registered(name: str) -> bool:
    try:
        get(name)
    except UnknownNameError:
        return False
    return True
