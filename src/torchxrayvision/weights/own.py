"""Weights that a user added: a folder of the cache for each name, found wherever a name is taken.

``<cache>/own/NAME`` holds ``model.safetensors`` and ``config.json``, as `models.save_pretrained`
writes them. Their SHA-256 is recorded when they are added, and a change is refused.
"""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from torchxrayvision.errors import CheckpointError, ChecksumError, UnknownNameError
from torchxrayvision.facts import LIBRARY, OwnFile
from torchxrayvision.weights.config import (
    CONFIG_NAME,
    NAMELESS,
    NOT_STATED,
    TENSORS_NAME,
    ModelConfig,
)
from torchxrayvision.weights.registry import Output, Preprocessing, Weights, find_elsewhere

if TYPE_CHECKING:
    import os

_FOLDER: Final = "own"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def own_folder(name: str, cache: str | os.PathLike[str] | None = None) -> Path:
    """Where the weights of a name that a user gave lie, whether or not they are there.

    Args:
        name: Letters, digits, dots, hyphens and underscores, 64 at most.
        cache: Cache folder; `torchxrayvision.remote.cache_dir` by default.

    Raises:
        UnknownNameError: If it is no such name.
    """
    from torchxrayvision.remote import cache_dir

    if not _NAME.fullmatch(name) or ".." in name:
        advice = "a name has letters, digits, dots, hyphens and underscores, 64 at most"
        raise UnknownNameError("name of weights", name, (), advice)
    return (cache_dir() if cache is None else Path(cache).expanduser()) / _FOLDER / name


def own_names() -> list[str]:
    """Names of the weights that the user added, sorted."""
    from torchxrayvision.remote import cache_dir

    found = (cache_dir() / _FOLDER).glob(f"*/{CONFIG_NAME}")
    return sorted(path.parent.name for path in found if _NAME.fullmatch(path.parent.name))


def own_weights() -> list[Weights]:
    """The records of what the user added, by name; those that cannot be read are left out.

    Returns:
        Records whose file is an `OwnFile`.

    Example:
        >>> import os, tempfile, unittest.mock
        >>> with unittest.mock.patch.dict(os.environ, XRV_CACHE_DIR=tempfile.mkdtemp()):
        ...     own_weights()
        []
    """
    found = []
    for name in own_names():
        try:
            found.append(_entry(name, own_folder(name)))
        except (CheckpointError, ChecksumError, ValueError):
            continue
    return found


def find_own(name: str) -> Weights | None:
    """The record of a name that the user gave, or None.

    Raises:
        CheckpointError: If there is one whose files cannot be read.
        ChecksumError: If they are not those that were added.
    """
    try:
        folder = own_folder(name)
    except UnknownNameError:
        return None
    return _entry(name, folder) if (folder / CONFIG_NAME).is_file() else None


def remove_own(name: str) -> None:
    """Delete weights that the user added.

    Args:
        name: Its name.

    Raises:
        UnknownNameError: If nothing was added under it.
    """
    folder = own_folder(name)
    if not folder.is_dir() or folder.is_symlink():
        raise UnknownNameError("weights of your own", name, own_names())
    shutil.rmtree(folder)


def _entry(name: str, folder: Path) -> Weights:
    from torchxrayvision.remote import is_as_made

    if not is_as_made(folder / CONFIG_NAME):
        msg = f"{folder / CONFIG_NAME} is not what was added"
        raise ChecksumError(f"{msg}; add the weights again: `xrv weights add ... --name {name}`")
    return weights_of(replace(ModelConfig.read(folder / CONFIG_NAME), weights=name), folder)


def weights_of(config: ModelConfig, folder: Path) -> Weights:
    """The record of a saved model.

    Args:
        config: Its facts, with a name of weights.
        folder: Where it lies.

    Raises:
        CheckpointError: If it lacks the hash of its tensors or a name of an output.
    """
    tensors = folder / TENSORS_NAME
    if config.sha256 is None or not (any(config.targets) or config.raw in NAMELESS):
        raise CheckpointError(f"{folder / CONFIG_NAME}: it lacks sha256 or names of outputs")
    points = config.operating_points
    targets = tuple("" if t in config.untrained else t for t in config.targets)
    return Weights(
        name=config.weights or folder.name,
        file=OwnFile(
            folder=str(folder.absolute()),
            filename=TENSORS_NAME,
            sha256=config.sha256,
            size=tensors.stat().st_size if tensors.is_file() else None,
        ),
        container="safetensors",
        architecture=config.architecture,
        targets=targets,
        input_resolution=config.input_resolution or 224,
        preprocessing=_preprocessing(config),
        output=cast("Output", config.raw),
        operating_points=None if points is None else tuple(_point(p) for p in points),
        trained_on=config.trained_on,
        license=config.license or NOT_STATED,
        reference=config.reference or LIBRARY,
        metrics=config.metrics if config.metrics_source else {},
        metrics_source=config.metrics_source if config.metrics else "",
        description=config.description,
        demonstration=config.demonstration,
        cell_maps=config.cell_maps,
    )


def _point(value: float | None) -> float:
    # A record has points strictly between 0 and 1, a network may have any.
    return math.nan if value is None else min(max(value, 1e-12), 1 - 1e-12)


def _preprocessing(config: ModelConfig) -> Preprocessing | None:
    facts: dict[str, Any] | None = cast("Any", config.preprocessing)
    return None if facts is None else Preprocessing(**facts)


find_elsewhere(find_own, own_names)
