"""Files from the network: one verified copy in the cache, or a typed error.

A file gets its final name only after its size and SHA-256 were checked. What is known about
its bytes decides: a checksum that independent sources agree on must match; one that a single source
reports should (a difference is a `ChecksumWarning`); where nobody has published one, the first copy
is trusted, recorded in ``pins.json`` of the cache, and said (`UnpinnedDownloadWarning`). A later
change of a trusted file is refused until `forget` accepts it.

Three environment variables, read at each call:

- ``XRV_CACHE_DIR``: the cache folder; by default the one of TorchXRayVision 1.5.7.
- ``XRV_OFFLINE``: 1 forbids the network.
- ``XRV_MIRROR``: folders or URL prefixes, separated by semicolons, tried before the published
  address. A mirror holds files by name. What it gives is checked like any other copy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torchxrayvision.remote.checks import Verification, examine
from torchxrayvision.remote.config import Settings, cache_dir, is_offline

if TYPE_CHECKING:
    import os

    from torchxrayvision.facts import PackagedFile, RemoteFile

__all__ = ["Verification", "cache_dir", "fetch", "forget", "is_offline", "locate", "verify"]


def fetch(
    file: RemoteFile, *, cache: str | os.PathLike[str] | None = None, progress: bool = True
) -> Path:
    """Return the verified local copy of a file, downloading it if there is none.

    A file that is already at its final name, from 1.5.7 or copied by hand, is hashed once and then
    recognised by size and time of change. A broken transfer goes on where it stopped, in this call
    or the next, as long as the server still has the same object. Several processes may ask at
    once; one fetches, the others wait.

    Args:
        file: What to fetch, and what is known about its bytes.
        cache: Cache folder; `cache_dir` by default.
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
    # Looking up a file that is there must not cost the import of an HTTP client.
    from torchxrayvision.remote.fetching import Fetch

    return Fetch(file, _folder(cache), Settings(), progress=progress).run()


def locate(file: RemoteFile, cache: str | os.PathLike[str] | None = None) -> Path | None:
    """Where the cache holds a file, without checking it and without the network.

    Args:
        file: What to look for.
        cache: Cache folder; `cache_dir` by default.

    Returns:
        Its path, or None.

    Example:
        >>> from torchxrayvision.facts import RemoteFile
        >>> file = RemoteFile(url="https://host.example/a.pt", filename="a.pt")
        >>> locate(file, cache="/nowhere") is None
        True
    """
    path = _folder(cache) / file.filename
    return path if path.is_file() else None


def verify(path: str | os.PathLike[str], file: RemoteFile | PackagedFile) -> Verification:
    """Hash a file and compare it with what is known; nothing is changed or raised for a mismatch.

    Args:
        path: The file; a ``pins.json`` in its folder is taken into account.
        file: What is known about its bytes.

    Returns:
        What was found; ``.ok`` says whether the file may be used.

    Raises:
        ChecksumError: If ``pins.json`` is needed and cannot be read.
        OSError: If the file exists and cannot be read.

    Example:
        >>> from torchxrayvision.facts import RemoteFile
        >>> file = RemoteFile(url="https://host.example/a.pt", filename="a.pt")
        >>> verify("/nowhere/a.pt", file).status
        'missing'
    """
    from torchxrayvision.remote.fetching import read_pin

    path = Path(path)
    return examine(path, file, read_pin(path.parent, file))


def forget(file: RemoteFile | str, cache: str | os.PathLike[str] | None = None) -> None:
    """Forget what a file was when it was first trusted, so that its next content is accepted.

    Args:
        file: The file, or its name in the cache.
        cache: Cache folder; `cache_dir` by default.

    Raises:
        ChecksumError: If the record cannot be read.
        OSError: If it cannot be written.
    """
    from torchxrayvision.remote.pins import Pins

    pins = Pins(_folder(cache))
    if pins.path.exists():
        pins.set(file if isinstance(file, str) else file.filename, None)


def _folder(cache: str | os.PathLike[str] | None) -> Path:
    return cache_dir() if cache is None else Path(cache).expanduser()
