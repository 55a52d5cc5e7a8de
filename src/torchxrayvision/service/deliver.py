"""Results on their way to archives: sent, asked for afterwards, tried again, dead letters."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from torchxrayvision.errors import DeliveryError, needs_package
from torchxrayvision.service.loops import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torchxrayvision.service.config import Config, Target
    from torchxrayvision.service.operate import Metrics
    from torchxrayvision.service.queue import Delivery, Queue, ResultObject
    from torchxrayvision.service.spool import Spool

_IDLE_SECONDS: Final = 0.1
_RELEASE_SECONDS: Final = 3.0  # without work after which associations are released
_MISSING: Final = "took the objects, and has them not"
_BATCH: Final = 16
_LEASE_SECONDS: Final = 3600.0
_PERMANENT_ATTEMPTS: Final = 3  # of what an archive refuses for what it is


class ResultFile(NamedTuple):
    """A result as archives get it.

    Args:
        path: The file.
        uid: SOP Instance UID.
        sop_class: SOP Class UID.
    """

    path: Path
    uid: str
    sop_class: str


class Archive(Protocol):
    """One archive, spoken to by one thread."""

    def send(self, files: Sequence[ResultFile]) -> None:
        """Hand over objects; raises `DeliveryError` unless it took all of them."""

    def holds(self, files: Sequence[ResultFile]) -> bool:
        """Whether it has all of them; raises `DeliveryError` if it does not answer."""

    def close(self) -> None:
        """End the connection, if there is one."""


def open_archive(target: Target, seconds: float) -> Archive:
    """The archive that a target describes; nothing is connected yet.

    Args:
        target: Of the settings.
        seconds: For one request or message.

    Returns:
        It.

    Raises:
        ConfigError: If its certificates or files of secrets cannot be used.
        DependencyError: If the package that speaks to it is missing.
    """
    with needs_package("", "the service", "serve"):
        if target.kind == "dicomweb":
            from torchxrayvision.service.archives import DicomwebArchive

            return DicomwebArchive(target, seconds)
        from torchxrayvision.service.archives import DicomArchive

        return DicomArchive(target, seconds)


class Deliverer(Loop):
    """A thread that serves one target over connections of its own.

    Args:
        config: Settings of the service.
        target: Which one.
        jobs: The queue.
        spool: The files.
        metrics: Where figures go.
        owner: Of the leases.
        log: Called with an event and its facts.
        number: Among those of the target.

    Raises:
        ConfigError: See `open_archive`.
        DependencyError: See `open_archive`.
    """

    def __init__(
        self,
        config: Config,
        target: Target,
        jobs: Queue,
        spool: Spool,
        metrics: Metrics,
        owner: str,
        log: Callable[..., None],
        number: int = 0,
    ) -> None:
        super().__init__("delivery", _IDLE_SECONDS, log, target=target.name)
        self._settings = config.deliver
        self._target = target
        self._jobs = jobs
        self._spool = spool
        self._metrics = metrics
        self._owner = f"{owner}/{target.name}/{number}"
        self._archive = open_archive(target, config.deliver.time_limit)
        self._used = time.monotonic()

    def look(self) -> None:
        """Deliver what is due; connections are released where nothing was for a while."""
        while not self._stop.is_set():
            due = self._jobs.claim_deliveries(
                self._target.name, self._owner, _BATCH, _LEASE_SECONDS
            )
            if not due:
                break
            self._used = time.monotonic()
            for delivery in due:
                if self._stop.is_set():
                    return
                self._one(delivery)
        if time.monotonic() - self._used > _RELEASE_SECONDS:
            self._archive.close()

    def _end(self) -> None:
        self._archive.close()

    def _one(self, delivery: Delivery) -> None:
        wanted = [o for o in delivery.objects if self._takes(o)]
        files = [ResultFile(self._spool.path(o.file), o.uid, o.sop_class) for o in wanted]
        try:
            if delivery.sent or (delivery.attempts and self._target.verify):
                if self._archive.holds(files):
                    self._done(delivery)
                    return
                if delivery.sent:
                    raise DeliveryError(_MISSING)
            self._archive.send(files)
            if self._target.verify and not self._target.verify_after:
                if not self._archive.holds(files):
                    raise DeliveryError(_MISSING)
                self._done(delivery)
                return
        except DeliveryError as error:
            self._again(delivery, error)
        except FileNotFoundError:
            self._again(delivery, DeliveryError("the results are not in the spool", True))
        else:
            self._sent(delivery)

    def _takes(self, result: ResultObject) -> bool:
        kinds = self._target.kinds
        return not kinds or result.kind in kinds or result.kind == "refusal"

    def _sent(self, delivery: Delivery) -> None:
        if not self._target.verify:
            self._done(delivery)
            return
        due = time.time() + self._target.verify_after
        self._jobs.delivery_is(delivery, self._owner, "sent", due=due, attempted=True)

    def _done(self, delivery: Delivery) -> None:
        self._jobs.delivery_is(delivery, self._owner, "done", attempted=not delivery.sent)
        seconds = time.time() - delivery.received
        self._metrics.count("deliveries", target=self._target.name, outcome="done")
        self._metrics.observe("delivered_seconds", seconds)
        self._log(
            "delivered", job=delivery.job, target=self._target.name, seconds=round(seconds, 3)
        )

    def _again(self, delivery: Delivery, error: DeliveryError) -> None:
        attempts = delivery.attempts + (not delivery.sent)
        settings = self._settings
        most = min(_PERMANENT_ATTEMPTS, settings.most_attempts) if error.permanent else (
            settings.most_attempts
        )  # fmt: skip
        dead = attempts >= most
        wait = min(settings.longest_wait, settings.first_wait * 2.0 ** min(attempts - 1, 40))
        due = time.time() + wait * random.uniform(0.75, 1.25)
        self._jobs.delivery_is(
            delivery, self._owner, "dead" if dead else "waiting", due=due,
            attempted=not delivery.sent, reason=error.reason,
        )  # fmt: skip
        outcome = "dead" if dead else "failed"
        self._metrics.count("deliveries", target=self._target.name, outcome=outcome)
        self._log(
            f"delivery_{outcome}", job=delivery.job, target=self._target.name, reason=error.reason
        )
