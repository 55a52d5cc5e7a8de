"""The HTTP listener: STOW-RS, health and metrics; what a peer can take of it is bounded.

Without a token or certificates of clients nothing is served beyond health. uvicorn waits without
end for the head of a request and keeps connections of peers that dribble bytes, so the protocol
here has a time limit for heads and for whole requests, and counts connections, also per peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import socket
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from torchxrayvision.errors import OverloadError, RequestError, ServiceError
from torchxrayvision.service.credentials import secret_of, tls_context
from torchxrayvision.service.gate import is_uid
from torchxrayvision.service.operate import log_event
from torchxrayvision.service.stow import Answer, Memory, Parts, store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from torchxrayvision.service.config import Http, Limits
    from torchxrayvision.service.operate import Metrics

    Endpoint = Callable[[Request], Awaitable[Response]]

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_HEAD_BYTES: Final = 32_768
_WATCH_SECONDS: Final = 0.25
_HANDSHAKE_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = "30"
_BACKLOG: Final = 128
_JSON, _XML, _DICOM = "application/dicom+json", "application/dicom+xml", "application/dicom"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_silent = logging.Logger("uvicorn")
_silent.addHandler(logging.NullHandler())


class Door(Protocol):
    """What the listener asks of the service."""

    metrics: Metrics

    def accept(self, data: bytes, origin: str) -> Any:
        """Take an object; durable on return."""

    def not_ready(self) -> str:
        """Why nothing is taken for now; empty if it is."""

    def metrics_text(self) -> str:
        """Figures for Prometheus."""


class _Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """Ends a request with an answer; the connection is closed, as its body may still come."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        self.response = _text(f"{text}\n", status, {"Connection": "close", **headers})
        super().__init__(text)


def _text(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text, status, {**_HEADERS, **(headers or {})}, "text/plain")


class _Connections:
    """The connections that there are, also those in their TLS handshake."""

    def __init__(self, settings: Http, *, encrypted: bool) -> None:
        self.settings = settings
        self._encrypted = encrypted
        self._all: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._admitted: set[_Connection] = set()

    def add(self, connection: _Connection) -> None:
        """Count one that came in."""
        if self._encrypted and len(self._all) >= self.settings.connections:
            raise ConnectionRefusedError  # no handshake for it; asyncio drops the socket
        self._all.add(connection)

    def admit(self, connection: _Connection) -> bool:
        """Whether there is room for one, also of its peer."""
        own = sum(1 for other in self._admitted if other.address == connection.address)
        full = len(self._admitted) >= self.settings.connections
        if full or own >= self.settings.peer_connections:
            return False
        self._admitted.add(connection)
        return True

    def remove(self, connection: _Connection) -> None:
        """Count one no more."""
        self._all.discard(connection)
        self._admitted.discard(connection)


