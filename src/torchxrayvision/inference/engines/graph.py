"""A network as its graph and what is known of it, so that images are read without torch.

A network that was converted once leaves two files: the graph, and beside it a card, JSON with the
targets, the operating points, the resolution, and the fingerprint of the tensors. With both,
`predict` needs a runtime of graphs and neither torch nor the weights. Cards of published weights
lie in the cache folder and are found by name; `export` writes one as ``model.onnx.json``; those of
the demonstration weights are installed with the package (`graphfiles`). `maskgraph` has the graphs
of segmentation networks.

A graph is used only if it is, by its hash, the one that the card was made for, and if this machine
computes with it what PyTorch computed when the card was made.
"""

from __future__ import annotations

import abc
import contextlib
import json
import logging
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import numpy as np

from torchxrayvision import __version__
from torchxrayvision.errors import GraphError, UnknownNameError
from torchxrayvision.files import sha256_of, write_atomically
from torchxrayvision.inference.engines.kinds import convert, sigmoid
from torchxrayvision.inference.engines.runtime import (
    FOLDER,
    SESSIONS,
    WORTH_MEASURING,
    BatchInput,
    Choice,
    Memory,
    Plan,
    aligned,
    check_names,
    exact_candidates,
    example_image,
    input_size,
    measurement_key,
    processor,
    torch_version,
    usable_threads,
    winograd_file,
    without_torch,
)
from torchxrayvision.remote import cache_dir, is_as_made, make_folder, remember_made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from torchxrayvision.inference.engines.base import ClassifierEngine
    from torchxrayvision.inference.engines.runtime import Session
    from torchxrayvision.models import XRayClassifier, XRayModel

_log = logging.getLogger(__name__)

_Made = TypeVar("_Made", bound="NetworkGraph")
_Any = TypeVar("_Any")

_FORMAT: Final = "torchxrayvision-2"
_PLAIN: Final = Plan()
# Most that a probability of the card's own image may differ from what PyTorch gave.
_TOLERANCE: Final = 1e-4
# What drivers of graphics processors leave where torch finds them.
_DEVICES: Final = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "/dev/dri/renderD128")


