"""Read and prepare files on threads while the network runs; results in the order of the input."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.inference._journal import Batch
from torchxrayvision.inference._load import AIR
from torchxrayvision.inference._readers import Readers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from numpy.typing import NDArray

    from torchxrayvision.inference._engine import ClassifierEngine
    from torchxrayvision.inference._sources import Source

__all__ = [
    "TIME_LIMIT",
    "Reading",
    "Result",
    "batches",
    "batches_from",
    "default_workers",
    "first_images",
    "open_readers",
    "results_of",
]

# A large JPEG 2000 film takes a second; ten times that on a busy disk, and ten more for doubt.
TIME_LIMIT: Final = 120.0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one file.

    Args:
        path: The file as the user named it.
        error: What went wrong, or an empty string.
        outputs: One number a target, shape (P,) float32, or None after an error.
        embedding: Features, shape (D,) float32, if they were asked for.
    """

    path: str
    error: str
    outputs: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How files are read. None of it changes a number.

    Args:
        workers: Threads that read and prepare images; None for one a processor.
        time_limit: Seconds for one file, after which its row says so.
        isolate: Read in processes that may crash or be killed, instead of on threads.
    """

    workers: int | None = None
    time_limit: float = TIME_LIMIT
    isolate: bool = False


def default_workers() -> int:
    """Threads that read images: one for each processor this process may use, at most eight."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, usable or 1)


def batches(
    engine: ClassifierEngine,
    sources: Iterable[Source],
    *,
    first: int = 0,
    reading: Reading | None = None,
    features: bool = False,
) -> Generator[tuple[list[Source], Batch], None, None]:
    """Predict every source, batch by batch, in order.

    A batch is `engine.batch_size` sources that follow each other, readable or not, so that an
    image has the same place in the same batch wherever a run begins.

    Args:
        engine: Ready to run.
        sources: Consumed lazily; at most a few batches are in memory.
        first: Position of the first source in the whole list, a multiple of the batch size.
        reading: How files are read.
        features: Whether batches carry the features.

    Yields:
        The sources of a batch and what came of them.
    """
    with open_readers(engine, reading or Reading()) as readers:
        yield from batches_from(readers, engine, sources, first=first, features=features)


def open_readers(engine: ClassifierEngine, reading: Reading) -> Readers:
    """Workers that read for an engine; to be closed.

    Args:
        engine: What the images are for.
        reading: How files are read.
    """
    workers = reading.workers or default_workers()
    return Readers(engine.size, workers, reading.time_limit, isolate=reading.isolate)


def batches_from(
    readers: Readers,
    engine: ClassifierEngine,
    sources: Iterable[Source],
    *,
    first: int = 0,
    features: bool = False,
) -> Generator[tuple[list[Source], Batch], None, None]:
    """As `batches`, with workers that are there and go on to be.

    Args:
        readers: From `open_readers`.
        engine: See `batches`.
        sources: See `batches`.
        first: See `batches`.
        features: See `batches`.

    Yields:
        The sources of a batch and what came of them.
    """
    loaded = readers.map(sources, ahead=2 * engine.batch_size + readers.workers)
    while chunk := list(itertools.islice(loaded, engine.batch_size)):
        batch = _batch(engine, first, [image for _, image in chunk], features)
        yield [source for source, _ in chunk], batch
        first += len(chunk)


def _batch(
    engine: ClassifierEngine, first: int, images: list[NDArray[np.float32] | str], features: bool
) -> Batch:
    count = len(images)
    values = np.full((count, engine.outputs), np.nan, np.float32)
    vectors = np.full((count, engine.width), np.nan, np.float32)
    errors = tuple(image if isinstance(image, str) else "" for image in images)
    good = [i for i, error in enumerate(errors) if not error]
    if good:
        engine.input[...] = AIR
        for i in good:
            engine.input[i] = images[i]
        all_values, all_vectors = engine()
        values[good], vectors[good] = all_values[good], all_vectors[good]
    return Batch(first, errors, values, vectors if features else None)


def first_images(
    sources: Iterable[Source], size: int, count: int, reading: Reading
) -> NDArray[np.float32]:
    """Images to compare engines on: the first readable ones, or made ones if there are none.

    Args:
        sources: The first few are read.
        size: Side in pixels.
        count: The most to give.
        reading: How files are read, but by one worker: a bad one must not end the run here either.

    Returns:
        Shape (n, 1, size, size), n at least 1 and at most `count`.
    """
    tried = (s for s in itertools.islice(sources, 4 * count) if s.member is None
             or not s.member.sequential)  # fmt: skip
    with Readers(size, 1, reading.time_limit, isolate=reading.isolate) as readers:
        loaded = (image for _, image in readers.map(tried, ahead=2))
        images = list(itertools.islice((i for i in loaded if not isinstance(i, str)), count))
    if not images:
        from torchxrayvision.inference._graph import example

        return np.asarray(example(size, count))
    return np.stack(images)


def results_of(sources: Iterable[Source], batch: Batch) -> Iterator[Result]:
    """A batch as one result an image.

    Args:
        sources: The images of the batch, in order.
        batch: What came of them.
    """
    for i, (source, error) in enumerate(zip(sources, batch.errors, strict=True)):
        if error:
            yield Result(source.given, error)
        else:
            vector = None if batch.features is None else batch.features[i]
            yield Result(source.given, "", batch.outputs[i], vector)