class _Connection(H11Protocol):
    """One connection with time limits."""

    def __init__(self, connections: _Connections, **given: Any) -> None:
        self.address = ""
        super().__init__(**given)
        self.logger = self.access_logger = _silent
        self.access_log = False
        self._connections = connections
        connections.add(self)
        self._since = self.loop.time()
        self._in_head = True
        self._watching: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Refuse peers that have too many connections."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        if not self._connections.admit(self):
            transport.abort()
            return
        self._since = self.loop.time()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        if self._watching is not None:
            self._watching.cancel()
        self._connections.remove(self)
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Close a connection whose head or request takes too long."""
        settings, now = self._connections.settings, self.loop.time()
        in_head = self.conn.their_state is h11.IDLE
        if in_head != self._in_head:
            self._in_head, self._since = in_head, now
        limit = settings.head_seconds if in_head else settings.request_seconds
        if now - self._since > limit:
            self.transport.abort()
            return
        self._watching = self.loop.call_later(_WATCH_SECONDS, self._watch)


class HttpServer:
    """Listens until it is closed.

    Args:
        settings: Of the listener.
        limits: Of the service.
        service: What it serves.

    Raises:
        ServiceError: If the port cannot be used.
        ConfigError: If certificates or tokens cannot.
    """

    def __init__(self, settings: Http, limits: Limits, service: Door) -> None:
        self._settings = settings
        tls = settings.tls
        self._context = tls_context(tls, server=True) if tls.certificate is not None else None
        self._app = _App(settings, limits, service)
        self._socket = _bind(settings)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log_fault)
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._run, name="xrv-http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._socket.listen(_BACKLOG)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        config = uvicorn.Config(
            self._app.asgi(), loop="asyncio", lifespan="off", ws="none", interface="asgi3",
            log_config=None, access_log=False, proxy_headers=False, server_header=False,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )  # fmt: skip
        config.load()
        connections = _Connections(self._settings, encrypted=self._context is not None)
        make = partial(
            _Connection, connections, config=config, server_state=self._state, app_state={},
            _loop=self._loop,
        )  # fmt: skip
        handshake = None if self._context is None else _HANDSHAKE_SECONDS
        self._server = self._loop.run_until_complete(
            self._loop.create_server(
                make, sock=self._socket, backlog=_BACKLOG, ssl=self._context,
                ssl_handshake_timeout=handshake,
            )
        )  # fmt: skip
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def close(self, patience: float = 5.0) -> None:
        """Answer no more; requests get some time for what they are at.

        Args:
            patience: Seconds.
        """
        if not self._thread.is_alive():
            self._socket.close()
            self._loop.close()
            return
        done = asyncio.run_coroutine_threadsafe(self._end(patience), self._loop)
        with contextlib.suppress(TimeoutError):
            done.result(patience + 5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(patience + 5.0)

    async def _end(self, patience: float) -> None:
        if self._server is not None:
            self._server.close()
        until = time.monotonic() + patience
        while self._state.tasks and time.monotonic() < until:
            await asyncio.sleep(0.02)
        for connection in list(self._state.connections):
            connection.transport.abort()
        left = list(self._state.tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _bind(settings: Http) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, kind, number, _, address = found[0]
        opened = socket.socket(family, kind, number)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except OSError:
            opened.close()
            raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        msg = f"http: {settings.host}:{settings.port} cannot be listened on: {reason}"
        raise ServiceError(msg) from None
    return opened


def _log_fault(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001
    error = context.get("exception")
    if error is not None and not isinstance(error, OSError):
        log_event("http_fault", error=type(error).__name__)


class _App:
    """What is answered to a request."""

    def __init__(self, settings: Http, limits: Limits, service: Door) -> None:
        self._settings = settings
        self._limits = limits
        self._service = service
        self._memory = Memory(settings.memory_bytes)
        token = settings.token_file
        self._token = None if token is None else secret_of(token, "http.token_file").encode()
        self._mutual = settings.tls.ca is not None
        self._hosts = _LOOPBACK_NAMES | {name.lower() for name in (settings.host, *settings.hosts)}

    def asgi(self) -> Starlette:
        """The application."""
        private, study = self._private, "/studies/{study}"
        return Starlette(
            routes=[
                Route("/healthz", self._answering("health", self._health)),
                Route("/readyz", self._answering("health", self._ready)),
                Route("/metrics", self._answering("metrics", private(self._metrics))),
                Route("/studies", self._answering("stow", private(self._stow)), methods=["POST"]),
                Route(study, self._answering("stow", private(self._stow)), methods=["POST"]),
            ],
            exception_handlers={404: _plainly, 405: _plainly},
        )

    def _answering(self, route: str, endpoint: Endpoint) -> Endpoint:
        """Turns what goes wrong into an answer that quotes nothing of the request, and counts."""

        async def answer(request: Request) -> Response:
            try:
                response = await endpoint(request)
            except _Refusal as refusal:
                response = refusal.response
            except RequestError as error:
                response = _Refusal(error.status, error.reason).response
            except OverloadError as error:
                log_event("overload", reason=str(error))
                busy = _Refusal(503, "busy; send it again", **{"Retry-After": _RETRY_SECONDS})
                response = busy.response
            except ClientDisconnect:
                response = _text("", 400)
            except Exception as error:  # noqa: BLE001 - the service stays up
                log_event("http_fault", error=type(error).__name__)
                response = _Refusal(500, "something went wrong").response
            self._service.metrics.count("http", route=route, status=str(response.status_code))
            return response

        return answer

    def _private(self, endpoint: Endpoint) -> Endpoint:
        """Serves only who may, under a name that the service has."""

        async def answer(request: Request) -> Response:
            self._check_host(request)
            self._check_token(request)
            return await endpoint(request)

        return answer

    def _check_host(self, request: Request) -> None:
        """Refuse names that are not ours: a page of somebody else may resolve its name to us."""
        given = request.headers.getlist("host")
        name = given[0].strip().lower() if len(given) == 1 else ""
        host, colon, port = name.rpartition(":")
        if colon and port.isdigit() and not host.endswith(":"):
            name = host
        if name not in self._hosts:
            raise _Refusal(421, "this name is not in http.hosts")

    def _check_token(self, request: Request) -> None:
        if self._token is None:
            if self._mutual:
                return
            raise _Refusal(403, "only health is served: set http.token_file or http.tls.ca")
        given = request.headers.getlist("authorization")
        kind, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        same = hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token)
        if kind.lower() != "bearer" or not same:
            raise _Refusal(401, "a token is needed", **{"WWW-Authenticate": "Bearer"})

    async def _health(self, request: Request) -> Response:  # noqa: ARG002 - as starlette calls it
        return _text("ok\n")

    async def _ready(self, request: Request) -> Response:  # noqa: ARG002
        reason = await run_in_threadpool(self._service.not_ready)
        return _text("not ready\n", 503) if reason else _text("ready\n")

    async def _metrics(self, request: Request) -> Response:  # noqa: ARG002
        text = await run_in_threadpool(self._service.metrics_text)
        return Response(text, 200, _HEADERS, "text/plain; version=0.0.4")

    async def _stow(self, request: Request) -> Response:
        began = time.monotonic()
        study = str(request.path_params.get("study", ""))
        if study and not is_uid(study):
            raise _Refusal(400, "the study of the address is no UID")
        parts = self._parts(request)
        reason = await run_in_threadpool(self._service.not_ready)
        if reason:
            raise OverloadError(reason)
        answer = Answer()
        keep = partial(self._store, study=study, answer=answer)
        try:
            async for chunk in self._body(request):
                for part in parts.feed(chunk):
                    await keep(part)
            for part in parts.finish():
                await keep(part)
        finally:
            parts.close()
        self._service.metrics.observe("stow_seconds", time.monotonic() - began)
        return _answer(request, answer)

    async def _store(self, part: Any, study: str, answer: Answer) -> None:
        try:
            await run_in_threadpool(store, part, study, self._service.accept, answer)
        finally:
            self._memory.give(part.held)

    def _parts(self, request: Request) -> Parts:
        """What takes the body apart, by its type."""
        from python_multipart.multipart import parse_options_header

        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise _Refusal(415, "bodies are taken without Content-Encoding")
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary", b"")
        inner = options.get(b"type", _DICOM.encode()).lower()
        limits = self._limits.object_bytes, self._settings.objects, self._memory
        if kind == _DICOM.encode():
            return Parts(None, *limits)
        if kind != b"multipart/related" or not boundary or inner != _DICOM.encode():
            taken = f'multipart/related; type="{_DICOM}"; boundary=..., or {_DICOM}'
            raise _Refusal(415, f"bodies are taken as {taken}")
        return Parts(boundary.decode("latin-1"), *limits)

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, as long as it comes in quickly and is not too large."""
        most, total = self._settings.request_bytes, 0
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > most:
            raise _Refusal(413, f"a request holds {most:,} bytes at most")
        chunks = request.stream()
        while True:
            try:
                chunk = await asyncio.wait_for(anext(chunks), self._settings.idle_seconds)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _Refusal(408, "the body came too slowly") from None
            total += len(chunk)
            if total > most:
                raise _Refusal(413, f"a request holds {most:,} bytes at most")
            yield chunk


def _answer(request: Request, answer: Answer) -> Response:
    accepted = request.headers.get("accept", "")
    as_xml = _XML in accepted and _JSON not in accepted
    content = answer.to_xml() if as_xml else answer.to_json()
    headers = dict(_HEADERS)
    if answer.status == 503:
        headers["Retry-After"] = _RETRY_SECONDS
    return Response(content, answer.status, headers, _XML if as_xml else _JSON)


async def _plainly(request: Request, error: Exception) -> Response:  # noqa: ARG001
    status = getattr(error, "status_code", 404)
    headers = {"Connection": "close", **(getattr(error, "headers", None) or {})}
    return _text("method not allowed\n" if status == 405 else "not found\n", status, headers)
