"""A watched folder: what is put there and has settled is read once."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from torchxrayvision.errors import ImageReadError
from torchxrayvision.files import FileState
from torchxrayvision.service.loops import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torchxrayvision.service.config import Watch

_PART: Final = (".part", ".tmp", ".partial", ".crdownload")  # of writers that rename at the end


class FolderWatch(Loop):
    """A thread that looks into a folder.

    What was taken is remembered as long as the service runs; afterwards the queue knows the
    instances.

    Args:
        settings: Of the folder.
        accept: Called with the bytes of a file; raises `OverloadError` or `ImageReadError`.
        log: Called with an event and its facts; never with a name, which may be a patient's.
        object_bytes: Files that are larger are left.
    """

    def __init__(
        self,
        settings: Watch,
        accept: Callable[[bytes], Any],
        log: Callable[..., None],
        object_bytes: int,
    ) -> None:
        super().__init__("watch", settings.every, log)
        self._settings = settings
        self._accept = accept
        self._most = object_bytes
        self._seen: dict[Path, tuple[FileState, float]] = {}
        self._taken: dict[Path, FileState] = {}

    def look(self) -> int:
        """Take what has settled.

        Returns:
            How many files were taken.

        Raises:
            OverloadError: If nothing more is taken for now; the rest is taken later.
        """
        found, taken = set(), 0
        for path in self._files():
            found.add(path)
            taken += self._consider(path)
        for known in (self._seen, self._taken):  # so that the memory stays flat
            for gone in [path for path in known if path not in found]:
                known.pop(gone)
        return taken

    def _files(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self._settings.folder):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for name in sorted(names):
                if not name.startswith(".") and not name.endswith(_PART):
                    yield type(self._settings.folder)(folder, name)

    def _consider(self, path: Path) -> bool:
        try:
            state = FileState.of(path)
        except OSError:
            return False
        if self._taken.get(path) == state:
            return False
        before, since = self._seen.get(path, (None, 0.0))
        if before != state:
            self._seen[path] = (state, time.monotonic())
            if self._settings.settle:
                return False
            since = time.monotonic()
        if time.monotonic() - since < self._settings.settle:
            return False
        return self._take(path, state)

    def _take(self, path: Path, state: FileState) -> bool:
        if state.size > self._most or not path.is_file():
            self._log("watch_left", reason="too large or no file")
            self._taken[path] = state
            return False
        try:
            data = path.read_bytes()
            if FileState.of(path) != state:
                return False
            self._accept(data)
        except ImageReadError as error:
            self._log("watch_left", reason=error.reason)
            self._taken[path] = state
            return False
        self._taken[path] = state
        self._seen.pop(path, None)
        if self._settings.remove:
            path.unlink(missing_ok=True)
        return True