class NetworkGraph(abc.ABC):
    """A network that runs without torch.

    Args:
        path: The graph, `.onnx` or `.xml`.
        card: What is known of it, see the head of this module.
        choice: What runs it.

    Attributes:
        targets: Names of the P outputs.
        weights: Name of the weights, or None.
        input_resolution: Side of its images in pixels.
        fingerprint: SHA-256 of the tensors, see `runs.fingerprint`.
        load: Loads the network itself, where that is known.
        unmeasured: Whether another way to run it may be faster on this machine.
        weights_sha256: Of the file of the weights; of the graph where that is not known.
        what: What it is, for messages.
    """

    def __init__(self, path: Path, card: Mapping[str, Any], choice: Choice) -> None:
        self.path, self.card, self.choice = path, card, choice
        self.load: Callable[[], Any] | None = None
        self.unmeasured = False
        self._network: Any = None
        try:
            runs = card["runs"]
            self.targets = [str(name) for name in card["targets"]]
            self.weights: str | None = card["weights"]
            self.input_resolution = int(card["input"]["shape"][-1])
            self.fingerprint = str(runs["fingerprint"])
            known = runs.get("weights_sha256") or card["files"][path.name]
            self.weights_sha256 = str(known)
            self._example = _array(runs["example"])
            fits = card["format"] == _FORMAT and self._take(card)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{path}: its card is damaged or of another version ({error!r})"
            raise GraphError(msg) from error
        if not fits:
            raise GraphError(f"{path}: its card contradicts itself, or is of another version")

    what: ClassVar[str]

    @classmethod
    @abc.abstractmethod
    def fits(cls, card: Mapping[str, Any]) -> bool:
        """Whether a card with `runs` is of this kind of network."""

    @abc.abstractmethod
    def _take(self, card: Mapping[str, Any]) -> bool:
        """Take what only this kind of network has; whether it fits the rest."""

    @abc.abstractmethod
    def _example_logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the card holds for an image, of what the graph gives for it here.

        Args:
            images: Shape (1, 1, S, S).
        """

    def network(self, purpose: str) -> Any:
        """The network that the graph was made of, for what needs it; loaded once.

        Args:
            purpose: What it is needed for, as a plural.

        Raises:
            GraphError: If torch is missing, or nothing says which network it is.
        """
        if self._network is None:
            if self.load is None:
                msg = (
                    f"{purpose} need the network itself, and {self.path.name} is a graph of it: "
                    "name the weights or the checkpoint instead"
                )
                raise GraphError(msg)
            require_torch(purpose)
            self._network = self.load()
        return self._network

    @property
    def has_network(self) -> bool:
        """Whether `network` can load it here."""
        return self.load is not None and torch_version() is not None

    def environment(self) -> dict[str, Any]:
        """What the last bits of numbers depend on, as a run with torch would name it."""
        made_by = self.card["runs"]["made_by"]
        here = made_by["machine"] == processor()
        found = made_by["processor"] if here else f"{platform.machine()} {processor()}"
        return {"torchxrayvision": __version__, "torch": made_by["torch"], "processor": found}

    def file_for(self, choice: Choice) -> Path | None:
        """The graph that a choice runs, or None where only torch could."""
        own = self.path.suffix == ".xml"  # of OpenVINO, which reads those of ONNX too
        if choice.engine not in SESSIONS or (own and choice.engine != "openvino"):
            return None
        if not choice.winograd:
            return self.path
        path = winograd_file(self.path)
        return path if is_as_made(path) else None

    def session(
        self, batch_size: int, choice: Choice, threads: int, wanted: Sequence[str]
    ) -> Session:
        """The graph in a runtime.

        Args:
            batch_size: Images of a batch.
            choice: What runs it.
            threads: That it may use.
            wanted: Names of the outputs.

        Raises:
            DependencyError: If the package of the engine is missing.
            GraphError: If there is no graph for the choice.
        """
        path = self.file_for(choice)
        if path is None:
            msg = f"{self.path.name} cannot be run by {choice}; load the weights instead"
            raise GraphError(msg)
        images = aligned((batch_size, 1, self.input_resolution, self.input_resolution))
        return SESSIONS[choice.engine](path, images, wanted, threads, choice.arithmetic)

    def verify(self) -> None:
        """Compare this machine with PyTorch on the image of the card, once per runtime and machine.

        Raises:
            DependencyError: If the package of the engine is missing.
            GraphError: If the numbers differ, or the runtime refuses the graph.
        """
        engine = SESSIONS[self.choice.engine]
        about = [self.fingerprint, asdict(self.choice), self.card["files"], engine.require()]
        key = sha256_of(json.dumps([*about, processor(), __version__]).encode())[:24]
        memory = Memory(f"graph-{key}")
        if memory.get() is not None:
            return
        try:
            found = sigmoid(self._example_logits(example_image(self.input_resolution)[None, None]))
        except Exception as error:
            if isinstance(error, ImportError):
                raise
            msg = f"{self.path}: {self.choice.engine} does not run it ({str(error)[:200]})"
            raise GraphError(msg) from error
        difference = float(np.abs(found - sigmoid(self._example)).max())
        if not difference <= _TOLERANCE:  # NaN too
            msg = (
                f"{self.path}: on this machine its probabilities differ by {difference:.2g} from "
                f"those of PyTorch, more than {_TOLERANCE:g}; it is not used"
            )
            raise GraphError(msg)
        memory.put(self.choice, {})


class Graph(NetworkGraph):
    """A classifier of findings that runs without torch.

    Args:
        path: See `NetworkGraph`.
        card: See `NetworkGraph`.
        choice: See `NetworkGraph`.

    Attributes:
        trained: For each output, whether it was trained.
        resize_route: As of the model.
        features_width: Number of features per image, D.
        op_threshs: Operating points, shape (P,), NaN where there is none; None for none.
        raw_kind: Kind of what the graph gives, `"logit"`.
        kinds: All kinds of output.
    """

    raw_kind: Final = "logit"
    what = "a classifier of findings"

    @classmethod
    def fits(cls, card: Mapping[str, Any]) -> bool:
        """See `NetworkGraph`."""
        return not card["runs"].get("masks", False)

    def _take(self, card: Mapping[str, Any]) -> bool:
        runs, points = card["runs"], card["operating_points"]
        self.trained = tuple(bool(known) for known in card["trained"])
        self.resize_route = str(runs["resize_route"])
        self.features_width = int(runs["features"])
        self.kinds = tuple(str(kind) for kind in runs["kinds"])
        self.op_threshs = None if points is None else _array(points)
        return len(self.trained) == len(self.targets) and all(
            each is None or each.shape == (len(self.targets),)
            for each in (self.op_threshs, self._example)
        )

    def _example_logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        opened = self.open("logit", 1, self.choice, usable_threads())
        opened.input[...] = images
        logits: NDArray[np.float32] = opened()[0][0]
        return logits

    def check_kind(self, kind: str | None) -> str:
        """The kind of output that is asked for, as `XRayClassifier.check_kind`.

        Raises:
            UnknownNameError: If the network has no such output.
        """
        runs = self.card["runs"]
        found: str = runs["kind"] if kind is None else kind
        if found not in runs["kinds"]:
            raise UnknownNameError(f"output kind of {self.card['network']}", found, runs["kinds"])
        return found

    def convert(self, logits: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
        """Logits as another kind of output, see `kinds.convert`.

        Args:
            logits: Shape (B, P), float32.
            kind: One of `kinds`.
        """
        return convert(logits, self.check_kind(kind), self.op_threshs)

    def open(self, kind: str, batch_size: int, choice: Choice, threads: int) -> GraphEngine:
        """The network, ready to run.

        Args:
            kind: Meaning of the values.
            batch_size: Images of a batch.
            choice: What runs it.
            threads: That it may use.

        Raises:
            DependencyError: If the package of the engine is missing.
            GraphError: If there is no graph for the choice.
        """
        wanted = list(self.card["outputs"])[1:]
        return GraphEngine(self.session(batch_size, choice, threads, wanted), self, kind)


class GraphEngine(BatchInput):
    """A graph whose logits become the numbers that were asked for, see `ClassifierEngine`.

    Args:
        session: Runs it.
        graph: What is known of it.
        kind: Meaning of the values.

    Attributes:
        input: Where the images go, shape (B, 1, S, S) float32.
        outputs: Number of values per image, P.
        width: Number of features per image, D.
    """

    def __init__(self, session: Session, graph: Graph, kind: str) -> None:
        self.kind = kind
        self.input = session.input
        self.outputs = len(graph.targets)
        self.width = graph.features_width
        self._session = session
        self._points = graph.op_threshs

    def __call__(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run what is in `input`.

        Returns:
            Values of the kind asked for, shape (B, P), and features, shape (B, D), float32.
        """
        logits, features = self._session.run()
        return convert(logits, self.kind, self._points), features


