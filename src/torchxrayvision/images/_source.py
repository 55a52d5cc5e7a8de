"""The bytes of a file, whatever the caller gave, within the limits."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from torchxrayvision.errors import ImageNotFoundError, ImageReadError

if TYPE_CHECKING:
    from torchxrayvision.images._limits import Limits

__all__ = ["ImageSource", "load"]

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def load(source: ImageSource, limits: Limits) -> tuple[bytes, str]:
    """All bytes of `source` and the name to give it in errors.

    Raises:
        ImageNotFoundError: If the path does not exist.
        ImageReadError: If it is not a regular file, empty, too large or unreadable.
        TypeError: If `source` is neither a path, bytes nor a binary file.
    """
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        data = _from_path(name, limits)
    elif isinstance(source, bytes | bytearray | memoryview):
        name, data = "<bytes>", bytes(source)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "<stream>"))
        data = _from_stream(source, name, limits)
    else:
        msg = f"source must be a path, bytes or a binary file, got {type(source).__name__}"
        raise TypeError(msg)
    limits.check_bytes(name, len(data))
    return data, name


def _from_path(name: str, limits: Limits) -> bytes:
    try:
        status = Path(name).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would block or never end
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageReadError(name, kind)
        limits.check_bytes(name, status.st_size)
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise ImageNotFoundError(name, "no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, ImageReadError):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageReadError(name, f"cannot be opened ({reason})") from error


def _from_stream(stream: BinaryIO, name: str, limits: Limits) -> bytes:
    pieces, wanted = [], limits.file_bytes + 1
    while wanted > 0:  # a stream without a buffer gives what it has at the moment
        try:
            data = stream.read(wanted)
        except (OSError, ValueError) as error:
            raise ImageReadError(name, f"cannot be read ({error})") from error
        if not isinstance(data, bytes | bytearray):
            given = type(data).__name__
            msg = f"source must be a file opened in binary mode, its read() gave {given}"
            raise TypeError(msg)
        if not data:
            break
        pieces.append(data)
        wanted -= len(data)
    return b"".join(pieces)
