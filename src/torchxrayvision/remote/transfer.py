"""One file over HTTP into a partial file: retries, resume, redirects, and what to refuse.

requests is used directly: pooch, which the package could use instead, starts every download from
zero, sets its final name before a caller can look at the answer's headers, and follows redirects
from https to http.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import ChecksumError, DownloadError, OfflineError, RemoteError
from torchxrayvision.remote.credentials import is_hub, token_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping

    import requests

    from torchxrayvision.facts import RemoteFile
    from torchxrayvision.remote.fetching import Partial, Resume, Settings

_log = logging.getLogger(__name__)
_CHUNK = 2**20
# Numbers beyond these digits are no lengths; int would refuse them or take seconds.
_NUMBER = re.compile(r"[0-9]{1,18}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PAGE_TYPES = ("text/html", "application/xhtml+xml")
_ADVICE = {
    HTTPStatus.UNAUTHORIZED: "the server wants credentials; requests reads them from ~/.netrc",
    HTTPStatus.FORBIDDEN: "access is refused; a proxy or firewall may stand between",
    HTTPStatus.NOT_FOUND: "it has moved or was never there; name a mirror in XRV_MIRROR, "
    "or look for a newer release of this package",
    HTTPStatus.GONE: "it was withdrawn; name a mirror in XRV_MIRROR",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "the proxy wants credentials; see HTTPS_PROXY",
}
# What the Hub says in X-Error-Code, and what to do about it.
_HUB_ADVICE = {
    "GatedRepo": "its owners give it to those who accept their terms: do so on its page, then set "
    "HF_TOKEN or run `hf auth login`",
    "RepoNotFound": "the Hub has no such model, or it is private: set HF_TOKEN or run `hf auth "
    "login`",
    "RevisionNotFound": "the model has no such revision",
    "EntryNotFound": "the model has no such file",
}
_WANTS_TOKEN = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
_PASSING = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)


class SourceFailure(Exception):  # noqa: N818 - never leaves this package; callers see RemoteError
    """One source did not give the file.

    `kind` is the error that the caller sees if no other source helps, `retry` whether the same
    request may succeed later, `pause` the seconds that the server asks to wait.
    """

    def __init__(
        self,
        reason: str,
        *,
        kind: type[RemoteError] = DownloadError,
        retry: bool = False,
        pause: float | None = None,
    ) -> None:
        # A server chooses words in it, and the reader's terminal must not obey them.
        self.reason = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in reason)
        super().__init__(self.reason)
        self.kind = kind
        self.retry = retry
        self.pause = pause


@dataclass(eq=False)
class HttpTransfer:
    """Completes a partial file from a URL; a resumable start of the same object is used.

    `report` is called with the bytes done and the bytes in all. `whole` takes the file in one
    answer, from its start.
    """

    url: str
    partial: Partial
    file: RemoteFile
    settings: Settings
    report: Callable[[int, int | None], None]
    whole: bool = field(default=False, kw_only=True)
    resumed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._watchdog = _Watchdog()
        self._deadline = time.monotonic() + self.settings.deadline

    def run(self) -> None:
        """Fetch until the partial file is whole.

        Raises:
            SourceFailure: If this source does not give the file.
            DownloadError: If the disk does not take it.
        """
        idle, best, contact = 0, self.partial.size(), False
        # Less than this and the attempt gained nothing; else a drip would be followed for hours.
        gain = max(1, int(self.settings.slowest * self.settings.window))
        while True:
            try:
                self._attempt()
            except SourceFailure as failure:
                size = self.partial.size()
                idle = 0 if size >= best + gain else idle + 1
                # A host that answered before and refuses now is restarting, not absent.
                retry = failure.retry or (contact and failure.kind is OfflineError)
                contact = contact or failure.kind is not OfflineError
                best = max(best, size)
                self._pause(failure, idle, retry=retry)
            else:
                return

    def _pause(self, failure: SourceFailure, idle: int, *, retry: bool) -> None:
        settings = self.settings
        left = self._deadline - time.monotonic()
        if not retry:
            raise failure
        if idle >= settings.attempts or left <= 0:
            why = f"{idle} attempts gained nothing" if left > 0 else "the time is up"
            msg = f"{failure.reason}; {why}"
            raise SourceFailure(msg, kind=failure.kind) from failure
        pause = settings.backoff * 2 ** max(idle - 1, 0)
        if failure.pause is not None:
            pause = max(pause, failure.pause)
        pause = min(pause, settings.longest_pause, left)
        _log.info("%s: %s; trying again in %.1f s", self.url, failure.reason, pause)
        time.sleep(pause)

    def _attempt(self) -> None:
        import requests

        resume = None if self.whole else self.partial.resume()
        if resume and resume.offset == resume.length:
            self.resumed = True
            return
        # Compressed transfer would make lengths and offsets those of another byte stream.
        headers = {"Accept-Encoding": "identity"}
        if resume:
            headers |= {"Range": f"bytes={resume.offset}-", "If-Range": resume.validator}
        seconds = self.settings.answer
        # A session of its own, so that no connection outlives the watch on it.
        with _Watchdog() as watchdog, requests.Session() as session:
            self._watchdog = watchdog
            watchdog.guard(session)
            watchdog.limit(seconds, f"the head of its answer did not end within {seconds:g} s")
            with self._open(session, headers) as response:
                total = self._prepare(response, resume)
                self._receive(response, total)

    @contextlib.contextmanager
    def _open(
        self, session: requests.Session, headers: dict[str, str]
    ) -> Iterator[requests.Response]:
        url, known = self.url, False  # whether the Hub may see the token
        for _ in range(self.settings.redirects + 2):
            token = token_for(url)
            with self._get(session, url, headers, token if known else None) as response:
                if response.status_code in _WANTS_TOKEN and token and not known:
                    known = True
                    continue
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                plain = self.url.startswith("http://")
                url = next_address(url, response.headers.get("Location"), allow_http=plain)
        msg = f"more than {self.settings.redirects} redirects; the address leads in a circle"
        raise SourceFailure(msg)

    def _get(
        self, session: requests.Session, url: str, headers: dict[str, str], token: str | None
    ) -> requests.Response:
        if token is not None:
            headers = {**headers, "Authorization": f"Bearer {token}"}
        try:
            _await_name(session, url, self.settings.resolve)
            return session.get(
                url,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(self.settings.connect, self.settings.read),
            )
        except (OSError, ValueError) as error:  # those of requests and urllib3 are either
            self._watchdog.check()
            raise failure_of_error(error) from error

    def _prepare(self, response: requests.Response, resume: Resume | None) -> int | None:
        """Check the headers, make the partial file fit them, return the whole length."""
        status = response.status_code
        if status == 206 and resume:
            self._continue(response, resume)
            return resume.length
        if status == 416 and resume:
            self.partial.discard()
            msg = "the server refuses to resume where the transfer stopped"
            raise SourceFailure(msg, retry=True)
        if status != 200:
            raise failure_of_status(status, response.headers, hub=is_hub(response.url))
        total = _declared_length(response)
        self._refuse(response, total)
        validators = {
            "etag": response.headers.get("ETag"),
            "last_modified": response.headers.get("Last-Modified"),
        }
        self.resumed = False
        self.partial.restart(validators, total)
        self.partial.require(total or 0)
        return total

    def _continue(self, response: requests.Response, resume: Resume) -> None:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = None if found is None or found[3] == "*" else int(found[3])
        etag = response.headers.get("ETag")
        moved = found is None or int(found[1]) != resume.offset
        grown = resume.length is not None and total != resume.length
        # Servers exist that ignore If-Range and send the rest of whatever is there now.
        other = resume.validator.startswith('"') and etag is not None and etag != resume.validator
        if moved or grown or other:
            self.partial.discard()
            msg = "the file changed on the server during the transfer"
            raise SourceFailure(msg, retry=True)
        self.resumed = True
        self.partial.require((total or resume.offset) - resume.offset)

    def _refuse(self, response: requests.Response, total: int | None) -> None:
        """Refuse what cannot be the file, before a byte of it is kept."""
        kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind in _PAGE_TYPES and not self.file.filename.lower().endswith((".html", ".htm")):
            msg = "the server answered with a web page, as login pages and proxies do"
            raise SourceFailure(msg)
        coding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            msg = f"the server compresses with {coding} although it was asked not to"
            raise SourceFailure(msg)
        size = self.file.size
        if total is not None and self.file.certainty == "certain" and size not in (None, total):
            msg = f"the server declares {total:,} bytes instead of {size:,}"
            raise SourceFailure(msg, kind=ChecksumError)
        if size is None and total is not None and total > self.settings.largest:
            msg = (
                f"the server declares {total:,} bytes; at most {self.settings.largest:,} are taken"
            )
            raise SourceFailure(msg)
        # Without length, framing and checksum, a broken transfer looks like a finished one.
        framed = total is not None or response.headers.get("Transfer-Encoding")
        if not framed and self.file.sha256 is None:
            msg = "the server does not say how long the file is, and no checksum is known"
            raise SourceFailure(msg)

    def _receive(self, response: requests.Response, total: int | None) -> None:
        done = self.partial.size()
        limit = total if total is not None else self.file.size or self.settings.largest
        self.report(done, total)
        pace = _Pace(self.settings, self._deadline, self._watchdog)
        with self.partial.append() as out:
            while chunk := _read(response, self._watchdog):
                done += len(chunk)
                if done > limit:
                    self.partial.discard()
                    msg = f"the server sent more than {limit:,} bytes"
                    raise SourceFailure(msg)
                out.write(chunk)
                self.report(done, total)
                pace.check(len(chunk))
        if total is not None and done != total:
            msg = f"the connection closed after {done:,} of {total:,} bytes"
            raise SourceFailure(msg, retry=True)


class _Pace:
    """Notices a transfer that drips: each byte in time, the whole never."""

    def __init__(self, settings: Settings, deadline: float, watchdog: _Watchdog) -> None:
        self.settings = settings
        self.deadline = deadline
        self.watchdog = watchdog
        self._begin(time.monotonic())

    def _begin(self, now: float) -> None:
        self.since, self.count = now, 0
        # A chunk whose length comes a byte at a time is never handed over.
        self.watchdog.limit(
            self.settings.window + self.settings.read, "the server sends next to nothing"
        )

    def check(self, count: int) -> None:
        self.count += count
        now = time.monotonic()
        if now > self.deadline:
            msg = "the transfer took too long; the next call resumes where it stopped"
            raise SourceFailure(msg)
        elapsed = now - self.since
        if elapsed < self.settings.window:
            return
        if self.count < self.settings.slowest * elapsed:
            msg = f"the server sends only {self.count / elapsed:.0f} bytes per second"
            raise SourceFailure(msg, retry=True)
        self._begin(now)


class _Watchdog:
    """Breaks the connections of a transfer off, whatever the client waits for.

    The limits of the client are silences between two bytes. A server that sends "100 Continue" or
    single bytes of a header without end keeps all of them.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._sockets: list[socket.socket] = []
        self._timer: threading.Timer | None = None

    def __enter__(self) -> _Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel()
        for spare in self._sockets:
            spare.close()
        self._sockets.clear()

    def guard(self, session: requests.Session) -> None:
        """Learn of every socket that a session opens, before anything is read from it."""
        from requests.adapters import HTTPAdapter

        watchdog = self

        def watched(pool: Any) -> Any:
            class Connection(pool.ConnectionCls):  # type: ignore[misc]
                def _new_conn(self) -> socket.socket:
                    made: socket.socket = super()._new_conn()
                    watchdog._sockets.append(made.dup())  # TLS takes the first
                    return made

            return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

        def instrument(manager: Any) -> Any:
            classes = manager.pool_classes_by_scheme
            manager.pool_classes_by_scheme = {k: watched(pool) for k, pool in classes.items()}
            return manager

        class Adapter(HTTPAdapter):
            def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
                super().init_poolmanager(*args, **kwargs)
                instrument(self.poolmanager)

            def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
                known = set(self.proxy_manager)
                manager = super().proxy_manager_for(*args, **kwargs)
                return manager if known == set(self.proxy_manager) else instrument(manager)

        for scheme in ("http://", "https://"):
            session.mount(scheme, Adapter())

    def limit(self, seconds: float, reason: str) -> None:
        """Break off after so many seconds, unless another limit is set before."""
        self._cancel()
        self._timer = threading.Timer(seconds, self._bark, (reason,))
        self._timer.daemon = True
        self._timer.start()

    def check(self) -> None:
        """Raise `SourceFailure` if the connections were broken off here."""
        if self.reason:
            raise SourceFailure(self.reason)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _bark(self, reason: str) -> None:
        import socket

        self.reason = reason
        for spare in tuple(self._sockets):
            with contextlib.suppress(OSError):
                spare.shutdown(socket.SHUT_RDWR)


