"""Bring one file into the cache: look, lock, transfer, verify, publish, record."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import logging
import os
import shutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from torchxrayvision.errors import (
    ChecksumError,
    ChecksumWarning,
    DownloadError,
    OfflineError,
    UnpinnedDownloadWarning,
    caller_stacklevel,
)
from torchxrayvision.files import sha256_of, sync_folder, write_atomically
from torchxrayvision.remote.cache import (
    Pin,
    Pins,
    examine,
    folder_of,
    is_offline,
    make_folder,
    open_regular,
    open_to_write,
    read_pin,
)
from torchxrayvision.remote.credentials import at_endpoint, hub_is_offline, is_hub
from torchxrayvision.remote.transfer import HttpTransfer, SourceFailure, progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator

    import filelock

    from torchxrayvision.errors import RemoteError, XRVWarning
    from torchxrayvision.facts import RemoteFile
    from torchxrayvision.remote.cache import Verification

_log = logging.getLogger(__name__)
_NO_SPACE = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Limits of one fetch, in seconds and bytes.

    Args:
        resolve: Longest wait for the name server. A machine without network often has a name
            server that never answers, and the system's own wait is tens of seconds.
        connect: Longest wait for a connection.
        read: Longest silence during a transfer.
        answer: Longest wait for the whole head of an answer, with its redirects; a server that
            sends a byte a second is never silent.
        attempts: Attempts in a row that may gain nothing before the source is given up.
        backoff: Pause before the second attempt; doubled for each further one.
        longest_pause: Cap of that pause, and of a pause that the server asks for.
        deadline: Total time for one source, after which the partial file is kept for next time.
        slowest: Bytes per second below which a transfer counts as stalled.
        window: Time over which that speed is measured.
        redirects: Longest chain of redirects.
        lock: Longest wait for another process that fetches the same file.
        largest: Most bytes accepted of a file whose length nobody has published.
    """

    resolve: float = 4.0
    connect: float = 6.0
    read: float = 30.0
    answer: float = 35.0
    attempts: int = 5
    backoff: float = 0.5
    longest_pause: float = 20.0
    deadline: float = 6 * 3600.0
    slowest: float = 256.0
    window: float = 60.0
    redirects: int = 10
    lock: float = 6 * 3600.0
    largest: int = 8 * 2**30


@dataclass(frozen=True, slots=True)
class Mirror:
    """One place that may hold a file: a URL, or the path of a file on this machine if `local`.

    Of an `exact` one only the bytes of the published checksum are taken, whoever published it.
    """

    location: str
    local: bool
    exact: bool = False


def mirrors(filename: str) -> list[Mirror]:
    """Places that ``XRV_MIRROR`` names for a file, in its order.

    Args:
        filename: Bare name of the file; a mirror holds its files by name.

    Returns:
        One place for each entry. Entries are separated by semicolons (URLs contain colons and
        paths contain spaces); an entry is a folder, or a URL prefix (http, https or file).

    Example:
        >>> import os, unittest.mock
        >>> places = "/mnt/weights; http://mirror.example/xrv/"
        >>> with unittest.mock.patch.dict(os.environ, XRV_MIRROR=places):
        ...     [mirror.location for mirror in mirrors("a.pt")]
        ['/mnt/weights/a.pt', 'http://mirror.example/xrv/a.pt']
    """
    entries = (entry.strip() for entry in os.environ.get("XRV_MIRROR", "").split(";"))
    return [_mirror(entry, filename) for entry in entries if entry]


def sources(file: RemoteFile) -> list[Mirror]:
    """Every place that may be asked for a file now, in order: mirrors, its address, its copies."""
    places = [*mirrors(file.filename), Mirror(at_endpoint(file.url), local=False)]
    if file.sha256 is not None:  # else nothing would tell a copy from another file
        places += [Mirror(at_endpoint(url), local=False, exact=True) for url in file.copies]
    return [place for place in places if place.local or not _is_forbidden(place.location)]


def _is_forbidden(location: str) -> bool:
    return is_offline() or (is_hub(location) and hub_is_offline())


def _mirror(entry: str, filename: str) -> Mirror:
    from urllib.parse import quote, unquote, urlsplit

    if entry.lower().startswith(("http://", "https://")):
        return Mirror(f"{entry.rstrip('/')}/{quote(filename)}", local=False)
    if entry.lower().startswith("file://"):
        entry = unquote(urlsplit(entry).path)
    return Mirror(str(Path(entry).expanduser() / filename), local=True)


# Files in the folder: errors of the disk, partial transfers, the final name.


@contextlib.contextmanager
def storage(folder: Path) -> Iterator[None]:
    """Turn errors of the file system below `folder` into `DownloadError` with advice."""
    try:
        yield
    except DownloadError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _NO_SPACE:
            msg = (
                f"no space left in {folder} ({reason}); free some and call again, the transfer "
                "resumes where it stopped, or set XRV_CACHE_DIR to another folder"
            )
        else:
            msg = (
                f"cannot write in {folder} ({reason}); "
                "make it writable or set XRV_CACHE_DIR to another folder"
            )
        raise DownloadError(msg) from error


