"""Autoencoders by name, and autoencoders from files of the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from torchxrayvision import __version__
from torchxrayvision.autoencoders.compact import LIMITS, CompactAE
from torchxrayvision.autoencoders.resnet import BLOCKS, ResNetAE
from torchxrayvision.checkpoints import described_header, save_safetensors, state_dict_of
from torchxrayvision.checkpoints import load_checkpoint as read_checkpoint
from torchxrayvision.errors import CheckpointError, UnknownNameError, counted
from torchxrayvision.models import get_model, load_strictly
from torchxrayvision.weights import list_weights, own_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torchxrayvision.autoencoders.base import Autoencoder

_KEY: Final = "torchxrayvision.autoencoder"
_COMPACT: Final = "autoencoder-compact"


def list_autoencoders() -> list[str]:
    """Every name that `get_autoencoder` takes: published weights first, then architectures.

    Returns:
        Names.

    Example:
        >>> list_autoencoders()
        ['resnetae101-res224-elastic', 'autoencoder-resnet50', 'autoencoder-resnet101', \
'autoencoder-compact']
    """
    published = [w.name for w in list_weights() if w.architecture in BLOCKS]
    return [*published, *BLOCKS, _COMPACT]


def get_autoencoder(name: str, **kwargs: Any) -> Autoencoder:
    """An autoencoder by the name of its weights, or an untrained one by its architecture.

    Args:
        name: A name of `list_autoencoders`, an alias such as `"101-elastic"`, or a name that
            `xrv weights add` gave.
        **kwargs: Passed to `CompactAE` or `ResNetAE`.

    Returns:
        The network; in evaluation mode if it has weights.

    Raises:
        UnknownNameError: If nothing has that name.

    Example:
        >>> get_autoencoder("autoencoder-compact", width=4, code=2).arguments
        {'width': 4, 'code': 2, 'levels': 4, 'dense': 0}
    """
    if name == _COMPACT:
        return CompactAE(**kwargs)
    if name in BLOCKS:
        return ResNetAE(architecture=name, **kwargs)
    aliases = [a for w in list_weights() if w.architecture in BLOCKS for a in (w.name, *w.aliases)]
    if name in aliases:
        return ResNetAE(name, **kwargs)
    own = {entry.name: entry for entry in own_weights()}
    if name not in own or own[name].architecture not in (*BLOCKS, _COMPACT):
        advice = f"those are weights of {own[name].architecture}" if name in own else ""
        raise UnknownNameError("autoencoder", name, list_autoencoders(), advice)
    added: Any = get_model(own[name], **kwargs)
    network: Autoencoder = added
    return network


def save_checkpoint(
    model: Autoencoder, path: str | Path, *, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write an autoencoder as safetensors, so that `load_checkpoint` gives it back.

    Args:
        model: One of this package.
        path: Where to; by convention it ends in `.safetensors`. Replaced if it exists.
        facts: More to keep in the header: anything JSON holds.

    Returns:
        Everything that the header says.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "mine.safetensors")
        >>> save_checkpoint(CompactAE(width=4), path)["architecture"]
        'autoencoder-compact'
        >>> load_checkpoint(path).input_resolution
        64
    """
    described = {
        "architecture": model.architecture,
        "arguments": model.arguments,
        "input_resolution": getattr(model, "input_resolution", None),
        "torchxrayvision": __version__,
        **(facts or {}),
    }
    save_safetensors(Path(path), dict(model.state_dict()), described_header(_KEY, described))
    return described


def load_checkpoint(path: str | Path) -> Autoencoder:
    """Load an autoencoder from a file, without executing anything in it.

    Args:
        path: What `save_checkpoint` or `xrv train` wrote, or tensors of a `ResNetAE` in any
            container of PyTorch.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: If the file holds another network.
    """
    checkpoint = read_checkpoint(path)
    tensors = state_dict_of(checkpoint)
    text = checkpoint.values.get(_KEY)
    if text is None:
        facts: Any = {
            "architecture": _recognised(tensors, str(path)), "arguments": {},
            "input_resolution": 224,
        }  # fmt: skip
    else:
        try:
            facts = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: the header is no JSON") from error
    return autoencoder_of_header(facts, tensors, str(path))


def autoencoder_of_header(
    facts: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], path: str
) -> Autoencoder:
    """Build the network that a file states, if it is one of this package, and fill it.

    Args:
        facts: `architecture`, `arguments` and `input_resolution`, as read.
        tensors: All of the network's.
        path: What the error calls the file.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: If the file asks for anything else, or its tensors do not fit.
    """
    name, arguments, side = _stated(facts, path)
    with torch.device("meta"):
        model: Autoencoder
        if name == _COMPACT:
            model = CompactAE(**arguments, input_resolution=side)
        else:
            model = ResNetAE(architecture=name)
            model.input_resolution = side
    load_strictly(model, tensors, source=path)
    model.weights = Path(path).stem
    return model.eval()


def is_autoencoder_file(path: str | Path) -> bool:
    """Whether a file says that it holds an autoencoder; its tensors are not asked.

    Args:
        path: Any file of tensors.

    Raises:
        CheckpointError: If it is none.
    """
    return _KEY in read_checkpoint(path).values


def _stated(facts: Mapping[str, Any], path: str) -> tuple[str, dict[str, Any], int]:
    """Architecture, arguments and resolution that a file states, checked."""
    try:
        name, arguments, side = (
            facts[key] for key in ("architecture", "arguments", "input_resolution")
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the header does not describe an autoencoder") from error
    known = {key: limit for key, limit in LIMITS.items() if key != "input_resolution"}
    wanted = known if name == _COMPACT else {}
    fits = (
        name in (*BLOCKS, _COMPACT)
        and isinstance(arguments, dict)
        and set(arguments) == set(wanted)
        and all(_is_whole(arguments[key], limit, key) for key, limit in wanted.items())
        and _is_whole(side, LIMITS["input_resolution"])
        and side % 2 ** arguments.get("levels", 0) == 0
    )
    if not fits:
        raise CheckpointError(f"{path}: the header asks for no autoencoder of this package")
    return name, arguments, side


def _is_whole(value: Any, most: int, name: str = "") -> bool:
    return type(value) is int and int(name != "dense") <= value <= most


def _recognised(tensors: Mapping[str, torch.Tensor], path: str) -> str:
    for name, (_, _, blocks, _) in BLOCKS.items():
        inside = f"layer3.{blocks - 1}.conv1.weight" in tensors
        if (
            "conv1_1.weight" in tensors
            and inside
            and f"layer3.{blocks}.conv1.weight" not in tensors
        ):
            return name
    some = ", ".join(list(tensors)[:3]) or "no tensor at all"
    held = f"{counted(len(tensors), 'tensor')} ({some}, ...)"
    msg = f"{path}: no autoencoder of this package; it holds {held}"
    raise CheckpointError(msg)