def _read(response: requests.Response, watchdog: _Watchdog) -> bytes:
    from http.client import HTTPException

    from urllib3.exceptions import HTTPError, ReadTimeoutError

    raw: Any = response.raw
    try:
        # read1 returns what has arrived; read would wait for a whole chunk and hide a drip.
        chunk: bytes = raw.read1(_CHUNK, decode_content=False)
    except ReadTimeoutError as error:
        watchdog.check()
        msg = "the server fell silent"
        raise SourceFailure(msg, retry=True) from error
    except (HTTPError, HTTPException, OSError, ValueError) as error:
        watchdog.check()
        msg = f"the connection broke ({short(error)})"
        raise SourceFailure(msg, retry=True) from error
    if not chunk:
        watchdog.check()
    return chunk


def _declared_length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if _NUMBER.fullmatch(value) else None


def next_address(url: str, location: str | None, *, allow_http: bool) -> str:
    """Where a redirect leads.

    Args:
        url: The address that redirects.
        location: The ``Location`` header.
        allow_http: Whether unencrypted http is acceptable, because the mirror was given so.

    Returns:
        The absolute address.

    Raises:
        SourceFailure: If the redirect leads nowhere, to another protocol, or from https to http.

    Example:
        >>> next_address("https://a.example/x", "/y", allow_http=False)
        'https://a.example/y'
    """
    from urllib.parse import urljoin, urlsplit

    if not location:
        msg = "the server redirects without saying where"
        raise SourceFailure(msg)
    try:
        address = urljoin(url, location)
        scheme = urlsplit(address).scheme.lower()
    except ValueError as error:
        msg = f"the server redirects to no address ({error})"
        raise SourceFailure(msg) from error
    if scheme != "https" and not (scheme == "http" and allow_http):
        msg = f"the server redirects from https to {scheme}, where anybody could change the file"
        raise SourceFailure(msg)
    return address


