"""A file server on this machine that misbehaves as told."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from torchxrayvision.facts import RemoteFile
from torchxrayvision.remote import fetching as _config
from torchxrayvision.remote.fetching import Fetch

NAME = "weights.pt"
# 300 kB: several socket buffers long, so a fault in the middle is one in the middle.
CONTENT = b"\x80\x02" + hashlib.shake_256(b"weights").digest(300_000)
OTHER = b"\x80\x02" + hashlib.shake_256(b"other weights").digest(300_000)
UNKNOWN: dict[str, None] = {"sha256": None, "size": None}
# Refused at once: nothing listens on the port, so the published address is never a help.
UNREACHABLE = f"https://127.0.0.1:1/{NAME}"

FAST = _config.Settings(
    resolve=2.0, connect=1.0, read=0.3, attempts=3, backoff=0.01, longest_pause=0.05, lock=20.0
)


@dataclass
class Step:
    """How the server answers one request; the last step answers all further ones.

    Args:
        status: Status to answer with; None serves the content, 206 or 416 as the request asks.
        body: Content served.
        etag: Entity tag, or None.
        modified: Last-Modified, or None.
        cut: Close the connection after this many bytes of the body.
        reset: Close with RST instead of FIN.
        stall: Seconds of silence after `cut` bytes.
        drip: Bytes at a time, one every 5 ms, from `cut` on.
        declare: Content-Length to lie with.
        headers: Further headers.
        drop: Close the connection without any answer.
        span: Most bytes that an answer to Range holds.
        ranges: Whether Range is honoured.
        if_range: Whether If-Range is honoured.
        framed: ``"length"``, ``"chunked"`` or ``"close"``.
    """

    status: int | None = None
    body: bytes = CONTENT
    etag: str | None = '"v1"'
    modified: str | None = None
    cut: int | None = None
    reset: bool = False
    stall: float = 0.0
    drip: int = 0
    declare: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    span: int = len(CONTENT)
    ranges: bool = True
    if_range: bool = True
    framed: str = "length"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        with server.guard:
            step = server.steps[min(len(server.requests), len(server.steps) - 1)]
            server.requests.append((self.path, dict(self.headers)))
        with contextlib.suppress(OSError):
            self._answer(step)
        self.close_connection = True

    def _answer(self, step):
        if step.drop:
            return None
        if step.status is not None:
            return self._send(step, step.status, step.body, {})
        start = self._start(step)
        if start is None:
            return self._send(step, 200, step.body, {})
        if start >= len(step.body):
            return self._send(step, 416, b"", {"Content-Range": f"bytes */{len(step.body)}"})
        end = min(len(step.body), start + step.span)
        span = f"bytes {start}-{end - 1}/{len(step.body)}"
        return self._send(step, 206, step.body[start:end], {"Content-Range": span})

    def _start(self, step):
        asked = self.headers.get("Range")
        if not asked or not step.ranges:
            return None
        condition = self.headers.get("If-Range")
        if condition and step.if_range and condition not in (step.etag, step.modified):
            return None
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def _send(self, step, status, body, extra):
        self.send_response(status)
        headers = {"Content-Type": "application/octet-stream", **extra}
        if step.etag:
            headers["ETag"] = step.etag
        if step.modified:
            headers["Last-Modified"] = step.modified
        if step.framed == "length":
            headers["Content-Length"] = str(len(body) if step.declare is None else step.declare)
        elif step.framed == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        for key, value in (headers | step.headers).items():
            self.send_header(key, value)
        self.end_headers()
        self._body(step, body)

    def _body(self, step, body):
        cut = len(body) if step.cut is None else min(step.cut, len(body))
        self._write(step, body[:cut])
        if step.stall:
            self.server.closing.wait(step.stall)
        if step.drip:
            for start in range(cut, len(body), step.drip):
                if self.server.closing.is_set():
                    break
                self._write(step, body[start : start + step.drip])
                time.sleep(0.005)
        elif step.stall:
            self._write(step, body[cut:])
        elif step.framed == "chunked" and step.cut is None:
            self.wfile.write(b"0\r\n\r\n")
        if step.reset:
            # Linger zero makes close send RST, as a killed server or a firewall does.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _write(self, step, data):
        if step.framed == "chunked" and data:
            data = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        self.wfile.write(data)
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """Serves the steps of a script, one a request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.steps = [Step()]
        self.requests = []
        self.guard = threading.Lock()
        self.closing = threading.Event()

    def handle_error(self, *args):
        pass

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def script(self, *steps):
        with self.guard:
            self.steps = list(steps)
            self.requests = []


def remote_file(content=CONTENT, **changes):
    facts = {
        "url": UNREACHABLE,
        "filename": NAME,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }
    return RemoteFile(**(facts | changes))


def fetch(cache, file=None, **settings):
    """`remote.fetch` with short limits."""
    limits = replace(FAST, **settings)
    return Fetch(file or remote_file(), cache, limits, progress=False).run()
