"""The file of each record: in the cache, or installed with the package."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchxrayvision.errors import ChecksumError
from torchxrayvision.facts import PackagedFile
from torchxrayvision.weights._registry import get_weights_entry

if TYPE_CHECKING:
    import os

    from torchxrayvision.remote import Verification
    from torchxrayvision.weights._types import Weights, WeightsEnum

__all__ = ["card_of", "fetch_weights", "locate_weights", "read_card", "verify_weights"]


def packaged_path(folder: str, filename: str) -> Path:
    """Where a file of the package is installed.

    Args:
        folder: Folder below that of `torchxrayvision`.
        filename: Name in that folder.

    Returns:
        Its path, whether or not it is there.
    """
    # torch is never run from an archive, so that the package beside it lies in a folder.
    return Path(str(importlib.resources.files("torchxrayvision"))) / folder / filename


def fetch_weights(
    weights: str | Weights | WeightsEnum,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Return the verified local checkpoint, downloading it if there is none.

    Args:
        weights: Name, alias, record or enum member.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.
        progress: Draw a progress bar, if standard error is a terminal.

    Returns:
        Path of the file; for one that is installed with the package, its path there.

    Raises:
        UnknownNameError: If nothing has that name.
        RemoteError: If the file cannot be fetched, see `torchxrayvision.remote.fetch`, or the
            installed one is damaged.
    """
    from torchxrayvision.remote import fetch, verify

    file = get_weights_entry(weights).file
    if not isinstance(file, PackagedFile):
        return fetch(file, cache=cache, progress=progress)
    path = packaged_path(file.folder, file.filename)
    found = verify(path, file)
    if not found.ok:
        msg = f"{path}: {found.reason}; install torchxrayvision again"
        raise ChecksumError(msg)
    return path


def locate_weights(
    weights: str | Weights | WeightsEnum, cache: str | os.PathLike[str] | None = None
) -> Path | None:
    """Where the local checkpoint lies, without checking it and without the network.

    Args:
        weights: Name, alias, record or enum member.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.

    Returns:
        Its path, or None.

    Raises:
        UnknownNameError: If nothing has that name.
    """
    from torchxrayvision.remote import locate

    file = get_weights_entry(weights).file
    if not isinstance(file, PackagedFile):
        return locate(file, cache)
    path = packaged_path(file.folder, file.filename)
    return path if path.is_file() else None


def verify_weights(
    weights: str | Weights | WeightsEnum, cache: str | os.PathLike[str] | None = None
) -> Verification | None:
    """Compare the local checkpoint with what is known about its bytes.

    Args:
        weights: Name, alias, record or enum member.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.

    Returns:
        What was found, or None where there is no local checkpoint.

    Raises:
        UnknownNameError: If nothing has that name.
        OSError: If the file exists and cannot be read.
    """
    from torchxrayvision.remote import verify

    path = locate_weights(weights, cache)
    return None if path is None else verify(path, get_weights_entry(weights).file)


def card_of(weights: str | Weights | WeightsEnum) -> dict[str, Any]:
    """The model card that lies beside weights of the package: data, recipe, metrics, limits.

    Args:
        weights: Name, alias, record or enum member.

    Returns:
        The card as plain data; empty for weights of others, whose facts are all in the record.

    Raises:
        UnknownNameError: If nothing has that name.

    Example:
        >>> card_of("all")
        {}
    """
    file = get_weights_entry(weights).file
    if not isinstance(file, PackagedFile):
        return {}
    return read_card(file.folder, file.filename)


def read_card(folder: str, filename: str) -> dict[str, Any]:
    """The card beside a file of tensors.

    Args:
        folder: Folder below that of `torchxrayvision`.
        filename: Name of the tensors' file.

    Returns:
        Its content.
    """
    path = packaged_path(folder, filename).with_suffix(".json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
