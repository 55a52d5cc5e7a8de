"""From described tensors and raw bytes to tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchxrayvision.weights._containers import needs_swap
from torchxrayvision.weights._limits import Limits, Refused
from torchxrayvision.weights._nodes import ITEM_BYTES, UNTYPED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from torchxrayvision.weights._containers import Archive
    from torchxrayvision.weights._nodes import Storage, TensorRef

__all__ = ["build_tensors"]


def build_tensors(
    refs: Mapping[str, TensorRef], archive: Archive, limits: Limits
) -> dict[str, torch.Tensor]:
    """Read the storages that the tensors need, each once, and lay the tensors over them.

    Every result is contiguous and on the CPU. One that lies in its storage without gaps is a
    view, so nothing is copied; names of one tensor (tied weights) share one result. Only
    strided and expanded tensors are copied, within ``limits.copied_bytes`` beyond the
    bytes of the storages.

    Raises:
        Refused: If a storage is missing or damaged, or too much would be copied.
    """
    storages = {ref.storage.key: ref.storage for ref in refs.values() if ref.numel}
    # Before any storage is read, for the bytes that copies take are known from the shapes alone.
    distinct = {ref.layout: ref for ref in refs.values()}
    allowed = limits.copied_bytes + sum(storage.nbytes for storage in storages.values())
    copied = sum(
        ref.numel * ITEM_BYTES[ref.dtype] for ref in distinct.values() if not ref.contiguous
    )
    if copied > allowed:
        raise Refused(f"its tensors unfold to {copied} bytes; the limit is {allowed}")
    raw = archive.load(storages)
    swap = needs_swap(big_endian=archive.big_endian)
    for key, storage in storages.items():
        if swap:
            raw[key] = _swapped(raw[key], storage)
        if storage.dtype == "bool":
            raw[key].clamp_(max=1)  # kernels may do anything with another byte in a bool
    built = {layout: _tensor(ref, raw) for layout, ref in distinct.items()}
    return {name: built[ref.layout] for name, ref in refs.items()}


def _tensor(ref: TensorRef, raw: Mapping[str, torch.Tensor]) -> torch.Tensor:
    import torch

    dtype = getattr(torch, ref.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise Refused(f"this version of torch has no dtype {ref.dtype}")
    if not ref.numel:
        return torch.empty(ref.size, dtype=dtype)
    flat = raw[ref.storage.key]
    whole = flat.numel() // dtype.itemsize * dtype.itemsize
    typed = flat[:whole].view(dtype)
    if ref.contiguous:
        return typed[ref.offset : ref.offset + ref.numel].view(ref.size)
    return typed.as_strided(ref.size, ref.stride, ref.offset).contiguous()


def _swapped(raw: torch.Tensor, storage: Storage) -> torch.Tensor:
    import torch

    width = ITEM_BYTES.get(storage.dtype, 1)
    if storage.dtype == UNTYPED:
        raise Refused("untyped storages of the other byte order")
    if storage.dtype.startswith("complex"):
        width //= 2
    return torch.flip(raw.view(-1, width), dims=(1,)).reshape(-1) if width > 1 else raw
