"""Bring one file into the cache: look, lock, transfer, verify, publish, record."""

from __future__ import annotations

import contextlib
import logging
import shutil
import stat
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torchxrayvision.errors import (
    ChecksumError,
    ChecksumWarning,
    DownloadError,
    OfflineError,
    UnpinnedDownloadWarning,
)
from torchxrayvision.remote.checks import examine
from torchxrayvision.remote.config import Source, is_offline, mirrors
from torchxrayvision.remote.failure import SourceFailure
from torchxrayvision.remote.pins import Pin, Pins, now
from torchxrayvision.remote.progress import progress_bar
from torchxrayvision.remote.storage import Partial, remove_partials, replace_file, storage
from torchxrayvision.remote.transfer import HttpTransfer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import filelock

    from torchxrayvision.errors import RemoteError, XRVWarning
    from torchxrayvision.facts import PackagedFile, RemoteFile
    from torchxrayvision.remote.checks import Verification
    from torchxrayvision.remote.config import Settings

__all__ = ["Fetch", "read_pin"]

_log = logging.getLogger(__name__)


def read_pin(folder: Path, file: RemoteFile | PackagedFile) -> Pin | None:
    """The pin of a file, or None.

    A damaged record matters only where it is all there is to compare with.

    Raises:
        ChecksumError: If the record cannot be read and the checksum is not certain.
    """
    try:
        return Pins(folder).get(file.filename)
    except ChecksumError as error:
        if file.sha256 is None or file.certainty != "certain":
            raise
        _log.warning("%s", error)
        return None


