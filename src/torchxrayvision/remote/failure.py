"""Why one source did not give a file, and what the errors and answers of HTTP mean."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from torchxrayvision.errors import DownloadError, OfflineError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SourceFailure", "failure_of_error", "failure_of_status", "short"]

_ADVICE = {
    HTTPStatus.UNAUTHORIZED: "the server wants credentials; requests reads them from ~/.netrc",
    HTTPStatus.FORBIDDEN: "access is refused; a proxy or firewall may stand between",
    HTTPStatus.NOT_FOUND: "it has moved or was never there; name a mirror in XRV_MIRROR, "
    "or look for a newer release of this package",
    HTTPStatus.GONE: "it was withdrawn; name a mirror in XRV_MIRROR",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "the proxy wants credentials; see HTTPS_PROXY",
}
_PASSING = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)


class SourceFailure(Exception):  # noqa: N818 - never leaves this package; callers see RemoteError
    """One source did not give the file.

    Args:
        reason: One clause.
        kind: The error that the caller sees if no other source helps.
        retry: Whether the same request may succeed later.
        pause: Seconds that the server asks to wait, or None.
    """

    def __init__(
        self,
        reason: str,
        *,
        kind: type[RemoteError] = DownloadError,
        retry: bool = False,
        pause: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.retry = retry
        self.pause = pause


def failure_of_status(status: int, headers: Mapping[str, str]) -> SourceFailure:
    """What an answer without the file means.

    Args:
        status: The HTTP status.
        headers: The headers of the answer.

    Returns:
        The failure: final for client errors, to be tried again for server errors.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    passing = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    advice = next((text for code, text in _ADVICE.items() if code == status), "")
    reason = f"the server answered {status} {phrase}" + (f": {advice}" if advice else "")
    return SourceFailure(reason, retry=passing, pause=_pause(headers.get("Retry-After")))


def _pause(value: str | None) -> float | None:
    # The other form of Retry-After, a date, asks for more patience than a user has.
    return float(value) if value and value.isascii() and value.isdigit() else None


def failure_of_error(error: Exception) -> SourceFailure:
    """What an exception of the HTTP client means.

    Args:
        error: As requests or urllib3 raised it.

    Returns:
        The failure. A host that does not resolve or refuses the connection is not tried again:
        a user without network should read so at once.
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
