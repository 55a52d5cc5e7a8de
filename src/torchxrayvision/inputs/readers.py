"""Workers that read images ahead of the network, and a watch that gives up on stuck ones.

A worker is a thread: NumPy and the decoders let others run while they work, and a prepared image
need not be copied between processes. A thread cannot be ended, so one that is stuck in a file
is left behind and another takes its place. Where files may crash the decoder, or stall it for
good, each thread hands its files to a process of its own, which can be killed.
"""

from __future__ import annotations

import dataclasses
import itertools
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from torchxrayvision.errors import ImageReadError, StalledError
from torchxrayvision.inputs.archives import SequentialReader
from torchxrayvision.inputs.isolate import ReaderProcess
from torchxrayvision.inputs.load import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from torchxrayvision.inputs.source import Source

    Loaded = NDArray[np.float32] | str

__all__ = ["Readers", "ahead", "with_data"]


# ---- Work on threads that runs a little ahead of whoever takes the results.

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def ahead(
    function: Callable[[_In], _Out], items: Iterable[_In], *, workers: int, waiting: int
) -> Iterator[_Out]:
    """Results in the order of the items; only so many of them in memory.

    Args:
        function: Called on threads.
        items: Consumed lazily.
        workers: Threads.
        waiting: Most results that are begun and not yet taken.

    Yields:
        One result an item; an exception of the function is raised in its place.

    Example:
        >>> list(ahead(abs, [-1, 2], workers=1, waiting=2))
        [1, 2]
    """
    remaining = iter(items)
    pending: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="xrv-ahead") as pool:
        try:
            while True:
                for item in itertools.islice(remaining, waiting - len(pending)):
                    pending.append(pool.submit(function, item))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def with_data(sources: Iterable[Source]) -> Iterator[tuple[Source, bytes | None]]:
    """Sources for threads that take them out of order.

    Args:
        sources: In the order of their archives.

    Yields:
        Each source with its bytes where its archive can only be read in order, else with None.
    """
    with closing(SequentialReader()) as reader:
        for source in sources:
            if source.member is None or not source.member.sequential:
                yield source, None
                continue
            try:
                yield source, reader.read(source.path, source.member)
            except ImageReadError as error:
                yield dataclasses.replace(source, problem=error.reason), None


_GLANCE: Final = 0.5  # seconds between looks at the clock while waiting
_FAREWELL: Final = 5.0  # seconds that closing waits for a worker to finish its file
# So many stuck threads are no damaged files but a storage that does not answer.
_MOST_STUCK: Final = 32


@dataclass(eq=False)
class _Task:
    source: Source
    data: bytes | None
    started: float | None = None
    outcome: Loaded | None = None
    done: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def settle(self, outcome: Loaded) -> bool:
        """Take the first outcome; whether this was it."""
        with self.lock:
            if self.outcome is not None:
                return False
            self.outcome = outcome
        self.data = None
        self.done.set()
        return True


class _Worker:
    """A thread that takes tasks until it gets None, or until it was given up."""

    def __init__(self, tasks: queue.SimpleQueue[_Task | None], size: int, isolate: bool) -> None:
        self._tasks = tasks
        self._size = size
        self._process = ReaderProcess(size) if isolate else None
        self.task: _Task | None = None
        self.thread = threading.Thread(target=self._work, name="xrv-read", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if task.done.is_set():  # the run was closed meanwhile
                continue
            task.started = time.monotonic()
            self.task = task
            mine = task.settle(self._load(task))
            self.task = None
            if not mine and self._process is None:
                return  # another thread has this one's place
        if self._process is not None:
            self._process.close()

    def _load(self, task: _Task) -> Loaded:
        try:
            if self._process is not None:
                return self._process.load(task.source, task.data)
            return load(task.source, self._size, task.data)
        except BaseException as error:  # noqa: BLE001 - a decoder may even raise SystemExit
            return f"{type(error).__name__}: {error}"

    def give_up(self) -> bool:
        """Leave the file; whether the thread is lost with it."""
        if self._process is None:
            return True
        self._process.kill()
        return False


class Readers:
    """A pool of workers for one run.

    Args:
        size: Side of the prepared images in pixels.
        workers: How many.
        time_limit: Seconds for one file, after which its row says so.
        isolate: Whether files are read in processes that can be killed.
    """

    def __init__(self, size: int, workers: int, time_limit: float, *, isolate: bool) -> None:
        self._size = size
        self._limit = time_limit
        self._isolate = isolate
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._workers = [self._worker() for _ in range(workers)]
        self._pending: deque[_Task] = deque()
        self._archives = SequentialReader()
        self._stuck = 0

    @property
    def workers(self) -> int:
        """How many read at the same time."""
        return len(self._workers)

    def _worker(self) -> _Worker:
        return _Worker(self._tasks, self._size, self._isolate)

    def map(self, sources: Iterable[Source], ahead: int) -> Iterator[tuple[Source, Loaded]]:
        """Prepared images, or reasons, in the order of the sources.

        Args:
            sources: Consumed as the workers go.
            ahead: Most images that are read and not yet asked for.

        Raises:
            StalledError: If so many files hang that the storage must be the cause.
        """
        remaining = iter(sources)
        while True:
            for source in itertools.islice(remaining, ahead - len(self._pending)):
                self._submit(source)
            if not self._pending:
                return
            task = self._pending.popleft()
            yield task.source, self._outcome(task)

    def _submit(self, source: Source) -> None:
        task = _Task(source, None)
        self._pending.append(task)
        if source.member is not None and source.member.sequential:
            # Here and not in a worker: only asked for in order is such an archive read once.
            try:
                task.data = self._archives.read(source.path, source.member)
            except ImageReadError as error:
                task.settle(error.reason)
                return
        self._tasks.put(task)

    def _outcome(self, task: _Task) -> Loaded:
        while not task.done.wait(_GLANCE):
            self._watch()
        assert task.outcome is not None  # settled before the event was set
        return task.outcome

    def _watch(self) -> None:
        now = time.monotonic()
        for index, worker in enumerate(self._workers):
            task = worker.task
            if task is None or task.started is None or now - task.started < self._limit:
                continue
            if task.settle(f"reading took longer than {self._limit:g} s") and worker.give_up():
                self._stuck += 1
                if self._stuck > _MOST_STUCK:
                    raise StalledError(self._stuck, self._limit)
                self._workers[index] = self._worker()

    def close(self) -> None:
        """End the workers; files that were not begun are left."""
        for task in self._pending:
            task.settle("not read")
        self._pending.clear()
        self._archives.close()
        for _ in self._workers:
            self._tasks.put(None)
        until = time.monotonic() + _FAREWELL
        for worker in self._workers:
            worker.thread.join(max(0.0, until - time.monotonic()))
            if worker.thread.is_alive():
                worker.give_up()

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
