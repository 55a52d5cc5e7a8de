"""Files of a run that are whole or absent, whatever stops the process or the machine."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final

from torchxrayvision.errors import OutputError, XRVError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["put_in_place", "writing"]

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn errors of the file system into one that says what is kept and how to go on.

    Args:
        place: What is written.

    Raises:
        OutputError: For any `OSError` inside that is not one of this package.
    """
    try:
        yield
    except XRVError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        what = "no space left" if error.errno in _NO_SPACE else "cannot be written"
        cure = "free some" if error.errno in _NO_SPACE else "mend that"
        msg = (
            f"{place}: {what} ({reason}); {cure} and run the same command again, which goes on "
            "after the last finished batch"
        )
        raise OutputError(msg) from error


def put_in_place(source: Path, target: Path) -> None:
    """Give a finished file its name; a power cut leaves the old file or the new one.

    Args:
        source: The file, on the same file system.
        target: Its name; replaced if it exists.
    """
    with source.open("rb+") as file:
        os.fsync(file.fileno())
    source.replace(target)
    # The name is durable only once its folder is; Windows and some network file systems refuse.
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
