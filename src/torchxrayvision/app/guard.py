"""Who may ask the page's server for what: names of hosts, origins, tokens, passwords, headers.

Radiographs of patients lie behind this server, and any web page that the same browser has open
can send it requests. So nothing but the page itself and its style is given to a request that
does not carry the cookie of the one browser that presented a token, or the password; a request
must name the server by an address of its own (no DNS rebinding), and whatever changes something
must come from the page's own origin.

Source:
    OWASP. Cross-site request forgery prevention; HTTP headers.
    https://cheatsheetseries.owasp.org
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
import threading
import time
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final

from torchxrayvision.remote import is_loopback as is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping
    from typing import Any

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE: Final = ("GET", "HEAD")
# What a browser without a cookie gets: the page that asks for one, and how it looks.
_OPEN: Final = ("/", "/login", "/static/", "/favicon.ico")
_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_TRIES: Final = 5  # wrong passwords in a row before each costs a wait
_LONGEST_WAIT: Final = 30.0  # seconds


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


class Access:
    """What lets a browser in.

    Args:
        host: Where the server listens.
        port: Its port.
        password: Asked for besides tokens; needed beyond loopback.
        names: Further names under which browsers reach the server, such as that of a proxy.

    Raises:
        ValueError: If the server would be reachable by others without a password.
    """

    def __init__(
        self, host: str, port: int, *, password: str | None = None, names: Iterable[str] = ()
    ) -> None:
        if not is_loopback(host) and not password:
            msg = (
                f"{host} can be reached by other machines, so a password is needed: write one "
                "into a file and name it with --password-file"
            )
            raise ValueError(msg)
        self.host, self.port = host, port
        self._password = password
        self._local = is_loopback(host)
        own = ("127.0.0.1", "localhost", "[::1]") if self._local else (socket.gethostname(),)
        self._names = {name.lower() for name in (*own, host, *names)}
        self._lock = threading.Lock()
        self._tokens: set[str] = set()
        self._cookies: set[str] = set()
        self._wrong, self._next_try = 0, 0.0
        self.cookie = f"xrv-{port}"

    @property
    def has_password(self) -> bool:
        """Whether a password lets in."""
        return self._password is not None

    def new_address(self) -> str:
        """An address that lets in one browser, once."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._tokens = {token}  # an earlier one that nobody used is void
        host = "127.0.0.1" if self._local else self.host
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}/?token={token}"

    def take(self, token: str) -> str | None:
        """The value of a cookie for a token, which is void from then on; None for a wrong one."""
        with self._lock:
            for known in self._tokens:
                if hmac.compare_digest(known.encode(), token.encode()):
                    self._tokens.discard(known)
                    return self._new_cookie()
        return None

    def enter(self, password: str) -> str | None:
        """The value of a cookie for the password; None for a wrong one, or one that came too soon.

        After a few wrong ones each further try has to wait twice as long.
        """
        if self._password is None:
            return None
        with self._lock:
            now = time.monotonic()
            if now < self._next_try:
                return None
            if hmac.compare_digest(self._password.encode(), password.encode()):
                self._wrong = 0
                return self._new_cookie()
            self._wrong += 1
            if self._wrong >= _TRIES:
                self._next_try = now + min(_LONGEST_WAIT, 2.0 ** (self._wrong - _TRIES))
        return None

    def _new_cookie(self) -> str:
        value = secrets.token_urlsafe(32)
        self._cookies.add(value)
        return value

    def knows(self, cookies: str) -> bool:
        """Whether the header `Cookie` has one that was given out."""
        try:
            morsel = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        given = "" if morsel is None else morsel.value
        with self._lock:
            return any(hmac.compare_digest(given.encode(), known.encode())
                       for known in self._cookies)  # fmt: skip

    def names_us(self, host: str) -> bool:
        """Whether the header `Host` names this server.

        Its port is not looked at, which is another one where the page is reached through a tunnel.
        Beyond loopback any address counts, as nobody can make a name of it point elsewhere.
        """
        name = _without_port(host.lower())
        return name in self._names or (not self._local and _is_address(name))

    def is_own(self, origin: str, host: str) -> bool:
        """Whether the header `Origin` is that of the page that `Host` names."""
        scheme, _, rest = origin.lower().partition("://")
        return scheme in ("http", "https") and rest == host.lower()


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


class Guard:
    """Refuses what `Access` does not allow, before anything of the request is read.

    Args:
        app: The server.
        access: What lets in.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refused(scope)
        if refused is None:
            await self._app(scope, receive, _with_headers(send, scope["path"]))
            return
        from starlette.responses import JSONResponse

        status, code = refused
        response = JSONResponse({"error": {"code": code, "detail": ""}}, status)
        await response(scope, receive, _with_headers(send, scope["path"]))

    def _refused(self, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value
                   in scope["headers"]}  # fmt: skip
        host = headers.get("host", "")
        if not self._access.names_us(host):
            return 421, "wrong-host"
        site = headers.get("sec-fetch-site", "same-origin")
        safe = scope["method"] in _SAFE
        if site not in ("same-origin", "none") and not (safe and scope["path"] == "/"):
            return 403, "other-origin"
        if not safe:
            origin = headers.get("origin")
            if origin is None or not self._access.is_own(origin, host):
                return 403, "other-origin"
        if self._access.knows(headers.get("cookie", "")):
            return None
        path = scope["path"]
        if any(path == known or (known.endswith("/") and known != "/" and path.startswith(known))
               for known in _OPEN):  # fmt: skip
            return None
        return 401, "no-access"


def _with_headers(send: Send, path: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            given = {name.lower() for name, _ in headers}
            added = dict(_HEADERS)
            # Pictures and numbers of patients stay out of every cache; the page may be asked for
            # again and answered with "not modified".
            added["cache-control"] = "no-cache" if path.startswith("/static/") else "no-store"
            for name, value in added.items():
                if name.encode() not in given:
                    headers.append((name.encode(), value.encode()))
            message = {**message, "headers": headers}
        await send(message)

    return sending
