"""The directories of a TIFF file (TIFF 6.0 section 2, BigTIFF), read without a decoder."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from torchxrayvision.errors import ImageReadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Directory", "Tag", "read_directories"]

_MOST_ENTRIES = 4096
_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_WIDTHS = {2: 1, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 17: 8}


class Tag:
    """Numbers of the tags that are read here."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_BYTES = 279
    PLANAR = 284
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    SAMPLE_FORMAT = 339


@dataclass(frozen=True, kw_only=True, slots=True)
class Directory:
    """One picture of a file.

    Args:
        offset: Where it starts.
        order: ``"<"`` or ``">"``.
        big: Whether the file is a BigTIFF.
        values: Tag to its numbers; tags of other types are left out.
        positions: Tag to the place of its numbers in the file and their type.
    """

    offset: int
    order: str
    big: bool
    values: dict[int, NDArray[np.unsignedinteger]]
    positions: dict[int, tuple[int, str]]

    def first(self, tag: int, default: int) -> int:
        """The first number of a tag."""
        return int(self.values[tag][0]) if tag in self.values else default

    def patched(self, data: bytes, **changes: int) -> bytes:
        """The file with this as its first directory and other numbers for the tags named."""
        copy = bytearray(data)
        start, kind = (8, "Q") if self.big else (4, "I")
        struct.pack_into(self.order + kind, copy, start, self.offset)
        for name, value in changes.items():
            tag = getattr(Tag, name.upper())
            if tag in self.positions:
                place, dtype = self.positions[tag]
                size = np.dtype(dtype).itemsize
                copy[place : place + size] = np.array([value], dtype).tobytes()
        return bytes(copy)


def read_directories(data: bytes, path: str, most: int) -> list[Directory]:
    """Every directory in the chain, reduced-size copies (thumbnails) left out.

    Raises:
        ImageReadError: If one lies outside the file, the chain is a loop or longer than `most`.
    """
    order = "<" if data[:2] == b"II" else ">"
    try:
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        seen: set[int] = set()
        found: list[Directory] = []
        while offset:
            if offset in seen or len(seen) > most:
                raise ImageReadError(path, "the chain of TIFF directories is a loop or too long")
            seen.add(offset)
            directory, offset = _read(data, offset, order, big)
            found.append(directory)
    except (struct.error, IndexError, ValueError) as error:
        if isinstance(error, ImageReadError):
            raise
        raise ImageReadError(path, "truncated: a TIFF directory lies outside the file") from error
    full = [page for page in found if not page.first(Tag.SUBFILE, 0) & 1]
    if not full:
        raise ImageReadError(path, "the TIFF holds no picture")
    return full


def _read(data: bytes, offset: int, order: str, big: bool) -> tuple[Directory, int]:
    head, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
    (count,) = struct.unpack_from(order + head, data, offset)
    if count > _MOST_ENTRIES:
        msg = f"{count} entries"
        raise ValueError(msg)
    position = offset + struct.calcsize("<" + head)
    values, positions = {}, {}
    for start in range(position, position + count * entry, entry):
        tag, kind, number = struct.unpack_from(order + "HH" + pointer, data, start)
        inline = start + 4 + struct.calcsize("<" + pointer)
        dtype = order + _NUMBERS[kind] if kind in _NUMBERS else ""
        size = number * (np.dtype(dtype).itemsize if dtype else _WIDTHS.get(kind, 1))
        place = inline
        if size > struct.calcsize("<" + pointer):
            (place,) = struct.unpack_from(order + pointer, data, inline)
        if place + size > len(data):
            msg = f"tag {tag} ends past the file"
            raise ValueError(msg)
        if dtype and number:
            values[tag] = np.frombuffer(data, dtype, number, place)
            positions[tag] = (place, dtype)
    (following,) = struct.unpack_from(order + pointer, data, position + count * entry)
    directory = Directory(offset=offset, order=order, big=big, values=values, positions=positions)
    return directory, following
