"""From a registry entry to a loaded network, for networks that are not core classifiers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torchxrayvision.errors import DemonstrationWarning, LicenseWarning
from torchxrayvision.models._network import load_strictly
from torchxrayvision.weights import Weights, WeightsEnum, fetch_weights
from torchxrayvision.weights import get as get_entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from torchxrayvision.models._network import XRayModel
    from torchxrayvision.weights.checkpoint import Checkpoint

__all__ = ["apply_published", "chosen", "read_published", "warn_of_terms"]


def chosen(weights: bool | str | Weights | WeightsEnum | None, default: str) -> Weights | None:
    """The entry that a constructor's `weights` means.

    Args:
        weights: True for the default, False or None for an untrained network, or a name or entry.
        default: Name of the entry that True means.

    Returns:
        The entry, or None for an untrained network.

    Raises:
        UnknownNameError: If no weights have that name.
    """
    if weights is None or weights is False:
        return None
    return get_entry(default if weights is True else weights)


def warn_of_terms(entry: Weights, stacklevel: int) -> None:
    """Say aloud that weights may not be used commercially, or are for trying the package only.

    Args:
        entry: The weights.
        stacklevel: Frames up to the caller that the warning names, counted from here.

    Warns:
        LicenseWarning: Python shows it once for each line that loads such weights.
        DemonstrationWarning: Likewise.
    """
    if entry.license.commercial is False:
        warnings.warn(
            f"{entry.name}: these weights are under {entry.license.name}, which allows no "
            f"commercial use; see {entry.license.url}",
            LicenseWarning,
            stacklevel=stacklevel + 1,
        )
    if entry.demonstration:
        warnings.warn(
            f"{entry.name}: demonstration weights, to try the package with; what they give is no "
            "finding. `xrv weights show` says what they were trained on and how good they are",
            DemonstrationWarning,
            stacklevel=stacklevel + 1,
        )


def read_published(
    entry: Weights, cache_dir: str | None, names: Callable[[Checkpoint], dict[str, Tensor]]
) -> tuple[Path, dict[str, Tensor]]:
    """Fetch and read the tensors of published weights.

    Args:
        entry: The weights.
        cache_dir: Folder for the download; None for the usual one.
        names: Turns what the file holds into tensors under the names of the network.

    Returns:
        The file, and the tensors.

    Raises:
        RemoteError: If the file cannot be fetched.
        CheckpointError: If it holds other tensors.
    """
    from torchxrayvision.weights import store

    path = fetch_weights(entry, cache=cache_dir)
    return path, names(store.load_checkpoint(path))


def apply_published(
    model: XRayModel,
    network: nn.Module,
    entry: Weights,
    tensors: dict[str, Tensor],
    path: Path,
) -> None:
    """Load tensors strictly, say where they came from, and switch to evaluation mode.

    Args:
        model: The model to describe.
        network: The part of it whose names the tensors have.
        entry: The weights.
        tensors: One for each name of the network.
        path: Their file.

    Raises:
        StateMismatchError: If names or shapes differ.
    """
    load_strictly(network, tensors, source=str(path))
    model.weights = entry.name
    model.weights_filename_local = str(path)
    model.eval()
