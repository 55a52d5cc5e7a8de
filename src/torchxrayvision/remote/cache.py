"""The cache folder: where it is, what its files are, and what they were when first trusted."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import re
import stat
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from torchxrayvision.errors import ChecksumError
from torchxrayvision.files import FileState, sha256_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader, BufferedWriter

    from torchxrayvision.facts import OwnFile, PackagedFile, RemoteFile

_log = logging.getLogger(__name__)

Status = Literal[
    "published",
    "reported",
    "pinned",
    "unknown",
    "contradicted",
    "different",
    "changed",
    "page",
    "missing",
]

_REJECTED: Final = frozenset({"different", "changed", "page", "missing"})
_YES: Final = frozenset({"1", "true", "yes", "on"})
_LOCK_SECONDS: Final = 30.0
_LARGEST_RECORD: Final = 16 << 20  # bytes of pins.json
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# What servers, proxies and version control put in the place of a file. No checkpoint starts so.
_PAGES: Final = {
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML answer",
    b"version https://git-lfs": "a Git LFS pointer",
}
_TEXT_SUFFIXES: Final = (".html", ".htm", ".xml", ".svg")


# Where the folder is, and how its files are opened.


get_cache_dir: Callable[[], str | os.PathLike[str]] | None = None
"""What a client has put in place of `utils.get_cache_dir`."""


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
    return default_cache_dir() if get_cache_dir is None else Path(get_cache_dir())


def default_cache_dir() -> Path:
    """As `cache_dir`, whatever a client has put in place of `utils.get_cache_dir`.

    Returns:
        Path of the folder, which need not exist.
    """
    folder = os.environ.get("XRV_CACHE_DIR")
    if folder:
        return Path(folder).expanduser()
    return Path.home() / ".torchxrayvision" / "models_data"


def folder_of(cache: str | os.PathLike[str] | None) -> Path:
    """The cache folder that an argument means; None is `cache_dir`."""
    return cache_dir() if cache is None else Path(cache).expanduser()


def is_offline() -> bool:
    """Whether ``XRV_OFFLINE`` forbids the network (1, true, yes or on).

    Returns:
        True if it does.

    Example:
        >>> import os, unittest.mock
        >>> with unittest.mock.patch.dict(os.environ, XRV_OFFLINE="1"):
        ...     is_offline()
        True
    """
    return is_yes(os.environ.get("XRV_OFFLINE"))


def is_yes(value: str | None) -> bool:
    """Whether the value of an environment variable means yes: 1, true, yes or on."""
    return (value or "").strip().lower() in _YES


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it that are missing, for their owner alone.

    Whoever can write in the cache chooses the weights. A folder that exists keeps its mode, as one
    that is shared on purpose.

    Args:
        folder: The folder.

    Raises:
        OSError: If it cannot be created.
    """
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(exist_ok=True)  # an error where something else bears the name


def open_regular(path: Path, *, links: bool = True) -> BufferedReader:
    """Open a file for reading, and nothing that only looks like one: a pipe never ends.

    Raises:
        OSError: If it is no regular file, a link where none may be, or cannot be opened.
    """
    found: BufferedReader = _open(path, os.O_RDONLY, "rb", links=links)
    return found


def open_to_write(path: Path, *, append: bool) -> BufferedWriter:
    """Open a file of the cache for writing; what a planted link points at is left alone.

    Raises:
        OSError: If it is a link or no regular file, or cannot be opened.
    """
    if not append:
        path.unlink(missing_ok=True)
        flags, mode = os.O_EXCL, "wb"
    else:
        flags, mode = os.O_APPEND, "ab"
    found: BufferedWriter = _open(path, os.O_WRONLY | os.O_CREAT | flags, mode, links=False)
    return found


def _open(path: Path, flags: int, mode: str, *, links: bool) -> Any:
    for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY", *(() if links else ("O_NOFOLLOW",))):
        flags |= getattr(os, name, 0)  # Windows lacks some
    descriptor = os.open(path, flags, 0o666)
    found = os.fstat(descriptor)
    # A second name of the file may be anybody's, so that only reading through it is harmless.
    if not stat.S_ISREG(found.st_mode) or (flags & os.O_WRONLY and found.st_nlink > 1):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file of its own", str(path))
    return os.fdopen(descriptor, mode)


