"""The pool of workers: leases images, has other processes read them, records what came of them."""

from __future__ import annotations

import dataclasses
import hmac
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ServiceError
from torchxrayvision.service.queue import ResultObject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torchxrayvision.service.config import Config
    from torchxrayvision.service.operate import Metrics
    from torchxrayvision.service.queue import Job, Queue
    from torchxrayvision.service.spool import Spool

_SECTIONS: Final = ("folder", "model", "results", "gate", "work", "limits")
_IDLE_SECONDS: Final = 0.05  # between looks at an empty queue
_RESTART_SECONDS: Final = 1.0  # between attempts to start a worker
_FAULT_SECONDS: Final = 1.0  # after the queue or the disk refused
_LEASE_SPARE: Final = 60.0


class WorkerDiedError(Exception):
    """A worker ended, or was ended, without an answer."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(how)


class Worker:
    """One child process that reads images.

    Args:
        config: Settings of the service.

    Raises:
        ServiceError: If it cannot load its networks.
    """

    def __init__(self, config: Config) -> None:
        answer = self._start(config)
        if answer.get("converted"):  # with torch, which the next process does without
            self.close()
            answer = self._start(config)
        self.model: str = answer["model"]

    def _start(self, config: Config) -> dict[str, Any]:
        """Start the process; what it says when it is ready."""
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threads = str(config.work.threads)
        package = str(Path(__file__).parents[2])
        search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        names = (
            "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
            "OPJ_NUM_THREADS",  # of OpenJPEG, which decodes JPEG 2000
        )  # fmt: skip
        limits = dict.fromkeys(names, threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torchxrayvision.service.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # warnings and tracebacks may quote a header
            env={**os.environ, **limits, "PYTHONPATH": search},
            start_new_session=True,  # Ctrl-C is for the service, which ends its workers
        )
        threading.Thread(
            target=_read,
            args=(self._process.stdout, self._answers),
            name="xrv-answers",
            daemon=True,
        ).start()
        try:
            self._say(_settings(config))
            answer = self.answer(config.work.start_limit)
        except WorkerDiedError as died:
            msg = f"a worker ended before it was ready ({died.how})"
            raise ServiceError(msg) from None
        if "error" in answer:
            self.close()
            raise ServiceError(answer["error"])
        return answer

    def _say(self, value: Any) -> None:
        stream = self._process.stdin
        try:
            if stream is not None:
                stream.write(json.dumps(value).encode() + b"\n")
                stream.flush()
        except OSError:
            raise WorkerDiedError(self._reap()) from None

    def ask(self, images: Sequence[dict[str, str]]) -> None:
        """Give it a batch; `answer` gives one answer per image.

        Args:
            images: `file` and `folder` of each.

        Raises:
            WorkerDiedError: If it is gone.
        """
        self._say(list(images))

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next answer.

        Args:
            seconds: After which the worker is ended.

        Returns:
            See `worker.ImageWorker.answer`.

        Raises:
            WorkerDiedError: If it is gone, or took longer.
        """
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self._process.kill()
            self._reap()
            raise WorkerDiedError(f"took longer than {seconds:g} s") from None
        if not line.endswith(b"\n"):
            raise WorkerDiedError(self._reap())
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self._reap()
            raise WorkerDiedError("gave no valid answer") from None
        return answer

    def _reap(self) -> str:
        self._process.kill()
        status = self._process.wait()
        return f"signal {-status}" if status < 0 else f"exit code {status}"

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was still to be flushed has no reader any more
                    continue


def _read(stream: IO[bytes] | None, answers: queue.SimpleQueue[bytes]) -> None:
    if stream is None:
        return
    while line := stream.readline():
        answers.put(line)
    answers.put(b"")


