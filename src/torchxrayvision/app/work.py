"""Work behind the page: threads for requests, and all images read in the background."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchxrayvision.app.library import Library
    from torchxrayvision.app.networks import Classifier

logger = logging.getLogger(__name__)


class BusyError(Exception):
    """So many requests wait already that one more would only wait in vain."""


class Lane:
    """Threads for one kind of work, and how many requests may wait for one of them."""

    def __init__(self, threads: int, waiting: int) -> None:
        import anyio

        self._limiter = anyio.CapacityLimiter(threads)
        self._most = threads + waiting
        self._count = 0

    async def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on one of the threads."""
        import anyio.to_thread

        if self._count >= self._most:
            raise BusyError
        self._count += 1
        try:
            return await anyio.to_thread.run_sync(function, *arguments, limiter=self._limiter)
        finally:
            self._count -= 1


class ReadAll:
    """Reads every image of the library with one classifier, in the background."""

    def __init__(self, library: Library, classifier: Classifier, number: int, batch: int) -> None:
        self.number, self.done, self.total, self.running = number, 0, 0, True
        self._library, self._classifier, self._batch = library, classifier, batch
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="xrv-read-all", daemon=True).start()

    def stop(self) -> None:
        """After the batch that is being read."""
        self._stop.set()

    def _run(self) -> None:
        try:
            left = [e for e in self._library.entries() if self.number not in e.readings]
            self.total = len(left)
            for start in range(0, len(left), self._batch):
                if self._stop.is_set():
                    return
                chunk = left[start : start + self._batch]
                files = [entry.file for entry in chunk]
                for entry, reading in zip(
                    chunk, self._classifier.read(files, self._library.reading), strict=True
                ):
                    entry.readings[self.number] = reading
                self.done += len(chunk)
        except Exception as error:  # noqa: BLE001 - the page must learn that it ended
            logger.error("reading all images ended with %s", type(error).__name__)
        finally:
            self.running = False

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {"model": self.number, "done": self.done, "total": self.total,
                "running": self.running}  # fmt: skip
