"""The safetensors format: a JSON header and the tensors' bytes, which nothing can execute.

The writer streams, so that a copy never needs the tensors twice in memory; the reader maps
the file, so that a tensor's bytes are read when they are first used.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
import sys
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO

from torchxrayvision.weights._limits import DEFAULT, Limits, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch

__all__ = ["read_safetensors", "save_safetensors", "storable", "write_safetensors"]

# Names in the format, and of torch's dtypes.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32",
    "U16": "uint16", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_MAX_HEADER = 16 << 20  # some 100,000 tensors
_ALIGNMENT = 64
_METADATA = "__metadata__"


def storable(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether the format has all the dtypes, and this machine its byte order."""
    return sys.byteorder == "little" and all(
        str(tensor.dtype).removeprefix("torch.") in _CODES for tensor in tensors.values()
    )


def write_safetensors(
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    write: Callable[[bytes | memoryview], Any],
) -> None:
    """Write contiguous CPU tensors through ``write``, one after another.

    Raises:
        Refused: If their names and the metadata are more than a header may hold.
    """
    import torch

    header: dict[str, Any] = {_METADATA: dict(metadata)}
    position = 0
    for name, tensor in tensors.items():
        code = _CODES[str(tensor.dtype).removeprefix("torch.")]
        end = position + tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": code, "shape": list(tensor.shape), "data_offsets": [position, end],
        }  # fmt: skip
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    if len(text) > _MAX_HEADER:
        raise Refused(f"a safetensors header of {len(text)} bytes")
    write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        if tensor.numel():
            write(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)


def save_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a file that is whole or, whatever stops the process, absent or as it was.

    Tensors are brought to the CPU first, and laid out in the order of their axes.

    Raises:
        Refused: If the format lacks a dtype, or the header would be too large.
    """
    if not storable(tensors):
        raise Refused("a dtype that safetensors lacks")
    held = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            write_safetensors(held, metadata, file.write)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_safetensors(
    path: Path, limits: Limits = DEFAULT
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Map the file and return its tensors by name, and its metadata.

    A change to a tensor stays in memory; the file is mapped privately.

    Raises:
        Refused: If the header is damaged or does not describe the file exactly.
    """
    import torch

    size = path.stat().st_size
    with path.open("rb") as file:
        header, start = _read_header(file, size, limits)
    metadata = _metadata(header.pop(_METADATA, {}))
    if len(header) > limits.tensors:
        raise Refused(f"more than {limits.tensors} tensors")
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    position = start
    for _, _, begin, end in sorted(entries.values(), key=lambda entry: entry[2:]):
        if start + begin != position:
            raise Refused("tensors that overlap or leave a gap")
        position = start + end
    if position != size:
        raise Refused(f"{size} bytes where the header declares {position}")
    mapped = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size)
    tensors = {}
    for name, (dtype, shape, begin, end) in entries.items():
        tensors[name] = _over(mapped[start + begin : start + end], dtype, shape)
    return tensors, metadata


def _read_header(file: BinaryIO, size: int, limits: Limits) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_MAX_HEADER, size - 8):
        raise Refused(f"a safetensors header of {length} bytes")
    text = file.read(length)
    # Text nested deeper than the format ever is; json would recurse into it.
    if text.count(b"{") + text.count(b"[") > 3 * limits.tensors:
        raise Refused("a safetensors header of too many parts")
    try:
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Refused(f"a safetensors header that is no JSON ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise Refused("a safetensors header that is no JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Refused("a safetensors header that names one tensor twice")
    return result


def _metadata(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise Refused("safetensors metadata that are no words")
    return found


def _entry(name: str, entry: Any) -> tuple[torch.dtype, list[int], int, int]:
    import torch

    try:
        code, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, begin, end))
        dtype = getattr(torch, _DTYPES[code])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Refused(f"a damaged safetensors entry {name[:80]!r}") from None
    if not whole or len(shape) > 64 or math.prod(shape) * dtype.itemsize != end - begin:
        raise Refused(f"safetensors entry {name[:80]!r} has two sizes")
    return dtype, shape, begin, end


def _over(storage: torch.UntypedStorage, dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    """A tensor over mapped bytes, or over a copy where they are not aligned to its elements."""
    import torch

    if not storage.nbytes():
        return torch.empty(shape, dtype=dtype)
    if storage.data_ptr() % dtype.itemsize:
        storage = storage.clone()  # type: ignore[no-untyped-call]
    if dtype is torch.bool:
        # Kernels may do anything with another byte in a bool.
        torch.empty(0, dtype=torch.uint8).set_(storage).clamp_(max=1)
    # The strides may be left out, which the annotations of torch do not know.
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload, no-any-return]
