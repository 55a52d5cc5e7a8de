"""TIFF 6.0 and BigTIFF: grey, palette and RGB of whole-number samples, one page at a time."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import TiffImagePlugin

from torchxrayvision.errors import ImageReadError, ImageTooLargeError, UnsupportedImageError
from torchxrayvision.images.common import ImageInfo, Raster, foreign, spread
from torchxrayvision.images.pixels import (
    mean_of_channels,
    mean_of_palette,
    one_bit,
    pixels_of,
    upright,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from torchxrayvision.images.common import Limits, Options

__all__ = ["Directory", "Tag", "read_directories", "read_tiff", "tiff_info"]


# ---- The directories of a TIFF file (TIFF 6.0 section 2, BigTIFF), read without a decoder.

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


_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRIC = {
    _WHITE_IS_ZERO: "MONOCHROME1",
    _BLACK_IS_ZERO: "MONOCHROME2",
    _RGB: "RGB",
    _PALETTE: "PALETTE COLOR",
    _CMYK: "CMYK",
    _YCBCR: "RGB",
}
_UNSIGNED, _SIGNED, _VOID = 1, 2, 4
# Rawmodes that keep the high byte of 16-bit colour, and the one that keeps the low byte.
_LOW_BYTES = {"16L": "16B", "16B": "16L", "16N": "16B" if np.little_endian else "16L"}


def tiff_info(data: bytes, path: str, options: Options) -> ImageInfo:
    """What the directory of the first page, or of the one asked for, says."""
    pages = read_directories(data, path, options.limits.frames)
    number = 0 if options.frame is None else options.check_frame(path, len(pages))
    _check_size(pages[number], path, len(data), options.limits)
    return _info(pages[number], len(pages))


def read_tiff(data: bytes, path: str, options: Options) -> Raster:
    """One page, scaled by its declared bits a sample; white-is-zero comes out upright in grey."""
    pages = read_directories(data, path, options.limits.frames)
    page = pages[options.check_frame(path, len(pages))]
    _check_size(page, path, len(data), options.limits)
    _check_kind(page, path)
    _check_extent(page, path, len(data))
    info = _info(page, len(pages))
    pixels, low, high = _decode(page, data, path, info)
    inverted = info.photometric == "MONOCHROME1" and options.fix_monochrome
    scale, offset = spread(low, high, white_is_low=inverted)
    return Raster(pixels=upright(pixels, info.orientation), scale=scale, offset=offset, info=info)


def _info(page: Directory, frames: int) -> ImageInfo:
    orientation = page.first(Tag.ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    height, width = page.first(Tag.HEIGHT, 0), page.first(Tag.WIDTH, 0)
    turned = orientation >= 5
    return ImageInfo(
        format="tiff",
        height=width if turned else height,
        width=height if turned else width,
        bits=page.first(Tag.BITS, 1),
        photometric=_PHOTOMETRIC.get(page.first(Tag.PHOTOMETRIC, -1), "unknown"),
        channels=page.first(Tag.SAMPLES, 1),
        signed=page.first(Tag.SAMPLE_FORMAT, _UNSIGNED) == _SIGNED,
        frames=frames,
        orientation=orientation,
    )


def _check_size(page: Directory, path: str, stored: int, limits: Limits) -> None:
    bits = page.first(Tag.BITS, 1) * page.first(Tag.SAMPLES, 1)
    height, width = page.first(Tag.HEIGHT, 0), page.first(Tag.WIDTH, 0)
    limits.check_picture(path, height, width, bits=bits, stored=stored)
    tile = page.first(Tag.TILE_HEIGHT, 1) * page.first(Tag.TILE_WIDTH, 1)
    if tile > limits.pixels:
        raise ImageTooLargeError(path, f"declares tiles of {tile:,} pixels")


def _check_kind(page: Directory, path: str) -> None:
    if page.big and page.order == ">":
        raise UnsupportedImageError(path, "a big-endian BigTIFF", "save it as an ordinary TIFF")
    photometric, bits = page.first(Tag.PHOTOMETRIC, -1), page.first(Tag.BITS, 1)
    samples, form = page.first(Tag.SAMPLES, 1), page.first(Tag.SAMPLE_FORMAT, _UNSIGNED)
    if photometric not in _PHOTOMETRIC or photometric == _CMYK:
        reason = f"a TIFF of photometric interpretation {photometric}"
        raise UnsupportedImageError(path, reason, "convert it to grey")
    if form not in (_UNSIGNED, _SIGNED, _VOID):
        reason = "a TIFF of floating point samples, which declare no full scale"
        raise UnsupportedImageError(path, reason, "load its array and call normalize(img, maxval)")
    if samples > 1 and bits > 8 and (page.first(Tag.PLANAR, 1) == 2 or samples not in (3, 4)):
        reason = f"a TIFF of {samples} samples of {bits} bits, in planes or with alpha"
        raise UnsupportedImageError(path, reason, "convert it to one grey channel")


def _check_extent(page: Directory, path: str, stored: int) -> None:
    """Every strip or tile lies within the file, so a truncated one is known before decoding."""
    for offsets, sizes in (
        (Tag.STRIP_OFFSETS, Tag.STRIP_BYTES),
        (Tag.TILE_OFFSETS, Tag.TILE_BYTES),
    ):
        if offsets not in page.values or sizes not in page.values:
            continue
        starts, lengths = page.values[offsets], page.values[sizes]
        count = min(len(starts), len(lengths))
        ends = starts[:count].astype(np.float64) + lengths[:count].astype(np.float64)
        if ends.max() > stored:
            raise ImageReadError(path, "truncated: TIFF pixel data lies outside the file")


def _decode(
    page: Directory, data: bytes, path: str, info: ImageInfo
) -> tuple[NDArray[Any], float, float]:
    """Pixels of shape (H, W) in file order, and the values of the two ends of the scale."""
    mode, pixels, palette = _pillow(page, data, path)
    bits = info.bits
    if mode in ("RGB", "RGBA", "RGBX"):
        peak = 255
        if bits == 16:
            low = _pillow(page, data, path, low_bytes=True)[1]
            pixels = pixels.astype(np.uint16) << 8 | low
            peak = 65535
        grey, top = mean_of_channels(pixels, peak)
        return grey, 0, top
    if mode == "P":
        grey, top = mean_of_palette(pixels, palette)
        return grey, 0, top
    if mode == "LA":
        return np.ascontiguousarray(pixels[:, :, 0]), 0, 255
    if mode == "1":
        return one_bit(pixels), 0, 1
    if mode == "L" and not info.signed:
        return pixels, 0, 255  # Pillow spreads 2 and 4 bits over 8
    if mode == "L":
        return pixels.view(np.int8), -128, 127
    if mode in ("I;16", "I;16B", "I"):
        return _whole(pixels, info)
    raise UnsupportedImageError(path, f"a TIFF that decodes to mode {mode}", "convert it to grey")


def _whole(pixels: NDArray[Any], info: ImageInfo) -> tuple[NDArray[Any], float, float]:
    bits, native = info.bits, pixels.dtype.newbyteorder("=")
    pixels = pixels.astype(native, copy=False)
    if info.signed:
        return pixels, -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    if pixels.dtype == np.int32:  # Pillow's mode I is signed whatever the file says
        pixels = pixels.view(np.uint32)
    return pixels, 0, 2.0**bits - 1


def _pillow(
    page: Directory, data: bytes, path: str, *, low_bytes: bool = False
) -> tuple[str, NDArray[Any], NDArray[Any]]:
    """Decode with Pillow as black-is-zero and unturned.

    Pillow inverts white-is-zero at some depths, not at others, and refuses it at 16 bits
    big-endian; it turns some files and not others. With both tags neutral there is one rule.
    """
    changes = {"orientation": 1}
    if page.first(Tag.PHOTOMETRIC, -1) == _WHITE_IS_ZERO:
        changes["photometric"] = _BLACK_IS_ZERO
    with foreign(path, "the TIFF is damaged, truncated or of a kind that Pillow cannot decode"):
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(page.patched(data, **changes)))
        if image.size != (page.first(Tag.WIDTH, 0), page.first(Tag.HEIGHT, 0)):
            raise ImageReadError(path, "the TIFF declares two different sizes")
        if low_bytes:
            image.tile = [tile._replace(args=_low(tile.args)) for tile in image.tile]
        palette = np.zeros((0, 3), np.uint8)
        image.load()
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return image.mode, pixels_of(image), palette


def _low(args: Any) -> tuple[Any, ...]:
    rawmode = str(args[0])
    channels, _, depth = rawmode.partition(";")
    return (f"{channels};{_LOW_BYTES[depth]}", *args[1:])
