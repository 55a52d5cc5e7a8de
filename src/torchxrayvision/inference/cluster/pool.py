"""Actors on the nodes of a Ray cluster, and which of them computes what.

A part that is lost with its actor, whatever the cause, is given to another one at once, and the
answers come in the order of the list. Ray is asked to repeat nothing by itself: it would start an
actor anew only where there is room for it, keep its part waiting until then, and repeat
for ever a part that ends its process.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ClusterError, XRVWarning, caller_stacklevel, counted
from torchxrayvision.inference.cluster.worker import Answer, Part, Worker
from torchxrayvision.inference.runs import environment_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from torchxrayvision.runs import Batch

_log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 1.0  # seconds between looks at the clock while waiting
_COUNT_EVERY: Final = 10.0  # seconds between looks for nodes that have joined
_SAY_AFTER: Final = 60.0  # seconds without an actor after which that is said
_PATIENCE: Final = 600.0  # seconds without an actor after which the run stops
# A node may go twice under the same part by chance; then its files are suspected, and read in
# processes of their own, so that those that crash a decoder become rows.
_SUSPECT: Final = 2
_MOST_LOSSES: Final = 5
# Parts for each actor that are given out or wait for an earlier one; more would fill the memory.
_AHEAD: Final = 4


class Pool:
    """The actors of one run.

    `options` are what Ray reserves for one, `room` says how many there may be now, `limit` is the
    most to have.
    """

    def __init__(
        self, ray: Any, options: dict[str, Any], room: Callable[[], int], limit: int | None
    ) -> None:
        self._ray = ray
        self._class = ray.remote(max_restarts=0, max_task_retries=0, **options)(Worker)
        self._room = room
        self._limit = limit
        self._spare: list[Any] = []
        self._opening: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Part]] = {}
        self._lost: list[Part] = []
        self._size = 0
        self._failed_starts = 0
        self._counted = self._seen = time.monotonic()
        self._said: set[str] = set()

    def ask(self, question: Callable[[Any], Any], most: int) -> Any:
        """The answer of one actor before a run that can use `most`; the others start meanwhile.

        Raises:
            ClusterError: If no actor lives long enough.
        """
        wanted = max(1, min(self._room(), most, self._limit or most))
        for left in reversed(range(_MOST_LOSSES)):
            self._spare += [self._class.remote() for _ in range(wanted - len(self._spare))]
            actor = self._first_ready()
            try:
                return self.get(question(actor))
            except self._ray.exceptions.RayError as error:
                self._spare.remove(actor)
                self._end(actor)
                if not left:
                    msg = f"no node could begin the run; the last one says: {_short(error)}"
                    raise ClusterError(msg) from error
        raise AssertionError

    def _first_ready(self) -> Any:
        """A spare actor that runs, or that will never."""
        asked = {actor.ready.remote(): actor for actor in self._spare}
        self._seen = time.monotonic()
        while True:
            ready, _ = self._ray.wait(list(asked), num_returns=1, timeout=_POLL_SECONDS)
            if ready:
                return asked[ready[0]]
            self._check_starvation(time.monotonic())

    def get(self, reference: Any) -> Any:
        """The value of a reference; an error of the actor's is raised as it was there."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if not isinstance(cause, Exception):
                raise
            cause.add_note(f"on a node of the cluster:\n{error.traceback_str}")
            raise cause from None

    def run(
        self,
        parts: Iterator[Part],
        count: int,
        opening: Callable[[Any], Any],
        machine: dict[str, Any],
    ) -> Generator[Batch, None, None]:
        """Compute all parts.

        Args:
            parts: In order, consumed lazily.
            count: How many there are.
            opening: Gets an actor ready; gives the reference of what it says then.
            machine: What the run began on.

        Yields:
            Batches, in order.

        Raises:
            ClusterError: If the nodes cannot do it.
        """
        answers: dict[int, Answer] = {}
        self._counted, self._seen = -_COUNT_EVERY, time.monotonic()
        while self._spare:  # all of them: some may wait for a node that is gone
            actor = self._spare.pop()
            self._opening[opening(actor)] = actor
        for number in range(count):
            while number not in answers:
                self._grow(count - number, opening)
                self._hand_out(parts, until=number + _AHEAD * self._size, answered=answers)
                for reference in self._ready():
                    self._resolve(reference, answers, machine)
            yield from _checked(answers.pop(number))

    def _grow(self, most: int, opening: Callable[[Any], Any]) -> None:
        """As many actors as there is room for; one that died is replaced, maybe elsewhere."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_EVERY:
            self._counted = now
            # A node that was lost may come back; until then its actors wait for a place.
            self._size = max(self._size, self._room(), 1)
        wanted = min(self._size, most, self._limit or self._size)
        for _ in range(wanted - len(self._opening) - len(self._idle) - len(self._busy)):
            actor = self._class.remote()
            self._opening[opening(actor)] = actor
        self._check_starvation(now)

    def _check_starvation(self, now: float) -> None:
        if self._idle or self._busy:
            self._seen = now
        elif now - self._seen > _PATIENCE:
            msg = (
                f"no actor has started for {_PATIENCE:.0f} s; what is finished is kept, "
                "and the same command resumes the run, with or without the cluster"
            )
            raise ClusterError(msg)
        elif now - self._seen > _SAY_AFTER:
            self._say(
                f"no actor has started for {_SAY_AFTER:.0f} s: the nodes have no room for one, or "
                "are slow; still waiting"
            )

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            warnings.warn(text, XRVWarning, stacklevel=caller_stacklevel())

    def _hand_out(self, parts: Iterator[Part], until: int, answered: dict[int, Answer]) -> None:
        given = len(self._busy) + len(self._lost) + len(answered)
        while self._idle:
            if self._lost:
                part = heapq.heappop(self._lost)
            elif given < until and (fresh := next(parts, None)) is not None:
                part = fresh
                given += 1
            else:
                return
            actor = self._idle.pop()
            careful = part.losses >= _SUSPECT
            self._busy[actor.predict.remote(part, isolate=careful)] = (actor, part)

    def _ready(self) -> list[Any]:
        waiting = [*self._busy, *self._opening]
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=_POLL_SECONDS)
        if ready:
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return list(ready)

    def _resolve(self, reference: Any, answers: dict[int, Answer], machine: dict[str, Any]) -> None:
        if reference in self._opening:
            actor = self._opening.pop(reference)
            try:
                changed = environment_changes(machine, self.get(reference))
            except self._ray.exceptions.RayError as error:
                self._on_start_failed(actor, error)
                return
            self._failed_starts = 0
            self._idle.append(actor)
            if changed:
                self._say(
                    f"a node differs from where the run began ({'; '.join(changed)}); the last "
                    "digits of its rows may differ from those of a run on one kind of machine"
                )
            return
        actor, part = self._busy.pop(reference)
        try:
            answers[part.number] = self.get(reference)
            self._idle.append(actor)
        except self._ray.exceptions.RayError as error:
            self._on_part_lost(actor, part, error)

    def _on_start_failed(self, actor: Any, error: Exception) -> None:
        """An actor died before its first part: its node went, or none can ever live."""
        self._end(actor)
        self._failed_starts += 1
        if self._failed_starts > 2 * self._size + 1 and not self._idle and not self._busy:
            msg = f"no node can start an actor; the last one says: {_short(error)}"
            raise ClusterError(msg) from error

    def _on_part_lost(self, actor: Any, part: Part, error: Exception) -> None:
        self._end(actor)
        part.losses += 1
        _log.info("lost %d images from position %d: %s", len(part.lines), part.first, error)
        if part.losses > _MOST_LOSSES:
            msg = (
                f"{counted(len(part.lines), 'image')} from position {part.first} of the list on "
                f"ended their process {part.losses} times, the last time so: {_short(error)}; "
                "see whether the nodes have the memory for it"
            )
            raise ClusterError(msg) from error
        heapq.heappush(self._lost, part)

    def _end(self, actor: Any) -> None:
        with contextlib.suppress(Exception):  # it is dead in most cases
            self._ray.kill(actor)

    def close(self) -> None:
        """End all actors."""
        busy = (actor for actor, _ in self._busy.values())
        for actor in itertools.chain(self._spare, self._opening.values(), self._idle, busy):
            self._end(actor)


def _checked(answer: Answer) -> list[Batch]:
    """The batches, unless a file is absent only there: that is no row of the table."""
    for path in answer.absent:
        if os.path.exists(path):  # noqa: PTH110 - a name as the list has it
            msg = (
                f"node {answer.node} does not see {path}, which is there on this machine; every "
                "node must have the files under the same names, as on shared storage"
            )
            raise ClusterError(msg)
    return answer.batches


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:1] + lines[-1:] if len(lines) > 1 else lines)
