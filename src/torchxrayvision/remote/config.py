"""What the environment and the defaults say: cache folder, mirrors, offline switch, time limits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings", "Source", "cache_dir", "is_offline", "mirrors"]

_YES = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Limits of one fetch, in seconds and bytes.

    Args:
        resolve: Longest wait for the name server. A machine without network often has a name
            server that never answers, and the system's own wait is tens of seconds.
        connect: Longest wait for a connection.
        read: Longest silence during a transfer.
        attempts: Attempts in a row that may gain nothing before the source is given up.
        backoff: Pause before the second attempt; doubled for each further one.
        longest_pause: Cap of that pause, and of a pause that the server asks for.
        deadline: Total time for one source, after which the partial file is kept for next time.
        slowest: Bytes per second below which a transfer counts as stalled.
        window: Time over which that speed is measured.
        redirects: Longest chain of redirects.
        lock: Longest wait for another process that fetches the same file.
        largest: Most bytes accepted from a server that does not declare a length.
    """

    resolve: float = 4.0
    connect: float = 6.0
    read: float = 30.0
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
class Source:
    """One place that may hold a file.

    Args:
        location: A URL, or the path of a file on this machine.
        local: Whether it is a path.
    """

    location: str
    local: bool


def cache_dir() -> Path:
    """Folder where downloaded files are kept.

    Read from the environment at each call: ``XRV_CACHE_DIR``, else the folder that
    TorchXRayVision 1.5.7 used, so that nobody downloads twice. It need not exist yet.

    Returns:
        The folder.

    Example:
        >>> import os, unittest.mock
        >>> with unittest.mock.patch.dict(os.environ, XRV_CACHE_DIR="/data/weights"):
        ...     cache_dir().as_posix()
        '/data/weights'
    """
    folder = os.environ.get("XRV_CACHE_DIR")
    if folder:
        return Path(folder).expanduser()
    return Path.home() / ".torchxrayvision" / "models_data"


def is_offline() -> bool:
    """Whether ``XRV_OFFLINE`` forbids the network (1, true, yes or on).

    Example:
        >>> import os, unittest.mock
        >>> with unittest.mock.patch.dict(os.environ, XRV_OFFLINE="1"):
        ...     is_offline()
        True
    """
    return os.environ.get("XRV_OFFLINE", "").strip().lower() in _YES


def mirrors(filename: str) -> list[Source]:
    """Places that ``XRV_MIRROR`` names for a file, in its order.

    Args:
        filename: Bare name of the file; a mirror holds its files by name.

    Returns:
        One source for each entry. Entries are separated by semicolons (URLs contain colons and
        paths contain spaces); an entry is a folder, or a URL prefix (http, https or file).

    Example:
        >>> import os, unittest.mock
        >>> places = "/mnt/weights; http://mirror.example/xrv/"
        >>> with unittest.mock.patch.dict(os.environ, XRV_MIRROR=places):
        ...     [source.location for source in mirrors("a.pt")]
        ['/mnt/weights/a.pt', 'http://mirror.example/xrv/a.pt']
    """
    entries = (entry.strip() for entry in os.environ.get("XRV_MIRROR", "").split(";"))
    return [_mirror(entry, filename) for entry in entries if entry]


def _mirror(entry: str, filename: str) -> Source:
    from urllib.parse import quote, unquote, urlsplit

    if entry.lower().startswith(("http://", "https://")):
        return Source(f"{entry.rstrip('/')}/{quote(filename)}", local=False)
    if entry.lower().startswith("file://"):
        entry = unquote(urlsplit(entry).path)
    return Source(str(Path(entry).expanduser() / filename), local=True)
