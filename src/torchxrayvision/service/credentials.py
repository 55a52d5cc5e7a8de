"""Certificates and secrets of both sides: the listeners, and the archives that get results."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from torchxrayvision.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from torchxrayvision.service.config import Tls


def tls_context(tls: Tls, *, server: bool) -> ssl.SSLContext:
    """A TLS 1.2 or newer context.

    Args:
        tls: Certificates.
        server: Of the side that listens; else the one that connects.

    Returns:
        The context. A listener with `ca` demands certificates of its peers.

    Raises:
        ConfigError: If a file holds no certificate or key.
    """
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    try:
        context = ssl.create_default_context(purpose, cafile=tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (ssl.SSLError, OSError) as error:
        reason = f"cannot be used: {getattr(error, 'reason', None) or error.strerror}"
        raise ConfigError("tls", reason) from None
    if server and tls.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def secret_of(file: Path, key: str) -> str:
    """The text of a file that holds a secret.

    Args:
        file: One line.
        key: The setting that names it, for the error.

    Returns:
        The line.

    Raises:
        ConfigError: If it cannot be read, is empty, or may be read by everybody.
    """
    try:
        # Windows has lists of rights in place of these bits, and reports them as set.
        if os.name != "nt" and file.stat().st_mode & 0o007:
            raise ConfigError(key, f"{file} may be read by everybody; chmod 600 it")
        text = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(key, f"{file} cannot be read: {type(error).__name__}") from None
    if not text or "\n" in text:
        raise ConfigError(key, f"{file} must hold one line")
    return text