def _settings(config: Config) -> dict[str, Any]:
    """What a worker needs, as JSON holds it."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(v) for name, v in value.items() if v is not None}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    found = dataclasses.asdict(config)
    return {name: plain(found[name]) for name in _SECTIONS}


def config_of_process(config: Config, number: int) -> Config:
    """The settings of one process: several devices go to the processes by turns."""
    devices = config.model.device.split(",")
    device = devices[number % len(devices)].strip()
    return dataclasses.replace(config, model=dataclasses.replace(config.model, device=device))


class WorkerPool:
    """Threads that each keep one worker busy.

    Args:
        config: Settings of the service.
        jobs: The queue.
        spool: The files.
        metrics: Where figures go.
        owner: Of the leases.
        log: Called with an event and its facts.
    """

    def __init__(
        self,
        config: Config,
        jobs: Queue,
        spool: Spool,
        metrics: Metrics,
        owner: str,
        log: Callable[..., None],
    ) -> None:
        self._config = config
        self._jobs = jobs
        self._spool = spool
        self._metrics = metrics
        self._owner = owner
        self._log = log
        self._stop = threading.Event()
        self._work = threading.Event()
        self._threads: list[threading.Thread] = []
        self._targets = {t.name: frozenset(t.kinds) for t in config.targets}
        self._first = Worker(config_of_process(config, 0))  # whose failure is that of the service
        self.model = self._first.model
        self.ready = 1

    def start(self) -> None:
        """Begin to work."""
        for number in range(self._config.work.processes):
            first = self._first if number == 0 else None
            thread = threading.Thread(
                target=self._run,
                args=(first, number),
                name=f"xrv-work-{number}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)

    def wake(self) -> None:
        """Say that there is work, so that nobody has to look for it."""
        self._work.set()

    def stop(self, patience: float) -> None:
        """End the workers; images that they are at are read by the next life of the service.

        Args:
            patience: Seconds for the image that is being read.
        """
        self._stop.set()
        self._work.set()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if not self._threads:
            self._first.close()

    def _run(self, worker: Worker | None, number: int) -> None:
        owner = f"{self._owner}/{number}"
        try:
            while not self._stop.is_set():
                if worker is None:
                    worker = self._started(number)
                    continue
                try:
                    if not self._batch(worker, owner):
                        self._work.wait(_IDLE_SECONDS)
                        self._work.clear()
                except WorkerDiedError as died:
                    self._log("worker_died", how=died.how)
                    worker.close()
                    worker = None
                except Exception as error:  # noqa: BLE001 - the queue's disk may be full for a while
                    self._log("work_fault", error=type(error).__name__)
                    worker.close()  # it may be amid a batch
                    worker = None
                    self._stop.wait(_FAULT_SECONDS)
        finally:
            if worker is not None:
                worker.close()

    def _started(self, number: int) -> Worker | None:
        self.ready -= 1
        try:
            worker = Worker(config_of_process(self._config, number))
        except ServiceError as error:
            self._log("worker_not_started", error=str(error))
            self._stop.wait(_RESTART_SECONDS)
            return None
        finally:
            self.ready += 1
        return worker

    def _batch(self, worker: Worker, owner: str) -> bool:
        """Have some images read; whether there were any."""
        work = self._config.work
        lease = work.time_limit * work.batch_size + _LEASE_SPARE
        jobs = self._jobs.claim(owner, work.batch_size, lease)
        # An image that a worker died of is read alone, so that no other one pays for it.
        groups = [[job for job in jobs if not job.crashes]]
        groups += [[job] for job in jobs if job.crashes]
        for group in groups:
            if group:
                self._read(worker, group, owner)
        return bool(jobs)

    def _read(self, worker: Worker, group: list[Job], owner: str) -> None:
        folders = [self._spool.new_results() for _ in group]
        worker.ask(
            [
                {"file": str(self._spool.path(job.file)), "folder": str(self._spool.path(folder))}
                for job, folder in zip(group, folders, strict=True)
            ]
        )
        for job, folder in zip(group, folders, strict=True):
            began = time.monotonic()
            try:
                answer = worker.answer(self._config.work.time_limit)
            except WorkerDiedError as died:
                self._spool.remove(folder)
                if not self._stop.is_set():
                    self._blame(job, died.how, owner)
                raise
            self._metrics.observe("read_seconds", time.monotonic() - began)
            self._record(job, folder, answer, owner)
            if self._stop.is_set():  # the rest is for the next life of the service
                return

    def _blame(self, job: Job, how: str, owner: str) -> None:
        """Note that a worker died of an image; at last it counts as failed."""
        self._metrics.count("worker_deaths")
        reason = f"the process that read it died ({how})"
        most = self._config.work.most_crashes
        if self._jobs.crashed(job.id, owner, most, reason):
            self._metrics.count("read", outcome="failed")
            self._log("read", job=job.id, outcome="failed", reason=reason)

    def _record(self, job: Job, folder: str, answer: dict[str, Any], owner: str) -> None:
        outcome, reason = answer["outcome"], answer["reason"]
        if outcome == "retry":
            self._spool.remove(folder)
            self._log("read_fault", job=job.id, reason=reason)
            raise OSError(reason)
        instance = answer["instance"]
        if instance and not hmac.compare_digest(self._spool.key_of(instance), job.instance):
            outcome, reason, answer["objects"] = (
                "failed",
                "it is another instance than announced",
                [],
            )
        objects = [
            ResultObject(o["kind"], f"{folder}/{o['file']}", o["uid"], o["sop_class"])
            for o in answer["objects"]
        ]
        self._end(job, folder if objects else "", objects, outcome, reason, owner)

    def _end(
        self,
        job: Job,
        folder: str,
        objects: list[ResultObject],
        outcome: str,
        reason: str,
        owner: str,
    ) -> None:
        kinds = {o.kind for o in objects}
        targets = [
            name for name, wanted in self._targets.items()
            if not wanted or wanted & kinds or "refusal" in kinds
        ]  # fmt: skip
        held = self._jobs.produced(
            job.id, owner, folder, objects, targets, outcome=outcome, reason=reason
        )
        if not held:
            if folder:
                self._spool.remove(folder)
            return
        if folder:
            self._spool.count_results(folder)
        self._metrics.count("read", outcome=outcome)
        self._metrics.observe("answer_seconds", time.time() - job.received)
        self._log("read", job=job.id, outcome=outcome, reason=reason)
