"""What an operator sees: figures for Prometheus, log lines of JSON, the state of a queue."""

from __future__ import annotations

import bisect
import json
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ServiceError
from torchxrayvision.service.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchxrayvision.service.config import Config

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_PREFIX: Final = "xrv_"
_HELP: Final = {
    "answer_seconds": "From reception to results in the spool",
    "associations": "DICOM associations",
    "deliveries": "Deliveries of results to archives",
    "delivered_seconds": "From reception to an archive that has the results",
    "http": "HTTP requests by route and status",
    "read": "Images by outcome",
    "read_seconds": "Reading one image and making its objects",
    "received": "Received objects by origin and outcome",
    "stow_seconds": "Answering one STOW-RS request",
    "store_seconds": "Answering one C-STORE request",
    "stores": "C-STORE requests by status",
    "worker_deaths": "Workers that died of an image or took too long",
}
_log: Final = logging.getLogger("torchxrayvision.service")


def log_event(event: str, **facts: Any) -> None:
    """Log one line of JSON; whoever calls this gives no fact that a sender or header says.

    Args:
        event: What happened, in one word.
        **facts: Numbers, own names and reasons.
    """
    if _log.isEnabledFor(logging.INFO):
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _log.info("%s", json.dumps({"time": moment, "event": event, **facts}, default=str))


class Metrics:
    """Counters and histograms of this life of the service; safe on any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._times: dict[str, tuple[list[int], float]] = {}

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """Add to a counter.

        Args:
            name: Its name.
            amount: How much.
            **labels: Of a fixed set of values each.
        """
        key = name, tuple(sorted(labels.items()))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + amount

    def observe(self, name: str, seconds: float) -> None:
        """Add to a histogram.

        Args:
            name: Its name.
            seconds: What was measured.
        """
        with self._lock:
            buckets, total = self._times.get(name) or ([0] * (len(_BUCKETS) + 1), 0.0)
            buckets[bisect.bisect_left(_BUCKETS, seconds)] += 1
            self._times[name] = buckets, total + seconds

    def value(self, name: str, **labels: str) -> int:
        """A counter.

        Args:
            name: Its name.
            **labels: As counted.
        """
        return self._counts.get((name, tuple(sorted(labels.items()))), 0)

    def lines(self) -> Iterator[str]:
        """Everything, as Prometheus reads it.

        Source:
            https://prometheus.io/docs/instrumenting/exposition_formats/
        """
        with self._lock:
            counts = sorted(self._counts.items())
            times = sorted((name, list(b), total) for name, (b, total) in self._times.items())
        last = ""
        for (name, labels), value in counts:
            if name != last:
                yield from _head(f"{name}_total", "counter", _HELP.get(name, name))
                last = name
            yield sample(f"{name}_total", value, **dict(labels))
        for name, buckets, total in times:
            yield from _head(name, "histogram", _HELP.get(name, name))
            running = 0
            for bound, number in zip((*_BUCKETS, "+Inf"), buckets, strict=True):
                running += number
                yield sample(f"{name}_bucket", running, le=f"{bound}")
            yield sample(f"{name}_sum", round(total, 6))
            yield sample(f"{name}_count", running)


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {text}"
    yield f"# TYPE {_PREFIX}{name} {kind}"


def sample(name: str, value: float, **labels: str) -> str:
    """One sample as Prometheus reads it.

    Args:
        name: Without the prefix.
        value: Of the sample.
        **labels: Names to values.

    Example:
        >>> sample("jobs", 3, state="dead")
        'xrv_jobs{state="dead"} 3'
    """
    escaped = (
        (key, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
        for key, text in labels.items()
    )
    inside = ",".join(f'{key}="{text}"' for key, text in escaped)
    return f"{_PREFIX}{name}{{{inside}}} {value}" if inside else f"{_PREFIX}{name} {value}"


def gauges(jobs: Queue, spool_bytes: int, free_bytes: int, *, ready: bool) -> Iterator[str]:
    """The state of the queue, as Prometheus reads it.

    Args:
        jobs: The queue.
        spool_bytes: In the spool.
        free_bytes: On its disk.
        ready: Whether images are taken.
    """
    yield from _head("model_info", "gauge", "What answers; always 1")
    yield sample("model_info", 1, model=jobs.setting("model"))
    yield from _head("jobs", "gauge", "Images by state")
    for state, number in jobs.counts().items():
        yield sample("jobs", number, state=state)
    yield from _head("target_deliveries", "gauge", "Deliveries by target and state")
    for (target, state), number in jobs.delivery_counts().items():
        yield sample("target_deliveries", number, target=target, state=state)
    for name, text, value in (
        ("oldest_seconds", "Age of the oldest image without delivered results", jobs.oldest()),
        ("spool_bytes", "Bytes in the spool", spool_bytes),
        ("free_bytes", "Bytes free on the disk of the spool", free_bytes),
        ("ready", "Whether images are taken", int(ready)),
    ):
        yield from _head(name, "gauge", text)
        yield sample(name, value)


def open_queue(config: Config) -> Queue:
    """The queue of a service that runs or ran, to look at it or change it from outside.

    Args:
        config: Settings of the service.

    Returns:
        The queue; to be closed.

    Raises:
        ServiceError: If there is none.
    """
    file = config.folder / "queue.sqlite"
    if not file.is_file():
        msg = f"{file} does not exist: the service has not run with these settings"
        raise ServiceError(msg)
    return Queue(file)


def status(config: Config, troubles: int = 20) -> dict[str, Any]:
    """What a service is at; it need not run.

    Args:
        config: Settings of the service.
        troubles: How many refused, failed and dead jobs are named.

    Returns:
        `model`, `jobs` by state, `deliveries` by target and state, `oldest_seconds`, `draining`
        and `troubles`.

    Raises:
        ServiceError: If it never ran.
    """
    jobs = open_queue(config)
    try:
        deliveries: dict[str, dict[str, int]] = {}
        for (target, state), number in jobs.delivery_counts().items():
            deliveries.setdefault(target, {})[state] = number
        return {
            "model": jobs.setting("model"),
            "draining": bool(jobs.setting("draining")),
            "jobs": jobs.counts(),
            "deliveries": deliveries,
            "oldest_seconds": round(jobs.oldest(), 1),
            "troubles": jobs.troubles(troubles),
        }
    finally:
        jobs.close()


def retry(
    config: Config, states: tuple[str, ...] = ("dead", "failed"), job: int | None = None
) -> int:
    """Begin anew what failed or is a dead letter; the service may run meanwhile.

    Args:
        config: Settings of the service.
        states: Of `"dead"`, `"failed"` and `"refused"`.
        job: One job only.

    Returns:
        How many jobs begin anew.

    Raises:
        ServiceError: If it never ran.
    """
    jobs = open_queue(config)
    try:
        return jobs.retry(states, job)
    finally:
        jobs.close()


def drain(config: Config, *, wanted: bool = True) -> None:
    """Let a service take nothing more and end when everything is delivered.

    Args:
        config: Settings of the service.
        wanted: False takes the wish back.

    Raises:
        ServiceError: If it never ran.
    """
    jobs = open_queue(config)
    try:
        jobs.keep("draining", "1" if wanted else "")
    finally:
        jobs.close()
