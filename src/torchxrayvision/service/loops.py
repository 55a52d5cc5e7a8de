"""What the service does again and again on a thread of its own, whatever goes wrong once."""

from __future__ import annotations

import abc
import threading
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import DeliveryError, OverloadError

if TYPE_CHECKING:
    from collections.abc import Callable

_FAULT_SECONDS: Final = 1.0


class Loop(abc.ABC):
    """A thread that looks for work; a fault is logged, and the next look goes on.

    Args:
        kind: One word, for the name of the thread and of the event of a fault.
        every: Seconds between looks.
        log: Called with an event and its facts.
        **facts: What a fault is logged with, such as the name of an archive.
    """

    def __init__(self, kind: str, every: float, log: Callable[..., None], **facts: str) -> None:
        self._kind = kind
        self._every = every
        self._log = log
        self._facts = facts
        self._stop = threading.Event()
        name = "-".join(["xrv", kind, *facts.values()])
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abc.abstractmethod
    def look(self) -> Any:
        """Do what there is to do now; ends early once `_stop` is set."""

    def _end(self) -> None:  # noqa: B027 - most have nothing open
        """Close what was open, on the thread that used it."""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Look no more.

        Args:
            patience: Seconds for what is under way.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                wait = self._every
                try:
                    self.look()
                except OverloadError as error:
                    self._log("overload", reason=str(error))
                except Exception as error:  # noqa: BLE001 - a disk, a share or an archive may be gone for a while
                    said = str(error) if isinstance(error, DeliveryError) else type(error).__name__
                    self._log(f"{self._kind}_fault", error=said, **self._facts)
                    wait = max(wait, _FAULT_SECONDS)
                self._stop.wait(wait)
        finally:
            self._end()