@dataclass(frozen=True, slots=True)
class Resume:
    """How to resume a partial file.

    The bytes there are, those of the whole object if known, and the strong ETag or the date that
    names the object in ``If-Range``.
    """

    offset: int
    length: int | None
    validator: str


class Partial:
    """The bytes of an unfinished transfer, beside a record of the object they belong to.

    The name holds a hash of the address, so partial files of different objects cannot meet, nor
    can one meet a ``.part`` file that another program left. The record beside it keeps what the
    server said the object was; without a record nothing is resumed.
    """

    def __init__(self, folder: Path, filename: str, location: str) -> None:
        key = sha256_of(location.encode())[:12]
        self.folder = folder
        self.location = location
        self.path = folder / f"{filename}.{key}.part"
        self.record = folder / f"{filename}.{key}.part.json"

    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def resume(self) -> Resume | None:
        """How to resume, or None where the transfer must start from zero."""
        try:
            with open_regular(self.record, links=False) as handle:
                record = json.loads(handle.read(1 << 16))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(record, dict) or record.get("url") != self.location:
            return None
        validator = _validator(record)
        length = record.get("length")
        offset = self.size()
        known = length is None or (isinstance(length, int) and offset <= length)
        return Resume(offset, length, validator) if validator and offset and known else None

    def restart(self, headers: dict[str, str | None], length: int | None) -> None:
        """Empty the file and record the etag, date and length of the object that is to come."""
        with storage(self.folder):
            # The record goes first and the bytes last: a crash between leaves a record of an
            # absent file, never bytes under the record of another object.
            self.record.unlink(missing_ok=True)
            open_to_write(self.path, append=False).close()
            record = {"url": self.location, "length": length, **headers}
            with write_atomically(self.record) as part:
                part.write_text(json.dumps(record, indent=1), "utf-8")

    @contextlib.contextmanager
    def append(self) -> Iterator[BinaryIO]:
        """The file, open to write after what is there."""
        with storage(self.folder), open_to_write(self.path, append=True) as out:
            yield out

    def require(self, count: int) -> None:
        """Raise `DownloadError` if the disk has no room for `count` more bytes."""
        with storage(self.folder):
            free = shutil.disk_usage(self.folder).free
        if free < count:
            msg = (
                f"no space left in {self.folder}: {count:,} bytes are needed and {free:,} are "
                "free; free some or set XRV_CACHE_DIR to another folder"
            )
            raise DownloadError(msg)

    def discard(self) -> None:
        """Remove the bytes and their record."""
        with storage(self.folder):
            self.record.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)


def _validator(record: dict[str, Any]) -> str:
    # A weak ETag promises only equivalent content, so RFC 9110 13.1.5 bars it from If-Range.
    for key in ("etag", "last_modified"):
        value = record.get(key)
        if isinstance(value, str) and value and not value.startswith("W/"):
            return value
    return ""


def remove_partials(folder: Path, filename: str) -> None:
    """Remove every partial file of a finished one, whatever address it came from."""
    for path in folder.glob(f"{glob.escape(filename)}.{'[0-9a-f]' * 12}.part*"):
        with contextlib.suppress(OSError):
            path.unlink()


def replace_file(source: Path, target: Path) -> None:
    """Give a finished file its final name, so that a crash leaves the old state or the new one."""
    with storage(target.parent):
        with open_to_write(source, append=True) as handle:
            os.fsync(handle.fileno())
        source.replace(target)
        sync_folder(target.parent)


# One file.


