"""The Hugging Face Hub as a server: where it is, whether it may be asked, and who gets the token.

Four variables of huggingface_hub are honoured, read at each call: ``HF_ENDPOINT`` (a mirror in its
place), ``HF_HUB_OFFLINE``, ``HF_TOKEN`` and ``HF_HOME`` with its file ``token``, which `hf auth
login` writes. The token is shown to the endpoint alone, only after it asked for one, and never over
an unencrypted connection to another machine.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from torchxrayvision.remote.cache import is_offline, is_yes

HUB: Final = "https://huggingface.co"
_LARGEST_TOKEN: Final = 4096


def endpoint() -> str:
    """The address of the Hub, or of the mirror that ``HF_ENDPOINT`` names, without a last slash."""
    named = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    return named if named.lower().startswith(("https://", "http://")) else HUB


def at_endpoint(url: str) -> str:
    """An address of the Hub as the endpoint has it; any other as it is."""
    return endpoint() + url.removeprefix(HUB) if url.startswith(f"{HUB}/") else url


def is_hub(url: str) -> bool:
    """Whether an address lies at the endpoint: scheme, host and port are the same."""
    return _origin(url) == _origin(endpoint())


def hub_is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` or ``XRV_OFFLINE`` forbids to ask the Hub."""
    return is_offline() or is_yes(os.environ.get("HF_HUB_OFFLINE"))


def token_for(url: str) -> str | None:
    """The token that may go to an address, if there is one and the address is the endpoint's.

    Args:
        url: Where a request goes. Redirects lead to other hosts; each step asks anew.

    Returns:
        The token, or None.
    """
    if not is_hub(url) or not _is_private(url):
        return None
    text = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or _kept()
    text = text.strip()
    # What is no word of a header would end it, or start another one.
    fit = text.isascii() and text.isprintable() and " " not in text
    return text if text and fit else None


def hub_token() -> str | None:
    """The token for the endpoint, if there is one."""
    return token_for(f"{endpoint()}/")


def _kept() -> str:
    if is_yes(os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        return ""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    path = Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token").expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LARGEST_TOKEN)
    except (OSError, ValueError):
        return ""


def is_loopback(host: str) -> bool:
    """Whether a name or address reaches this machine only from itself.

    Args:
        host: As a user types it.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("[::1]"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_private(url: str) -> bool:
    """Whether nobody between here and there can read what is sent."""
    parts = urlsplit(url)
    if parts.scheme.lower() == "https":
        return True
    return is_loopback(parts.hostname or "")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        usual = {"https": 443, "http": 80}.get(parts.scheme.lower())
        return parts.scheme.lower(), parts.hostname, parts.port or usual
    except ValueError:  # no address at all
        return "", None, None
