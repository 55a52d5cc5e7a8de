"""One file over HTTP into a partial file: retries, resume, redirects, and what to refuse.

requests is used directly: pooch, which the package could use instead, starts every download from
zero, sets its final name before a caller can look at the answer's headers, and follows redirects
from https to http.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import ChecksumError, OfflineError
from torchxrayvision.remote.failure import SourceFailure, failure_of_error, failure_of_status, short
from torchxrayvision.remote.storage import storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

    from torchxrayvision.facts import RemoteFile
    from torchxrayvision.remote.config import Settings
    from torchxrayvision.remote.storage import Partial, Resume

__all__ = ["HttpTransfer", "next_address"]

_log = logging.getLogger(__name__)
_CHUNK = 2**20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PAGE_TYPES = ("text/html", "application/xhtml+xml")


class HttpTransfer:
    """Completes a partial file from a URL.

    Args:
        url: Address.
        partial: Where the bytes go; a resumable start of the same object is used.
        file: What is published about the file.
        settings: Limits.
        report: Called with the bytes done and the bytes in all.
    """

    def __init__(
        self,
        url: str,
        partial: Partial,
        file: RemoteFile,
        settings: Settings,
        report: Callable[[int, int | None], None],
    ) -> None:
        self.url = url
        self.partial = partial
        self.file = file
        self.settings = settings
        self.report = report
        self.resumed = False
        self._deadline = time.monotonic() + settings.deadline

    def run(self) -> None:
        """Fetch until the partial file is whole.

        Raises:
            SourceFailure: If this source does not give the file.
            DownloadError: If the disk does not take it.
        """
        import requests

        idle, best, contact = 0, self.partial.size(), False
        # Less than this and the attempt gained nothing; else a drip would be followed for hours.
        gain = max(1, int(self.settings.slowest * self.settings.window))
        with requests.Session() as session:
            while True:
                try:
                    self._attempt(session)
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

    def _attempt(self, session: requests.Session) -> None:
        resume = self.partial.resume()
        if resume and resume.offset == resume.length:
            self.resumed = True
            return
        # Compressed transfer would make lengths and offsets those of another byte stream.
        headers = {"Accept-Encoding": "identity"}
        if resume:
            headers |= {"Range": f"bytes={resume.offset}-", "If-Range": resume.validator}
        with self._open(session, headers) as response:
            total = self._prepare(response, resume)
            self._receive(response, total)

    @contextlib.contextmanager
    def _open(
        self, session: requests.Session, headers: dict[str, str]
    ) -> Iterator[requests.Response]:
        import requests

        url = self.url
        for _ in range(self.settings.redirects + 1):
            _await_name(session, url, self.settings.resolve)
            try:
                response = session.get(
                    url,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=(self.settings.connect, self.settings.read),
                )
            except requests.RequestException as error:
                raise failure_of_error(error) from error
            with response:
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                plain = self.url.startswith("http://")
                url = next_address(url, response.headers.get("Location"), allow_http=plain)
        msg = f"more than {self.settings.redirects} redirects; the address leads in a circle"
        raise SourceFailure(msg)

    def _prepare(self, response: requests.Response, resume: Resume | None) -> int | None:
        """Check the headers, make the partial file fit them, return the whole length."""
        status = response.status_code
        if status == 206 and resume:
            self._continue(response, resume)
            return resume.length
        if status == 416 and resume:
            self.partial.discard()
            msg = "the server refuses to go on where the transfer stopped"
            raise SourceFailure(msg, retry=True)
        if status != 200:
            raise failure_of_status(status, response.headers)
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
        # Without length, framing and checksum, a broken transfer looks like a finished one.
        framed = total is not None or response.headers.get("Transfer-Encoding")
        if not framed and self.file.sha256 is None:
            msg = "the server does not say how long the file is, and no checksum is known"
            raise SourceFailure(msg)

    def _receive(self, response: requests.Response, total: int | None) -> None:
        done = self.partial.size()
        limit = total if total is not None else self.file.size or self.settings.largest
        pace = _Pace(self.settings, self._deadline)
        self.report(done, total)
        with storage(self.partial.folder), self.partial.path.open("ab") as out:
            while chunk := _read(response):
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

    def __init__(self, settings: Settings, deadline: float) -> None:
        self.settings = settings
        self.deadline = deadline
        self.since = time.monotonic()
        self.count = 0

    def check(self, count: int) -> None:
        self.count += count
        now = time.monotonic()
        if now > self.deadline:
            msg = "the transfer took too long; the next call goes on where it stopped"
            raise SourceFailure(msg)
        elapsed = now - self.since
        if elapsed < self.settings.window:
            return
        if self.count < self.settings.slowest * elapsed:
            msg = f"the server sends only {self.count / elapsed:.0f} bytes a second"
            raise SourceFailure(msg, retry=True)
        self.since, self.count = now, 0


def _read(response: requests.Response) -> bytes:
    from http.client import HTTPException

    from urllib3.exceptions import HTTPError, ReadTimeoutError

    raw: Any = response.raw
    try:
        # read1 returns what has arrived; read would wait for a whole chunk and hide a drip.
        chunk: bytes = raw.read1(_CHUNK, decode_content=False)
    except ReadTimeoutError as error:
        msg = "the server fell silent"
        raise SourceFailure(msg, retry=True) from error
    except (HTTPError, HTTPException, OSError) as error:
        msg = f"the connection broke ({short(error)})"
        raise SourceFailure(msg, retry=True) from error
    return chunk


def _declared_length(response: requests.Response) -> int | None:
    value = response.headers.get("Content-Length", "")
    return int(value) if value.isascii() and value.isdigit() else None


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
