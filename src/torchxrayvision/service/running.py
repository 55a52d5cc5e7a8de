"""The service: one door for everything that is received, and the parts that do the work."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import threading
import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import OverloadError, ServiceError, counted, needs_package
from torchxrayvision.service.deliver import Deliverer
from torchxrayvision.service.gate import instance_of
from torchxrayvision.service.operate import Metrics, gauges, log_event
from torchxrayvision.service.queue import Queue
from torchxrayvision.service.spool import Spool, make_private
from torchxrayvision.service.watch import FolderWatch
from torchxrayvision.service.work import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchxrayvision.service.config import Config, Pull
    from torchxrayvision.service.http import HttpServer
    from torchxrayvision.service.loops import Loop
    from torchxrayvision.service.pull import ArchivePull
    from torchxrayvision.service.receive import Listener

_HOUSEKEEPING_SECONDS: Final = 2.0
_STOP_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What came of a received image; it is durable.

    Args:
        job: Its number in the queue.
        new: Whether it will be read; False if it waits or is answered already.
    """

    job: int
    new: bool


class Service:
    """Everything between a modality and an archive; a context manager.

    Args:
        config: The settings.

    Raises:
        ServiceError: If another service runs in the same folder, a network cannot be loaded, or a
            port cannot be used.
        ConfigError: If certificates or secrets cannot be used.
        DependencyError: If the extra `serve` or `dicom-results` is missing.

    Example:
        >>> from torchxrayvision import service
        >>> with service.Service(service.read_config("serve.toml")) as running:  # doctest: +SKIP
        ...     running.accept(data, "own")
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.metrics = Metrics()
        self.stopping = threading.Event()
        self._owner = uuid.uuid4().hex
        self._started = False
        self._draining = False
        make_private(config.folder)
        self._lock = _hold(config)
        self._closers: list[Callable[[], None]] = [self._lock.release]
        try:
            self._open()
        except BaseException:
            self._close()
            raise

    def _open(self) -> None:
        config = self.config
        self.spool = Spool(config.folder, config.limits)
        self.queue = Queue(config.folder / "queue.sqlite")
        self._closers.append(self.queue.close)
        shared = (self.queue, self.spool, self.metrics, self._owner, log_event)
        self._deliverers = [
            Deliverer(config, target, *shared, number=number)
            for target in config.targets
            for number in range(target.connections)
        ]
        self._watches = [
            FolderWatch(w, lambda data: self.accept(data, "watch"), log_event,
                        config.limits.object_bytes)
            for w in config.watch
        ]  # fmt: skip
        self._pulls = [self._pull(pull) for pull in config.pull]
        self._pool = WorkerPool(config, *shared)
        self._closers.append(lambda: self._pool.stop(_STOP_SECONDS))
        self.model = self._pool.model
        left = self.queue.begin(self.model)
        self.queue.keep("model", self.model)
        dropped = self.queue.drop_targets([target.name for target in config.targets])
        swept = self.spool.sweep(self.queue.files())
        self._listener = self._listen()
        self._http = self._listen_http()
        log_event("opened", model=self.model, resumed=left, swept=swept, dropped=dropped)

    def _listen(self) -> Listener | None:
        settings = self.config.receive
        if settings is None:
            return None
        with needs_package("", "the service", "serve"):
            from torchxrayvision.service.receive import Listener
        listener = Listener(
            settings, self.config.limits, self._accept_named, self.metrics, log_event
        )
        self._closers.append(listener.close)
        return listener

    def _pull(self, settings: Pull) -> ArchivePull:
        with needs_package("", "the service", "serve"):
            from torchxrayvision.service.pull import ArchivePull
        return ArchivePull(
            settings, self.queue, lambda data: self.accept(data, "pull"), self._knows, log_event,
            self.config.limits.object_bytes,
        )  # fmt: skip

    def _knows(self, instance_uid: str) -> bool:
        return self.queue.has(self.spool.key_of(instance_uid), self.model)

    def _listen_http(self) -> HttpServer | None:
        if self.config.http is None:
            return None
        with needs_package("", "the service", "serve"):
            from torchxrayvision.service.http import HttpServer
        server = HttpServer(self.config.http, self.config.limits, self)
        self._closers.append(server.close)
        return server

    # ---- in -------------------------------------------------------------------------------------

    def accept(self, data: bytes, origin: str) -> Receipt:
        """Take a DICOM file from any source; on return it is durable.

        Args:
            data: The file.
            origin: Where from, in one word of the caller's: `"stow"`, `"watch"`, `"pull"`.

        Returns:
            What came of it.

        Raises:
            ImageReadError: If it is no DICOM file or says no SOP Instance UID.
            OverloadError: If nothing is taken for now; the sender has to keep it.
        """
        return self._accept_named(data, instance_of(data), origin)

    def _accept_named(self, data: bytes, instance_uid: str, origin: str) -> Receipt:
        key = self.spool.key_of(instance_uid)
        job = self.queue.known(key, self.model)
        if job is not None:
            self.metrics.count("received", origin=origin, outcome="known")
            return Receipt(job, False)
        self._check_open()
        file = self.spool.store(data)
        try:
            added = self.queue.add(key, self.model, origin, file, hashlib.sha256(data).digest())
        except sqlite3.Error as error:
            self.spool.remove(file)
            reason = f"the queue cannot be written: {type(error).__name__}"
            raise OverloadError(reason) from None
        for name in added.stale:
            self.spool.remove(name)
        self.metrics.count("received", origin=origin, outcome="new" if added.new else "known")
        self._pool.wake()
        return Receipt(added.job, added.new)

    def _check_open(self) -> None:
        if self.stopping.is_set():
            msg = "the service stops"
            raise OverloadError(msg)
        if self._draining:
            msg = "the service is drained"
            raise OverloadError(msg)
        waiting = self.queue.waiting()
        if waiting >= self.config.limits.waiting:
            msg = f"{counted(waiting, 'image waits', 'images wait')} (limits.waiting)"
            raise OverloadError(msg)

    # ---- operate --------------------------------------------------------------------------------

    @property
    def port(self) -> int | None:
        """Of the DICOM listener, or None."""
        return None if self._listener is None else self._listener.port

    @property
    def http_port(self) -> int | None:
        """Of the HTTP listener, or None."""
        return None if self._http is None else self._http.port

    def not_ready(self) -> str:
        """Why no image is taken for now; empty if they are."""
        if not self._started:
            return "the service has not started"
        if not self._pool.ready:
            return "no worker is ready"
        try:
            self._check_open()
            self.spool.check_room(0)
        except OverloadError as error:
            return str(error)
        return ""

    def metrics_text(self) -> str:
        """All figures, as Prometheus reads them."""
        ready = not self.not_ready()
        lines = [
            *gauges(self.queue, self.spool.bytes, self.spool.free(), ready=ready),
            *self.metrics.lines(),
        ]
        return "\n".join(lines) + "\n"

    # ---- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to receive, read and deliver; returns at once."""
        self._pool.start()
        loops: list[Loop] = [*self._deliverers, *self._watches, *self._pulls]
        for loop in loops:
            loop.start()
        self._closers += [partial(loop.stop, _STOP_SECONDS) for loop in loops]
        if self._listener is not None:
            self._listener.start()
        if self._http is not None:
            self._http.start()
        keeper = threading.Thread(target=self._keep_house, name="xrv-housekeeping", daemon=True)
        keeper.start()
        self._closers.append(keeper.join)
        self._started = True
        log_event("started", port=self.port, http_port=self.http_port)

    def stop(self) -> None:
        """Take nothing more, finish what is at hand, and end; nothing that was accepted is lost."""
        self.stopping.set()
        log_event("stopping")
        self._close()
        log_event("stopped")

    def _close(self) -> None:
        while self._closers:
            self._closers.pop()()

    def run(self) -> None:
        """Start, and stop at SIGTERM, SIGINT, or when drained; for the main thread."""
        before = {
            number: signal.signal(number, lambda *_: self.stopping.set())
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            self.start()
            while not self.stopping.wait(0.5):
                pass
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def _keep_house(self) -> None:
        while not self.stopping.wait(_HOUSEKEEPING_SECONDS):
            try:
                self._draining = bool(self.queue.setting("draining"))
                if self._draining and not self.queue.unfinished():
                    log_event("drained")
                    self.stopping.set()
                self.tidy()
            except Exception as error:  # noqa: BLE001 - the disk may be full for a while
                log_event("housekeeping_fault", error=type(error).__name__)

    def tidy(self) -> int:
        """Remove what has been kept long enough.

        Returns:
            Jobs whose files were removed.
        """
        now, kept = time.time(), self.config.retention
        expired = self.queue.expired(
            now - 3600 * kept.delivered_hours, now - 86_400 * kept.failed_days
        )
        # Removed before the record forgets their names: a kill between the two loses no name.
        for _, *names in expired:
            for name in filter(None, names):
                self.spool.remove(name)
        if expired:
            self.queue.forget_files([job for job, *_ in expired])
        self.queue.forget_records(now - 86_400 * kept.record_days)
        return len(expired)


def _hold(config: Config) -> Any:
    """The lock of the folder: two services there would read every image twice."""
    from filelock import FileLock, Timeout

    lock = FileLock(config.folder / "service.lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        msg = f"another service runs in {config.folder}"
        raise ServiceError(msg) from None
    return lock
