"""What each file of a dataset held when it was read last, so that most need not be read again."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np

from torchxrayvision.training._sources import STAMP

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from torchxrayvision.training._sources import Sources

__all__ = ["Known"]

logger = logging.getLogger(__name__)
_FOLDER: Final = "known"


class Known:
    """The content of every row, as far as the states of its files vouch for it.

    Args:
        root: Folder of the cache.
        sources: Where the images come from.

    Attributes:
        key: Names the files and their order; not what is in them.
        digests: Content of each row; empty where it must be read.
        fresh: Whether nobody has read these files before.

    Raises:
        DatasetNotFoundError: If an image is missing.
    """

    def __init__(self, root: Path, sources: Sources) -> None:
        self._sources = sources
        names, self._states = sources.states()
        digest = hashlib.sha256()
        for name in names:
            digest.update(json.dumps(name).encode())
        self.key = digest.hexdigest()[:40]
        self._path = root / _FOLDER / f"{self.key}.npz"
        self._computed = sources.computed()
        self.digests = self._computed.copy()
        self._stamps = np.zeros_like(self._states)
        self.fresh = not self._load()

    def _load(self) -> bool:
        try:
            with np.load(io.BytesIO(self._path.read_bytes()), allow_pickle=False) as file:
                stamps, digests = file["stamps"], file["digests"]
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s cannot be read, all files are read again: %s", self._path, error)
            return False
        if stamps.shape != self._states.shape or digests.shape != self.digests.shape:
            return False
        self.vouch(stamps, digests)
        return True

    def vouch(self, stamps: NDArray[np.int64], digests: NDArray[np.bytes_]) -> None:
        """Take over the contents of files that are still in the state in which they were read."""
        same = (self._states == stamps).all(axis=1) & (stamps != 0).any(axis=1)
        same &= self._computed == b""
        self.digests[same], self._stamps[same] = digests[same], stamps[same]

    def doubt(self) -> None:
        """Rely on no state: every file is to be read again."""
        self.digests = self._computed.copy()

    def read(self, workers: int) -> bool:
        """Read the files whose content is not known, without decoding them.

        Args:
            workers: Threads that read.

        Returns:
            Whether there were any.
        """
        rows = np.flatnonzero(self.digests == b"").tolist()
        if not rows:
            return False
        logger.info("%d of %d files changed or were touched; reading them", len(rows), len(self))
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for row, (digest, stamp) in zip(
                rows, pool.map(self._sources.content, rows), strict=True
            ):
                self.digests[row], self._stamps[row] = digest, stamp
        self.save(self._stamps, self.digests)
        return True

    def __len__(self) -> int:
        return len(self.digests)

    def digest(self, row: int) -> bytes:
        """Content of a row; empty where it must be read."""
        return bytes(self.digests[row])

    def stamp(self, row: int) -> tuple[int, ...]:
        """State in which the file of a row was read; zeros if it cannot be relied on."""
        return tuple(self._stamps[row].tolist())

    def save(self, stamps: NDArray[np.int64], digests: NDArray[np.bytes_]) -> None:
        """Remember contents and the states in which they were read.

        Args:
            stamps: int64 (N, 4); zeros where a state is not to be relied on.
            digests: Content of each row.
        """
        data = io.BytesIO()
        np.savez(
            data, stamps=np.asarray(stamps, np.int64).reshape(-1, STAMP), digests=np.array(digests)
        )
        part = self._path.with_suffix(f".{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data.getvalue())
            part.replace(self._path)
        except OSError as error:  # a cache that others fill may be read-only
            logger.info("%s is not written, files are read again next time: %s", self._path, error)