def _array(values: Sequence[float | None]) -> NDArray[np.float32]:
    return np.array([np.nan if value is None else value for value in values], np.float32)


def open_graph(path: Path, engine: str = "auto") -> Graph:
    """A classifier that `export` wrote as a graph, checked.

    Args:
        path: `.onnx` or `.xml`, with its card beside it.
        engine: `"onnx"`, `"openvino"`, or `"auto"` for what the file was made for.

    Returns:
        It, ready to be given to `predict` in place of a model.

    Raises:
        GraphError: If the card is missing, the graph is not the one that it describes, it is of
            another kind of network, or it gives other numbers here.
        DependencyError: If the package of the engine is missing.
    """
    from torchxrayvision.inference.engines.graphfiles import open_file

    return open_file(path, engine, Graph)


def cached_graph(source: Sequence[Any], engine: str, make: type[_Made]) -> _Made | None:
    """The converted network of weights in the cache, if it is what a run would use.

    Args:
        source: What says which tensors they are: names, hashes and versions.
        engine: `"onnx"`, `"openvino"`, or `"auto"` for what was measured to be the fastest here.
        make: Kind of graph.

    Returns:
        The graph; None where torch has to be asked: nothing was converted or measured, another
        version of torch is installed, or a graphics processor may be there.
    """
    if engine == "torch":
        return None
    place = card_place(source)
    if not is_as_made(place):
        return None
    try:
        card = json.loads(place.read_text("utf-8"))
        choice, measured = _chosen(card, engine)
        if choice is None:
            return None
        path = place.with_name(card["runs"]["graph"])
        if not is_as_made(path):
            return None
        graph = make(path, card, choice)
        graph.unmeasured = card["runs"]["wide"] and not measured and choice.engine == "onnx"
        if graph.file_for(choice) is None:
            return None
        graph.verify()
    except (OSError, ValueError, KeyError, GraphError) as error:
        _log.info("%s is not used: %s", place, error)
        return None
    return graph