class Fetch:
    """One call of `torchxrayvision.remote.fetch`.

    Args:
        file: What to fetch.
        folder: The cache folder.
        settings: Limits.
        progress: Whether to draw a bar on a terminal.
    """

    def __init__(
        self, file: RemoteFile, folder: Path, settings: Settings, *, progress: bool
    ) -> None:
        self.file = file
        self.folder = folder
        self.target = folder / file.filename
        self.settings = settings
        self.progress = progress
        self._news: tuple[str, type[XRVWarning]] | None = None

    def run(self) -> Path:
        """Return the verified file in the cache.

        Raises:
            RemoteError: As `torchxrayvision.remote.fetch` says.
        """
        # Without the lock first: a read-only cache that holds the file is all that is needed.
        if not self._is_ready():
            with self._locked():
                if not self._is_ready():  # another process may have brought it meanwhile
                    self._set_aside()
                    self._obtain()
        if self._news:
            message, category = self._news
            warnings.warn(message, category, stacklevel=3)  # the caller of remote.fetch
        return self.target

    def _is_ready(self) -> bool:
        """Whether the right bytes are at the final name; what is new about them is recorded."""
        try:
            present = self.target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            msg = f"cannot read {self.target} ({error.strerror})"
            raise DownloadError(msg) from error
        if not stat.S_ISREG(present.st_mode):
            msg = f"{self.target} is not a file; move it away or set XRV_CACHE_DIR"
            raise DownloadError(msg)
        pin = read_pin(self.folder, self.file)
        if pin and pin.is_current(present) and self._agrees(pin):
            return True
        try:
            found = examine(self.target, self.file, pin)
        except OSError as error:
            msg = f"cannot read {self.target} ({error.strerror})"
            raise DownloadError(msg) from error
        if found.status == "changed":
            raise ChecksumError(self._refusal(found, "delete the file to fetch it again"))
        if found.ok:
            self._trust(found, pin, f"the copy found in {self.folder}")
        return found.ok

    def _agrees(self, pin: Pin) -> bool:
        # The facts may be newer than the pin: a checksum published since then decides.
        file = self.file
        if file.certainty != "certain":
            return True
        return file.sha256 in (None, pin.sha256) and file.size in (None, pin.size)

    def _set_aside(self) -> None:
        """Move a wrong file from the final name, kept because it is not ours to delete."""
        if not self.target.exists():
            return
        aside = self.target.with_name(self.target.name + ".rejected")
        with storage(self.folder):
            self.target.replace(aside)
        _log.warning("%s is not the published file; it is now %s", self.target, aside)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from fetching the same file; the system frees it on any end."""
        import filelock

        with storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(str(self.folder / f".{self.file.filename}.lock"))
        with storage(self.folder):
            self._acquire(lock)
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, lock: filelock.BaseFileLock) -> None:
        import filelock

        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.warning("another process fetches %s; waiting for it", self.file.filename)
            try:
                lock.acquire(timeout=self.settings.lock)
            except filelock.Timeout as error:
                msg = (
                    f"another process has held {lock.lock_file} for more than "
                    f"{self.settings.lock:g} s; end it and call again"
                )
                raise DownloadError(msg) from error
        except NotImplementedError as error:
            msg = (
                f"the file system of {self.folder} has no locks; "
                "set XRV_CACHE_DIR to a folder on a local disk"
            )
            raise DownloadError(msg) from error

    def _obtain(self) -> None:
        """Take the file from the first source that gives the right bytes."""
        failures: list[tuple[str, SourceFailure]] = []
        for source in [*mirrors(self.file.filename), Source(self.file.url, local=False)]:
            if not source.local and is_offline():
                continue
            try:
                self._take(source)
            except SourceFailure as failure:
                _log.info("%s: %s", source.location, failure.reason)
                failures.append((source.location, failure))
            else:
                return
        raise self._no_source(failures)

    def _take(self, source: Source) -> None:
        partial = Partial(self.folder, self.file.filename, source.location)
        pin = read_pin(self.folder, self.file)
        resumed = True
        while resumed:
            resumed = self._transfer(source, partial)
            found = examine(partial.path, self.file, pin)
            if found.ok:
                replace_file(partial.path, self.target)
                remove_partials(self.folder, self.file.filename)
                self._trust(found, pin, f"the copy from {source.location}")
                _log.info("%s is %s", source.location, self.target)
                return
            # A spliced file gets one more chance, from zero; a whole one is simply wrong.
            partial.discard()
        kind = DownloadError if found.status == "page" else ChecksumError
        reason = self._refusal(found) if found.status == "changed" else found.reason
        raise SourceFailure(reason, kind=kind)

    def _transfer(self, source: Source, partial: Partial) -> bool:
        """Complete the partial file; whether it was put together from several answers."""
        if source.local:
            self._copy(Path(source.location), partial)
            return False
        _log.info("fetching %s into %s", source.location, self.folder)
        with progress_bar(self.file.filename, show=self.progress) as report:
            transfer = HttpTransfer(source.location, partial, self.file, self.settings, report)
            transfer.run()
        return transfer.resumed

    def _copy(self, path: Path, partial: Partial) -> None:
        try:
            handle = path.open("rb")
        except OSError as error:
            reason = f"cannot be opened ({error.strerror})"
            raise SourceFailure(reason, kind=OfflineError) from error
        with handle:
            partial.restart({}, None)
            with storage(self.folder), partial.path.open("wb") as out:
                shutil.copyfileobj(handle, out)

    def _trust(self, found: Verification, pin: Pin | None, origin: str) -> None:
        """Record what the file is, and keep what must be said of it."""
        present = self.target.stat()
        fresh = Pin(
            url=self.file.url,
            sha256=found.sha256 or "",
            size=present.st_size,
            mtime_ns=present.st_mtime_ns,
            status=found.status,
            date=now(),
        )
        if pin and found.status == "pinned":  # the day of first trust is what later messages name
            fresh = replace(fresh, status=pin.status, date=pin.date)
        pins = Pins(self.folder)
        recorded = f"recorded in {pins.path}, and a change will be refused"
        try:
            pins.set(self.file.filename, fresh)
        except OSError as error:
            _log.warning("cannot record %s in %s: %s", self.file.filename, pins.path, error)
            recorded = f"not recorded, as {self.folder} cannot be written to"
        what = f"{origin} was trusted as it is: {found.size:,} bytes, sha256 {found.sha256}"
        if found.status == "unknown":
            text = f"nobody has published a checksum of {self.file.filename}; {what}, {recorded}"
            self._news = text, UnpinnedDownloadWarning
        elif found.status == "contradicted":
            text = (
                f"{self.file.filename} is not what a single, unconfirmed source reports "
                f"({found.reason}); {what}, {recorded}"
            )
            self._news = text, ChecksumWarning

    def _refusal(self, found: Verification, other: str = "") -> str:
        accept = f"torchxrayvision.remote.forget({self.file.filename!r}) accepts the new content"
        advice = f"{other}, or {accept}" if other else accept
        return f"{self.file.filename} in {self.folder} changed: {found.reason}; {advice}"

    def _no_source(self, failures: list[tuple[str, SourceFailure]]) -> RemoteError:
        """The error of the caller: what was tried, and what to place where."""
        kinds = [failure.kind for _, failure in failures]
        kind = next((k for k in (ChecksumError, DownloadError) if k in kinds), OfflineError)
        file = self.file
        tried = [f"{where}: {failure.reason}" for where, failure in failures]
        if is_offline():
            tried.append("XRV_OFFLINE forbids the network")
        known = [f"{file.size:,} bytes"] if file.size else []
        known += [f"sha256 {file.sha256}"] if file.sha256 else []
        facts = f" ({', '.join(known)})" if known else ""
        return kind(
            f"{file.filename} is not in {self.folder} and could not be fetched. "
            + "; ".join(tried)
            + f". To go on without this network, download {file.url}{facts} elsewhere and place "
            f"it at {self.target}, or set XRV_MIRROR to a folder or URL that holds it"
        )