def _await_name(session: requests.Session, url: str, seconds: float) -> None:
    """Fail early where the name server does not answer; its own timeout is tens of seconds."""
    import socket
    from urllib.parse import urlsplit

    from requests.utils import get_environ_proxies, select_proxy

    host = urlsplit(url).hostname
    proxied = select_proxy(url, session.proxies or get_environ_proxies(url))
    if not host or proxied:
        return  # the proxy resolves the name

    def resolve() -> None:
        # The connection itself reports an unknown name, with its reason.
        with contextlib.suppress(OSError, UnicodeError):
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)

    worker = threading.Thread(target=resolve, name=f"resolve {host}", daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        msg = f"the host cannot be reached (no name server answered within {seconds:g} s)"
        raise SourceFailure(msg, kind=OfflineError)


def failure_of_status(
    status: int, headers: Mapping[str, str], *, hub: bool = False
) -> SourceFailure:
    """What an answer without the file means: final for client errors, else to be tried again."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    passing = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    advice = next((text for code, text in _ADVICE.items() if code == status), "")
    if hub:
        unnamed = "GatedRepo" if status in (401, 403) else ""
        advice = _HUB_ADVICE.get(headers.get("X-Error-Code", unnamed), advice)
    reason = f"the server answered {status} {phrase}" + (f": {advice}" if advice else "")
    return SourceFailure(reason, retry=passing, pause=_pause(headers.get("Retry-After")))


def _pause(value: str | None) -> float | None:
    # The other form of Retry-After, a date, asks for more patience than a user has.
    return float(value) if value and value.isascii() and value.isdigit() else None


def failure_of_error(error: Exception) -> SourceFailure:
    """What an exception of requests or urllib3 means.

    A host that does not resolve or refuses the connection is not tried again: a user without
    network should read so at once.
    """
    import requests
    from urllib3.exceptions import NewConnectionError

    cause = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.exceptions.SSLError):
        return SourceFailure(
            f"no trusted connection ({short(cause or error)}); behind a company proxy, name its "
            "certificates in REQUESTS_CA_BUNDLE"
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return SourceFailure(
            f"the proxy cannot be reached ({short(cause or error)})", kind=OfflineError
        )
    if isinstance(error, requests.exceptions.ConnectTimeout) or isinstance(
        cause, NewConnectionError
    ):
        return SourceFailure(
            f"the host cannot be reached ({short(cause or error)})", kind=OfflineError
        )
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return SourceFailure(f"not an address ({error})")
    if isinstance(error, requests.exceptions.Timeout):
        return SourceFailure("the server fell silent", retry=True)
    return SourceFailure(f"the connection broke ({short(cause or error)})", retry=True)


def short(error: object) -> str:
    """The innermost message of an error of the HTTP client, without representations of objects."""
    inner = [arg for arg in getattr(error, "args", ()) if isinstance(arg, BaseException)]
    if inner:
        return short(inner[-1])
    # urllib3 puts the representation of the connection before what happened.
    return str(error).rsplit(": ", 1)[-1]


@contextlib.contextmanager
def progress_bar(title: str, *, show: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A function that takes the bytes done and the bytes in all, and moves a bar on a terminal."""
    if not show or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