class Fetch:
    """One call of `torchxrayvision.remote.fetch`."""

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
            warnings.warn(message, category, stacklevel=caller_stacklevel())
        return self.target

    def _is_ready(self) -> bool:
        """Whether the right bytes are at the final name; what is new about them is recorded."""
        pin = read_pin(self.folder, self.file)
        try:
            found = examine(self.target, self.file, pin)
        except OSError as error:
            msg = (
                f"cannot read {self.target} ({error.strerror}); "
                "move it away, make it readable or set XRV_CACHE_DIR to another folder"
            )
            raise DownloadError(msg) from error
        if found.status == "changed":
            raise ChecksumError(self._refusal(found, "delete the file to fetch it again"))
        if found.ok:
            # Windows has lists of rights in place of this bit, and reports it as set.
            open_to_all = os.name != "nt" and self.folder.stat().st_mode & 0o002
            if found.status == "pinned" and open_to_all:
                _log.warning(
                    "everybody can write in %s, so that its record of %s may be anybody's; "
                    "chmod o-w takes that away", self.folder, self.file.filename,
                )  # fmt: skip
            self._trust(found, pin, f"the copy found in {self.folder}")
        return found.ok

    @property
    def _aside(self) -> Path:
        """Where a file that is not the published one is kept."""
        return self.target.with_name(self.target.name + ".rejected")

    def _set_aside(self) -> None:
        """Move a wrong file from the final name, kept because it is not ours to delete."""
        if not self.target.exists():
            return
        aside = self._aside
        with storage(self.folder):
            self.target.replace(aside)
        _log.warning("%s is not the published file; it is now %s", self.target, aside)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from fetching the same file; the system frees it on any end."""
        import filelock

        with storage(self.folder):
            make_folder(self.folder)
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
        for source in sources(self.file):
            try:
                self._take(source)
            except SourceFailure as failure:
                _log.info("%s: %s", source.location, failure.reason)
                failures.append((source.location, failure))
            else:
                return
        raise self._no_source(failures)

    def _take(self, source: Mirror) -> None:
        partial = Partial(self.folder, self.file.filename, source.location)
        pin = read_pin(self.folder, self.file)
        # A file that was put together gets one more chance, in one piece from its start; a whole
        # one is simply wrong.
        for whole in (False, True):
            resumed = self._transfer(source, partial, whole=whole)
            found = examine(partial.path, self.file, pin)
            other = source.exact and found.sha256 != self.file.sha256
            if found.ok and not other:
                replace_file(partial.path, self.target)
                remove_partials(self.folder, self.file.filename)
                self._trust(found, pin, f"the copy from {source.location}")
                _log.info("%s is %s", source.location, self.target)
                return
            partial.discard()
            if not resumed:
                break
        kind = DownloadError if found.status == "page" else ChecksumError
        reason = self._refusal(found) if found.status == "changed" else found.reason
        raise SourceFailure(reason, kind=kind)

    def _transfer(self, source: Mirror, partial: Partial, *, whole: bool) -> bool:
        """Complete the partial file; whether it was put together from several answers."""
        if source.local:
            self._copy(Path(source.location), partial)
            return False
        _log.info("fetching %s into %s", source.location, self.folder)
        with progress_bar(self.file.filename, show=self.progress) as report:
            transfer = HttpTransfer(
                source.location, partial, self.file, self.settings, report, whole=whole
            )
            transfer.run()
        return transfer.resumed

    def _copy(self, path: Path, partial: Partial) -> None:
        try:
            handle = open_regular(path)
        except OSError as error:
            reason = f"cannot be opened ({error.strerror})"
            raise SourceFailure(reason, kind=OfflineError) from error
        with handle:
            partial.restart({}, None)
            partial.require(os.fstat(handle.fileno()).st_size)
            with partial.append() as out:
                shutil.copyfileobj(handle, out)

    def _trust(self, found: Verification, pin: Pin | None, origin: str) -> None:
        """Record what the file is, and keep what must be said of it."""
        if found.status == "pinned":
            return
        fresh = Pin.now(self.file.url, found)
        if pin and replace(pin, date=fresh.date) == fresh:
            return
        pins = Pins(self.folder)
        recorded = f"recorded in {pins.path}, and a change will be refused"
        try:
            pins.set(self.file.filename, fresh)
        except OSError as error:
            _log.info("cannot record %s in %s: %s", self.file.filename, pins.path, error)
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
        elif hub_is_offline() and is_hub(at_endpoint(file.url)):
            tried.append("HF_HUB_OFFLINE forbids to ask the Hub")
        known = [f"{file.size:,} bytes"] if file.size else []
        known += [f"sha256 {file.sha256}"] if file.sha256 else []
        facts = f" ({', '.join(known)})" if known else ""
        other = f" (what was there is another file, now {self._aside})"
        return kind(
            f"{file.filename} is not in {self.folder}{other if self._aside.exists() else ''} "
            "and could not be fetched. "
            + "; ".join(tried)
            + f". To continue without this network, download {file.url}{facts} elsewhere and place "
            f"it at {self.target}, or set XRV_MIRROR to a folder or URL that holds it"
        )


def fetch(
    file: RemoteFile, *, cache: str | os.PathLike[str] | None = None, progress: bool = True
) -> Path:
    """Return the verified local copy of a file, downloading it if there is none.

    A file that is already at its final name, from 1.5.7 or copied by hand, is hashed at its first
    use in a process. A broken transfer resumes where it stopped, in this call
    or the next, as long as the server still has the same object. Several processes may ask at
    once; one fetches, the others wait. No server can make a call wait without end.

    Args:
        file: What to fetch, and what is known about its bytes.
        cache: Cache folder; `cache_dir` by default. Folders that are missing are created for their
            owner alone.
        progress: Draw a progress bar, if standard error is a terminal.

    Returns:
        Path of the file in the cache.

    Raises:
        OfflineError: If no source can be reached or may be asked, and the cache lacks the file.
        DownloadError: If a source answers and does not give the file, or the disk does not take
            it.
        ChecksumError: If the bytes are not those that were published, or not those that were
            trusted before.

    Warns:
        UnpinnedDownloadWarning: If nobody has published a checksum, on first use.
        ChecksumWarning: If the bytes are not what a single source reports, on first use.

    Example:
        >>> import hashlib, pathlib, tempfile
        >>> from torchxrayvision.facts import RemoteFile
        >>> cache = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (cache / "a.pt").write_bytes(b"weights")
        >>> file = RemoteFile(
        ...     url="https://host.example/a.pt",
        ...     filename="a.pt",
        ...     sha256=hashlib.sha256(b"weights").hexdigest(),
        ... )
        >>> fetch(file, cache=cache).name
        'a.pt'
    """
    return Fetch(file, folder_of(cache), Settings(), progress=progress).run()