def _chosen(card: Mapping[str, Any], engine: str) -> tuple[Choice | None, bool]:
    """What a run with torch would use, None if that is torch or not known; whether it was timed."""
    made_by, runs = card["runs"]["made_by"], card["runs"]
    installed = torch_version()
    if installed is None and engine == "auto":  # which nothing could have measured
        return without_torch(), False
    if installed is not None and made_by["torch"].partition("+")[0] != installed.partition("+")[0]:
        return None, False
    if engine == "auto" and may_have_accelerator():
        return None, False
    candidates = list(exact_candidates(engine, wide=runs["wide"]))
    key = measurement_key(
        runs["network"], card["input"]["shape"][-1], usable_threads(), made_by["torch"], candidates
    )
    found = Memory(key).get()
    if found is None:
        return (None if engine == "auto" else Choice(engine)), False
    return (found if found.engine in SESSIONS else None), True


def may_have_accelerator() -> bool:
    """Whether torch could find a graphics processor here, as far as can be told without it."""
    if torch_version() is None:
        return False
    if sys.platform != "linux":  # every Mac has one, and Windows does not tell
        return True
    return any(Path(place).exists() for place in _DEVICES)


def card_place(source: Sequence[Any]) -> Path:
    """Where the card of weights lies in the cache folder."""
    key = sha256_of(json.dumps([__version__, *source]).encode())[:24]
    return cache_dir() / FOLDER / f"card-{key}.json"


def write_card(source: Sequence[Any], card: Mapping[str, Any], graph: Path) -> None:
    """Keep what is known of a graph of the cache; a folder that cannot be written costs no more.

    Args:
        source: See `cached_graph`.
        card: Facts of a classifier, see `graph_card`.
        graph: In the cache folder.
    """
    place = card_place(source)
    about = {**card, "files": {graph.name: sha256_of(graph)}}
    about["runs"] = {**card["runs"], "graph": graph.name}
    try:
        make_folder(place.parent)
        with write_atomically(place, durable=False) as part:
            part.write_text(json.dumps(about, indent=1), "utf-8")
        remember_made(place)
    except OSError as error:
        _log.info("%s: %s", place, error)


def require_torch(purpose: str = "") -> None:
    """Say what to do where a network is to be loaded and PyTorch is not installed.

    Args:
        purpose: What cannot do with a graph instead, as a plural; empty for a classifier.

    Raises:
        GraphError: If it is not.
    """
    if torch_version() is None:
        if purpose:
            msg = f"{purpose} need PyTorch, which is not installed; findings do without"
            raise GraphError(msg)
        msg = (
            "PyTorch is not installed, and no graph of this network is in the cache: give one "
            "with --graph FILE, which `xrv export` writes where PyTorch is, or install torch"
        )
        if without_torch() is None:
            msg += "; a graph needs onnxruntime or openvino, of which neither is installed"
        raise GraphError(msg)


