"""BMP and WebP: 8 bits per channel, decoded by Pillow within the limits of all formats."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import BmpImagePlugin, WebPImagePlugin

from torchxrayvision.errors import ImageReadError
from torchxrayvision.images.common import (
    ImageInfo,
    Raster,
    aspect_of,
    linear_scale,
    third_party_decoder,
)
from torchxrayvision.images.pixels import (
    grey_of,
    mean_of_palette,
    one_bit,
    orientation_of,
    pixels_of,
    upright,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from PIL import Image

    from torchxrayvision.images.common import ReadOptions

_PHOTOMETRIC: Final = {"P": "PALETTE COLOR", "1": "MONOCHROME2", "L": "MONOCHROME2"}


def bitmap_info(data: bytes, path: str, options: ReadOptions) -> ImageInfo:
    """What the header says."""
    return _opened(data, path, options)[1]


def read_bitmap(data: bytes, path: str, options: ReadOptions) -> Raster:
    """The image; colour becomes the mean of the channels, alpha is dropped."""
    image, info = _opened(data, path, options)
    options.check_frame(path, info.frames)
    reason = f"the {info.format.upper()} pixel data is damaged or truncated"
    with third_party_decoder(path, reason, quote=True):
        image.seek(options.frame or 0)
        image.load()
    pixels, peak = _grey(image)
    scale, offset = linear_scale(0, peak)
    return Raster(pixels=upright(pixels, info.orientation), scale=scale, offset=offset, info=info)


def _opened(data: bytes, path: str, options: ReadOptions) -> tuple[Image.Image, ImageInfo]:
    kind = "bmp" if data.startswith(b"BM") else "webp"
    if kind == "bmp":
        _check_bmp(data, path)
        reader: Callable[[io.BytesIO], Image.Image] = BmpImagePlugin.BmpImageFile
    else:
        _check_webp(data, path, options)
        reader = WebPImagePlugin.WebPImageFile
    with third_party_decoder(path, f"the {kind.upper()} header is damaged"):
        image = reader(io.BytesIO(data))
    height, width, channels = image.height, image.width, len(image.getbands())
    frames = getattr(image, "n_frames", 1)
    bits = 8 if channels == 1 else 32  # as Pillow keeps them
    options.limits.check_picture(path, height, width, bits=bits, stored=len(data), frames=frames)
    orientation = orientation_of(image.info.get("exif", b""))
    aspect = aspect_of(*image.info.get("dpi", (1, 1)))
    if orientation >= 5:
        height, width, aspect = width, height, 1 / aspect
    info = ImageInfo(
        format=kind, height=height, width=width, bits=1 if image.mode == "1" else 8,
        photometric=_PHOTOMETRIC.get(image.mode, "RGB"), channels=channels, frames=frames,
        orientation=orientation, aspect=aspect,
    )  # fmt: skip
    return image, info


def _check_bmp(data: bytes, path: str) -> None:
    """Refuse rows that are missing, which Pillow may leave black."""
    if int.from_bytes(data[14:18], "little") == 12:  # the header of OS/2
        width, height, _, bits = struct.unpack_from("<HHHH", data.ljust(26, b"\0"), 18)
        packed = 0
    else:
        fields = struct.unpack_from("<iiHHI", data.ljust(34, b"\0"), 18)
        width, height, _, bits, packed = fields
    start = int.from_bytes(data[10:14], "little")
    stride = (width * bits + 31) // 32 * 4
    needed = start + stride * (abs(height) - 1) + (width * bits + 7) // 8
    if len(data) < 26 or (packed in (0, 3) and len(data) < needed):
        raise ImageReadError(path, f"truncated: the BMP holds {len(data):,} of {needed:,} bytes")


def _check_webp(data: bytes, path: str, options: ReadOptions) -> None:
    """Refuse a canvas above the limits; Pillow's decoder takes memory for it when it opens."""
    declared = max(30, 8 + int.from_bytes(data[4:8], "little"))
    if len(data) < declared:
        raise ImageReadError(path, f"truncated: the WebP holds {len(data):,} of {declared:,} bytes")
    kind, number = data[12:16], int.from_bytes
    if kind == b"VP8X":
        width, height = 1 + number(data[24:27], "little"), 1 + number(data[27:30], "little")
    elif kind == b"VP8L":
        packed = number(data[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (number(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    options.limits.check_picture(path, height, width, bits=32, stored=len(data))


def _grey(image: Image.Image) -> tuple[NDArray[Any], int]:
    """Pixels of shape (H, W), and the value of white in them."""
    if image.mode == "P":
        palette = np.frombuffer(bytes(image.getpalette() or ()), np.uint8).reshape(-1, 3)
        return mean_of_palette(pixels_of(image), palette)
    return (one_bit(pixels_of(image)), 1) if image.mode == "1" else grey_of(image)
