"""Where the batches of a run are computed: here, or on the nodes of a cluster."""

from __future__ import annotations

import contextlib
import platform
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

import torch

from torchxrayvision import __version__
from torchxrayvision.errors import XRVWarning
from torchxrayvision.inference.engines.base import input_size
from torchxrayvision.inference.engines.choose import Choice, choose_engine, open_engine
from torchxrayvision.inference.prediction import batches, first_images
from torchxrayvision.inference.runs.folder import read_manifest
from torchxrayvision.inputs import ReadOptions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

    from torchxrayvision.inference.runs.folder import Batch, Record
    from torchxrayvision.inputs import InputFile
    from torchxrayvision.models import XRayClassifier

__all__ = ["Here", "Runner", "described", "differences", "equipped", "threads"]


class Runner(Protocol):
    """What computes batches. None of them changes a bit but by the machine it runs on."""

    def machine(self, options: dict[str, Any], images: int, listed: Path) -> dict[str, Any]:
        """What a run that begins is computed with, for `Record.machine`.

        Args:
            options: See `Record`.
            images: How many there are.
            listed: The list, to try engines on the first ones.
        """

    def batches(
        self, record: Record, listed: Path, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        """Compute a part of the list, in order.

        Args:
            record: What is to be done, and with what.
            listed: The list.
            start: Position of the first image, where a batch begins.
            stop: Position after the last one.
        """


class Here:
    """This process.

    Args:
        net: In evaluation mode, on its device.
        reading: How files are read.
    """

    def __init__(self, net: XRayClassifier, reading: ReadOptions | None) -> None:
        self._net = net
        self._reading = reading or ReadOptions()

    def machine(self, options: dict[str, Any], images: int, listed: Path) -> dict[str, Any]:
        """See `Runner`."""
        return equipped(self._net, options, images, read_manifest(listed), self._reading)

    def batches(
        self, record: Record, listed: Path, start: int, stop: int
    ) -> Generator[Batch, None, None]:
        """See `Runner`."""
        if start > record.bounds[0] and (changed := differences(record.machine, described())):
            warnings.warn(
                f"going on with a run that was begun elsewhere ({'; '.join(changed)}); the last "
                "digits of the rows to come may differ from those of a run in one piece",
                XRVWarning,
                stacklevel=5,
            )
        with threads(record.machine["threads"]):
            engine = open_engine(
                self._net,
                record.options["output"],
                record.batch_size,
                Choice(**record.machine["engine"]),
            )
            done = batches(
                engine,
                read_manifest(listed, start, stop),
                first=start,
                reading=self._reading,
                features=record.options["embeddings"],
            )
            with contextlib.closing(done):  # ends the workers, whatever happens here
                for _, batch in done:
                    yield batch


def equipped(
    net: XRayClassifier,
    options: dict[str, Any],
    images: int,
    sources: Iterable[InputFile],
    reading: ReadOptions,
) -> dict[str, Any]:
    """This machine, its threads and the engine for a run that begins.

    Args:
        net: In evaluation mode, on its device.
        options: See `Record`.
        images: How many there are.
        sources: The first ones; engines are tried on some of them.
        reading: How files are read.
    """
    size = max(1, min(options["batch_size"], images))
    chosen = choose_engine(
        net, size, options["engine"], options["precision"], images=images,
        sample=lambda: first_images(sources, input_size(net), size, reading),
    )  # fmt: skip
    return {**described(), "threads": torch.get_num_threads(), "engine": asdict(chosen)}


def described() -> dict[str, Any]:
    """What the last bits of numbers depend on, of this process."""
    return {
        "torchxrayvision": __version__,
        "torch": torch.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def differences(machine: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """How another machine differs, one phrase each.

    Args:
        machine: What the run began on.
        found: What `described` says elsewhere.
    """
    return [f"{k} {machine.get(k)}, now {v}" for k, v in found.items() if machine.get(k) != v]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads: sums depend on how they are split.

    Args:
        count: Those that the run began with.
    """
    before = torch.get_num_threads()
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)
