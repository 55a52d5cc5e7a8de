"""A safetensors copy of each checkpoint, so that it is parsed once.

The copy lies in ``<cache>/tensors/`` under the SHA-256 of its source, next to a seal that
records its own SHA-256. Source and copy are hashed at their first use in a process; a copy that is
not what was sealed is rebuilt. In a folder that others own or may write to, none is kept or used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.checkpoints.read import (
    Checkpoint,
    read_safetensors,
    read_tensors,
    save_safetensors,
)
from torchxrayvision.checkpoints.values import DEFAULT, Limits, Unreadable
from torchxrayvision.errors import CheckpointError
from torchxrayvision.files import FileState, write_atomically
from torchxrayvision.remote import cache_dir, make_folder, sha256_once

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_VERSION = 2  # of what is kept; another version is rebuilt
_FOLDER = "tensors"
_ABANDONED = 24 * 3600.0  # seconds after which an unfinished copy is somebody's crash


def load_tensors(
    path: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT,
) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint, from its safetensors copy where there is one.

    Args:
        path: A file that :func:`~torchxrayvision.checkpoints.read.read_tensors` reads.
        cache: The cache folder; by default the package's own. One that cannot be written only
            means that no copy is kept.
        limits: Bounds on what the file may declare.

    Returns:
        Tensors by dotted name, on the CPU. Those of a copy are mapped from disk when first used;
        changing one changes no file.

    Raises:
        CheckpointError: If the file holds no readable tensors.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> torch.save({"weight": torch.ones(2)}, folder / "net.pt")
        >>> load_tensors(folder / "net.pt", cache=folder)
        {'weight': tensor([1., 1.])}
        >>> len(list((folder / "tensors").glob("*.safetensors")))
        1
    """
    return load_checkpoint(path, cache=cache, limits=limits).tensors


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT,
) -> Checkpoint:
    """Like :func:`load_tensors`, with what else the file says as plain data.

    Args:
        path: The checkpoint.
        cache: The cache folder; by default the package's own.
        limits: Bounds on what the file may declare.

    Returns:
        Tensors on the CPU, and the plain values beside them.

    Raises:
        CheckpointError: If the file holds no readable tensors.
    """
    path = Path(path)
    folder = _folder(cache)
    if folder is None or not _worth_a_copy(path):
        return read_tensors(path, limits=limits)
    try:
        before, digest = FileState.of(path), sha256_once(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    kept = _Copy(folder, digest)
    found = kept.load(path, limits)
    if found is not None:
        return found
    checkpoint = read_tensors(path, limits=limits)
    with contextlib.suppress(OSError):  # a file that is gone meanwhile gets no copy
        changed = FileState.of(path) != before
        if checkpoint.container != "safetensors" and not changed and kept.save(checkpoint):
            # Mapped like those of every later use, so that the memory of the others is free.
            return kept.load(path, limits) or checkpoint
    return checkpoint


def _folder(cache: str | os.PathLike[str] | None) -> Path | None:
    """The folder of the copies, if nobody else can put any there."""
    folder = (cache_dir() if cache is None else Path(cache)) / _FOLDER
    try:
        found = folder.stat()
    except OSError:
        return folder  # to be made
    if os.name != "nt" and (found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o002):
        logger.warning("%s belongs to others, so that no copy of the tensors is used", folder)
        return None
    return folder


def _worth_a_copy(path: Path) -> bool:
    """False for what reads as fast without one, and for what only the reader should refuse."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(9)[8:] != b"{"
    except OSError:
        return False


class _Copy:
    """The safetensors copy of one source, and its seal."""

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder = folder
        self._digest = digest
        self._file = folder / f"{digest}.safetensors"
        self._seal = folder / f"{digest}.json"

    def load(self, source: Path, limits: Limits) -> Checkpoint | None:
        """The checkpoint, or nothing where there is no copy that is what was written."""
        try:
            if not self._intact():
                return None
            tensors, metadata = read_safetensors(self._file, limits)
            return _unpacked(str(source), self._digest, tensors, metadata)
        except FileNotFoundError:
            return None
        except (Unreadable, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
            logger.warning("%s is rebuilt: %s", self._file, error)
            return None

    def _intact(self) -> bool:
        seal = _read_json(self._seal)
        # In this order, so that a copy that is gone is no damaged one.
        wrong = sha256_once(self._file) != seal.get("sha256")
        if wrong:
            logger.warning("%s is rebuilt: its bytes are not those sealed", self._file)
        return not wrong

    def save(self, checkpoint: Checkpoint) -> bool:
        """Write the copy, then its seal, each under its final name only when whole.

        Returns:
            Whether the copy is there.
        """
        tensors, metadata = _packed(checkpoint, self._digest)
        try:
            make_folder(self._folder)
            self._sweep()
            save_safetensors(self._file, tensors, metadata)
            _write_json(self._seal, {"sha256": sha256_once(self._file)})
            return True
        except Unreadable as error:
            logger.info("no copy of %s: %s", checkpoint.path, error)
        except OSError as error:
            logger.warning("no copy of %s is kept in %s: %s", checkpoint.path, self._folder, error)
        return False

    def _sweep(self) -> None:
        for part in self._folder.glob(".*.part*"):
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink(missing_ok=True)


def _packed(checkpoint: Checkpoint, digest: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Each tensor once, and all else of a checkpoint as JSON for the header."""
    first: dict[int, str] = {}
    tied = {}
    for name, tensor in checkpoint.tensors.items():
        if (original := first.setdefault(id(tensor), name)) != name:
            tied[name] = original
    facts = {
        "version": _VERSION,
        "source_sha256": digest,
        "container": checkpoint.container,
        "globals": dict(checkpoint.globals),
        "values": checkpoint.values,
        "skipped": dict(checkpoint.skipped),
        "groups": checkpoint.groups,
        "tied": tied,
        "order": list(checkpoint.tensors),
    }
    tensors = {n: t for n, t in checkpoint.tensors.items() if n not in tied}
    return tensors, {"format": "pt", "torchxrayvision": json.dumps(facts)}


def _unpacked(
    source: str, digest: str, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> Checkpoint:
    facts = json.loads(metadata["torchxrayvision"])
    if (facts["version"], facts["source_sha256"]) != (_VERSION, digest):
        raise Unreadable("it is of another version or another file")
    tied = facts["tied"]
    tensors = {name: tensors[tied.get(name, name)] for name in facts["order"]}
    return Checkpoint(
        path=source,
        tensors=tensors,
        container=facts["container"],
        globals=facts["globals"],
        values=facts["values"],
        skipped=facts["skipped"],
        groups=tuple(facts["groups"]),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()[: 1 << 16])
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a small record, or do without it."""
    try:
        make_folder(path.parent)
        with write_atomically(path, durable=False) as part:
            part.write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        logger.debug("%s was not written: %s", path, error)
