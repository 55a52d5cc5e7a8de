"""How long something takes on this machine, whatever else the machine computes meanwhile.

Of two engines that are timed while other programs run, the one wins by the clock on the wall that
met less of them. The system counts for every thread how long it could have run and waited for a
processor, so that this time can be taken off.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_THREADS: Final = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Spent:
    """What went by, in seconds.

    Args:
        wall: By the clock on the wall.
        computed: On processors, over all threads of this process.
        waited: For processors, over all threads of this process; 0 where the system does not tell.
    """

    wall: float
    computed: float
    waited: float

    def __sub__(self, before: Spent) -> Spent:
        return Spent(
            self.wall - before.wall, self.computed - before.computed,
            max(0.0, self.waited - before.waited),  # a thread that ended takes its part with it
        )  # fmt: skip

    @property
    def undisturbed(self) -> float:
        """The time by the wall if no thread had waited.

        Threads that wait as much as each other lengthen the whole as each of them is lengthened;
        what sleeps meanwhile, as for a device, is not lengthened, so no more is taken off than was
        waited. Threads that spin while they wait for each other (ONNX Runtime) seem to compute, so
        that some of the disturbance stays in their time.
        """
        ready = self.computed + self.waited
        alike = self.wall * self.computed / ready if ready else self.wall
        return max(alike, self.wall - self.waited)


def now() -> Spent:
    """What this process has spent until now."""
    return Spent(time.perf_counter(), time.process_time(), _waited())


def _waited() -> float:
    try:
        threads = list(_THREADS.iterdir())
    except OSError:  # not Linux
        return 0.0
    return sum(map(_waited_by, threads)) / 1e9


def _waited_by(thread: Path) -> int:
    """Nanoseconds; the file says how long it computed, how long it waited, and how often."""
    try:
        return int((thread / "schedstat").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):  # it has just ended, or the system does not count
        return 0


def seconds_of(run: Callable[[], object]) -> float:
    """What one call takes, see `Spent.undisturbed`.

    Args:
        run: The call.

    Example:
        >>> seconds_of(lambda: sum(range(1000))) < 1
        True
    """
    before = now()
    run()
    return (now() - before).undisturbed
