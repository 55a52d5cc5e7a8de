"""What a node of a cluster does: a model in a process, given parts of the list one by one."""

from __future__ import annotations

import contextlib
import os
import platform
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from torchxrayvision import __version__
from torchxrayvision.errors import ClusterError
from torchxrayvision.inference.engines.choose import open_engine
from torchxrayvision.inference.prediction import batches_from, open_readers
from torchxrayvision.inference.runs import environment, plan_environment
from torchxrayvision.runs import unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchxrayvision.inference.engines.runtime import Choice
    from torchxrayvision.inputs import ReadOptions
    from torchxrayvision.models import OutputKind, XRayClassifier
    from torchxrayvision.runs import Batch

_SAMPLE: Final = 4  # times the batch size: sources that engines are tried on, as some are damaged


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPayload:
    """A network and where it is to run.

    Args:
        net: In evaluation mode, on the CPU.
        device: `"cpu"` or `"cuda"`.
        threads: Threads of torch.
        folder: Where relative names begin.
        version: Of this package, where the run was begun.
    """

    net: XRayClassifier
    device: str
    threads: int
    folder: str
    version: str = __version__


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """What is the same for all parts of a run.

    Args:
        kind: Meaning of the values.
        batch_size: Images of a batch.
        features: Whether batches carry the features.
        check: See `predict`.
        reference: See `predict`.
        choice: What runs the network.
        reading: How files are read, with the number of workers.
        precision: See `predict`.
    """

    kind: OutputKind
    batch_size: int
    features: bool
    check: str
    reference: str | None
    choice: Choice
    reading: ReadOptions
    precision: str


@dataclass(order=True, slots=True)
class Part:
    """Images that follow each other in the list, whole batches.

    Args:
        number: Of the part in this run, from 0.
        first: Position of its first image.
        lines: See `read_lines`.
        losses: How often it was given out and lost.
    """

    number: int
    first: int
    lines: list[str]
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a part.

    Args:
        batches: In order.
        absent: Files that this node does not see.
        node: Its name.
    """

    batches: list[Batch]
    absent: list[str]
    node: str


class Worker:
    """The actor. Its methods run on a node, one at a time, in a process that is its own."""

    def ready(self) -> None:
        """Answer, which only an actor can that has found a place."""

    def choose_engine(
        self,
        model: ModelPayload,
        options: dict[str, Any],
        images: int,
        lines: Sequence[str],
        reading: ReadOptions,
    ) -> tuple[dict[str, Any], list[tuple[type[Warning], str]]]:
        """What a run that begins is computed with, measured here, and warnings about it."""
        net = self._prepare(model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            machine = plan_environment(net, options, images, map(unpack, lines), reading)
        notes = [(w.category, str(w.message)) for w in caught if issubclass(w.category, Warning)]
        return machine, notes

    @staticmethod
    def sample(batch_size: int) -> int:
        """Images that `choose_engine` wants to see."""
        return _SAMPLE * batch_size

    def start(self, model: ModelPayload, config: RunConfig) -> dict[str, Any]:
        """Get ready; what the last bits depend on here."""
        net = self._prepare(model)
        self._config = config
        self._engine = open_engine(net, config.kind, config.batch_size, config.choice)
        self._readers = open_readers(
            self._engine.size, config.reading, config.check, config.reference, config.precision
        )
        return environment()

    def _prepare(self, model: ModelPayload) -> XRayClassifier:
        node = platform.node()
        if model.version != __version__:
            msg = (
                f"node {node} has torchxrayvision {__version__}, and the run was begun with "
                f"{model.version}; install one version everywhere"
            )
            raise ClusterError(msg)
        if model.device == "cuda" and not torch.cuda.is_available():
            msg = f"node {node} offers a GPU that its torch cannot use; give --device cpu"
            raise ClusterError(msg)
        # Relative names keep their meaning, in errors too. A node without the folder sees no file
        # of them, which the answers say.
        with contextlib.suppress(OSError):
            os.chdir(model.folder)
        torch.set_num_threads(model.threads)
        return model.net.to(model.device)

    def predict(self, part: Part, *, isolate: bool) -> Answer:
        """Compute a part; `isolate` reads in processes of their own, where it has killed some."""
        if not isolate:
            return self._answer(part, self._readers)
        config = self._config
        careful = replace(config.reading, isolate=True)
        with open_readers(
            self._engine.size, careful, config.check, config.reference, config.precision
        ) as readers:
            return self._answer(part, readers)

    def _answer(self, part: Part, readers: Any) -> Answer:
        sources = list(map(unpack, part.lines))
        done = batches_from(
            readers, self._engine, sources, first=part.first, features=self._config.features
        )
        batches = [batch for _, batch in done]
        errors = (error for batch in batches for error in batch.errors)
        absent = [
            os.fspath(source.path)
            for source, error in zip(sources, errors, strict=True)
            if error and not source.problem and not os.path.exists(source.path)  # noqa: PTH110
        ]
        return Answer(batches, absent, platform.node())
