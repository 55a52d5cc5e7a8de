"""safetensors files, which nothing can execute, through the package of that name.

Here is only what the package leaves to its callers: files that appear whole or not at all, limits
on what a stranger's header may ask for, and typed refusals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torchxrayvision.checkpoints.pickles import DEFAULT, Limits, Unreadable
from torchxrayvision.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

__all__ = ["read_safetensors", "save_safetensors"]

_MAX_HEADER: Final = 16 << 20  # some 100,000 tensors


def save_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a file that is whole or, whatever stops the process, absent or as it was.

    Args:
        path: The file.
        tensors: By name, on any device; those that share memory are written each for itself.
        metadata: Words for the header.

    Raises:
        Unreadable: If the format lacks a dtype, or the header would be too large.
        OSError: If it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with write_atomically(path) as part:
            part.touch()  # with the rights that a new file has here; the package gives fewer
            rights = part.stat().st_mode
            save_file(_apart(tensors), part, dict(metadata))
            _check_header(part)
            part.chmod(rights)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"what safetensors cannot hold: {error}") from error


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER:
        raise Unreadable(f"a safetensors header of {length} bytes")


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors on the CPU, in the order of their axes, none on the memory of another."""
    held, seen = {}, set()
    for name, tensor in tensors.items():
        own = tensor.detach().to("cpu").contiguous()
        storage = own.untyped_storage()
        if storage.data_ptr() in seen:
            own = own.clone()
        seen.add(storage.data_ptr())
        held[name] = own
    return held


def read_safetensors(
    path: Path, limits: Limits = DEFAULT
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Map the file and return its tensors by name, and its metadata.

    A change to a tensor stays in memory; the file is mapped privately.

    Args:
        path: The file.
        limits: What it may ask for.

    Returns:
        The tensors, in the order of the file, and the words of the header.

    Raises:
        Unreadable: If the header is damaged or does not describe the file exactly.
    """
    from safetensors import SafetensorError, safe_open

    _check_header(path)
    try:
        with safe_open(path, framework="pt") as found:
            names = found.offset_keys()
            if len(names) > limits.tensors:
                raise Unreadable(f"more than {limits.tensors} tensors")
            tensors = {name: _sound(found.get_tensor(name)) for name in names}
            return tensors, dict(found.metadata() or {})
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise Unreadable(f"a damaged safetensors file: {error}") from None


def _sound(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    if tensor.dtype is torch.bool:
        # Kernels may do anything with another byte in a bool.
        tensor.view(torch.uint8).clamp_(max=1)
    return tensor
