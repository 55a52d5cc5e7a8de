"""Workers that read files ahead of whoever takes the results, and give up on stuck ones.

A worker is a thread: NumPy and the decoders let others run while they work, and a prepared image
need not be copied between processes. A thread cannot be ended, so one that is stuck in a file
is left behind and another takes its place. Where files may crash the decoder, or stall it for
good, each thread lets a process of its own decode, which can be killed.
"""

from __future__ import annotations

import dataclasses
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from torchxrayvision.errors import ImageReadError, StalledError
from torchxrayvision.images import Raster
from torchxrayvision.inputs.archives import Archives, InputFile
from torchxrayvision.inputs.isolate import ReaderProcess
from torchxrayvision.inputs.load import (
    ReadOptions,
    default_workers,
    read_file,
    read_or_reason,
    reason_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
Read = Callable[[InputFile], Raster]
"""Reads one file, or raises `ImageReadError`."""

_POLL_SECONDS: Final = 0.5  # between looks at the clock while waiting
_SHUTDOWN_SECONDS: Final = 5.0  # that closing waits for a worker to finish its file
# So many stuck threads are no damaged files but a storage that does not answer.
_MOST_STUCK: Final = 32


def prefetch(
    items: Iterable[_Item],
    make: Callable[[_Item, Read], _Made],
    options: ReadOptions | None = None,
    ahead: int | None = None,
) -> Iterator[tuple[_Item, _Made | str]]:
    """Read files ahead of whoever takes the results; see `Readers`.

    Args:
        items: Consumed lazily.
        make: See `Readers`.
        options: See `Readers`.
        ahead: See `Readers.map`.

    Yields:
        Each item, in order, with what was made of it, or in one clause why there is nothing.

    Example:
        >>> from torchxrayvision.inputs import expand
        >>> read = prefetch(expand(["absent.png"]), lambda file, read: read(file).shape)
        >>> [(file.given, shape) for file, shape in read]
        [('absent.png', 'no such file')]
    """
    with Readers(make, options) as readers:
        yield from readers.map(items, ahead)


@dataclass(eq=False)
class _Task:
    item: Any
    work: Any  # the item as `make` gets it: with its bytes, where they were read already
    started: float | None = None
    outcome: Any = None
    done: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def resolve(self, outcome: Any) -> bool:
        """Take the first outcome; whether this was it."""
        with self.lock:
            if self.done.is_set():
                return False
            self.outcome, self.work = outcome, None
            self.done.set()
        return True


class _Worker:
    """A thread that takes tasks until it gets None, or until it was given up."""

    def __init__(
        self,
        tasks: queue.SimpleQueue[_Task | None],
        make: Callable[[Any, Read], Any],
        options: ReadOptions,
        archives: Archives,
    ) -> None:
        self._tasks = tasks
        self._make = make
        self._process = ReaderProcess(options) if options.isolate else None
        self._read: Read = partial(read_file, options=options, archives=archives)
        if self._process is not None:
            self._read = self._process.read
        self.task: _Task | None = None
        self._lost = False
        self.thread = threading.Thread(target=self._run, name="xrv-read", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            work = task.work
            if task.done.is_set():  # the run was closed meanwhile
                continue
            task.started = time.monotonic()
            self.task = task
            task.resolve(self._outcome(work))
            self.task = None
            if self._lost:  # another thread has this one's place
                break
        if self._process is not None:
            self._process.close()

    def _outcome(self, work: Any) -> Any:
        try:
            return read_or_reason(lambda: self._make(work, self._read), work)
        except BaseException as error:  # noqa: BLE001 - a decoder may even raise SystemExit
            return reason_of(error)

    def abandon(self) -> bool:
        """Leave the file; whether the thread is lost with it."""
        self._lost = self._process is None or not self._process.kill()
        return self._lost


class Readers(Generic[_Item, _Made]):
    """A pool of workers for one run; a context manager.

    Args:
        make: Called on the thread of a worker with an item and the function that reads an
            `InputFile` to a `Raster`, in this process or in one that may crash.
        options: How files are read.
    """

    def __init__(
        self, make: Callable[[_Item, Read], _Made], options: ReadOptions | None = None
    ) -> None:
        self._make = make
        self._options = options or ReadOptions()
        self._archives = Archives()
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        count = self._options.workers or default_workers()
        self._workers = [self._worker() for _ in range(count)]
        self._pending: deque[_Task] = deque()
        self._stuck = 0

    @property
    def workers(self) -> int:
        """How many read at the same time."""
        return len(self._workers)

    def _worker(self) -> _Worker:
        return _Worker(self._tasks, self._make, self._options, self._archives)

    def map(
        self, items: Iterable[_Item], ahead: int | Callable[[], int] | None = None
    ) -> Iterator[tuple[_Item, _Made | str]]:
        """What is made of the items, or in one clause why there is nothing, in their order.

        Args:
            items: Consumed as the workers go.
            ahead: Most items that are begun and not yet asked for, or what gives it where it
                changes meanwhile; None for two per worker.

        Raises:
            StalledError: If so many files hang that the storage must be the cause.
        """
        remaining = iter(items)
        while True:
            most = (ahead() if callable(ahead) else ahead) or 2 * self.workers
            for item in itertools.islice(remaining, max(0, most - len(self._pending))):
                self._submit(item)
            if not self._pending:
                return
            task = self._pending.popleft()
            yield task.item, self._outcome(task)

    def _submit(self, item: _Item) -> None:
        task = _Task(item, item)
        self._pending.append(task)
        if isinstance(item, InputFile) and item.member is not None and item.member.sequential:
            # Here and not in a worker: only asked for in order is such an archive read once.
            limits = self._options.limits
            try:
                data = self._archives.read(item.path, item.member, limits)
            except ImageReadError as error:
                task.resolve(reason_of(error))
                return
            task.work = dataclasses.replace(item, data=data)
        self._tasks.put(task)

    def _outcome(self, task: _Task) -> _Made | str:
        while not task.done.wait(_POLL_SECONDS):
            self._watch()
        outcome: _Made | str = task.outcome
        return outcome

    def _watch(self) -> None:
        now, limit = time.monotonic(), self._options.time_limit
        for index, worker in enumerate(self._workers):
            task = worker.task
            if task is None or task.started is None or now - task.started < limit:
                continue
            if task.resolve(f"reading took longer than {limit:g} s") and worker.abandon():
                self._stuck += 1
                if self._stuck > _MOST_STUCK:
                    raise StalledError(self._stuck, limit)
                self._workers[index] = self._worker()

    def close(self, patience: float | None = None) -> None:
        """End the workers; files that were not begun are left.

        Args:
            patience: Seconds that workers get to finish their files; None for the usual few.
        """
        for task in self._pending:
            task.resolve("not read")
        self._pending.clear()
        self._archives.close()
        for _ in self._workers:
            self._tasks.put(None)
        until = time.monotonic() + (_SHUTDOWN_SECONDS if patience is None else patience)
        for worker in self._workers:
            worker.thread.join(max(0.0, until - time.monotonic()))
            if worker.thread.is_alive():
                worker.abandon()

    def __enter__(self) -> Readers[_Item, _Made]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(0.2 if kind is KeyboardInterrupt else None)  # who interrupts does not wait
