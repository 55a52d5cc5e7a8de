"""Memory of a network that another engine computes.

Tensors of weights are mapped from their file (`checkpoints`), so a page that nobody wrote to holds
what the file holds. When an engine has a network's weights in a form of its own, the pages that
reading them brought into memory can go: who asks the network itself gets them from the file again.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from torch import nn

    Range = tuple[int, int]  # addresses: the first, and that after the last

_MAPPINGS: Final = Path("/proc/self/smaps")
_WORTH: Final = 64 << 20  # bytes of tensors; the list of mappings takes some milliseconds


def drop_clean_pages(network: nn.Module) -> int:
    """Take the tensors of a network out of memory where their file still has them.

    Nothing changes but where values come from when they are next asked for. Tensors that are in no
    file, and those of a file of which any page was written to, stay as they are.

    Args:
        network: Not written to by another thread meanwhile.

    Returns:
        Bytes of the pages that may go; 0 where the system does not tell, or it is not worth it.
    """
    tensors = [t for t in (*network.parameters(), *network.buffers()) if t.device.type == "cpu"]
    if sys.platform != "linux" or sum(tensor.nbytes for tensor in tensors) < _WORTH:
        return 0
    dropped = 0
    try:
        mappings = list(_untouched(_MAPPINGS.read_text("utf-8", "replace").splitlines()))
    except OSError:
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end in map(_whole_pages, tensors):
        inside = any(first <= start and end <= stop for first, stop in mappings)
        if start < end and inside and not advise(start, end - start, mmap.MADV_DONTNEED):
            dropped += end - start
    return dropped


def _whole_pages(tensor: torch.Tensor) -> Range:
    """The pages that hold nothing but a tensor; none of one that does not lie in one piece."""
    if not tensor.is_contiguous():
        return 0, 0
    size = mmap.PAGESIZE
    return -(-tensor.data_ptr() // size) * size, (tensor.data_ptr() + tensor.nbytes) // size * size


def _untouched(lines: Iterable[str]) -> Iterator[Range]:
    """Mappings of files of which no page is a copy, in memory or swapped out."""
    found, copies = (0, 0), 0
    for line in lines:
        name, *words = line.split()
        if not name.endswith(":"):  # a new one: addresses, rights, offset, device, inode, path
            if found != (0, 0) and not copies:
                yield found
            of_file = len(words) > 3 and words[3] != "0"
            first, _, stop = name.partition("-")
            found, copies = ((int(first, 16), int(stop, 16)) if of_file else (0, 0)), 0
        elif name in ("Anonymous:", "Swap:"):
            copies += int(words[0])
    if found != (0, 0) and not copies:
        yield found