# Whether the bytes of a file are the right ones.


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What is known about the bytes of a file.

    Args:
        path: The file.
        status: One of

            - ``"published"``: the checksum that independent sources agree on;
            - ``"reported"``: the checksum that one source reports;
            - ``"pinned"``: unchanged since it was first trusted;
            - ``"unknown"``: nothing to compare with;
            - ``"contradicted"``: not what one source reports, and not pinned;
            - ``"different"``: not what is published;
            - ``"changed"``: not what was first trusted;
            - ``"page"``: a web page, a pointer or nothing in the place of the file;
            - ``"missing"``: no such file.
        reason: One clause for a reader.
        size: Bytes, or None if missing.
        sha256: Hash of the bytes, or None if missing.
        expected: Hash that was expected, or None where none is known.
    """

    path: Path
    status: Status
    reason: str
    size: int | None = None
    sha256: str | None = None
    expected: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the file may be used."""
        return self.status not in _REJECTED

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


@functools.lru_cache(maxsize=256)
def _hash_once(path: Path, _state: FileState) -> tuple[str, bytes]:
    """SHA-256 and first bytes of a file, computed once per process while its state is the same."""
    with open_regular(path) as handle:
        head = handle.read(256)
        handle.seek(0)
        digest = sha256_of(handle)
        if _state != FileState.of(handle.fileno()):
            raise OSError(errno.EAGAIN, "it changed while it was read", str(path))
    return digest, head


def sha256_once(path: Path) -> str:
    """SHA-256 of a file, computed once per process while its size, times and inode are the same.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: If it is no regular file or cannot be read.
    """
    return _hash_once(path, FileState.of(path))[0]


def examine(path: Path, file: RemoteFile | PackagedFile | OwnFile, pin: Pin | None) -> Verification:
    """Hash a file and compare it with what is published and with what was pinned.

    Raises:
        OSError: If the file exists and cannot be read.
    """
    try:
        found = path.stat()
        digest, head = _hash_once(path, FileState.of(path))
    except (FileNotFoundError, NotADirectoryError):
        return Verification(path=path, status="missing", reason="there is no such file")
    size = found.st_size
    page = _page(head, file.filename)
    # A published checksum is right whatever the file looks like.
    if page and digest != file.sha256:
        status: Status = "page"
        reason = f"it is {page}, not the file"
    else:
        status, reason = _compare(file, size, digest, pin)
    expected = file.sha256 or (pin.sha256 if pin else None)
    return Verification(
        path=path, status=status, reason=reason, size=size, sha256=digest, expected=expected
    )


def _compare(
    file: RemoteFile | PackagedFile | OwnFile, size: int, digest: str, pin: Pin | None
) -> tuple[Status, str]:
    difference = _difference(file, size, digest)
    if file.certainty == "certain":
        if difference:
            return "different", difference
        if file.sha256:
            return "published", "its checksum is the published one"
    if not difference and file.sha256:
        return "reported", "its checksum is the one that a single source reports"
    if pin:
        if pin.sha256 == digest:
            return "pinned", f"it is unchanged since {pin.date}"
        return "changed", f"sha256 {digest} is not {pin.sha256}, which was trusted on {pin.date}"
    if difference:
        return "contradicted", difference
    return "unknown", "nobody has published its checksum"


def _difference(file: RemoteFile | PackagedFile | OwnFile, size: int, digest: str) -> str:
    if file.size is not None and size != file.size:
        return f"it has {size:,} bytes instead of {file.size:,}"
    if file.sha256 is not None and digest != file.sha256:
        return f"its sha256 is {digest} instead of {file.sha256}"
    return ""


def _page(head: bytes, filename: str) -> str:
    if not head:
        return "empty"
    if filename.lower().endswith(_TEXT_SUFFIXES):
        return ""
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((what for start, what in _PAGES.items() if head.startswith(start)), "")


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
    path = folder_of(cache) / file.filename
    return path if path.is_file() else None


