"""From a registry entry to the loaded classifier of another group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchxrayvision.checkpoints import state_dict_of
from torchxrayvision.errors import UnknownNameError
from torchxrayvision.models import apply_published, chosen, read_published, warn_of_terms
from torchxrayvision.weights import Weights, WeightsEnum
from torchxrayvision.weights import get as get_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from torchxrayvision.checkpoints import Checkpoint
    from torchxrayvision.models import XRayModel

__all__ = ["entry_of", "load_entry"]


def entry_of(weights: bool | str | Weights | WeightsEnum | None, published: str) -> Weights | None:
    """The entry that a constructor's `weights` means, if it is for the same network.

    Args:
        weights: True for the published weights, None or False for an untrained network, or an
            entry, enum member or name.
        published: Name of the published weights.

    Returns:
        The entry, or None for an untrained network.

    Raises:
        UnknownNameError: If there is no such entry, or it belongs to another network.
    """
    entry, own = chosen(weights, published), get_entry(published)
    if entry is not None and entry.architecture != own.architecture:
        raise UnknownNameError(f"{own.architecture} weights", entry.name, [own.name])
    return entry


def load_entry(
    model: XRayModel,
    network: nn.Module,
    entry: Weights,
    *,
    cache_dir: str | None,
    names: Callable[[Checkpoint], dict[str, Tensor]] = state_dict_of,
) -> None:
    """Fetch, read, load strictly, describe, and switch to evaluation mode.

    Args:
        model: The model to describe, called from its constructor.
        network: The part of it whose names the tensors have.
        entry: The weights.
        cache_dir: Folder for the download; None for the usual one.
        names: Turns what the file holds into tensors under the names of the network.

    Raises:
        RemoteError: If the file cannot be fetched.
        CheckpointError: If it holds other tensors.

    Warns:
        LicenseWarning: If the weights may not be used commercially.
    """
    warn_of_terms(entry, stacklevel=3)
    path, tensors = read_published(entry, cache_dir, names)
    apply_published(model, network, entry, tensors, path)