def worth_measuring(model: _Any, images: int) -> _Any:
    """A graph as it is, or its network where a run is so long that engines are to be compared.

    Args:
        model: Either.
        images: How many there are to do.

    Returns:
        One of the two.
    """
    if not isinstance(model, NetworkGraph) or model.load is None or torch_version() is None:
        return model
    seconds = images * model.card["runs"].get("seconds", 0.0)  # that torch takes
    return model.load() if model.unmeasured and seconds >= WORTH_MEASURING else model


def choose(
    model: XRayClassifier | Graph,
    batch_size: int,
    engine: str,
    precision: str,
    *,
    images: int,
    sample: Callable[[], NDArray[np.float32]],
    grows: bool = False,
) -> Choice:
    """What runs a network or its graph; see `choose_engine`.

    Raises:
        GraphError: If the engine cannot run the graph.
    """
    if not isinstance(model, Graph):
        from torchxrayvision.inference.engines.choose import choose_engine

        return choose_engine(
            model, batch_size, engine, precision, images=images, sample=sample, grows=grows
        )
    check_names(engine, precision)
    choice = model.choice if engine in ("auto", model.choice.engine) else Choice(engine)
    if model.file_for(choice) is None:
        raise GraphError(f"{model.path.name} cannot be run by engine {engine}; leave it to auto")
    return choice


def open_classifier(
    model: XRayClassifier | Graph,
    kind: str,
    batch_size: int,
    choice: Choice,
    threads: int | None = None,
    plan: Plan = _PLAIN,
) -> ClassifierEngine | GraphEngine:
    """A network or its graph, ready to run and to be closed; see `open_engine`.

    Args:
        model: In evaluation mode.
        kind: Meaning of the values.
        batch_size: Images of a batch.
        choice: What runs it.
        threads: For a graph; None for as many as torch would use.
        plan: For a network.
    """
    if isinstance(model, Graph):
        return model.open(kind, batch_size, choice, threads or usable_threads())
    from torchxrayvision.inference.engines.choose import open_engine

    return open_engine(model, kind, batch_size, choice, plan)


def open_by_name(
    model: XRayClassifier | Graph, kind: str, batch_size: int, engine: str
) -> ClassifierEngine | GraphEngine:
    """A network or its graph, ready to run for a process that does not know its images yet.

    Args:
        model: In evaluation mode.
        kind: Meaning of the values.
        batch_size: Images of a batch.
        engine: What runs a network, compared with torch before; a graph runs as it was opened.

    Returns:
        It, with a buffer for images.

    Raises:
        UnknownNameError: If there is no such engine.
        DependencyError: If the package of the engine is missing.
    """
    if isinstance(model, Graph):
        return open_classifier(model, kind, batch_size, model.choice)
    if engine == "torch":
        return open_classifier(model, kind, batch_size, Choice("torch"))

    def sample() -> NDArray[np.float32]:
        from torchxrayvision.inference.engines.base import example

        return np.asarray(example(input_size(model), batch_size))

    choice = choose(model, batch_size, engine, "exact", images=1, sample=sample)
    return open_classifier(model, kind, batch_size, choice)


def fingerprint_of(model: XRayModel | NetworkGraph) -> str:
    """SHA-256 of the tensors of a network, or of the one that a graph was made of.

    Args:
        model: The network or its graph.

    Returns:
        Hexadecimal digits, see `runs.fingerprint`.
    """
    if isinstance(model, NetworkGraph):
        return model.fingerprint
    from torchxrayvision.runs import fingerprint

    return fingerprint(model)


@contextlib.contextmanager
def ready(
    model: XRayModel | NetworkGraph, device: str | torch.device | None = None
) -> Iterator[None]:
    """A network in evaluation mode on a device meanwhile; a graph is as it is.

    Args:
        model: Either.
        device: Where a network runs meanwhile; None leaves it where it is.

    Returns:
        A context in which it is so.

    Raises:
        GraphError: If a graph is asked to run elsewhere than on the CPU.
    """
    if isinstance(model, NetworkGraph):
        if str(device or "cpu") != "cpu":
            raise GraphError(f"{model.path.name} runs on the CPU, not on {device}")
        yield
        return
    from torchxrayvision.models import temporarily_eval

    with temporarily_eval(model, device):
        yield