def verify(path: str | os.PathLike[str], file: RemoteFile | PackagedFile | OwnFile) -> Verification:
    """Hash a file and compare it with what is known; nothing is changed or raised for a mismatch.

    A file is hashed once per process, and again when its size, times or inode change.

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
    path = Path(path)
    return examine(path, file, read_pin(path.parent, file))


# What the files were when they were first trusted.


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """What a file was when it was first trusted.

    Args:
        url: Where it is published.
        sha256: Its hash, 64 hexadecimal digits.
        size: Bytes.
        status: How far it was to be trusted, a `Verification.status`.
        date: When, UTC, ISO 8601.
    """

    url: str
    sha256: str
    size: int
    status: str
    date: str

    @staticmethod
    def now(url: str, found: Verification) -> Pin:
        """The pin of a file that was examined just now."""
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Pin(
            url=url,
            sha256=found.sha256 or "",
            size=found.size or 0,
            status=found.status,
            date=date,
        )


class Pins:
    """The file ``pins.json`` of a cache folder: one `Pin` for each file name."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "pins.json"

    def get(self, filename: str) -> Pin | None:
        """The pin of a file, or None.

        Raises:
            ChecksumError: If the record exists and cannot be read.
        """
        entry = self._read().get(filename)
        if entry is None:
            return None
        try:  # earlier versions recorded more
            pin = Pin(**{field.name: entry[field.name] for field in fields(Pin)})
        except KeyError as error:
            raise self._damaged(f"entry {filename!r} lacks {error}") from error
        texts = (pin.url, pin.sha256, pin.status, pin.date)
        if not all(isinstance(value, str) for value in texts) or type(pin.size) is not int:
            raise self._damaged(f"entry {filename!r} holds a value of the wrong type")
        if not _SHA256.fullmatch(pin.sha256):
            raise self._damaged(f"entry {filename!r} holds no SHA-256")
        return pin

    def set(self, filename: str, pin: Pin | None) -> None:
        """Record a pin, or remove it with None.

        Raises:
            ChecksumError: If the record exists and cannot be read.
            OSError: If the folder cannot be written to.
        """
        import filelock

        lock = filelock.FileLock(f"{self.path}.lock", timeout=_LOCK_SECONDS)
        try:
            with lock:
                files = self._read()
                files.pop(filename, None)
                if pin is not None:
                    files[filename] = asdict(pin)
                text = json.dumps({"version": 2, "files": files}, indent=1, sort_keys=True)
                with write_atomically(self.path) as part:
                    part.write_text(text + "\n", "utf-8")
        except NotImplementedError as error:  # a file system without locks
            raise OSError(str(error)) from error

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            with open_regular(self.path, links=False) as handle:
                content = json.loads(handle.read(_LARGEST_RECORD))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(str(error)) from error
        files = content.get("files") if isinstance(content, dict) else None
        if not isinstance(files, dict) or not all(isinstance(v, dict) for v in files.values()):
            raise self._damaged("it is not a table of files")
        return files

    def _damaged(self, reason: str) -> ChecksumError:
        return ChecksumError(
            f"{self.path} cannot be read ({reason}), so it is unknown which downloads were trusted "
            "before; restore it, or delete it to trust the files in that folder anew"
        )


def remember_made(path: Path) -> None:
    """Record the SHA-256 of a file that was made here and lies in a cache folder.

    Args:
        path: The file; the record is ``pins.json`` beside it.

    Raises:
        OSError: If it cannot be read, or the record cannot be written.
    """
    size, digest = path.stat().st_size, sha256_once(path)
    found = Verification(path=path, status="pinned", reason="", size=size, sha256=digest)
    pins = Pins(path.parent)
    try:
        pins.set(path.name, Pin.now("", found))
    except ChecksumError as error:  # what was made can be made again, so the record can go
        _log.warning("%s; it is begun anew", error)
        pins.path.unlink()
        pins.set(path.name, Pin.now("", found))


def is_as_made(path: Path) -> bool:
    """Whether a file of a cache folder is what `remember_made` recorded; it is hashed to know.

    Args:
        path: The file, which may be missing.

    Returns:
        False also where the file is a link or the record cannot be read.
    """
    try:
        pin = Pins(path.parent).get(path.name)
        return pin is not None and not path.is_symlink() and sha256_once(path) == pin.sha256
    except (OSError, ChecksumError) as error:
        if not isinstance(error, FileNotFoundError):
            _log.warning("%s is not used: %s", path, error)
        return False


def read_pin(folder: Path, file: RemoteFile | PackagedFile | OwnFile) -> Pin | None:
    """The pin of a file, or None.

    A damaged record matters only where it is all there is to compare with.

    Raises:
        ChecksumError: If the record cannot be read and the checksum is not certain.
    """
    try:
        return Pins(folder).get(file.filename)
    except ChecksumError as error:
        if file.sha256 is None or file.certainty != "certain":
            raise
        _log.warning("%s", error)
        return None


def forget(file: RemoteFile | str, cache: str | os.PathLike[str] | None = None) -> None:
    """Forget what a file was when it was first trusted, so that its next content is accepted.

    Args:
        file: The file, or its name in the cache.
        cache: Cache folder; `cache_dir` by default.

    Raises:
        ChecksumError: If the record cannot be read.
        OSError: If it cannot be written.
    """
    pins = Pins(folder_of(cache))
    if pins.path.exists():
        pins.set(file if isinstance(file, str) else file.filename, None)
